"""The LSTM whose gates see its memory."""

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from jaxrec.cells.cell import Cell, Event
from jaxrec.cells.lstm import LSTM, LSTMState
from jaxrec.cells.weights import bias
from jaxrec.types import Hidden


class PeepholeLSTM(Cell):
    """Peephole LSTM (Gers & Schmidhuber 2000): gates also see the memory, ``i`` and ``f`` the old one, ``o`` the new.

    https://doi.org/10.1109/IJCNN.2000.861302, and Gers et al. 2002: ``i = sigmoid(Wi x + Ui h + pi * c + bi)``, ``f``
    alike, ``c' = f c + i g``, ``o = sigmoid(Wo x + Uo h + po * c' + bo)``, ``h' = o tanh(c')``: time can be told even
    while the output gate is shut. This is the form of Graves 2013 (https://arxiv.org/abs/1308.0850, equations 7 to 11),
    with tanh for ``g`` and at the output, where the first papers have scaled logistic functions or none. Peepholes
    start at zero: it starts as the LSTM, with its ``forget_bias``. State ``h`` and ``c``, output ``h (hidden,)``.
    """

    keeps: ClassVar[Mapping[str, int]] = {"inner.bf": 1, "inner.bi": -1}

    def __init__(self, features: int, hidden: int, *, forget_bias: float = 1.0, rngs: nnx.Rngs):
        self.inner = LSTM(features, hidden, forget_bias=forget_bias, rngs=rngs)
        self.pi, self.pf, self.po = (bias(hidden) for _ in range(3))

    def initial_state(self) -> LSTMState:
        return self.inner.initial_state()

    def project(self, event: Event) -> Any:
        return self.inner.project(event)

    def step(self, state: LSTMState, projected: Any) -> LSTMState:
        (h, c), inner = state, self.inner
        i = jax.nn.sigmoid(projected[0] + h @ inner.ui + self.pi * c)
        f = jax.nn.sigmoid(projected[1] + h @ inner.uf + self.pf * c)
        c = f * c + i * jnp.tanh(projected[2] + h @ inner.ug)
        o = jax.nn.sigmoid(projected[3] + h @ inner.uo + self.po * c)
        return LSTMState(o * jnp.tanh(c), c)

    def read(self, state: LSTMState, projected: Any) -> Hidden:
        return state.h
