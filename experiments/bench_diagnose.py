"""What does looking at gradient flow cost in use: while a model trains, and for a stranger's own cell?

Claim     After the first look, which also compiles, all that `jaxrec train --diagnose` looks at takes at most a
          twentieth of the training's time. One command makes the whole page of a cell of one's own in less than five
          minutes on two CPU cores.
Command   python experiments/bench_diagnose.py                        parts of it: --only page, --only training
Time      A quarter of an hour on two cores.
Expect    Rows in experiments/results/bench_diagnose.jsonl: `training` has the seconds of a training on the demo shop,
          those of its looks, and their share; `page` the command, its wall and CPU seconds and the bytes it wrote.
"""

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from jaxrec.bench.timing import append_row
from jaxrec.config import resolve
from jaxrec.runs.machine import card
from jaxrec.runs.options import Config
from jaxrec.runs.run import train
from jaxrec.runs.sampling import FILE

ROWS = Path(__file__).parent / "results" / "bench_diagnose.jsonl"
CELLS = ("gru", "lru", "mlstm")
SETTINGS: dict[str, Any] = {"model.width": 64, "epochs": 20, "stop.patience": 0, "diagnose": True}
LENGTHS = "20,50,200,1000"
MINE = """
import jax
import jax.numpy as jnp
from jaxrec.cells import Cell, orthogonal, weight

class Mine(Cell):
    def __init__(self, features: int, hidden: int, *, rngs):
        self.w, self.wz = weight(rngs, features, hidden), weight(rngs, features, hidden)
        self.u, self.hidden = orthogonal(rngs, hidden), hidden

    def initial_state(self):
        return jnp.zeros(self.hidden)

    def step(self, h, x):
        z = jax.nn.sigmoid(x @ self.wz)
        return z * h + (1 - z) * jnp.tanh(x @ self.w + h @ self.u)
"""


def training(cell: str) -> dict[str, Any]:
    """A training that looks at itself as often as it does unless told."""
    with tempfile.TemporaryDirectory() as folder:
        flags = SETTINGS | {"model.cell": cell, "run": folder}
        result = train(resolve(Config, flags=flags).section, say=lambda sentence: None)
        lines = (Path(folder) / FILE).read_text(encoding="utf-8").splitlines()
    looks = [json.loads(line)["seconds"] for line in lines]
    return {
        "kind": "training", "cell": cell, "data": "demo", "width": SETTINGS["model.width"], "epochs": result["epochs"],
        "steps": result["steps"], "seconds": result["seconds"]["train"], "looks": len(looks),
        "first_look_seconds": looks[0], "later_looks_seconds": sum(looks[1:]),
        "share": sum(looks[1:]) / result["seconds"]["train"], "machine": card(),
    }  # fmt: skip


def page() -> dict[str, Any]:
    """The page of a cell in a file, with nothing compiled or prepared before."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "my_cell.py").write_text(MINE, encoding="utf-8")
        words = ["diagnose", "--model.cell", "my_cell.py:Mine", "--lengths", LENGTHS, "--out", "atlas"]
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        empty = os.environ | {"JAXREC_CACHE": f"{folder}/cache"}
        subprocess.run([sys.executable, "-m", "jaxrec", *words], check=True, cwd=folder, env=empty, capture_output=True)
        seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        written = {file.name: file.stat().st_size for file in (Path(folder) / "atlas").iterdir() if file.is_file()}
    return {
        "kind": "page", "command": f"jaxrec {' '.join(words)}", "seconds": seconds,
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, "bytes": written,
        "machine": card(),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("page", "training"))
    parser.add_argument("--rows", type=Path, default=ROWS, help="file of the rows")
    options = parser.parse_args()
    wanted: dict[str, list[Callable[[], dict[str, Any]]]] = {
        "page": [page], "training": [partial(training, cell) for cell in CELLS],
    }  # fmt: skip
    for one in itertools.chain(*(found for kind, found in wanted.items() if options.only in (kind, None))):
        row = one()
        append_row(options.rows, row)
        print(json.dumps({key: value for key, value in row.items() if key != "machine"}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
