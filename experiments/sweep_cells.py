"""Which recurrent cell recommends best at MovieLens 100K's size, each family tuned alike?

Claim     With rate, dropout, width and length tuned for each family by as many trials, five families of six are within
          a deviation between seeds of each other (test ndcg@10 .106 to .112, deviation .003 to .011); lru has .095.
Command   python experiments/sweep_cells.py --data ../shared/data/ml-100k/ml-100k.inter.gz
          (pip install -c constraints.txt -e '.[sweep]' first; the same command goes on)
Time      44 minutes on two shared CPU cores for 300 trials, and a quarter of an hour for the fresh seeds.
Expect    A row for every trial and for every family in experiments/results/sweep_cells.jsonl, the page in
          OUT/report.html. A family's row has the test numbers of its best configuration, chosen on the validation
          targets, trained anew with five seeds that the sweep never used.

Sobol points, so that every family meets equally spread values; a training that compares badly is given up (median).
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from jaxrec.bench.timing import append_row
from jaxrec.config import resolve
from jaxrec.runs.machine import card
from jaxrec.runs.options import Config
from jaxrec.runs.run import train
from jaxrec.sweeps.options import Sweep
from jaxrec.sweeps.space import Space
from jaxrec.sweeps.sweep import sweep

ROWS = Path(__file__).parent / "results" / "sweep_cells.jsonl"
CELLS = ("gru", "lstm", "mgu", "lru", "mingru", "sru")
SPACE: dict[str, Any] = {
    "model.cell": "|".join(CELLS), "model.width": "32|64|128", "model.dropout": "uniform(0.1, 0.6)",
    "optimizer.lr": "log(1e-3, 2e-2)", "batch.length": "20|50|100", "epochs": 12, "eval.users": 500,
}  # fmt: skip
FRESH = range(100, 105)  # seeds


def say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def trials(out: Path, data: str, count: int, workers: int | None) -> list[dict[str, Any]]:
    """The rows of the sweep, which goes on where it was."""
    options = Sweep(out=str(out), trials=count, workers=workers, search="sobol", prune="median")
    sweep(options, SPACE | {"data": data}, command=sys.argv, say=say)
    return [json.loads(line) for line in (out / "trials.jsonl").read_text(encoding="utf-8").splitlines()]


def best(rows: Sequence[dict[str, Any]], cell: str) -> dict[str, Any] | None:
    """The row of the family with the best validation number."""
    done = [row for row in rows if row["state"] == "done" and row["point"]["model.cell"] == cell]
    return max(done, key=lambda row: row["objectives"]["ndcg@10"], default=None)


def family(row: dict[str, Any], rows: Sequence[dict[str, Any]], out: Path, space: Space) -> dict[str, Any]:
    """A family's best configuration, trained anew with fresh seeds."""
    cell, found = row["point"]["model.cell"], []
    for seed in FRESH:
        own = {"seed": seed, "run": str(out / "fresh" / f"{cell}-{seed}")}
        result = train(resolve(Config, flags=space.flags(row["point"]) | own).section, say=lambda sentence: None)
        found.append(result["test"][result["headline"]])
    values = {metric: [one[metric] for one in found] for metric in ("hr@10", "ndcg@10")}
    tried = [other for other in rows if other["point"]["model.cell"] == cell]
    return {
        "kind": "family", "cell": cell, "point": row["point"], "trials": len(tried),
        "pruned": sum(other["state"] == "pruned" for other in tried), "selected_by_valid": row["valid"],
        "test_by_seed": values, "seeds": list(FRESH), "test_mean": {name: mean(all_) for name, all_ in values.items()},
        "test_deviation": {name: stdev(all_) for name, all_ in values.items()}, "machine": card(),
    }  # fmt: skip


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a trial."""
    kept = ("number", "id", "state", "point", "seed", "valid", "test", "seconds", "epochs", "parameters", "code")
    return {"kind": "trial"} | {name: row[name] for name in kept}


def known(kind: str, key: str) -> set[Any]:
    """Of which trials or families there are rows."""
    rows = [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()] if ROWS.exists() else []
    return {row[key] for row in rows if row["kind"] == kind}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="file of MovieLens 100K")
    parser.add_argument("--out", type=Path, default=Path("sweeps/cells"), help="folder of the sweep")
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--workers", type=int, help="processes that train; one for each core unless given")
    options = parser.parse_args()
    rows = trials(options.out, options.data, options.trials, options.workers)
    there = known("trial", "id")
    for row in rows:
        if row["id"] not in there:
            append_row(ROWS, plain(row))
    subprocess.run([sys.executable, "-m", "jaxrec", "report", str(options.out)], check=True)
    space = Space.of(json.loads((options.out / "sweep.json").read_text(encoding="utf-8"))["space"])
    for cell in CELLS:
        if cell in known("family", "cell") or (chosen := best(rows, cell)) is None:
            continue
        found = family(chosen, rows, options.out, space)
        append_row(ROWS, found)
        print(f"{cell:8} {found['test_mean']} from {found['trials']} trials: {found['point']}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
