"""The GRU with diagonal recurrent matrices."""

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from jaxrec.cells.cell import Event
from jaxrec.cells.kinds import ElementwiseCell
from jaxrec.cells.weights import bias, weight
from jaxrec.types import Hidden


class ParaGRU(ElementwiseCell):
    """ParaGRU (Danieli et al. 2025, ParaRNN): a GRU with diagonal recurrent matrices, so that time can run in parallel.

    https://arxiv.org/abs/2510.21450, as in the authors' code, with one head: ``z = sigmoid(a_z * h + B_z x + b_z)``,
    ``r = sigmoid(a_r * h + B_r x + b_r)``, ``c = tanh(a_c * (r * h) + B_c x + b_c)``, ``h' = (1 - z) * h + z * c``.
    Here ``z`` is the share that is *new*, unlike in `GRU`. Its Jacobian is diagonal: Newton's method takes the whole
    sequence at once (backend `newton`). As in that code ``a`` starts normal with deviation ``2 / sqrt(5 hidden)`` and
    ``b_z`` spread evenly from 0 to -1, so that units keep from a half to three quarters of their state; ``B`` starts
    LeCun normal as everywhere here. State and output ``(hidden,)``.
    """

    keeps: ClassVar[Mapping[str, int]] = {"bz": -1}

    def __init__(self, features: int, hidden: int, *, rngs: nnx.Rngs):
        self.features, self.hidden = features, hidden
        self.wz, self.wr, self.wc = (weight(rngs, features, hidden) for _ in range(3))
        self.az, self.ar, self.ac = (diagonal(rngs, hidden) for _ in range(3))
        self.bz = nnx.Param(-jnp.linspace(0.0, 1.0, hidden))
        self.br, self.bc = bias(hidden), bias(hidden)

    def initial_state(self) -> Hidden:
        return jnp.zeros(self.hidden)

    def project(self, event: Event) -> tuple[Hidden, Hidden, Hidden]:
        x = event.x
        return x @ self.wz + self.bz, x @ self.wr + self.br, x @ self.wc + self.bc

    def step(self, state: Hidden, projected: Any) -> Hidden:
        z = jax.nn.sigmoid(projected[0] + self.az * state)
        r = jax.nn.sigmoid(projected[1] + self.ar * state)
        c = jnp.tanh(projected[2] + self.ac * (r * state))
        return state + z * (c - state)


def diagonal(rngs: nnx.Rngs, hidden: int) -> nnx.Param:
    """A diagonal recurrent matrix ``(hidden,)``, normal with deviation ``2 / sqrt(5 hidden)``."""
    return nnx.Param(2 / jnp.sqrt(5.0 * hidden) * jax.random.normal(rngs.params(), (hidden,)))
