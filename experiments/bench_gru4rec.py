"""How many events does one CPU core train a second as GRU4Rec does, and how does PyTorch do in the same run?

Claim     As fast as an equal step in PyTorch, up to a third faster, with the drawing of negatives on our side
          and without it on the other. Where layers are wide the matrix products alone allow about twice PyTorch.
Command   taskset -c 0 python experiments/bench_gru4rec.py
          (pip install -c constraints.txt -e '.[bench]' first, for torch)
Time      About six minutes on one core.
Expect    One row a shape in experiments/results/bench_gru4rec.jsonl: events per CPU-second of ours, of the products
          alone, and of torch with drawing and without; median of nine alternations in one process, and the ratios to
          torch with their range.

The step is that of --profile gru4rec: sessions side by side, length 1, one table for both ends, 2,048 samples beside
the batch, bpr-max with elu .5, Adagrad with momentum .2, row-sparse. Popularity falls with the rank over 40,000 items;
a tenth of the events begin a session. The opponent is experiments/torch_gru4rec.py, a re-implementation; what the
official PyTorch code did on another machine is printed beside it (OFFICIAL). One thread each; CPU time is the
process's own; both have an allocator that keeps its pages (which torch gains from, see `keep_memory`).
Products alone are h @ E.T, its two gradients, those of the GRU with inputs and state, and their gradients but for the
state's (it is cut at every event), compiled by the same compiler.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch_gru4rec import TorchGRU4Rec, keep_memory, zipf

from jaxrec.bench.timing import alternate, append_row
from jaxrec.config import resolve
from jaxrec.runs import build
from jaxrec.runs.machine import card
from jaxrec.runs.options import Config
from jaxrec.runs.profiles import profile_file
from jaxrec.training.loop import RECORD, compile_run, informed
from jaxrec.training.source import Source

ROWS = Path(__file__).parent / "results" / "bench_gru4rec.jsonl"
ITEMS, SAMPLES, STEPS = 40_000, 2048, RECORD  # steps of a call: one dispatch
TURN = 1.0  # seconds of calls in a row, so that caches are as warm as in training
SHAPES = [(hidden, batch) for batch in (64, 256) for hidden in (100, 256, 512)]
OFFICIAL = {  # events per CPU-second of the official PyTorch code on another machine
    (100, 64): 9100, (256, 64): 4800, (512, 64): 2300, (100, 256): 10800, (256, 256): 7400, (512, 256): 3500,
}  # fmt: skip
LOSS = f"bpr_max(negatives={SAMPLES}, alpha=0.5, in_batch=true, hits=kept, elu=0.5, reg=1.0)"
RATE, MOMENTUM = 0.05, 0.2


def lanes(batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Item numbers from 1 ``(batch, STEPS + 1)`` of lanes that run side by side, and where a session starts
    ``(STEPS, batch)``.
    """
    rng, counts = np.random.default_rng(0), zipf(ITEMS)
    events = 1 + rng.choice(ITEMS, (batch, STEPS + 1), p=counts / counts.sum())
    return events, rng.random((STEPS, batch)) < 0.1


def ours(hidden: int, batch: int) -> tuple[Callable[[], None], list[float]]:
    """A timing's worth of jaxrec's own training, and where it notes its losses."""
    flags = {
        "data": "synthetic", "model.width": hidden, "batch.size": batch, "loss": LOSS, "optimizer.lr": RATE,
        "optimizer.momentum": MOMENTUM,
    }  # fmt: skip
    config = resolve(Config, flags=flags, profile=profile_file("gru4rec")).section
    step, hyper = build.step(config, 1000)
    offer = build.Offer(ITEMS, 0, gaps=False, starts=False)
    events, starts = lanes(batch)
    where = np.arange(batch * (STEPS + 1), dtype=np.int32).reshape(batch, -1)[:, :-1]
    index, reset = where.T[..., None], starts[..., None]
    counts = np.concatenate([[0], zipf(ITEMS)])
    data = Source(jnp.asarray(events.ravel(), jnp.int32), counts=jnp.asarray(counts, jnp.float32))
    data = informed(step, data, hyper)
    run, losses = compile_run(step), []
    held = [step.init(build.model(config.model, offer, seed=0), hyper, jax.random.key(0), lanes=batch)]
    bounds = np.array([0, STEPS], np.int32)

    def go() -> None:
        held[0], metrics = run(held[0], data, index, reset, bounds, hyper)
        losses.append(float(metrics.loss.sum()) / (STEPS * batch))
        jax.block_until_ready(held[0])

    return go, losses


def torchs(hidden: int, batch: int, draw: bool) -> tuple[Callable[[], None], list[float]]:
    """The same steps in PyTorch."""
    model = TorchGRU4Rec(
        ITEMS, hidden, batch, zipf(ITEMS), samples=SAMPLES, lr=RATE, momentum=MOMENTUM, draw=draw, cached=STEPS
    )
    events, starts = lanes(batch)
    items, resets = torch.from_numpy(events.T - 1).contiguous(), torch.from_numpy(starts)
    losses: list[float] = []

    def go() -> None:
        total = [model.step(items[n], items[n + 1], resets[n]) for n in range(STEPS)]
        losses.append(float(torch.stack(total).mean()))

    return go, losses


def products(hidden: int, batch: int) -> Callable[[], Any]:
    """The matrix products of the same steps and nothing else: what the core allows."""

    def alone(left: jax.Array, right: jax.Array) -> jax.Array:
        return jax.lax.optimization_barrier(left @ right)

    def step(given: tuple[jax.Array, ...], _: None) -> tuple[tuple[jax.Array, ...], None]:
        x, table, gates, recurrent = given
        projected, states = alone(x, gates), alone(x, recurrent)
        scores = alone(x, table.T)
        d_table, d_hidden = alone(scores.T, x), alone(scores, table)
        d_gates, d_x, d_recurrent = alone(x.T, projected), alone(projected, gates.T), alone(x.T, states)
        # so little of each that the next step is not this one again, and none can be left out
        near = 1e-9 * (d_hidden[0, 0] + d_x[0, 0]), 1e-9 * d_table[0, 0], 1e-9 * d_gates[0, 0], 1e-9 * d_recurrent[0, 0]
        return tuple(a.at[0, 0].add(b) for a, b in zip(given, near, strict=True)), None

    @jax.jit
    def run(given: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        return jax.lax.scan(step, given, None, length=STEPS)[0]

    shapes = (batch, hidden), (batch + SAMPLES, hidden), (hidden, 3 * hidden), (hidden, 3 * hidden)
    given = tuple(0.01 * jax.random.normal(jax.random.key(n), shape) for n, shape in enumerate(shapes))
    return lambda: run(given)


def ratio(peer: tuple[float, ...], mine: tuple[float, ...]) -> dict[str, float]:
    """How much more CPU time the peer takes: the median over rounds of the ratio within a round, and its range."""
    found = np.array(peer) / np.array(mine)
    return {"ratio": float(np.median(found)), "ratio_low": float(found.min()), "ratio_high": float(found.max())}


def measure(hidden: int, batch: int, rounds: int) -> dict[str, Any]:
    """One row."""
    mine, our_losses = ours(hidden, batch)
    drawing, torch_losses = torchs(hidden, batch, draw=True)
    peers = {
        "jaxrec": mine, "products": products(hidden, batch), "torch": drawing,
        "torch, nothing drawn": torchs(hidden, batch, draw=False)[0],
    }  # fmt: skip
    times = {name: one.cpu for name, one in alternate(peers, rounds=rounds, least=TURN).items()}
    events = STEPS * batch
    speed = {
        name: {"median": events / float(np.median(cpu)), "low": events / max(cpu), "high": events / min(cpu)}
        for name, cpu in times.items()
    }
    return {
        "hidden": hidden, "batch": batch, "items": ITEMS, "samples": SAMPLES, "steps": STEPS, "rounds": rounds,
        "events_per_cpu_second": speed, "over": {
            name: ratio(times[name], times["jaxrec"]) for name in peers if name != "jaxrec"
        },
        "official": OFFICIAL.get((hidden, batch)), "first_losses": {"jaxrec": our_losses[0], "torch": torch_losses[0]},
        "cpu_seconds": {name: list(cpu) for name, cpu in times.items()}, "machine": card(),
    }  # fmt: skip


def shown(row: dict[str, Any]) -> str:
    speed = {name: round(one["median"]) for name, one in row["events_per_cpu_second"].items()}
    ratios = "; ".join(
        f"{one['ratio']:.2f} ({one['ratio_low']:.2f} to {one['ratio_high']:.2f}) times {name}"
        for name, one in row["over"].items()
    )
    official = row["official"]
    beside = f"official code, another machine {official} ({official / speed['torch']:.2f} of torch)" if official else ""
    return f"hidden {row['hidden']}, batch {row['batch']}: {speed}; {ratios}; {beside}; losses {row['first_losses']}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=[f"{h}x{b}" for h, b in SHAPES], help="HIDDENxBATCH, as 100x64")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rows", type=Path, default=ROWS, help="file to append to")
    options = parser.parse_args()
    torch.set_num_threads(1)
    kept = keep_memory()
    for shape in options.shapes:
        hidden, batch = map(int, shape.split("x"))
        row = measure(hidden, batch, options.rounds) | {"keeps_memory": kept}
        append_row(options.rows, row)
        print(shown(row), flush=True)


if __name__ == "__main__":
    sys.exit(main())
