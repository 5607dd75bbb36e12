"""All steps of a window cell at once, as a convolution."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxrec.cells import Cell, Event, WindowCell
from jaxrec.recurrence.checks import own
from jaxrec.recurrence.states import batched_initial


@dataclass(frozen=True)
class Window:
    """Every event's window is cut from the sequence of inputs: no loop over time."""

    def refuses(self, cell: Cell) -> str | None:
        if not isinstance(cell, WindowCell):
            return "it is not a WindowCell, whose state is its last inputs"
        return own(cell, WindowCell, ("step",), "inputs")

    def run(self, cell: WindowCell, state: Any, events: Event, reset: Array | None) -> tuple[Any, Any]:
        batch, time = events.x.shape[:2]
        projected = jax.vmap(jax.vmap(cell.project))(events)
        fresh, age = batched_initial(cell, batch), None if reset is None else since(reset)
        windows = jax.tree.map(lambda old, new, start: cut(old, new, start, age), state, projected, fresh)
        last = jax.tree.map(lambda window: window[:, -1], windows) if time else state
        return last, jax.vmap(jax.vmap(cell.read))(windows, projected)


def since(reset: Array) -> Array:
    """How many events ``(b, t)`` its row has seen after a restart, that event included; 0 before any restart."""
    place = jnp.arange(1, reset.shape[1] + 1)[None]
    begin = lax.cummax(jnp.where(reset, place, 0), axis=1)
    return jnp.where(begin > 0, place - begin + 1, 0)


def cut(state: Array, inputs: Array, fresh: Array, age: Array | None) -> Array:
    """Windows ``(b, t, w, ...)`` from a state ``(b, w, ...)``, inputs ``(b, t, ...)`` and the initial state."""
    width, time = state.shape[1], inputs.shape[1]
    full = jnp.concatenate([state, inputs], axis=1)
    windows = jnp.stack([full[:, 1 + i : 1 + i + time] for i in range(width)], axis=2)
    if age is None:
        return windows
    # a row that restarted `age` events ago still shows that much of its initial window, moved on by `age`
    place = jnp.arange(width)[None, None] + age[..., None]
    older = (age[..., None] > 0) & (place < width)
    start = jax.vmap(lambda window, place: window[place])(fresh, jnp.minimum(place, width - 1))
    return jnp.where(older.reshape(*older.shape, *[1] * (windows.ndim - 3)), start, windows)
