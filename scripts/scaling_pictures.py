"""Make the figure of experiments/bench_scaling.py from its rows: `python scripts/scaling_pictures.py` (matplotlib:
`pip install -c constraints.txt -e '.[figures]'`).

experiments/results/scaling.png and scaling-dark.png: time against that of ten thousand items, memory by XLA's count,
and what each device of a mesh sends in a step.
"""

import sys
from typing import Any

from scaling_tables import held, of_kind
from tables import RESULTS, Row, rows

from jaxrec.reports.atlas_paper import DARK, LIGHT, Paper, blank, save, styled
from jaxrec.reports.atlas_records import Subject

WAYS = {"exact, dense": "gated", "sampled, lazy": "linear", "judging": "matrix"}  # and the family that lends its look
ITEMS = {4: "10,000", 5: "100,000", 6: "1 million", 7: "10 million"}
DASHES = {64: "-", 256: (0, (4, 2))}


def look(paper: Paper, way: str) -> dict[str, Any]:
    own = Subject(way, WAYS[way], way, None, [])
    return {"color": paper.hue(own), "marker": paper.shape(own), "ms": 5, "lw": 1.4}


def grown(found: list[Row]) -> dict[tuple[str, int], list[tuple[int, Row]]]:
    """Rows by way and width, in order of items."""
    groups: dict[tuple[str, int], list[tuple[int, Row]]] = {}
    for kind in ("step", "judging"):
        for case, row in of_kind(found, kind):
            groups.setdefault((case.get("way", kind), case["width"]), []).append((case["items"], row))
    return {key: sorted(part, key=lambda pair: pair[0]) for key, part in groups.items()}


def scaling(paper: Paper) -> Any:
    found = rows("bench_scaling")
    figure = blank(11.5, 3.5)
    time, memory, wire = figure.subplots(1, 3)
    figure.subplots_adjust(wspace=0.32)
    for (way, width), part in grown(found).items():
        drawn = {"ls": DASHES[width], "label": f"{way}, width {width}", **look(paper, way)}
        timed = [(items, value) for items, row in part if (value := longer(row, part[0][1])) is not None]
        time.plot(*zip(*timed, strict=True), **drawn)
        memory.plot([items for items, _ in part], [held(row) for _, row in part], **drawn)
    for axes, title, label in (
        (time, "CPU time", "times that of 10,000 items"),
        (memory, "memory", "MB by XLA's count"),
    ):
        axes.set_title(title, loc="left", fontsize=10, weight="bold", color=paper.ink)
        axes.set(xscale="log", yscale="log", xlabel="items", ylabel=label)
        axes.set_xticks([10**power for power in ITEMS], list(ITEMS.values()))
        plain(axes)
    sent(wire, paper, found)
    handles, labels = memory.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="lower center", ncols=6, fontsize=8, bbox_to_anchor=(0.5, -0.1), handlelength=3.2
    )
    return figure


def longer(row: Row, least: Row) -> float | None:
    """How many times as long as with ten thousand items: steps as measured in turns, judging by its throughputs."""
    if (speed := row.get("targets_per_cpu_second")) is not None:
        return least["targets_per_cpu_second"]["median"] / speed["median"]
    return row["over_small"]["median"] if "over_small" in row else None


def sent(axes: Any, paper: Paper, found: list[Row]) -> None:
    """What each device sends by mesh: marks filled for shard_map, open for jit."""
    rows_of = {(case["way"], tuple(case["mesh"]), case["mode"]): row for case, row in of_kind(found, "mesh")}
    meshes = list(dict.fromkeys(mesh for _, mesh, _ in rows_of if mesh[0] * mesh[1] == 8))
    for (way, mode), filled in {
        (way, mode): mode == "shard_map" for way in WAYS for mode in ("shard_map", "jit")
    }.items():
        here = [
            (at, rows_of[way, mesh, mode]["sent"] / 1e6)
            for at, mesh in enumerate(meshes)
            if (way, mesh, mode) in rows_of
        ]
        if here:
            own = look(paper, way)
            face = own["color"] if filled else paper.face
            axes.plot(*zip(*here, strict=True), ls="-" if filled else (0, (1, 2)), mfc=face, **own)
    axes.set_title("sent by each of 8 devices", loc="left", fontsize=10, weight="bold", color=paper.ink)
    axes.set_xticks(range(len(meshes)), [f"{data} x {model}" for data, model in meshes])
    axes.set(yscale="log", xlabel="mesh, data x model; open: jit", ylabel="MB a step")
    plain(axes)


def plain(axes: Any) -> None:
    """Numbers as they are read aloud, not as powers."""
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.minorticks_off()


def main() -> int:
    for name, paper in (("scaling", LIGHT), ("scaling-dark", DARK)):
        with styled(paper):
            for file in save(scaling(paper), RESULTS / name):
                if file.suffix == ".svg":
                    file.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
