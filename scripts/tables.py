"""Write the tables of the READMEs from the rows in experiments/results, and what `jaxrec list cells` says of sizes:
`python scripts/tables.py`; --check compares.

A table stands between `<!-- table: NAME -->` and `<!-- end -->`. Numbers are never typed.
"""

import argparse
import json
import re
import sys
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import memory_tables
import numpy as np
import recipe_tables
import scaling_tables

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "experiments" / "results"
Row = dict[str, Any]


def rows(name: str) -> list[Row]:
    """Every row of an experiment, oldest first."""
    path = RESULTS / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def markdown(columns: list[str], lines: list[list[str]]) -> str:
    rule = ["---"] + ["---:"] * (len(columns) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in [columns, rule, *lines])


NAMES = {
    "markov3": "Markov, last three items",
    "markov3_shares": "Markov, last three, shares",
    "markov": "Markov, last item",
    "popularity": "popularity",
}


def demo() -> str:
    """The table that `jaxrec train` ends with, from the newest row of the demo."""
    found = [row for row in rows("accuracy") if row["setting"] == "demo"]
    if not found:
        return ""
    row, reading = found[-1], found[-1]["headline"]
    ceiling = row["ceiling"][reading]
    given = [
        (row["model"]["cell"], row["test"]),
        *[(NAMES[name], row["baselines"][name]) for name in NAMES if name in row["baselines"]],
    ]
    values = [(name, part[reading]) for name, part in [*given, ("ceiling (the generator itself)", row["ceiling"])]]
    lines = [
        [name, *[f"{part[metric]:.4f}" for metric in ceiling], f"{part['ndcg@10'] / ceiling['ndcg@10']:.0%}"]
        for name, part in values
    ]
    return markdown(["test, seen items left out", *ceiling, "of ceiling"], lines)


def accuracy() -> str:
    """Data sets: the model over its seeds, beside the best counter and the ceiling."""
    groups: dict[str, dict[int, Row]] = defaultdict(dict)
    for row in rows("accuracy"):
        name, run = row["setting"], row["run_id"].split("-")[0]
        if any(other["run_id"].split("-")[0] != run for other in groups[name].values()):
            groups[name].clear()  # another configuration: its seeds are not this one's
        groups[name][row["seed"]] = row
    lines = []
    for name, by_seed in groups.items():
        found = list(by_seed.values())
        if name == "demo":
            continue
        reading = found[0]["headline"]
        names = [metric for metric in found[0]["test"][reading] if not metric.startswith(("coverage", "popularity"))][
            :2
        ]
        for metric in names:
            values = [row["test"][reading][metric] for row in found]
            floor, counter = max((base[reading][metric], which) for which, base in found[0]["baselines"].items())
            lines.append([name, protocol(found[0]), metric, spread(values), f"{floor:.4f} ({counter})", minutes(found)])
    return markdown(["data", "protocol", "metric", "GRU, test", "best counter", "minutes a seed"], lines)


def protocol(row: Row) -> str:
    card = row["protocol"]
    masked = "seen masked" if row["headline"] == "masked" else "nothing masked"
    return f"{card['split']['name']}, {masked}, {card['counts']['test_targets']:,} targets"


def spread(values: list[float]) -> str:
    """The value of one seed; mean and 95 % interval of the mean (Student's t) over several."""
    if len(values) == 1:
        return f"**{values[0]:.4f}**"
    student = [12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26][min(len(values), 10) - 2]
    half = student * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"**{np.mean(values):.4f}** ± {half:.4f} ({len(values)} seeds)"


def minutes(found: list[Row]) -> str:
    return f"{np.mean([row['seconds']['train'] for row in found]) / 60:.1f}"


def recipes() -> str:
    """Our recipes over their seeds, beside the best counter and what others published on the same file."""
    return markdown(*recipe_tables.recipes(rows("recipes"), rows("ctr"), RESULTS.parent / "recipes"))


def ties() -> str:
    """What targets that are tied in time are worth, and what is left where their order is drawn."""
    return markdown(*recipe_tables.ties(rows("recipes")))


def throughput() -> str:
    """The newest row of each model."""
    newest = {row["model"]: row for row in rows("throughput")}
    lines = []
    for name, row in newest.items():
        speed = row["events_per_cpu_second"]
        lines.append([name, *(f"{speed[which]:,.0f}" for which in ("jaxrec", "products", "torch")), ratio(row)])
    columns = ["model", "jaxrec, events per CPU-second", "products alone", "PyTorch, same run", "jaxrec / PyTorch"]
    return markdown(columns, lines)


def zoo() -> str:
    """Every cell with its kind, its sizes and the newest row of how it trained."""
    newest = {row["cell"]: row for row in rows("every_cell")}
    lines = []
    for name, row in sorted(newest.items(), key=lambda pair: (pair[1]["family"], pair[0])):
        sizes = [f"{row['state_at_128']:,}", f"{row['parameters_at_128']:,}"]
        found = [f"{row['test'][metric]:.4f}" for metric in ("hr@10", "ndcg@10")]
        lines.append([f"`{name}`", row["family"], row["kind"], *sizes, *found, f"{row['cpu_seconds']:.0f}"])
    counters = next(reversed(newest.values()), {}).get("ndcg@10 of counters", {})
    for name, value in counters.items():
        lines.append([NAMES[name], "counter", "", "", "", "", f"{value:.4f}", ""])
    return markdown(["cell", "family", "kind", "state", "weights", "hr@10", "ndcg@10", "CPU-seconds"], lines)


def laws() -> str:
    """Over all cells and variants, what was examined on each backend."""
    newest = {row["cell"]: row["backends"] for row in rows("law_matrix")}
    lines = []
    for name in next(iter(newest.values()), {}):
        found = [ways[name] for ways in newest.values()]
        taken = [measured for measured in found if isinstance(measured, dict)]
        if taken:
            broken = sum(not kept(law, value) for measured in taken for law, value in measured.items())
            kinds = len({law for measured in taken for law in measured})
            lines.append([f"`{name}`", str(len(taken)), str(kinds), str(sum(map(len, taken))), str(broken)])
    return markdown(["backend", "cells and variants", "laws of each", "examined", "broken"], lines)


def kept(law: str, value: float | None) -> bool:
    """Whether a violation is within rounding; None stands for one without bound."""
    from jaxrec.recurrence.laws import LAWS

    return value is not None and value <= next(one.tolerance for one in LAWS if one.name == law)


# CPU time relative to torch, on one thread, that training a layer should take at most
AIMS = {
    "GRU": {"small": 0.33, "medium": 0.50, "wide": 0.50, "long": 0.55},
    "LSTM": {"small": 0.9, "medium": 0.9, "wide": 1.0, "long": 1.0},
}


def against_torch() -> str:
    """Training passes of the two cells that torch has, relative to torch."""
    names = ["adjoint", "scan", "nnx.RNN", "products"]
    found = {(r["cell"], r["shape"], r["pass"], r["candidate"]): r for r in rows("bench_recurrence")}
    lines = []
    for cell, aims in AIMS.items():
        for shape, aim in aims.items():
            group = {name: found.get((cell, shape, "forward and backward", name)) for name in names}
            if (first := group["adjoint"]) is not None:
                at = f"{first['batch']} x {first['time']} x {first['width']}"
                lines.append([f"{cell} {at}", *(ratio(row) for row in group.values()), f"{aim:.2f}"])
    return markdown(["training pass, CPU time / torch", *names[:3], "its products alone", "aim"], lines)


WHEN = {  # of the losses in experiments/losses.py
    "softmax": "the default, while a step over all items is affordable",
    "sampled softmax, uniform": "many items, and none of them may be neglected",
    "sampled softmax, popularity": "many items: better than uniform on both",
    "in-batch softmax": "nothing to draw: negatives are the other targets",
    "in-batch softmax, uncorrected": "try it where popularity says little; it holds popular items down",
    "in-batch and uniform softmax": "some thousand items: next to softmax",
    "scalable cross-entropy": "ten thousands of items: next to softmax at a sixth of its time",
    "gbce, 64 negatives each": "calibrated probabilities are wanted",
    "gbce, 256 negatives": "not among many items: too few of them move in a step",
    "bce, 256 negatives": "not among many items: too few of them move in a step",
    "bce, one negative": "to reproduce SASRec as published",
    "bpr, one negative": "to reproduce BPR",
    "bpr-max": "to reproduce GRU4Rec (with the profile)",
    "top1-max": "to reproduce GRU4Rec; the best of the losses over pairs here",
    "top1": "to reproduce the first GRU4Rec",
}


def losses() -> str:
    """One model trained with every loss: what it ranks, and what the training cost."""
    found = {(row["data"], row["name"]): row for row in rows("losses")}
    columns = {"ml-1m": ("hr@10", "ndcg@10"), "diginetica": ("hr@20", "mrr@20")}
    lines = []
    for name, when in WHEN.items():
        line = [name, next((f"`{row['loss']}`" for (_, which), row in found.items() if which == name), "")]
        for data, metrics in columns.items():
            row = found.get((data, name))
            line += [f"{row['test'][metric]:.4f}" if row else "" for metric in metrics]
            line.append(f"{row['cpu_seconds']:,.0f}" if row else "")
        lines += [[*line, when]] if any(line[1:]) else []  # a loss is in the table once it has a row
    heads = [f"{data} {what}" for data, metrics in columns.items() for what in (*metrics, "CPU-s")]
    return markdown(["loss", "`--loss`", *heads, "use it when"], lines)


def gru4rec() -> str:
    """The profile's seeds beside the authors' code."""
    lines = []
    for theirs in rows("gru4rec_published"):
        found = [row["standard"] for row in rows("gru4rec_reference") if row["setting"] == theirs["setting"]]
        for metric in ("hr@20", "mrr@20") if len(found) > 1 else ():
            values = [one[metric] for one in found]
            mean, deviation = np.mean(values), np.std(values, ddof=1)
            ours = f"{mean:.4f} ± {deviation:.4f} ({len(values)} seeds)"
            away = f"{(theirs[metric] - mean) / deviation:+.1f}"
            lines.append([theirs["setting"], metric, ours, f"{theirs[metric]:.4f}", away])
    ours = "profile gru4rec, mean ± standard deviation"
    return markdown(["setting", "metric", ours, "official code, one seed", "deviations away"], lines)


def gru4rec_speed() -> str:
    """The newest row of each shape: a training step of the profile beside torch's."""
    newest = {(row["hidden"], row["batch"]): row for row in rows("bench_gru4rec")}
    lines = []
    for (hidden, batch), row in sorted(newest.items(), key=lambda pair: pair[0][::-1]):
        speed = {name: f"{found['median']:,.0f}" for name, found in row["events_per_cpu_second"].items()}
        names = ("jaxrec", "products", "torch, nothing drawn")
        lines.append([f"{hidden} x {batch}", *(speed[name] for name in names), ratio(row["over"][names[-1]])])
    columns = ["units x batch, events per CPU-second", "jaxrec", "products alone", "PyTorch, nothing drawn"]
    return markdown([*columns, "jaxrec / PyTorch"], lines)


def ratio(row: Row | None) -> str:
    return "" if row is None else f"{row['ratio']:.2f} ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})"


def families() -> str:
    """Each family's best configuration with seeds that did not choose it."""
    found = [row for row in rows("sweep_cells") if row["kind"] == "family"]
    lines = []
    for row in sorted(found, key=lambda row: -row["test_mean"]["ndcg@10"]):
        point, spread = row["point"], row["test_deviation"]["ndcg@10"]
        chosen = f"width {point['model.width']}, length {point['batch.length']}, lr {point['optimizer.lr']:.2g}, "
        chosen += f"dropout {point['model.dropout']:.2g}"
        numbers = [f"{row['selected_by_valid']['ndcg@10']:.4f}", f"{row['test_mean']['ndcg@10']:.4f} ± {spread:.4f}"]
        lines.append([f"`{row['cell']}`", chosen, str(row["trials"]), str(row["pruned"]), *numbers])
    columns = [
        "cell",
        "best of its trials",
        "trials",
        "pruned",
        "valid ndcg@10 that chose",
        "test ndcg@10, 5 fresh seeds",
    ]
    return markdown(columns, lines)


def probe() -> str:
    """What a look at the gradient costs, in training steps, from the newest row of each cell and shape."""
    newest = {(row["cell"], row["rows"], row["events"], row["width"]): row for row in rows("bench_probe")}
    shapes = sorted({key[1:] for key in newest}, key=lambda shape: (shape[2], shape[1]))
    lines = []
    for cell in dict.fromkeys(key[0] for key in newest):
        found = [newest.get((cell, *shape)) for shape in shapes]
        cells = ["" if row is None else f"{row['ratio']['taps']:.2f} / {row['ratio']['scan']:.2f}" for row in found]
        lines.append([f"`{cell}`", *cells])
    return markdown(["by_taps / by_scan, training steps", *(f"{b} x {t}, width {w}" for b, t, w in shapes)], lines)


def looks() -> str:
    """What a training spends on looking at itself, from the newest row of each cell."""
    newest = {row["cell"]: row for row in rows("bench_diagnose") if row["kind"] == "training"}
    columns = ["a training that looks at itself", "its seconds", "looks", "share of its time", "the first look, s"]
    lines = [
        [f"`{cell}`", f"{row['seconds']:.0f}", str(row["looks"]), f"{row['share']:.1%}",
         f"{row['first_look_seconds']:.0f}"] for cell, row in newest.items()
    ]  # fmt: skip
    return markdown(columns, lines)


def lengths() -> str:
    """Of every cell, data set and length, over its seeds: how well it recommends, how far its gradient reaches after
    training, and how far back the model looks.
    """
    groups: dict[tuple[str, str, int], list[Row]] = defaultdict(list)
    for row in rows("cells_and_lengths"):
        groups[row["data"], row["cell"], row["length"]].append(row)
    lines = []
    for (data, cell, length), found in sorted(groups.items(), key=lambda pair: (pair[0][0], pair[0][2], pair[0][1])):
        ndcg = [row["test"]["ndcg@10"] for row in found]
        drop = np.mean([row["shuffle"]["ndcg@10"]["value"] for row in found])
        seconds = np.mean([row["seconds"]["train"] for row in found])
        reaches = [within(row["gradient"]["horizons"]["one_percent"]) for row in found]
        looks = [within(row["information"]["horizon"]) for row in found]
        seeds = " · ".join(f"{value:.4f}" for value in ndcg)
        lines.append([f"{data}, {length}", f"`{cell}`", seeds, " · ".join(reaches), " · ".join(looks),
                      f"{drop:.4f}", f"{seconds:.0f}"])  # fmt: skip
    columns = ["data, length", "cell", "test ndcg@10", "1 % of the gradient", "events used", "lost when shuffled", "s"]
    return markdown(columns, lines)


def within(horizon: Row) -> str:
    """A horizon in events, or what it is longer than."""
    value = horizon["value"]
    return f"> {horizon['beyond']}" if value is None else f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def memory() -> str:
    """The greatest distance that each cell still solves, by task: no remedy, first seed."""
    return markdown(*memory_tables.memory(rows("vanishing_gradients")))


def remedies() -> str:
    """The same for other starts, clipping and wiring, on the tasks that have them."""
    return markdown(*memory_tables.remedies(rows("vanishing_gradients")))


def scaled(name: str) -> str:
    """A table of what grows with catalogue, width and mesh."""
    return markdown(*scaling_tables.TABLES[name](rows))


TABLES = {
    "demo": demo, "accuracy": accuracy, "throughput": throughput, "zoo": zoo, "laws": laws, "torch": against_torch,
    "losses": losses, "gru4rec": gru4rec, "gru4rec_speed": gru4rec_speed, "families": families,
    "recipes": recipes, "ties": ties, "probe": probe, "looks": looks, "lengths": lengths, "memory": memory,
    "remedies": remedies, **{name: partial(scaled, name) for name in scaling_tables.TABLES},
}  # fmt: skip
PAGES = (
    ROOT / "README.md",
    *(
        ROOT / "jaxrec" / room / "README.md"
        for room in ("cells", "diagnostics", "losses", "parallel", "recurrence", "sweeps")
    ),
)


def written(text: str) -> str:
    """The text with every table made anew."""

    def table(match: re.Match[str]) -> str:
        return f"<!-- table: {match[1]} -->\n{TABLES[match[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- table: (\w+) -->.*?<!-- end -->", table, text, flags=re.DOTALL)


def cells() -> str:
    """The kind, the sizes and the backends of every cell, as JSON with a line a cell."""
    from jaxrec.cells.find import ours
    from jaxrec.config import Call
    from jaxrec.recurrence.facts import facts

    lines = [f"  {json.dumps(name.lower())}: {json.dumps(facts(Call(name)).row())}" for name in sorted(ours())]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when something would change")
    options = parser.parse_args()
    made = {page: written(page.read_text(encoding="utf-8")) for page in PAGES}
    made[ROOT / "jaxrec" / "cells" / "facts.json"] = cells()
    if options.check:
        return int(any(path.read_text(encoding="utf-8") != text for path, text in made.items()))
    for path, text in made.items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
