"""Which backend runs a cell when nobody says: a table of measured crossovers.

A row holds from ``length`` events on, on its platform, for cells of its kind. Of the rows that hold the nearest kind
comes first, then the greatest length; a backend that refuses the cell is passed over. Where no row holds, as on a
platform that nobody has measured, `scan` runs: the definition.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
from flax import nnx

from jaxrec.cells import GRU, LSTM, RWKV7, AffineCell, Cell, Composite, MatrixCell, WindowCell, find
from jaxrec.config import Call


@dataclass(frozen=True)
class Crossover:
    """From so many events on this backend, and why."""

    kind: type[Any]
    platform: str | None  # None: every one
    length: int
    backend: str
    why: str


LONG = 32  # events from which an accelerator runs an affine cell as a prefix sum; not yet measured
TABLE: tuple[Crossover, ...] = (
    Crossover(WindowCell, None, 0, "window", "a convolution needs no loop"),
    Crossover(Composite, "gpu", 0, "composite", "each inner cell takes the backend that suits it (not measured)"),
    Crossover(Composite, "tpu", 0, "composite", "each inner cell takes the backend that suits it (not measured)"),
    # CPU seconds of a training pass, scan / chunkwise, batch 16, 2 heads of 32: MLSTM 2.6 at 50
    # events, 3.2 at 200; GatedDeltaNet in chunks of 16 2.1 at 50
    Crossover(MatrixCell, None, 0, "chunkwise", "products of a chunk, and no matrix kept per event"),
    Crossover(RWKV7, "cpu", 0, "scan", "decays per key dimension: chunks took 1.7 times as long at 50 events"),
    Crossover(AffineCell, "gpu", LONG, "associative", "a prefix sum has no loop over time (not measured)"),
    Crossover(AffineCell, "tpu", LONG, "associative", "a prefix sum has no loop over time (not measured)"),
    # training passes of experiments/bench_recurrence.py, whose shortest have 50 events: ahead there too, by 8 to 13 %
    Crossover(GRU, "cpu", 100, "adjoint", "trains in .76 to .87 of the CPU time of scan, at four shapes"),
    Crossover(LSTM, "cpu", 100, "adjoint", "trains in .71 to .93 of the CPU time of scan, at four shapes"),
)


def winner(cell: Cell, backends: Mapping[str, type[Any]], length: int | None = None) -> tuple[str, str]:
    """The backend for a cell and so many events (None: not known, so few) when none is demanded, and why."""
    platform = jax.default_backend()
    rows = [
        row
        for row in TABLE
        if isinstance(cell, row.kind) and row.platform in (platform, None) and row.length <= max(1, length or 1)
    ]
    for row in sorted(rows, key=lambda row: (type(cell).__mro__.index(row.kind), -row.length)):
        if row.backend in backends and backends[row.backend]().refuses(cell) is None:
            return row.backend, row.why
    return "scan", f"nothing else is known to be faster on {platform}"


def explain(call: Call) -> dict[str, Any]:
    """Of every backend: why it refuses the cell that ``call`` names, or None; for how many events it is chosen here.

    ``chosen`` holds spans ``(first, last)`` of the number of events, the last one open (None).
    """
    from jaxrec.recurrence.backends import BACKENDS

    cell = find(call, 8, hidden=8, rngs=nnx.Rngs(0))
    platform = jax.default_backend()
    starts = sorted({max(1, row.length) for row in TABLE if row.platform in (platform, None)} | {1})
    spans: dict[str, list[list[int | None]]] = {name: [] for name in BACKENDS}
    reasons: dict[str, list[str]] = {name: [] for name in BACKENDS}
    before = None
    for first, following in zip(starts, [*starts[1:], None], strict=True):
        name, why = winner(cell, BACKENDS, first)
        last = None if following is None else following - 1
        if name == before:
            spans[name][-1][1] = last
        else:
            spans[name].append([first, last])
        reasons[name] += [why] if why not in reasons[name] else []
        before = name
    found = [
        {"name": name, "refuses": kind().refuses(cell), "chosen": spans[name], "why": "; ".join(reasons[name])}
        for name, kind in BACKENDS.items()
    ]
    return {"platform": platform, "backends": found}
