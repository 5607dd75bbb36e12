"""What does a training step cost as the catalogue grows from ten thousand items to ten million?

Claim     With sampled negatives and row-sparse updates a step costs about the same whatever the catalogue's size, in
          time (rows of a large table come from memory, not from a cache: a tenth to a quarter more) and, but for the
          table and its optimiser's state themselves, in memory. With the exact softmax, or with a dense update, it
          costs in proportion. Drawing needs a few passes over the counts, once a run: that is apart.
Command   taskset -c 0 python experiments/bench_catalogue.py && python scripts/catalogue_page.py --picture
Time      About sixteen minutes on one core, half of it for the exact softmax; 11 GB of memory.
Expect    One row a way and size in experiments/results/bench_catalogue.jsonl, each from a process of its own: CPU
          milliseconds of a step and of a dispatch without a step, median of alternations with the same way at 10,000
          items and the ratio to that with its range; memory as XLA counts it and as the system does. A step that would
          take more than a minute is not run and its row says so.

GRU of 64 behind vectors of 64, 16 rows of 32 events, 1,024 negatives shared by all positions, drawn by the square root
of counts; popularity falls with the rank. The state is donated and stays where it is. One thread; CPU time is the
process's own. `update` is only the reading of such a step's rows and their row-sparse update with Adagrad.
"""

import argparse
import functools
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec.bench.timing import alternate, append_row
from jaxrec.config import resolve
from jaxrec.models.recommender import Recommender
from jaxrec.models.tables import gather
from jaxrec.runs import build
from jaxrec.runs.machine import card
from jaxrec.runs.options import Config
from jaxrec.training.lazy import LazyUpdate
from jaxrec.training.loop import RECORD, compile_run, informed
from jaxrec.training.optimisers import Optimiser
from jaxrec.training.source import Source
from jaxrec.training.step import State

ROWS = Path(__file__).parent / "results" / "bench_catalogue.jsonl"
WIDTH, BATCH, LENGTH, NEGATIVES = 64, 16, 32, 1024
SMALL = 10_000
SIZES = (SMALL, 100_000, 1_000_000, 10_000_000)
LONGEST = 60.0  # seconds of a step
FILL, LIMIT = 0.5, 20.0  # seconds of the steps in a round, and of all rounds
SAMPLED = {"loss": f"sampled_softmax(negatives={NEGATIVES}, alpha=0.5)"}
WAYS: dict[str, dict[str, Any]] = {
    "sampled, lazy Adagrad": {**SAMPLED, "optimizer.name": "adagrad", "optimizer.lazy": True},
    "sampled, lazy Adam": {**SAMPLED, "optimizer.name": "adam", "optimizer.lazy": True},
    "sampled, dense Adagrad": {**SAMPLED, "optimizer.name": "adagrad"},
    "exact, dense Adagrad": {"loss": "softmax", "optimizer.name": "adagrad"},
    "update": {"optimizer.name": "adagrad", "optimizer.lazy": True},
}
Run = Callable[[int], Any]
CACHE = "JAX_COMPILATION_CACHE_DIR"


def popularity(items: int) -> np.ndarray:
    """Counts that fall with the rank, at least one."""
    return np.maximum(1, np.round(items / np.arange(1, items + 1)))


def some(rng: np.random.Generator, chances: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Item numbers from 1, in proportion to ``chances``."""
    edges = np.cumsum(chances)
    return 1 + np.searchsorted(edges, rng.random(shape) * edges[-1], side="right").clip(0, len(chances) - 1)


def events(items: int, steps: int) -> tuple[Source, np.ndarray, np.ndarray]:
    """Drawn events with their counts, and the plan of so many steps that read each of them once."""
    counts = popularity(items)
    index = np.arange(steps * BATCH * LENGTH, dtype=np.int32).reshape(steps, BATCH, LENGTH)
    reset = np.zeros(index.shape, bool)
    reset[:, :, 0] = True
    drawn = some(np.random.default_rng(0), counts, (index.size + 1,))
    known = jnp.asarray(np.concatenate([[0], counts]), jnp.float32)
    return Source(jnp.asarray(drawn, jnp.int32), counts=known), index, reset


def training(flags: dict[str, Any], items: int, width: int = WIDTH) -> tuple[Run, dict[str, int]]:
    """What runs a dispatch of so many steps, and what XLA says of the program; the state is made when it first runs."""
    shape = {"data": "synthetic", "model.width": width, "batch.size": BATCH, "batch.length": LENGTH}
    config = resolve(Config, flags=shape | flags).section
    step, hyper = build.step(config, 1000)
    offer = build.Offer(items, 0, gaps=False, starts=False)
    source, index, reset = events(items, RECORD)
    rest = informed(step, source, hyper), index, reset

    def drawn() -> Recommender:
        return build.model(config.model, offer, seed=0)

    def begun(model: Recommender) -> State:
        return step.init(model, hyper, jax.random.key(0))

    begin = jax.eval_shape(begun, jax.eval_shape(drawn))
    program = compile_run(step).lower(begin, *rest, np.zeros(2, np.int32), hyper).compile()
    held: list[State] = []

    def run(steps: int) -> Any:
        if not held:
            held.append(begun(jax.jit(drawn)()))  # no copy of the table on the way, and no moments yet
        held[0], metrics = program(held[0], *rest, np.array([0, steps], np.int32), hyper)
        return jax.block_until_ready((metrics, held[0].step))

    return run, counted(program, items, width)


def update(items: int) -> tuple[Run, dict[str, int]]:
    """Only reading the rows of a step (its inputs, its targets and the negatives) and their row-sparse update."""
    rule, hyper, lazy = Optimiser(name="adagrad"), {"lr": jnp.float32(3e-3)}, LazyUpdate()
    counts, rng = popularity(items), np.random.default_rng(0)
    read = [some(rng, counts, (RECORD, 2 * BATCH * LENGTH)), some(rng, counts**0.5, (RECORD, NEGATIVES))]
    numbers = np.concatenate(read, axis=1).astype(np.int32)
    grads = {"item": jnp.ones((numbers.shape[1], WIDTH)), "bias": jnp.ones(numbers.shape[1])}

    def dispatch(held: Any, numbers: jax.Array, steps: jax.Array) -> Any:
        def one(number: jax.Array, held: Any) -> Any:
            rows = gather(held[0], dict.fromkeys(held[0], numbers[number]))
            return lazy(*held, rows, grads, rule.transform(hyper, 0), jnp.ones((), bool))

        return jax.lax.fori_loop(0, steps, one, held)

    def fresh() -> Any:
        tables = {"item": jnp.full((items + 1, WIDTH), 0.1), "bias": jnp.zeros(items + 1)}
        return tables, lazy.init(tables, rule, hyper)

    program = jax.jit(dispatch, donate_argnums=0).lower(jax.eval_shape(fresh), numbers, np.int32(1)).compile()
    held = [jax.jit(fresh)()]

    def run(steps: int) -> Any:
        held[0] = program(held[0], numbers, np.int32(steps))
        return jax.block_until_ready(held[0])[0]["bias"][0]

    return run, counted(program, items, WIDTH)


def counted(program: Any, items: int, width: int) -> dict[str, int]:
    """What a program holds by XLA's count, and how often it copies something as large as the table."""
    found = program.memory_analysis()
    copied = re.findall(rf"= f32\[{items + 1},{width}\]\S* copy\(", program.as_text())
    return {
        "arguments": found.argument_size_in_bytes, "aliased": found.alias_size_in_bytes,
        "temporary": found.temp_size_in_bytes, "table_copies": len(copied),
    }  # fmt: skip


def resident() -> int | None:
    """The most memory that was resident since the last `forget`, in bytes; None where the system does not say."""
    try:
        found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    except OSError:
        return None
    return None if found is None else 1024 * int(found[1])


def forget() -> None:
    """Begin to count the most memory that is resident anew."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def measure(way: str, items: int, rounds: int) -> dict[str, Any]:
    """One row."""
    make = update if way == "update" else functools.partial(training, WAYS[way])
    found = timed(make, items, rounds)
    return {"way": way, "items": items, "flags": WAYS[way], "table_bytes": 4 * (items + 1) * WIDTH} | found


def timed(make: Callable[[int], tuple[Run, dict[str, int]]], items: int, rounds: int) -> dict[str, Any]:
    """A step's time is that of a dispatch without the time of one that makes no step."""
    run, memory = make(items)
    small = run if items == SMALL else make(SMALL)[0]
    run(1)
    forget()
    first = {name: one.cpu_seconds for name, one in alternate({0: lambda: run(0), 1: lambda: run(1)}, 1, 0, 0).items()}
    steps = max(1, min(RECORD, round(FILL / max(first[1] - first[0], 1e-6))))
    rounds = max(3, min(rounds, round(LIMIT / (first[0] + steps * (first[1] - first[0])))))
    times = alternate(
        {
            "steps": lambda: run(steps), "none": lambda: run(0),
            "small steps": lambda: small(RECORD), "small none": lambda: small(0),
        },
        rounds=rounds, least=0,
    )  # fmt: skip
    cpu = {name: np.array(one.cpu) for name, one in times.items()}
    step = (cpu["steps"] - cpu["none"]) / steps
    ratio = step / ((cpu["small steps"] - cpu["small none"]) / RECORD)
    return {
        "rounds": rounds, "steps": steps,
        "step_ms": spread(1e3 * step), "dispatch_ms": spread(1e3 * cpu["none"]), "over_small": spread(ratio),
        "memory_bytes": memory, "resident_bytes": resident(),
        "cpu_seconds": {name: list(one) for name, one in cpu.items()}, "machine": card(),
    }  # fmt: skip


def spread(values: np.ndarray) -> dict[str, float]:
    return {"median": float(np.median(values)), "low": float(values.min()), "high": float(values.max())}


def apart(way: str, items: int, rounds: int, cache: str) -> dict[str, Any]:
    """The row of a process of its own, whose memory is nobody else's; programs compiled once lie in ``cache``."""
    words = [sys.executable, __file__, "--ways", way, "--sizes", str(items), "--rounds", str(rounds), "--here"]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False, env=os.environ | {CACHE: cache})
    if done.returncode:
        return {"way": way, "items": items, "skipped": f"the process ended with {done.returncode}", "machine": card()}
    return json.loads(done.stdout.splitlines()[-1])


def shown(row: dict[str, Any]) -> str:
    if "skipped" in row:
        return f"{row['way']}, {row['items']:,} items: {row['skipped']}"
    step, memory, over = row["step_ms"], row["memory_bytes"], row["over_small"]
    gigabytes = {name: round(memory[name] / 1e9, 3) for name in ("arguments", "temporary")}
    gigabytes["resident"] = row["resident_bytes"] and round(row["resident_bytes"] / 1e9, 3)
    return (
        f"{row['way']}, {row['items']:,} items: {step['median']:.2f} ms a step ({step['low']:.2f} to "
        f"{step['high']:.2f}), {over['median']:.2f} ({over['low']:.2f} to {over['high']:.2f}) times {SMALL:,} items; "
        f"{row['dispatch_ms']['median']:.2f} ms a dispatch; GB {gigabytes}; table copies {memory['table_copies']}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), help="items")
    parser.add_argument("--rounds", type=int, default=9, help="at most; fewer where they take long")
    parser.add_argument("--rows", type=Path, default=ROWS, help="file to append to")
    parser.add_argument("--here", action="store_true", help="print the row and write none: of a process of its own")
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure(options.ways[0], options.sizes[0], options.rounds)))
        return
    with tempfile.TemporaryDirectory() as cache:
        for way in options.ways:
            known = 0.0  # seconds of a step for each item, at the size before
            for items in sorted(options.sizes):
                row: dict[str, Any] = {"way": way, "items": items, "machine": card()}
                if (seconds := known * items) > LONGEST:
                    row["skipped"] = f"a step would take {seconds:.0f} s by the size before, more than {LONGEST:.0f}"
                else:
                    row = apart(way, items, options.rounds, cache)
                    known = row["step_ms"]["median"] / 1e3 / items if "step_ms" in row and items > SMALL else 0.0
                append_row(options.rows, row)
                print(shown(row), flush=True)


if __name__ == "__main__":
    sys.exit(main())
