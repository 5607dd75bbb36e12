"""Do cells that can look further back recommend better, and does it matter how much history they are trained on?

Claim     On MovieLens 100K the family matters and the length does not: from 10 to 200 events a cell's mean moves by
          less than .006 in NDCG@10, about as much as its seeds (lru alone gains, .085 to .098), while gru and lem stay
          at .10 to .106 and elman at .088. Trained gradients reach 4 to 70 events (lru's more than 199), and models
          make use of 1 to 13. On 30Music, after 2,000 updates, the family decides again: lru leads with .230 to .239,
          gru has .216 to .225, mlstm trails with .17 to .19, and every cell loses .005 to .02 from 10 to 200 events.
          All stay below the counter's .267 in NDCG@10, and models make use of 3 to 10 events.
Command   python experiments/cells_and_lengths.py --data ../shared/data            (--size ci | desk | full)
          pip install -c constraints.txt -e '.[sweep]' first; the same command goes on with what is missing.
Time      desk: two hours of one core (each row has its seconds); ci: half a minute; full prints its estimate first and
          wants an accelerator.
Expect    A row for each run in experiments/results/cells_and_lengths.jsonl: test NDCG@10 with its interval, how far the
          trained gradient reaches, the information horizon, the NDCG lost when histories are shuffled, seconds.
          `python scripts/tables.py` makes the table, `python scripts/pictures.py` the figure.

One cell of every family in the same block (width 64, norm, residual, dropout .3, full softmax, AdamW 3e-3 falling as a
cosine), nothing tuned for any. A batch has 1,600 events (on 30Music 400) whatever its length, so that an epoch has as
many updates at every length. The length is how many events a gradient can travel in training; people are judged on
their whole history, and what the model makes of it is the information horizon. The context cell gets the hour of each
event.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxrec.bench.timing import append_row
from jaxrec.cells.find import locate
from jaxrec.data.context import attached
from jaxrec.data.prepare import prepare_cached
from jaxrec.diagnostics.flow import gradient
from jaxrec.diagnostics.information import information, shuffle_drop
from jaxrec.runs.bundle import load
from jaxrec.runs.folder import cache, read_json
from jaxrec.runs.machine import card
from jaxrec.runs.samples import drive, recall, shuffled
from jaxrec.sweeps.options import Sweep
from jaxrec.sweeps.sweep import sweep
from jaxrec.training import source

RESULTS = Path(__file__).parent / "results"
ROWS = RESULTS / "cells_and_lengths.jsonl"
BLOCK: dict[str, Any] = {
    "model.width": 64, "model.dropout": 0.3, "optimizer.schedule": "cosine", "eval.users": 1000, "stop.patience": 0,
}  # fmt: skip
EVENTS = {"30music": 400}  # of a batch: ten thousand items need more updates than 1,600 leave in as many passes
FAMILIES = ("elman", "gru", "lru", "mlstm", "lem", "cfc", "causalconv")  # simple to window, one each
CONTEXT = {"model.cell": "latentcross(gru)", "features": "@hour", "model.context": "all"}
SETS: dict[str, dict[str, Any]] = {
    "demo": {"demo.users": 200, "demo.items": 200, "demo.events": 20, "epochs": 2},
    "ml-100k": {"data": "ml-100k/ml-100k.inter.gz", "epochs": 12, "eval.every": 3},
    "30music": {"data": "30music/sessions.parquet", "split": "time", "mask_seen": "none", "epochs": 3},
    "ml-1m": {"data": "ml-1m/ml-1m.txt.gz", "epochs": 12, "eval.every": 3},
}
SIZES: dict[str, dict[str, Any]] = {
    "ci": {"sets": ("demo",), "cells": ("gru",), "lengths": (5,), "seeds": 1, "context": False},
    "desk": {"sets": ("ml-100k", "30music"), "cells": FAMILIES, "lengths": (10, 50, 200), "seeds": 2, "context": True},
    "full": {"sets": ("ml-100k", "30music", "ml-1m"), "cells": (), "lengths": (10, 20, 50, 100, 200, 500), "seeds": 3,
             "context": True},
}  # fmt: skip
FOLLOWED = 200  # events over which the trained gradient is followed, whatever the length of training
EXAMPLES, PEOPLE = 32, 512


def say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def every_cell() -> tuple[str, ...]:
    """All cells that need no more than items and gaps, from the rows of `every_cell.py`."""
    rows = [json.loads(line) for line in (RESULTS / "every_cell.jsonl").read_text(encoding="utf-8").splitlines()]
    return tuple(row["cell"] for row in rows if row["family"] != "context" and row["cell"] != "decayed")


def spaces(size: str, data: Path) -> Iterator[tuple[str, int, str, dict[str, Any]]]:
    """Data set, length, folder and space of every sweep: cells are its choices, seeds its repeats."""
    plan = SIZES[size]
    for name in plan["sets"]:
        own = dict(SETS[name])
        if "data" in own:
            own["data"] = str(data / own["data"])
        for length in plan["lengths"]:
            space = BLOCK | own | {"batch.length": length, "batch.size": max(EVENTS.get(name, 1600) // length, 1)}
            cells = "|".join(plan["cells"] or every_cell())
            yield name, length, f"{name}-{length}", space | {"model.cell": cells}
            if plan["context"] and name != "ml-1m":  # which has no times
                yield name, length, f"{name}-{length}-context", space | CONTEXT


def estimate(size: str) -> str:
    """Device-hours of a size, from CPU-seconds of every cell in its committed rows; an epoch's cost grows with events
    times items, which the rows' data set has as they are.
    """
    rows = [json.loads(line) for line in (RESULTS / "every_cell.jsonl").read_text(encoding="utf-8").splitlines()]
    cost = {row["cell"]: row["cpu_seconds"] / row["epochs"] for row in rows}
    plan = SIZES[size]
    weight = {"demo": 0.1, "ml-100k": 1.0, "30music": 5.5, "ml-1m": 12.0}  # an epoch's, mostly events x items
    cells = plan["cells"] or every_cell()
    epochs = sum(SETS[name]["epochs"] * weight[name] for name in plan["sets"])
    seconds = sum(cost.get(cell, 10.0) for cell in cells) * epochs * len(plan["lengths"]) * plan["seeds"]
    return f"{size}: about {seconds / 3600:.1f} hours of one CPU core, estimated from every_cell.jsonl"


def known(rows: Path) -> set[str]:
    """Ids of the runs that have a row."""
    lines = rows.read_text(encoding="utf-8").splitlines() if rows.exists() else []
    return {json.loads(line)["run_id"] for line in lines}


def measured(name: str, length: int, run: Path) -> dict[str, Any]:
    """The row of a finished run."""
    began = time.perf_counter()
    bundle, result = load(run), read_json(run / "result.json")
    prepared = attached(prepare_cached(bundle.config, cache(), say=lambda sentence: None), bundle.columns)
    data = source.load(prepared, user=bundle.config.model.user)
    driven = drive(prepared, data, FOLLOWED if name != "demo" else length, EXAMPLES)
    people = recall(prepared, data, FOLLOWED if name != "demo" else length, PEOPLE)
    masked = prepared.card["mask_seen"] != "none"
    flow = gradient(bundle.model, driven.batch)[0]
    kept = ("label", "horizons", "lags", "log10_quantiles", "zeros", "examples")
    past = information(bundle.model, people.batch, own=people.own, exclude_seen=masked)
    order = shuffle_drop(bundle.model, people.batch, shuffled(people), exclude_seen=masked)
    headline, cell = result["headline"], bundle.config.model.cell
    metrics = {metric: result["test"][headline][metric] for metric in ("hr@10", "ndcg@10", "mrr@10")}
    return {
        "data": name, "cell": str(cell), "family": locate(cell).family, "length": length, "seed": result["seed"],
        "run_id": result["run_id"], "headline": headline, "test": metrics,
        "interval": result["test"]["intervals"]["ndcg@10"], "valid": result["valid"][headline],
        "counters": {which: one[headline]["ndcg@10"] for which, one in result["baselines"].items()},
        "epochs": result["epochs"], "steps": result["steps"], "seconds": result["seconds"],
        "parameters": result["model"]["parameters"], "inputs": driven.inputs,
        "gradient": {key: flow[key] for key in kept} | {"over": FOLLOWED}, "information": past,
        "shuffle": order["drop"],
        "measuring_seconds": time.perf_counter() - began, "machine": card(),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=tuple(SIZES), default="desk")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the data sets")
    parser.add_argument("--only", nargs="+", choices=tuple(SETS), help="data sets; all of the size by default")
    parser.add_argument("--out", type=Path, default=Path("sweeps/cells_and_lengths"), help="folder of the sweeps")
    parser.add_argument("--workers", type=int, help="processes that train; one for each core unless given")
    parser.add_argument("--rows", type=Path, default=ROWS, help="file of the rows")
    options = parser.parse_args()
    say(estimate(options.size))
    there = known(options.rows)
    for name, length, folder, space in spaces(options.size, options.data):
        if name not in (options.only or SETS):
            continue
        out, seeds = options.out / folder, SIZES[options.size]["seeds"]
        sweep(
            Sweep(out=str(out), search="grid", seeds=seeds, workers=options.workers), space, command=sys.argv, say=say
        )
        for run in sorted((out / "runs").iterdir()):
            if (run / "result.json").exists() and read_json(run / "result.json")["run_id"] not in there:
                row = measured(name, length, run)
                append_row(options.rows, row)
                shown = row["gradient"]["horizons"]["one_percent"]["value"], row["information"]["horizon"]["value"]
                print(f"{name:8} {length:4} {row['cell']:18} ndcg@10 {row['test']['ndcg@10']:.4f}, reaches {shown[0]}, "
                      f"looks {shown[1]}", flush=True)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
