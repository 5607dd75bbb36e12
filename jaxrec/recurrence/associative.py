"""All steps of an affine cell at once, as a prefix sum over pairs of decay and input."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxrec.cells import AffineCell, Cell, Event
from jaxrec.config import Mistake
from jaxrec.recurrence.checks import is_count, own
from jaxrec.recurrence.states import batched_initial, spread


@dataclass(frozen=True)
class Associative:
    """``h' = a h + b`` over time by `lax.associative_scan`: logarithmic depth, backward as well as forward.

    ``chunk`` events at a time, one chunk after the other: the states and decays of one chunk live at once instead of
    all, which a wide state (Mamba's) needs; None takes the whole sequence. On a CPU the plain scan is faster.
    """

    chunk: int | None = None

    def __post_init__(self) -> None:
        if self.chunk is not None and not is_count(self.chunk):
            raise Mistake(
                f"associative: chunk={self.chunk!r} is not a number of events; give a whole number of at least 1"
            )

    def refuses(self, cell: Cell) -> str | None:
        if not isinstance(cell, AffineCell):
            return "it is not an AffineCell, whose next state is a h + b"
        return own(cell, AffineCell, ("step",), "decay and input")

    def run(self, cell: AffineCell, state: Any, events: Event, reset: Array | None) -> tuple[Any, Any]:
        time = events.x.shape[1]
        if self.chunk is None or time <= self.chunk:
            return at_once(cell, state, (events, reset))
        head, tail = cut(time, self.chunk, (events, reset))
        body = jax.checkpoint(lambda state, piece: at_once(cell, state, piece))
        last, outputs = lax.scan(body, spread(state, (cell, events, reset)), head)
        outputs = jax.tree.map(
            lambda leaf: jnp.swapaxes(leaf, 0, 1).reshape(leaf.shape[1], len(leaf) * leaf.shape[2], *leaf.shape[3:]),
            outputs,
        )
        if tail is None:
            return last, outputs
        last, rest = at_once(cell, last, tail)
        return last, jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1), outputs, rest)


def cut(time: int, size: int, tree: Any) -> tuple[Any, Any]:
    """Leaves ``(b, t, ...)`` as whole chunks ``(chunks, b, size, ...)`` and what is left, None if nothing is."""
    end = time - time % size

    def chunks(leaf: Array) -> Array:
        return jnp.swapaxes(leaf[:, :end].reshape(leaf.shape[0], end // size, size, *leaf.shape[2:]), 0, 1)

    return jax.tree.map(chunks, tree), None if end == time else jax.tree.map(lambda leaf: leaf[:, end:], tree)


def at_once(cell: AffineCell, state: Array, piece: tuple[Event, Array | None]) -> tuple[Array, Any]:
    """Last state and outputs ``(b, t, ...)``, without a loop."""
    events, reset = piece
    batch, time = events.x.shape[:2]
    projected = jax.vmap(jax.vmap(cell.project))(events)
    a, b = jax.vmap(jax.vmap(cell.affine))(projected)
    ones = [1] * (b.ndim - 2)
    before = jnp.where((jnp.arange(time) == 0).reshape(1, time, *ones), state[:, None], 0)  # what no event here gave
    keep = a
    if reset is not None:
        starts = reset.reshape(batch, time, *ones)
        before = jnp.where(starts, batched_initial(cell, batch)[:, None], before)
        keep = jnp.where(starts, 0, a)
    states = solve(keep, b + a * before)
    return states[:, -1] if time else state, jax.vmap(jax.vmap(cell.read))(states, projected)


def solve(a: Array, b: Array) -> Array:
    """``h_t = a_t h_{t-1} + b_t`` from ``h_{-1} = 0``, time second.

    A system of linear equations: its derivative is the same recurrence, and its gradient that recurrence backwards, so
    that only ``a`` and ``h`` are kept, not what the prefix sum passes through.
    """

    def residual(h: Array) -> Array:
        return h - a * shifted(h, 1)

    def forward(_: Any, b: Array) -> Array:
        return prefix(a, b)

    def backward(_: Any, g: Array) -> Array:
        return prefix(shifted(a, -1), g, reverse=True)

    return lax.custom_linear_solve(residual, b, forward, backward)


def prefix(a: Array, b: Array, *, reverse: bool = False) -> Array:
    def joined(early: tuple[Array, Array], late: tuple[Array, Array]) -> tuple[Array, Array]:
        return late[0] * early[0], late[0] * early[1] + late[1]

    return lax.associative_scan(joined, (a, b), axis=1, reverse=reverse)[1]


def shifted(leaf: Array, by: int) -> Array:
    """One step later (1) or earlier (-1) in time, with zeros where nothing comes in."""
    edge = jnp.zeros_like(leaf[:, :1])
    return jnp.concatenate([edge, leaf[:, :-1]] if by == 1 else [leaf[:, 1:], edge], axis=1)
