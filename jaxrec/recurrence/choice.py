"""Which backend runs a cell when nobody says: a table of measured crossovers.

A row holds from ``length`` events on, on its platform, for cells of its kind. Of the rows that hold, the nearest kind
comes first, then the greatest length; a backend that refuses the cell is passed over. Where no row holds, on a platform
that nobody has measured too, `scan` runs, the definition. Rows come from experiments/bench_recurrence.py.
"""

from dataclasses import dataclass
from typing import Any

import jax

from jaxrec.cells import RWKV7, AffineCell, Cell, Composite, MatrixCell, WindowCell


@dataclass(frozen=True)
class Crossover:
    """From so many events on, this backend, and why."""

    kind: type[Any]
    platform: str | None  # None: any
    length: int
    backend: str
    why: str

    def holds(self, cell: Cell, platform: str, length: int | None) -> bool:
        return isinstance(cell, self.kind) and self.platform in (platform, None) and (length or 0) >= self.length

    def order(self, cell: Cell) -> tuple[int, int]:
        return type(cell).__mro__.index(self.kind), -self.length


LONG = 32  # events from which an accelerator runs an affine cell as a prefix sum; not yet measured
TABLE: tuple[Crossover, ...] = (
    Crossover(WindowCell, None, 0, "window", "a convolution needs no loop"),
    Crossover(Composite, None, 0, "composite", "each inner cell takes the backend that suits it"),
    # CPU seconds of a training pass, scan / chunkwise, batch 16, 2 heads of 32: MLSTM 2.6 at 50
    # events, 3.2 at 200; GatedDeltaNet in chunks of 16 2.1 at 50
    Crossover(MatrixCell, None, 0, "chunkwise", "products of a chunk, and no matrix kept per event"),
    Crossover(RWKV7, "cpu", 0, "scan", "decays per key dimension: chunks took 1.7 times as long at 50 events"),
    Crossover(AffineCell, "gpu", LONG, "associative", "a prefix sum has no loop over time (not measured)"),
    Crossover(AffineCell, "tpu", LONG, "associative", "a prefix sum has no loop over time (not measured)"),
)


def preferred(cell: Cell, length: int | None = None, platform: str | None = None) -> list[Crossover]:
    """The rows that hold for a cell and so many events (None: not known, so few), the best first."""
    platform = jax.default_backend() if platform is None else platform
    rows = [row for row in TABLE if row.holds(cell, platform, length)]
    return sorted(rows, key=lambda row: row.order(cell))


def explained(cell: Cell, backends: dict[str, Any]) -> list[dict[str, Any]]:
    """Of every backend: whether it takes the cell, and from how many events on it is chosen here and why."""
    platform = jax.default_backend()
    lengths = sorted({1, *(row.length for row in TABLE if row.holds(cell, platform, row.length) and row.length)})
    chosen: dict[str, list[tuple[int, str]]] = {}
    for length in lengths:
        name, why = winner(cell, backends, length)
        chosen.setdefault(name, []).append((length, why))
    return [
        {
            "name": name,
            "refuses": made().refuses(cell),
            "chosen_from": [length for length, _ in chosen.get(name, [])],
            "why": "; ".join(dict.fromkeys(why for _, why in chosen.get(name, []))),
        }
        for name, made in backends.items()
    ]


def winner(cell: Cell, backends: dict[str, Any], length: int | None) -> tuple[str, str]:
    """The backend that runs a cell when none is demanded, and why."""
    for row in preferred(cell, length):
        if row.backend in backends and backends[row.backend]().refuses(cell) is None:
            return row.backend, row.why
    return "scan", f"nothing is measured to be faster on {jax.default_backend()}"
