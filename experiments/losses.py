"""Which loss should a recurrent recommender be trained with?

Claim     One GRU block, the same in every row, is trained with every loss for as many epochs; only the loss differs.
          Softmax over the whole catalogue ranks best; over hard items or a sample it comes near at a fraction of the
          time where items are many. TOP1-max follows; other losses over pairs, and binary ones, rank well below in the
          same number of epochs, and binary ones with few shared negatives among 43,000 items learn nothing yet.
Command   python experiments/losses.py ml-1m diginetica --data ../shared/data      some of them: --only bpr bce
Time      About five CPU-minutes a row on one core. A loss that has a row is left out; a run that was cut goes on.
Expect    A row for every loss and data set in experiments/results/losses.jsonl, with the CPU-seconds that it took;
          `python scripts/tables.py` puts them into the README.

One seed, nothing tuned: neither the rate nor the number of negatives. It says what to begin with, not what is best.
"""

import argparse
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

from jaxrec.bench.timing import append_row
from jaxrec.config import resolve
from jaxrec.runs.machine import card
from jaxrec.runs.options import Config
from jaxrec.runs.run import train

ROWS = Path(__file__).parent / "results" / "losses.jsonl"
BLOCK: dict[str, Any] = {
    "model.width": 64, "batch.size": 16, "batch.length": 100, "optimizer.lr": 2e-3, "optimizer.warmup": 100,
    "optimizer.schedule": "cosine", "stop.patience": 0,
}  # fmt: skip
DATA: dict[str, dict[str, Any]] = {
    "ml-1m": {"data": "ml-1m/ml-1m.txt.gz", "epochs": 8, "eval.every": 4},
    "diginetica": {
        "data": "diginetica/train_sessions.txt.gz", "test": "diginetica/test_sessions.txt.gz", "held_out": 0.02,
        "epochs": 3, "eval.users": 3000, "eval.metrics": ("hr@20", "mrr@20", "ndcg@10"), "stop.metric": "mrr@20",
    },
}  # fmt: skip
LOSSES = {
    "softmax": "softmax",
    "sampled softmax, uniform": "sampled_softmax(negatives=512)",
    "sampled softmax, popularity": "sampled_softmax(negatives=512, alpha=0.75)",
    "in-batch softmax": "sampled_softmax(negatives=0, in_batch=true)",
    "in-batch softmax, uncorrected": "sampled_softmax(negatives=0, in_batch=true, log_q=0.0)",
    "in-batch and uniform softmax": "sampled_softmax(negatives=512, in_batch=true)",
    "scalable cross-entropy": "sce",
    "gbce, 64 negatives each": "gbce(negatives=64)",
    "gbce, 256 negatives": "gbce(negatives=256, shared=true)",
    "bce, 256 negatives": "bce(negatives=256, shared=true)",
    "bce, one negative": "bce",
    "bpr, one negative": "bpr",
    "bpr-max": "bpr_max(negatives=512, alpha=0.5)",
    "top1-max": "top1_max(negatives=512, alpha=0.5)",
    "top1": "top1(negatives=512, alpha=0.5)",
}


def flags(name: str, loss: str, data: Path, run: Path) -> dict[str, Any]:
    """The options of one run, under the names of the command line."""
    chosen = BLOCK | DATA[name] | {"loss": LOSSES[loss], "run": str(run)}
    return chosen | {key: str(data / chosen[key]) for key in ("data", "test") if key in chosen}


def row(name: str, loss: str, data: Path, runs: Path) -> dict[str, Any]:
    """Train with one loss; its numbers with their circumstances."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    config = resolve(Config, flags=flags(name, loss, data, runs / f"{name}-{loss.replace(' ', '-')}")).section
    result = train(config, say=lambda sentence: None)
    after = resource.getrusage(resource.RUSAGE_SELF)
    reading = result["headline"]
    return {
        "data": name, "name": loss, "loss": str(config.loss), "reading": reading, "test": result["test"][reading],
        "valid": result["valid"][reading], "seed": config.seed, "epochs": result["epochs"], "steps": result["steps"],
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "counters": {counter: part[reading] for counter, part in result["baselines"].items()},
        "protocol": {key: result["protocol"][key] for key in ("name", "split", "catalogue", "mask_seen", "counts")},
        "settings": BLOCK | {key: value for key, value in DATA[name].items() if key not in ("data", "test")},
        "run_id": result["run_id"], "machine": card(),
    }  # fmt: skip


def done() -> set[tuple[str, str]]:
    """Data sets and losses that have a row."""
    rows = [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()] if ROWS.exists() else []
    return {(row["data"], row["name"]) for row in rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=DATA)
    parser.add_argument(
        "--only", nargs="+", choices=LOSSES, default=list(LOSSES), help="names of losses", metavar="LOSS"
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument("--runs", type=Path, default=Path("runs/losses"), help="folder of the run folders")
    options = parser.parse_args()
    for name in options.names:
        for loss in options.only:
            if (name, loss) not in done():
                found = row(name, loss, options.data, options.runs)
                append_row(ROWS, found)
                numbers = "  ".join(f"{key} {value:.4f}" for key, value in list(found["test"].items())[:3])
                print(f"{name:12} {loss:30} {numbers}  {found['cpu_seconds']} CPU-seconds", flush=True)


if __name__ == "__main__":
    sys.exit(main())
