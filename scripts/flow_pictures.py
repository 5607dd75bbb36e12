"""Make figures of experiments from their rows: `python scripts/flow_pictures.py` (matplotlib:
`pip install -c constraints.txt -e '.[figures]'`).

experiments/results/lengths.png (and lengths-dark.png): cells by length of training, NDCG@10 on the left, on the right
what a model makes use of against how far its trained gradient reaches. experiments/results/memory.png: accuracy against
distance for every memory task (and memory-dark.png). experiments/results/matters.png: eight cells in one block, NDCG@10
of every seed, and the mean with the interval of its difference from the best cell's (and matters-dark.png).
"""

import sys
from collections import defaultdict
from typing import Any

from tables import RESULTS, Row, rows

from jaxrec.reports.atlas_paper import DARK, LIGHT, Paper, blank, save, styled
from jaxrec.reports.atlas_records import Subject
from jaxrec.reports.leaderboard import boards, chosen, paired

FAR = 200  # events over which the trained gradient was followed
CELLS = {  # of memory tasks, one line each, and their families
    "elman": "simple", "irnn": "simple", "gru": "gated", "lstm": "gated", "lru": "linear", "mlstm": "matrix",
    "lem": "oscillator", "cfc": "time", "causalconv": "window",
}  # fmt: skip
FAMILIES = {  # of cells that are compared in one block
    "gru": "gated", "lstm": "gated", "slstm": "gated", "lru": "linear", "rglru": "linear", "mingru": "linear",
    "mamba": "linear", "mlstm": "matrix",
}  # fmt: skip


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def lengths(paper: Paper) -> Any:
    """A row of axes for each data set."""
    groups: dict[str, dict[str, dict[int, list[Row]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for row in rows("cells_and_lengths"):
        groups[row["data"]][row["cell"]][row["length"]].append(row)
    figure = blank(8.6, 0.5 + 3.1 * len(groups))
    grid = figure.subplots(len(groups), 2, squeeze=False)
    tall = figure.get_figheight()
    figure.subplots_adjust(hspace=0.42, wspace=0.24, top=1 - 0.85 / tall)
    for (left, right), (data, cells) in zip(grid, groups.items(), strict=True):
        left.set_title(data, loc="left", fontsize=10, weight="bold", color=paper.ink)
        for cell, by_length in cells.items():
            drawn(left, right, paper, cell, by_length)
        best = max(
            value for row in rows("cells_and_lengths") if row["data"] == data for value in row["counters"].values()
        )
        left.axhline(best, color=paper.soft, lw=1, ls=(0, (4, 3)))
        left.annotate("best counter", (1, best), (-2, 3), xycoords=("axes fraction", "data"),
                      textcoords="offset points", ha="right", color=paper.soft, fontsize=7.5)  # fmt: skip
        left.set(xscale="log", xlabel="events a training gradient can travel", ylabel="test NDCG@10")
        at = sorted({length for by_length in cells.values() for length in by_length})
        left.set_xticks(at, [str(length) for length in at])
        left.minorticks_off()
        right.set(xscale="log", yscale="log", xlabel="events until 1 % of the trained gradient is left",
                  ylabel="events made use of")  # fmt: skip
        ends = (0.8, 1.3 * FAR)
        right.plot(ends, ends, color=paper.line, lw=1, zorder=0)
        right.set(xlim=ends, ylim=ends)
        for axis in (right.xaxis, right.yaxis):
            axis.set_ticks([1, 3, 10, 30, 100, FAR], ["1", "3", "10", "30", "100", f"{FAR}+"], minor=False)
            axis.set_ticks([], minor=True)
    figure.legend(*grid[0][0].get_legend_handles_labels(), loc="upper center", ncols=4, fontsize=8,
                  bbox_to_anchor=(0.5, 1))  # fmt: skip
    return figure


def drawn(left: Any, right: Any, paper: Paper, cell: str, by_length: dict[int, list[Row]]) -> None:
    """One cell: a line of means with a dot for every seed, and a mark for every run, larger after longer rows."""
    own = Subject(cell, next(iter(by_length.values()))[0]["family"], cell, None, [])
    look = {"color": paper.hue(own), "marker": paper.shape(own)}
    at = sorted(by_length)
    values = {length: [row["test"]["ndcg@10"] for row in by_length[length]] for length in at}
    left.plot(at, [mean(values[length]) for length in at], ms=4.5, lw=1.4, label=f"{cell} ({own.family})", **look)
    for length in at:
        left.plot(
            [length] * len(values[length]), values[length], ls="", ms=2.2, color=look["color"], marker="o", alpha=0.6
        )
        for row in by_length[length]:
            told, looks = row["gradient"]["horizons"]["one_percent"], row["information"]["horizon"]
            reach = FAR if told["value"] is None else max(told["value"], 1)
            right.plot([reach], [looks["value"] or FAR], ls="", ms=2.5 + 1.6 * at.index(length), alpha=0.8, **look)


def memory(paper: Paper) -> Any:
    """Accuracy against distance, axes for each task, a line for each cell: no remedy, first seed."""
    groups: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows("vanishing_gradients"):
        if row["remedy"] == "none" and row["cell"] in CELLS and row["seed"] == 0:
            groups[row["task"]][row["cell"]].append(row)
    wide = min(3, len(groups))
    tall = -(-len(groups) // wide)
    figure = blank(3.1 * wide, 0.6 + 2.5 * tall)
    places = iter(figure.subplots(tall, wide, squeeze=False).flat)
    figure.subplots_adjust(hspace=0.55, wspace=0.25)
    for axes, (task, cells) in zip(places, groups.items(), strict=False):
        axes.set_title(task, loc="left", fontsize=10, weight="bold", color=paper.ink)
        for cell, found in cells.items():
            found.sort(key=lambda row: row["distance"])
            own = Subject(cell, CELLS[cell], cell, None, [])
            dash = (0, (4, 2)) if cell in ("irnn", "lstm") else "-"
            look = {"color": paper.hue(own), "marker": paper.shape(own), "ms": 4.5, "lw": 1.5, "ls": dash}
            axes.plot([row["distance"] for row in found], [row["accuracy"] for row in found], label=cell, **look)
        axes.axhline(next(iter(cells.values()))[0]["chance"], color=paper.soft, lw=1, ls=(0, (1, 2)))
        axes.set(xscale="log", ylim=(0, 1.04), xlabel="events between cue and answer")
        at = sorted({row["distance"] for found in cells.values() for row in found})
        axes.set_xticks(at, [f"{value:,}" for value in at], fontsize=7.5)
        axes.minorticks_off()
    for axes in list(places):
        axes.set_visible(False)
    handles = {
        label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="lower center", ncols=len(handles), fontsize=8,
                  bbox_to_anchor=(0.5, -0.35 / figure.get_figheight()))  # fmt: skip
    return figure


def matters(paper: Paper) -> Any:
    """Axes for each data set, a line for each cell, the best on top."""
    found = boards(row for row in rows("cell_matters") if row["kind"] == "final")
    figure = blank(8.6, 0.9 + 0.3 * max(len(board.entries) for board in found))
    for axes, board in zip(figure.subplots(1, len(found), squeeze=False)[0], reversed(found), strict=True):
        metric = chosen(board.metrics)
        best = board.entries[0]
        behind = {pair["second"]: pair for pair in paired(board, metric) if pair["first"] == best.name}
        top = mean(best.by_seed(metric))
        axes.set_title(board.name, loc="left", fontsize=10, weight="bold", color=paper.ink)
        for at, entry in enumerate(board.entries):
            own = Subject(entry.name, FAMILIES[entry.name], entry.name, None, [])
            seeds = entry.by_seed(metric)
            if pair := behind.get(entry.name):
                axes.plot([top - pair["low"], top - pair["high"]], [at, at], color=paper.hue(own), lw=1.4, alpha=0.6)
            axes.plot(seeds, [at] * len(seeds), ls="", marker="|", ms=9, color=paper.hue(own))
            axes.plot([mean(seeds)], [at], ls="", marker=paper.shape(own), ms=5.5, color=paper.hue(own))
        counted = max(counter[metric] for counter in best.first["baselines"].values())
        axes.axvline(counted, color=paper.soft, lw=1, ls=(0, (4, 3)))
        axes.annotate("best counter", (counted, 0), (3, 4), xycoords=("data", "axes fraction"),
                      textcoords="offset points", color=paper.soft, fontsize=7.5)  # fmt: skip
        axes.set_yticks(range(len(board.entries)), [entry.name for entry in board.entries])
        axes.invert_yaxis()
        axes.locator_params(axis="x", nbins=6)
        axes.set(xlabel=f"test {metric.upper()}")
    return figure


def main() -> int:
    made = [
        ("lengths", LIGHT, lengths, "cells_and_lengths"), ("lengths-dark", DARK, lengths, "cells_and_lengths"),
        ("memory", LIGHT, memory, "vanishing_gradients"), ("memory-dark", DARK, memory, "vanishing_gradients"),
        ("matters", LIGHT, matters, "cell_matters"), ("matters-dark", DARK, matters, "cell_matters"),
    ]  # fmt: skip
    for name, paper, draw, source in made:
        if rows(source):
            with styled(paper):
                for file in save(draw(paper), RESULTS / name):
                    if file.suffix == ".svg":
                        file.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
