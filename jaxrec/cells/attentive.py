"""Attention over the last inputs, beside any cell."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxrec.cells.cell import Cell, Event
from jaxrec.cells.gru import GRU
from jaxrec.cells.kinds import Composite, WindowCell
from jaxrec.cells.weights import positive, weight
from jaxrec.cells.wrapper import Wrapper, shown
from jaxrec.config import Mistake


class Attentive(Composite, Wrapper):
    """Attention over the last ``window`` inputs, asked by the output of any cell (Liu et al. 2018).

    ``y = W h + g * sum_j a_j x_{t-j}`` with ``a = softmax_j(x_{t-j} . Q h / sqrt(d) + b_j)`` over the inputs that there
    were. What is attended is inputs, as in STAMP, https://doi.org/10.1145/3219819.3219950, and what asks is the state
    of a recurrent network over them, as in NARM (Li et al. 2017), https://doi.org/10.1145/3132847.3132926, which
    attends states. Neither paper has the place ``b_j`` or the gain ``g``. With an item table that also scores, an input
    in the output is that item and its like recommended again: what a state of the same width has to spell out.

    ``cell`` is a GRU of ``hidden`` units unless given, and takes the backend that suits it. ``b`` starts at 0, ``g``
    at 1. State: the cell's, and the last inputs ``(window, features + 1)`` with a 1 where one was; output
    ``(features,)``.
    """

    family = "window"

    def __init__(self, features: int, cell: Cell | None = None, *, hidden: int = 64, window: int = 10, rngs: nnx.Rngs):
        if not isinstance(cell, Cell | None):
            raise Mistake(f"Attentive wraps a cell, which {cell!r} is not; give one, as in attentive(lru)")
        positive(window=window)
        self.cell = GRU(features, hidden, rngs=rngs) if cell is None else cell
        self.recent = Recent(features, window)
        asked = shown(self.cell, features, "Attentive is asked by one vector")
        self.query, self.out = weight(rngs, asked, features), weight(rngs, asked, features)
        self.place = nnx.Param(jnp.zeros(window))
        self.gain = nnx.Param(jnp.ones(features))

    def inner(self) -> dict[str, Cell]:
        return {"cell": self.cell, "recent": self.recent}

    def wire(self, run: Callable[[str, Event], Any], events: Event) -> Array:
        return jax.vmap(self.look)(run("cell", events), run("recent", Event(events.x)))

    def look(self, h: Array, past: Array) -> Array:
        """What is shown for the cell's output ``h`` and ``past (window, features + 1)``, the oldest input first."""
        x, there = past[:, :-1], past[:, -1] > 0
        asked = x @ (h @ self.query) / jnp.sqrt(x.shape[1]) + self.place
        shares = jax.nn.softmax(jnp.where(there, asked, -1e9))  # finite: with no event yet, nothing is shown
        return h @ self.out + self.gain * (shares @ x)


class Recent(WindowCell):
    """The last inputs, each with a 1 behind it."""

    def __init__(self, features: int, window: int):
        self.features, self.window = features, window

    def initial_state(self) -> Any:
        return jnp.zeros((self.window, self.features + 1))

    def project(self, event: Event) -> Array:
        return jnp.append(event.x, jnp.ones((), event.x.dtype))

    def read(self, state: Any, projected: Any) -> Array:
        return state
