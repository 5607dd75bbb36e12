"""The long expressive memory."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxrec.cells.cell import Cell, Event
from jaxrec.cells.weights import bias, orthogonal, weight
from jaxrec.types import Hidden


class LEMState(NamedTuple):
    """Output ``y`` and the second variable ``z``, each ``(hidden,)``."""

    y: Hidden
    z: Hidden


class LEM(Cell):
    """Long expressive memory (Rusch et al. 2022): two coupled variables, each with learned time steps.

    https://arxiv.org/abs/2110.04744, equation 3: ``z' = (1 - s) z + s tanh(Wz y + Vz x + bz)``, then
    ``y' = (1 - t) y + t tanh(Wy z' + Vy x + by)`` with ``s = dt sigmoid(W1 y + V1 x + b1)`` and
    ``t = dt sigmoid(W2 y + V2 x + b2)``. ``dt`` is the longest step, 1 in most of the paper's tasks. Output ``y``.
    """

    family = "oscillator"

    def __init__(self, features: int, hidden: int, *, dt: float = 1.0, rngs: nnx.Rngs):
        self.features, self.hidden, self.dt = features, hidden, dt
        self.v1, self.v2, self.vz, self.vy = (weight(rngs, features, hidden) for _ in range(4))
        self.w1, self.w2, self.wz, self.wy = (orthogonal(rngs, hidden) for _ in range(4))
        self.b1, self.b2, self.bz, self.by = (bias(hidden) for _ in range(4))

    def initial_state(self) -> LEMState:
        return LEMState(jnp.zeros(self.hidden), jnp.zeros(self.hidden))

    def project(self, event: Event) -> tuple[Hidden, Hidden, Hidden, Hidden]:
        x = event.x
        return x @ self.v1 + self.b1, x @ self.v2 + self.b2, x @ self.vz + self.bz, x @ self.vy + self.by

    def step(self, state: LEMState, projected: Any) -> LEMState:
        y, z = state
        s = self.dt * jax.nn.sigmoid(projected[0] + y @ self.w1)
        t = self.dt * jax.nn.sigmoid(projected[1] + y @ self.w2)
        z = z + s * (jnp.tanh(projected[2] + y @ self.wz) - z)
        return LEMState(y + t * (jnp.tanh(projected[3] + z @ self.wy) - y), z)

    def read(self, state: LEMState, projected: Any) -> Hidden:
        return state.y
