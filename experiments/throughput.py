"""How many real target events does one CPU core train a second, and how does an equal PyTorch model do in the same run?

Claim     Faster than an equal PyTorch model, and close to what the matrix products alone allow. Aims: >= 40,000 events
          per CPU-second for one GRU layer of 128 with the full softmax over 1,682 items, >= 15,000 for two residual
          blocks with feed-forward. Not reached on the core of the rows, where the products alone, with nothing between
          them, allow little more than that. Rows of 50, float32, dropout .2, clipped AdamW, all included.
Command   taskset -c 0 python experiments/throughput.py --data ../shared/data/ml-100k/ml-100k.inter.gz
          (pip install -c constraints.txt -e '.[bench]' first, for torch)
Time      About five minutes on one core.
Expect    One row a model in experiments/results/throughput.jsonl: events per CPU-second of both and of the products
          alone, median of nine alternations in one process, and the median ratio to PyTorch with its range.

Both sides train the same packed rows of the same data: torch gets them without resets (its GRU has none), which only
saves it work. Events are real targets, padding is not counted. One thread each; CPU time is the process's own.
Products alone are the forward and backward matrix products of the model at their own shapes, by the same compiler: the
gates, the recurrence one step after the other, the feed-forward and the softmax (whose scores are computed once).
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import nn

from jaxrec.bench.timing import alternate, append_row
from jaxrec.config import resolve
from jaxrec.data.batches import packed
from jaxrec.data.prepare import prepare
from jaxrec.data.prepared import Prepared
from jaxrec.losses.fused import block_sizes
from jaxrec.runs import build
from jaxrec.runs.machine import card
from jaxrec.runs.options import Config
from jaxrec.training import source
from jaxrec.training.loop import compile_run

ROWS = Path(__file__).parent / "results" / "throughput.jsonl"
STEPS = 8  # of a timing
SHAPES: dict[str, dict[str, Any]] = {
    "gru": {"model.depth": 1, "model.feedforward": 0, "model.norm": False, "model.residual": False},
    "two blocks": {"model.depth": 2, "model.feedforward": 4},
}


class TorchBlock(nn.Module):
    """The block of `jaxrec.models.network.Block`."""

    def __init__(self, config: Config):
        super().__init__()
        width, multiple = config.model.width, config.model.feedforward
        self.plain = not config.model.norm
        self.norm = nn.Identity() if self.plain else nn.LayerNorm(width)
        self.cell = nn.GRU(width, width, batch_first=True)
        self.drop = nn.Dropout(config.model.dropout)
        self.feedforward = None
        if multiple:
            up, down = nn.Linear(width, multiple * width), nn.Linear(multiple * width, width)
            self.feedforward = nn.Sequential(nn.LayerNorm(width), up, nn.GELU(), down)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.drop(self.cell(self.norm(x))[0])
        if self.plain:
            return y
        x = x + y
        return x if self.feedforward is None else x + self.drop(self.feedforward(x))


class TorchModel(nn.Module):
    """Embedding, blocks, norm, tied softmax with bias."""

    def __init__(self, config: Config, items: int):
        super().__init__()
        self.table = nn.Embedding(items + 1, config.model.width, padding_idx=0)
        self.drop = nn.Dropout(config.model.dropout)
        self.blocks = nn.Sequential(*[TorchBlock(config) for _ in range(config.model.depth)])
        self.norm = nn.LayerNorm(config.model.width) if config.model.norm else nn.Identity()
        self.bias = nn.Parameter(torch.zeros(items + 1))

    def loss(self, item: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        hidden = self.norm(self.blocks(self.drop(self.table(item))))[target > 0]
        scores = hidden @ self.table.weight.T + self.bias
        return nn.functional.cross_entropy(scores, target[target > 0])


def ours(config: Config, prepared: Prepared, index: np.ndarray, reset: np.ndarray) -> Callable[[], None]:
    """A timing's worth of jaxrec's own training."""
    step, hyper = build.step(config, 1000)
    data = source.load(prepared, user=False)
    run = compile_run(step)
    held = [step.init(build.model(config.model, build.offered(prepared), seed=0), hyper, jax.random.key(0))]
    bounds = np.array([0, STEPS], np.int32)

    def go() -> None:
        held[0], metrics = run(held[0], data, index, reset, bounds, hyper)
        jax.block_until_ready((held[0], metrics))

    return go


def torchs(config: Config, items: int, index: np.ndarray, events: np.ndarray) -> Callable[[], None]:
    """The same steps in PyTorch."""
    torch.set_num_threads(1)
    model = TorchModel(config, items)
    rule = torch.optim.AdamW(model.parameters(), lr=config.optimizer.lr, weight_decay=0.0)
    mask = index >= 0
    item = torch.from_numpy(np.where(mask, events[index], 0).astype(np.int64))
    target = torch.from_numpy(np.where(mask, events[np.maximum(index, 0) + 1], 0).astype(np.int64))

    def go() -> None:
        for number in range(STEPS):
            rule.zero_grad()
            model.loss(item[number], target[number]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.clip)
            rule.step()

    return go


def alone(left: jax.Array, right: jax.Array) -> jax.Array:
    """A product that the compiler can neither drop nor merge with another."""
    return jax.lax.optimization_barrier(left @ right)


def trained(x: jax.Array, weights: jax.Array) -> list[jax.Array]:
    """The product of a layer and the two of its backward pass."""
    y = alone(x, weights)
    return [y, alone(x.T, y), alone(y, weights.T)]


def recurrence(x: jax.Array, weights: jax.Array, rows: int) -> list[jax.Array]:
    """Forward and backward one step after the other, the gradient of the weights in one product afterwards."""

    def step(state: jax.Array, _: None) -> tuple[jax.Array, None]:
        return alone(alone(state, weights), weights.T), None

    last, _ = jax.lax.scan(step, x[:rows], None, length=len(x) // rows)
    return [last, alone(x.T, jnp.tile(x, (1, 3)))]


def products(config: Config, items: int) -> Callable[[], Any]:
    """The matrix products of the same steps and nothing else: what the core allows."""
    size, length, width = config.batch.size, config.batch.length, config.model.width
    blocks = block_sizes(size * length, items + 1)
    turns = -(-size * length // blocks.positions)

    @jax.jit
    def step(x: jax.Array, gates: jax.Array, up: jax.Array, table: jax.Array) -> list[jax.Array]:
        done = []
        for _ in range(config.model.depth):
            done += [*trained(x, gates), *recurrence(x, gates, size)]
            if config.model.feedforward:
                wider = trained(x, up)
                done += [*wider, *trained(wider[0], up.T)]
            x = x + done[2]  # so that the next block is not this one again
        softmax = jax.lax.scan(
            lambda total, h: (total + sum(part[0, 0] for part in trained(h, table)), None),
            jnp.zeros(()),
            jnp.resize(x, (turns, blocks.positions, width)),
        )
        return [part[0, 0] for part in done] + [softmax[0]]

    multiple = max(1, config.model.feedforward)
    shapes = (size * length, width), (width, 3 * width), (width, multiple * width), (width, items + 1)
    given = [jax.random.normal(jax.random.key(0), shape) * shape[1] ** -0.5 for shape in shapes]
    return lambda: [step(*given) for _ in range(STEPS)]


def cpu_ratio(peer: tuple[float, ...], mine: tuple[float, ...]) -> dict[str, float]:
    """How much more CPU time the peer takes: the median over rounds of the ratio within a round, and its range."""
    ratios = np.array(peer) / np.array(mine)
    return {"ratio": float(np.median(ratios)), "ratio_low": float(ratios.min()), "ratio_high": float(ratios.max())}


def measure(name: str, data: str, rounds: int) -> dict[str, Any]:
    """One row."""
    flags = {"data": data, "model.width": 128, "batch.length": 50, "batch.size": 128} | SHAPES[name]
    config = resolve(Config, flags=flags).section
    prepared = prepare(config, lambda sentence: None)
    plan = packed(prepared, config.batch.length, seed=0, epoch=0)
    index = plan.index[: STEPS * config.batch.size].reshape(STEPS, config.batch.size, -1)
    reset = plan.reset[: STEPS * config.batch.size].reshape(index.shape)
    items = prepared.candidates
    real = int((index >= 0).sum())
    peers = {
        "jaxrec": ours(config, prepared, index, reset),
        "products": products(config, items),
        "torch": torchs(config, items, index, np.array(prepared.items)),
    }
    times = alternate(peers, rounds=rounds)
    speed = {peer: real / times[peer].cpu_seconds for peer in peers}
    return {
        "model": name, "events_per_cpu_second": speed, **cpu_ratio(times["torch"].cpu, times["jaxrec"].cpu),
        "rounds": rounds, "events": real, "steps": STEPS, "items": items, "flags": flags | {"data": Path(data).name},
        "cpu_seconds": {peer: list(times[peer].cpu) for peer in peers}, "machine": card(),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/ml-100k/ml-100k.inter.gz")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    for name in SHAPES:
        row = measure(name, options.data, options.rounds)
        append_row(ROWS, row)
        print(
            name,
            {peer: round(speed) for peer, speed in row["events_per_cpu_second"].items()},
            f"{row['ratio']:.2f} times torch",
        )


if __name__ == "__main__":
    sys.exit(main())
