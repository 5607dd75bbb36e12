"""What does `--compute bfloat16` change: accuracy, time and memory of a step?

Claim     Of three seeds on ml-100k no metric moves by more than seeds differ. On a processor, whose products are of
          float32 all the same, a step takes longer and more memory: the option is for accelerators.
Command   taskset -c 0 python experiments/bench_precision.py --data ../shared/data/ml-100k/ml-100k.inter.gz
Time      About a quarter of an hour on one core.
Expect    Rows in experiments/results/bench_precision.jsonl. `accuracy`: validation and test of one seed, with one
          compute type, after equally many epochs of one untuned setting. `cost`: milliseconds of a step of a GRU with a
          feed-forward layer and a full softmax, in turns, the ratio of bfloat16 to float32 with its range, and bytes
          that XLA needs on the way.
"""

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import bench_catalogue as catalogue  # first: it says how many threads XLA has
import numpy as np

from jaxrec.bench.timing import alternate, append_row, ratio
from jaxrec.config import resolve
from jaxrec.runs.machine import card
from jaxrec.runs.options import Config
from jaxrec.runs.run import train

ROWS = Path(__file__).parent / "results" / "bench_precision.jsonl"
TYPES = ("float32", "bfloat16")
SETTING: dict[str, Any] = {"model.width": 64, "model.feedforward": 4, "epochs": 15, "stop.patience": 15}
SIZES = ((10_000, 128), (100_000, 128))
STEPS = 4  # of a timing


def accuracy(data: str, compute: str, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        flags = SETTING | {"data": data, "compute": compute, "seed": seed, "run": f"{folder}/run"}
        result = train(resolve(Config, flags=flags).section, say=lambda sentence: None)
    reading = result["headline"]
    return {
        "data": Path(data).name, "compute": compute, "seed": seed, "flags": SETTING, "reading": reading,
        "valid": result["valid"][reading], "test": result["test"][reading], "epoch": result["valid"]["epoch"],
        "floor": result["baselines"]["popularity"][reading], "skipped": result["skipped"],
    }  # fmt: skip


def cost(items: int, width: int, rounds: int) -> dict[str, Any]:
    """A step in both types, in turns."""
    flags = {"loss": "softmax", "model.feedforward": 4}
    made = {name: catalogue.training(flags | {"compute": name}, items, width) for name in TYPES}
    times = alternate({name: partial(run, STEPS) for name, (run, _) in made.items()}, rounds=rounds)
    cpu = np.array(times["bfloat16"].cpu) / np.array(times["float32"].cpu)
    return {
        "items": items, "width": width, "rows": catalogue.BATCH, "length": catalogue.LENGTH, "rounds": rounds,
        "milliseconds": {name: 1000 * one.seconds / STEPS for name, one in times.items()},
        **ratio(times, "bfloat16", "float32"), "cpu_ratio": float(np.median(cpu)),
        "temporary_bytes": {name: memory["temporary"] for name, (_, memory) in made.items()},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a file of events; none asks for cost only")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    for items, width in SIZES:
        keep({"question": "cost"} | cost(items, width, options.rounds))
    for seed in range(options.seeds if options.data else 0):
        for compute in TYPES:
            keep({"question": "accuracy"} | accuracy(options.data, compute, seed))


def keep(row: dict[str, Any]) -> None:
    append_row(ROWS, row | {"machine": card()})
    print(row, flush=True)


if __name__ == "__main__":
    sys.exit(main())
