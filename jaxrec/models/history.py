"""Whole histories through a model, a chunk of time at a time with the state carried: no history is too long or cut
short.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrec.data.context import Context
from jaxrec.models.pieces import run
from jaxrec.models.recommender import Batch, Recommender

LENGTHS = (
    16,
    128,
)  # events of time per dispatch: longer histories are carried over, shorter ones padded; each costs a compilation


class History(NamedTuple):
    """What one person did, oldest first; every leaf is ``(events,)`` on the host. ``user`` is one number (0 =
    unknown).
    """

    items: np.ndarray
    gaps: np.ndarray | None = None
    starts: np.ndarray | None = None
    user: int = 0
    context: Context | None = None


@partial(jax.jit, static_argnames=("rows",))
def begin_all(model: Recommender, rows: int) -> Any:
    """The state of ``rows`` people before their first event."""
    return model.network.start(rows)


@jax.jit
def advance(model: Recommender, batch: Batch, state: Any) -> tuple[Any, Array]:
    """One chunk: ``(state after each row's last real event, hidden (batch, time, width))``.

    Rows are padded at the end only, and padding comes after everything that matters in a row.
    """
    return model.encode(batch, state)


@partial(jax.jit, static_argnames=("rows",))
def begin_members(models: Recommender, rows: int) -> Any:
    """`begin_all` of stacked models."""
    return jax.vmap(lambda model: begin_all(model, rows))(models)


@jax.jit
def advance_members(models: Recommender, batch: Batch, state: Any) -> tuple[Any, Array]:
    """`advance` of stacked models on one batch; states and hidden vectors have the models' axis in front."""
    return jax.vmap(advance, in_axes=(0, None, 0))(models, batch, state)


def chunks(
    model: Recommender, histories: Sequence[History], rows: int, *, members: bool = False
) -> Iterator[tuple[int, Array]]:
    """``(first position, hidden (rows, time, width))`` of consecutive chunks of time; rows beyond the histories are
    padding. Where the model is a stack of ``members``, their axis comes first.

    The histories should be of similar length: the longest sets the number of chunks.
    """
    begin_rows, step = (begin_members, advance_members) if members else (begin_all, advance)
    longest = max(len(history.items) for history in histories)
    time = min(length for length in LENGTHS if length >= min(longest, LENGTHS[-1]))
    state: Any = run(begin_rows, model, rows=rows)
    for begin in range(0, longest, time):
        batch = assemble(histories, begin, time, rows, user="user" in model.tables)
        state, hidden = run(step, model, batch, state)
        yield begin, hidden


def assemble(histories: Sequence[History], begin: int, time: int, rows: int, *, user: bool) -> Batch:
    """Positions ``begin`` to ``begin + time`` of every history as one padded batch."""

    def stack(field: Callable[[History], Any], dtype: Any) -> Any:
        if field(histories[0]) is None:
            return None
        out = np.zeros((rows, time, *np.shape(field(histories[0]))[1:]), dtype)
        for row, history in enumerate(histories):
            part = np.asarray(field(history))[begin : begin + time]
            out[row, : len(part)] = part
        return jnp.asarray(out)

    def side(place: int, dtype: Any) -> Any:
        return stack(lambda h: None if h.context is None else h.context[place], dtype)

    people = np.zeros(rows, np.int32)
    people[: len(histories)] = [history.user for history in histories]
    return Batch(
        item=stack(lambda h: h.items, np.int32),
        gap=stack(lambda h: h.gaps, np.float32),
        start=stack(lambda h: h.starts, bool),
        user=jnp.asarray(np.repeat(people[:, None], time, 1)) if user else None,
        context=None if histories[0].context is None else Context(side(0, np.int32), side(1, np.float32)),
    )


def last_hidden(model: Recommender, histories: Sequence[History]) -> Array:
    """The hidden vector after each history's last event, ``(histories, width)``."""
    rows = padded_size(len(histories), least=1)
    last = np.array([len(history.items) - 1 for history in histories] + [0] * (rows - len(histories)))
    found = None
    for begin, hidden in chunks(model, histories, rows):
        place = last - begin
        here = (place >= 0) & (place < hidden.shape[1])
        picked = hidden[np.arange(rows), np.clip(place, 0, hidden.shape[1] - 1)]
        found = picked if found is None else jnp.where(here[:, None], picked, found)
    assert found is not None
    return found[: len(histories)]


def padded_size(n: int, least: int = 16) -> int:
    """``n`` rounded up to ``least`` times a power of four: few shapes, few compilations."""
    size = least
    while size < n:
        size *= 4
    return size
