"""The minimal LSTM, whose gates do not look at the state."""

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from jaxrec.cells.cell import Event
from jaxrec.cells.kinds import AffineCell
from jaxrec.cells.weights import bias, weight
from jaxrec.types import Hidden


class MinLSTM(AffineCell):
    """Minimal LSTM (Feng et al. 2024): ``h' = f' h + i' n`` with ``f' = f / (f + i)``, ``i' = i / (f + i)``.

    ``f = sigmoid(Wf x + bf)``, ``i = sigmoid(Wi x + bi)``, ``n = Wn x + bn``; https://arxiv.org/abs/2410.01201, section
    3.2.4, time-independent scale. ``forget_bias`` is where ``bf`` starts. ``f / (f + i)`` is computed as
    ``sigmoid(log f - log i)``, which neither gate's underflow can spoil. State and output ``(hidden,)``.
    """

    keeps: ClassVar[Mapping[str, int]] = {"bf": 1, "bi": -1}

    def __init__(self, features: int, hidden: int, *, forget_bias: float = 0.0, rngs: nnx.Rngs):
        self.features, self.hidden = features, hidden
        self.wf, self.wi, self.wn = (weight(rngs, features, hidden) for _ in range(3))
        self.bf, self.bi, self.bn = bias(hidden, forget_bias), bias(hidden), bias(hidden)

    def initial_state(self) -> Hidden:
        return jnp.zeros(self.hidden)

    def project(self, event: Event) -> tuple[Hidden, Hidden, Hidden]:
        x = event.x
        return x @ self.wf + self.bf, x @ self.wi + self.bi, x @ self.wn + self.bn

    def affine(self, projected: Any) -> tuple[Hidden, Hidden]:
        forget, write, new = projected
        f = jax.nn.sigmoid(jax.nn.log_sigmoid(forget) - jax.nn.log_sigmoid(write))
        return f, (1 - f) * new
