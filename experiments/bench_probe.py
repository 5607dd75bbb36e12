"""What does it cost to see how far a gradient reaches, in training steps?

Claim     The gradient of the last step's loss by every state, in one backward pass (`by_taps`), costs less than a third
          of a training step on the same batch where the state is a vector (.7 to .8 for Mamba, whose state is sixteen
          times as large), and the renormalised scan (`by_scan`), which no length underflows, less than .65. A cell
          with a matrix for a state trains in chunks that never form it, and its gradient must: 1 to 4 steps.
Command   taskset -c 0 python experiments/bench_probe.py
Time      Five minutes on one core.
Expect    A row for each cell and shape in experiments/results/bench_probe.jsonl: CPU seconds of a training step (loss
          of every position over 1,000 items, clipping and AdamW included), of by_taps, of by_scan, and their ratios.

The candidates take turns in one process on one thread; a ratio is the median over rounds of the ratio within a round.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ["XLA_FLAGS"] = " ".join(
    [*os.environ.get("XLA_FLAGS", "").split(), "--xla_cpu_multi_thread_eigen=false", "intra_op_parallelism_threads=1"]
)

import jax
import jax.numpy as jnp

from jaxrec.bench.timing import alternate, append_row
from jaxrec.config import resolve
from jaxrec.diagnostics.gradient import by_scan, by_taps
from jaxrec.models.recommender import Batch
from jaxrec.runs import build
from jaxrec.runs.machine import card
from jaxrec.runs.options import Config

ROWS = Path(__file__).parent / "results" / "bench_probe.jsonl"
CELLS = ("gru", "lstm", "lru", "mlstm", "mamba", "elman")
SHAPES = ((32, 50, 64), (16, 200, 64), (32, 50, 128))  # rows, events, width
ITEMS = 1000


def measured(cell: str, rows: int, time: int, width: int, rounds: int) -> dict[str, Any]:
    config = resolve(Config, flags={"model.cell": cell, "model.width": width}).section
    step, hyper = build.step(config, 100)
    model = build.model(config.model, build.Offer(items=ITEMS, users=0, gaps=True, starts=False), seed=0)
    item = jax.random.randint(jax.random.key(0), (rows, time), 1, ITEMS + 1)
    whole = jnp.ones((rows, time), bool)
    batch = Batch(item=item, target=jnp.roll(item, 1, 1), mask=whole, reset=~whole, gap=jnp.ones((rows, time)))
    state = step.init(model, hyper, jax.random.key(0))
    train = jax.jit(lambda state, batch: step(state, batch, hyper))
    times = alternate(
        {
            "step": lambda: train(state, batch),
            "taps": lambda: by_taps(model, batch),
            "scan": lambda: by_scan(model, batch),
        },
        rounds,
    )
    ratios = {
        name: sorted(mine / base for mine, base in zip(times[name].cpu, times["step"].cpu, strict=True))
        for name in ("taps", "scan")
    }
    return {
        "cell": cell, "rows": rows, "events": time, "width": width, "items": ITEMS,
        "cpu_seconds": {name: found.cpu_seconds for name, found in times.items()},
        "ratio": {name: found[len(found) // 2] for name, found in ratios.items()},
        "range": {name: [found[0], found[-1]] for name, found in ratios.items()}, "rounds": rounds, "machine": card(),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", default=CELLS)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rows", type=Path, default=ROWS, help="file of the rows")
    options = parser.parse_args()
    for cell in options.cells:
        for shape in SHAPES:
            row = measured(cell, *shape, options.rounds)
            append_row(options.rows, row)
            print(json.dumps({key: row[key] for key in ("cell", "rows", "events", "width", "ratio")}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
