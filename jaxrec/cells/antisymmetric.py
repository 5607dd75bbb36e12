"""The recurrent network whose Jacobian neither grows nor shrinks."""

from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxrec.cells.cell import Cell, Event
from jaxrec.cells.weights import above_zero, bias, skew, two_units, weight
from jaxrec.types import Hidden


class AntisymmetricRNN(Cell):
    """Antisymmetric network (Chang et al. 2019): ``h' = h + epsilon tanh((W - W^T - gamma I) h + V x + b)``.

    https://arxiv.org/abs/1902.09689, section 3: an Euler step of an equation whose Jacobian has eigenvalues without
    real part, but for the diffusion ``gamma`` that makes the step itself stable. With ``gated``, as there, the
    increment is multiplied by ``z = sigmoid((W - W^T - gamma I) h + Vz x + bz)``. ``skew`` holds the entries of
    ``W - W^T`` above its diagonal and starts normal of variance ``1 / hidden``. A unit moves by ``epsilon`` at most in
    a step; the paper tunes it and ``gamma`` for each task. State and output ``(hidden,)``.
    """

    family = "simple"
    matrix: Array  # W - W^T - gamma I, transposed; `prepare` computes it

    def __init__(
        self, features: int, hidden: int, *, epsilon: float = 0.1, gamma: float = 0.01, gated: bool = False,
        rngs: nnx.Rngs,
    ):  # fmt: skip
        two_units(hidden)
        above_zero(epsilon=epsilon)
        self.features, self.hidden, self.epsilon, self.gamma = features, hidden, epsilon, gamma
        entries = jax.random.normal(rngs.params(), (hidden * (hidden - 1) // 2,))
        self.skew = nnx.Param(entries / jnp.sqrt(1.0 * hidden))
        self.v, self.b = weight(rngs, features, hidden), bias(hidden)
        self.vz = weight(rngs, features, hidden) if gated else None
        self.bz = bias(hidden) if gated else None

    def prepare(self) -> Self:
        upper = self.skew[...]
        diffusion = self.gamma * jnp.eye(self.hidden, dtype=upper.dtype)
        return self.with_derived(matrix=-skew(upper, self.hidden) - diffusion)

    def initial_state(self) -> Hidden:
        return jnp.zeros(self.hidden)

    def project(self, event: Event) -> tuple[Hidden, Hidden | None]:
        x = event.x
        return x @ self.v + self.b, None if self.vz is None else x @ self.vz + self.bz

    def step(self, state: Hidden, projected: Any) -> Hidden:
        moved, gate = state @ self.matrix, projected[1]
        change = self.epsilon * jnp.tanh(moved + projected[0])
        return state + (change if gate is None else change * jax.nn.sigmoid(moved + gate))
