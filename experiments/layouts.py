"""What do the three batch layouts cost: padding, speed, accuracy after equally many epochs?

Claim     Packed rows and lanes waste almost nothing on short sessions, where windows are mostly padding; per event of a
          step equally long, lanes cost what packed rows do. Lanes of length 1 (the state cut at every event, as in
          GRU4Rec) pay for an update of every parameter after a handful of events.
Command   taskset -c 0 python experiments/layouts.py waste speed accuracy --data ../shared/data
Time      About five minutes on one core, half of it for accuracy on ml-100k.
Expect    Rows in experiments/results/layouts.jsonl: one a data set for waste and for speed (events per CPU-second,
          median of alternations in one process, and the ratio to packed with its range), one a run for accuracy.

Events are real targets, padding is not counted as work done. Accuracy is one seed of one untuned setting after few
epochs: it shows that every layout trains, not which is best.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import jax
import numpy as np

from jaxrec.bench.timing import alternate, append_row
from jaxrec.config import resolve
from jaxrec.data.batches import waste
from jaxrec.data.prepare import prepare_cached
from jaxrec.data.prepared import Prepared
from jaxrec.runs import build
from jaxrec.runs.epochs import plan
from jaxrec.runs.machine import card
from jaxrec.runs.options import Config
from jaxrec.runs.run import cache, train
from jaxrec.training import source
from jaxrec.training.loop import compile_run

ROWS = Path(__file__).parent / "results" / "layouts.jsonl"
STEPS = 4  # of a timing
DATA: dict[str, dict[str, Any]] = {
    "ml-100k": {"data": "ml-100k/ml-100k.inter.gz", "batch.length": 50},
    "diginetica": {
        "data": "diginetica/train_sessions.txt.gz", "test": "diginetica/test_sessions.txt.gz", "batch.length": 20,
    },
}  # fmt: skip
LAYOUTS: dict[str, dict[str, Any]] = {
    "packed": {"batch.layout": "packed"},
    "windows": {"batch.layout": "windows"},
    "lanes": {"batch.layout": "lanes"},
    "lanes, length 1": {"batch.layout": "lanes", "batch.length": 1, "batch.size": 100},
}
EPOCHS = 5


def settings(name: str, data: Path, layout: str) -> Config:
    chosen = {"model.width": 64, "batch.size": 32, "model.dropout": 0.2} | DATA[name] | LAYOUTS[layout]
    chosen |= {key: str(data / chosen[key]) for key in ("data", "test") if key in chosen}
    return resolve(Config, flags=chosen).section


def shape(config: Config) -> dict[str, int]:
    return {"rows": config.batch.size, "length": config.batch.length}


def wasted(name: str, data: Path) -> dict[str, Any]:
    """The share of padding of every layout."""
    found = {}
    for layout in LAYOUTS:
        config = settings(name, data, layout)
        rows = plan(config, prepared(config), 0)
        found[layout] = {"padding": waste(rows), "steps": source.batches(rows, config.batch.size)} | shape(config)
    counts = prepared(config).card["counts"]
    return {"data": name, "train_pairs": counts["train_pairs"], "sequences": counts["sequences"], "layouts": found}


def prepared(config: Config) -> Prepared:
    return prepare_cached(config, cache(), lambda sentence: None)


def steps(config: Config, data: Prepared) -> tuple[Callable[[], None], int]:
    """A timing's worth of training from the middle of an epoch, and the real events in it."""
    rows = plan(config, data, 0)
    middle = source.batches(rows, config.batch.size) // 2
    slab = next(source.slabs(rows, size=config.batch.size, steps=STEPS, begin=middle // STEPS * STEPS))
    step, hyper = build.step(config, 1000)
    lanes = config.batch.size if config.batch.layout == "lanes" else 0
    made = build.model(config.model, build.offered(data), seed=0)
    held = [step.init(made, hyper, jax.random.key(0), lanes)]
    flat, run, bounds = source.load(data, user=False), compile_run(step), np.array([0, slab.count], np.int32)

    def go() -> None:
        held[0], metrics = run(held[0], flat, slab.index, slab.reset, bounds, hyper)
        jax.block_until_ready((held[0], metrics))

    return go, int((slab.index >= 0).sum())


def speed(name: str, data: Path, rounds: int) -> dict[str, Any]:
    """Events per CPU-second of every layout, in turns."""
    made = {layout: steps(config := settings(name, data, layout), prepared(config)) for layout in LAYOUTS}
    times = alternate({layout: go for layout, (go, _) in made.items()}, rounds=rounds)
    rates = {layout: events / np.array(times[layout].cpu) for layout, (_, events) in made.items()}
    found = {}
    for layout, rate in rates.items():
        ratios = rate / rates["packed"]
        found[layout] = {
            "events_per_cpu_second": float(np.median(rate)), "events": made[layout][1],
            "ratio": float(np.median(ratios)), "ratio_low": float(ratios.min()), "ratio_high": float(ratios.max()),
            "cpu_seconds": list(times[layout].cpu),
        } | shape(settings(name, data, layout))  # fmt: skip
    return {"data": name, "width": 64, "steps": STEPS, "rounds": rounds, "layouts": found}


def accuracy(layout: str, data: Path) -> dict[str, Any]:
    """Test numbers of one run of `EPOCHS` epochs."""
    with tempfile.TemporaryDirectory() as folder:
        config = replace(settings("ml-100k", data, layout), run=f"{folder}/run", epochs=EPOCHS)
        result = train(config, say=lambda sentence: None)
    reading = result["headline"]
    floor = {name: part[reading] for name, part in result["baselines"].items()}
    return {
        "data": "ml-100k", "layout": layout, **shape(config), "epochs": EPOCHS, "steps": result["steps"],
        "reading": reading, "test": result["test"][reading], "baselines": floor,
        "seconds": result["seconds"]["train"], "seed": config.seed, "run_id": result["run_id"],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", nargs="+", choices=("waste", "speed", "accuracy"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument("--only", nargs="+", choices=DATA, default=list(DATA), help="data sets for waste and speed")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for question in options.questions:
        ask: dict[str, Callable[[str], dict[str, Any]]] = {
            "waste": lambda name: wasted(name, options.data),
            "speed": lambda name: speed(name, options.data, options.rounds),
            "accuracy": lambda layout: accuracy(layout, options.data),
        }
        for subject in ("packed", "windows", "lanes") if question == "accuracy" else options.only:
            row = {"question": question} | ask[question](subject) | {"machine": card()}
            append_row(ROWS, row)
            print({key: value for key, value in row.items() if key != "machine"}, flush=True)


if __name__ == "__main__":
    sys.exit(main())
