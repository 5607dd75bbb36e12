"""The minimal gated unit."""

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from jaxrec.cells.cell import Cell, Event
from jaxrec.cells.weights import bias, orthogonal, weight
from jaxrec.types import Hidden


class MGU(Cell):
    """Minimal gated unit (Zhou et al. 2016): ``f = sigmoid(Wf x + Uf h + bf)``, ``h' = (1 - f) h + f n`` with
    ``n = tanh(Wn x + Un (f h) + bn)``.

    https://arxiv.org/abs/1603.09420, equations 7a to 7c: a GRU whose one gate both resets and updates, with two thirds
    of its parameters. State and output ``(hidden,)``.
    """

    keeps: ClassVar[Mapping[str, int]] = {"bf": -1}

    def __init__(self, features: int, hidden: int, *, rngs: nnx.Rngs):
        self.features, self.hidden = features, hidden
        self.wf, self.wn = (weight(rngs, features, hidden) for _ in range(2))
        self.uf, self.un = (orthogonal(rngs, hidden) for _ in range(2))
        self.bf, self.bn = (bias(hidden) for _ in range(2))

    def initial_state(self) -> Hidden:
        return jnp.zeros(self.hidden)

    def project(self, event: Event) -> tuple[Hidden, Hidden]:
        return event.x @ self.wf + self.bf, event.x @ self.wn + self.bn

    def step(self, state: Hidden, projected: Any) -> Hidden:
        f = jax.nn.sigmoid(projected[0] + state @ self.uf)
        n = jnp.tanh(projected[1] + (f * state) @ self.un)
        return state + f * (n - state)
