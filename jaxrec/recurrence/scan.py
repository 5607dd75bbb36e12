"""One step after the other: the definition of what every other backend must compute."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxrec.cells import Cell, Event
from jaxrec.config import Mistake
from jaxrec.recurrence.checks import is_count
from jaxrec.recurrence.states import batched_initial, restart, spread, time_major

Loop = Callable[[Any, Any], tuple[Any, Any]]  # from a state and entries (t, ...): last state, outputs (t, ...)


@dataclass(frozen=True)
class Scan:
    """One step after the other, batch inside: works for every cell.

    ``hoist`` projects all events before the loop: one large product for an accelerator, but memory traffic on a CPU,
    where a training pass at (64, 50, 128) gets 5 % (GRU) to 50 % (LSTM) slower; None hoists except on a CPU. ``unroll``
    steps per turn of the loop never pay on a CPU. ``remat`` keeps only every so many-th state for the backward pass and
    computes the steps between again: memory for time, the same gradients. ``truncate`` lets no gradient flow back over
    every so many-th event of the call (truncated back-propagation): the same values, other gradients.
    """

    hoist: bool | None = None
    unroll: int = 1
    remat: int | None = None
    truncate: int | None = None

    def __post_init__(self) -> None:
        if self.hoist not in (None, True, False):
            raise Mistake(f"scan: hoist={self.hoist!r} is not true, false or none; choose one of these")
        for name in ("unroll", "remat", "truncate"):
            number = getattr(self, name)
            if not is_count(number) and (number is not None or name == "unroll"):
                raise Mistake(f"scan: {name}={number!r} is not a number of steps; give a whole number of at least 1")

    def refuses(self, cell: Cell) -> str | None:
        return None

    def run(self, cell: Cell, state: Any, events: Event, reset: Array | None) -> tuple[Any, Any]:
        hoist = jax.default_backend() != "cpu" if self.hoist is None else self.hoist
        inputs, starts = time_major(events), None if reset is None else reset.T
        fresh = batched_initial(cell, events.x.shape[0])
        if hoist:
            inputs = jax.vmap(jax.vmap(cell.project))(inputs)

        def one(state: Any, entry: Any) -> tuple[Any, Any]:
            projected = entry if hoist else cell.project(entry)
            state = cell.step(state, projected)
            return state, cell.read(state, projected)

        def body(state: Any, entry: tuple[Any, Array | None]) -> tuple[Any, Any]:
            event, start = entry
            return jax.vmap(one)(restart(state, fresh, start), event)

        last, outputs = self.loop(body)(spread(state, (cell, events, reset)), (inputs, starts))
        return last, time_major(outputs)

    def loop(self, body: Loop) -> Loop:
        """``body`` over time, in pieces where an option asks for them."""
        plain = over_time = lambda state, entries: lax.scan(body, state, entries, unroll=self.unroll)
        if self.remat is not None:
            again = jax.checkpoint(plain, prevent_cse=False)  # a loop is around it, which has the same effect
            over_time = in_pieces(lambda state, entries, _: again(state, entries), self.remat)
        if self.truncate is not None:
            inner = over_time
            over_time = in_pieces(lambda state, entries, first: inner(cut_off(state, first), entries), self.truncate)
        return over_time


def in_pieces(run: Callable[[Any, Any, Any], tuple[Any, Any]], size: int) -> Loop:
    """``run(state, entries, first)`` over ``size`` entries after the other, the last of which may be fewer."""

    def loop(state: Any, entries: Any) -> tuple[Any, Any]:
        time = jax.tree.leaves(entries)[0].shape[0]
        count = time // size
        if not count:
            return run(state, entries, True)
        heads = jax.tree.map(lambda leaf: leaf[: count * size].reshape(count, size, *leaf.shape[1:]), entries)
        first = jnp.arange(count) == 0
        state, outputs = lax.scan(lambda state, piece: run(state, *piece), state, (heads, first))
        outputs = jax.tree.map(lambda leaf: leaf.reshape(count * size, *leaf.shape[2:]), outputs)
        if count * size == time:
            return state, outputs
        state, rest = run(state, jax.tree.map(lambda leaf: leaf[count * size :], entries), False)
        return state, jax.tree.map(lambda *leaves: jnp.concatenate(leaves), outputs, rest)

    return loop


def cut_off(state: Any, first: Any) -> Any:
    """``state`` without its past, except before the first piece: what came before the call is the caller's."""
    return jax.tree.map(lambda leaf: jnp.where(first, leaf, lax.stop_gradient(leaf)), state)
