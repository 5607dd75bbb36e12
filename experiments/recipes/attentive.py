"""A recurrent cell that also looks back at its last inputs."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxrec.cells import GRU, Cell, Composite, Event, WindowCell
from jaxrec.cells.weights import weight


class Attentive(Composite):
    """Attention over the last ``window`` inputs, asked by the state of any cell (after NARM, Li et al. 2017, and STAMP,
    Liu et al. 2018): ``y = W h + sum_j a_j x_{t-j}``, ``a = softmax(q(h) . x_{t-j} / sqrt(d) + b_j)``.

    What it adds are inputs themselves, so that with a shared item table an item of the session can be shown again.
    """

    def __init__(self, features: int, cell: Cell | None = None, *, hidden: int, window: int = 10, rngs: nnx.Rngs):
        self.cell = GRU(features, hidden, rngs=rngs) if cell is None else cell
        self.recent = Recent(features, window)
        self.query = weight(rngs, hidden, features)
        self.out = weight(rngs, hidden, features)
        self.place = nnx.Param(jnp.zeros(window))
        self.gain = nnx.Param(jnp.ones(features))

    def inner(self) -> dict[str, Cell]:
        return {"cell": self.cell, "recent": self.recent}

    def wire(self, run: Callable[[str, Event], Any], events: Event) -> Array:
        h = run("cell", events)
        past = run("recent", Event(events.x))
        return jax.vmap(self.look)(h, past)

    def look(self, h: Array, past: Array) -> Array:
        """``h (hidden,)``, ``past (window, features + 1)``, the oldest first; the last column is 1 where one was."""
        x, there = past[:, :-1], past[:, -1] > 0
        asked = x @ (h @ self.query) / jnp.sqrt(x.shape[1]) + self.place
        shares = jax.nn.softmax(jnp.where(there, asked, -1e9))
        return h @ self.out + self.gain * (shares @ x)


class Recent(WindowCell):
    """The last inputs, each with a 1 beside it."""

    def __init__(self, features: int, window: int):
        self.features, self.window = features, window

    def initial_state(self) -> Any:
        return jnp.zeros((self.window, self.features + 1))

    def project(self, event: Event) -> Array:
        return jnp.concatenate([event.x, jnp.ones(1, event.x.dtype)])

    def read(self, state: Any, projected: Any) -> Array:
        return state
