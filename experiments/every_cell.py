"""Does every cell learn, through nothing but its name?

Claim     Each cell that `jaxrec list cells` shows trains on MovieLens 100K as `--model.cell NAME`, in the same block
          and with the same settings, and after a few epochs it ranks better than popularity does. A cell that reads
          more than items and gaps gets it: hour and weekday as context, user vectors, sessions cut by an hour's pause.
          IRNN, whose state nothing bounds, gets a weight decay of 3: without, states overflow in histories of over 200
          events, at every rate and scale tried that learned, and training says so.
Command   python experiments/every_cell.py --data ../shared/data            some of them: --only gru lru
Time      About half a CPU-minute a cell on one core. A cell that has a row is left out (--again trains it anew).
Expect    One row a cell in experiments/results/every_cell.jsonl.

One seed, five epochs, nothing tuned: it shows that a cell trains, not which is best.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

from flax import nnx

from jaxrec.bench.timing import append_row
from jaxrec.cells import find
from jaxrec.config import Call, Mistake, resolve
from jaxrec.reports.listing import CellEntry, entries
from jaxrec.runs.machine import card
from jaxrec.runs.options import Config
from jaxrec.runs.run import train

ROWS = Path(__file__).parent / "results" / "every_cell.jsonl"
SETTINGS: dict[str, Any] = {
    "model.width": 64, "model.dropout": 0.2, "batch.size": 16, "batch.length": 50, "epochs": 5, "optimizer.lr": 2e-3,
    "optimizer.warmup": 50, "optimizer.schedule": "cosine", "stop.patience": 0,
}  # fmt: skip
WANTED: dict[str, dict[str, Any]] = {  # what a cell reads beyond the item and the gap, and where MovieLens has it
    "context": {"features": ("@hour", "@weekday"), "model.context": ("all",)},
    "user": {"model.user": True},
    "start": {"session_gap": 60.0, "sequence": "user"},
}
BOUND: dict[str, dict[str, Any]] = {"irnn": {"optimizer.weight_decay": 3.0}}  # what keeps a state finite


def flags(cell: str, data: Path, run: str) -> dict[str, Any]:
    """The options of one run, under the names of the command line, with what the cell wants of the data."""
    wants = find(Call.parse(cell), 8, hidden=8, rngs=nnx.Rngs(0)).wants
    more = {name: value for leaf in wants for name, value in WANTED.get(leaf, {}).items()}
    return (
        SETTINGS
        | more
        | BOUND.get(cell, {})
        | {"data": str(data / "ml-100k" / "ml-100k.inter.gz"), "model.cell": cell, "run": run}
    )


def row(entry: CellEntry, data: Path) -> dict[str, Any]:
    """Train one cell; its numbers beside those of popularity and of the best counter."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    with tempfile.TemporaryDirectory() as folder:
        config = resolve(Config, flags=flags(entry.name, data, f"{folder}/run")).section
        result = train(config, say=lambda sentence: None)
    after = resource.getrusage(resource.RUSAGE_SELF)
    reading = result["headline"]
    floors = {name: part[reading]["ndcg@10"] for name, part in result["baselines"].items()}
    return {
        "cell": entry.name, "kind": entry.kind, "family": entry.family, "state_at_128": entry.state,
        "parameters_at_128": entry.parameters, "reading": reading, "test": result["test"][reading],
        "valid": result["valid"][reading], "ndcg@10 of counters": floors,
        "above_popularity": result["test"][reading]["ndcg@10"] > floors["popularity"], "seed": config.seed,
        "epochs": config.epochs, "steps": result["steps"], "run_id": result["run_id"],
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "seconds": result["seconds"], "settings": SETTINGS | BOUND.get(entry.name, {}),
        "machine": card(), "context": list(config.model.context),
    }  # fmt: skip


def done() -> set[str]:
    """Cells that have a row."""
    return {json.loads(line)["cell"] for line in ROWS.read_text().splitlines()} if ROWS.exists() else set()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument("--only", nargs="+", help="names of cells; all of them by default")
    parser.add_argument("--again", action="store_true", help="also cells that have a row")
    options = parser.parse_args()
    known = [entry for entry in entries("cells") if isinstance(entry, CellEntry)]
    worse, refused = [], []
    for entry in known:
        if entry.name not in (options.only or [one.name for one in known]):
            continue
        if entry.name in done() and not options.again:
            continue
        try:
            found = row(entry, options.data)
        except Mistake as mistake:
            refused.append(entry.name)
            print(f"{entry.name:18} {mistake}", flush=True)
            continue
        append_row(ROWS, found)
        worse += [] if found["above_popularity"] else [entry.name]
        print(f"{entry.name:18} {found['test']['ndcg@10']:.4f}  {found['cpu_seconds']} CPU-seconds", flush=True)
    if worse:
        print(f"no better than popularity: {', '.join(worse)}")
    if refused:
        print(f"without a row: {', '.join(refused)}")
    return int(bool(worse or refused))


if __name__ == "__main__":
    sys.exit(main())
