"""Long short-term memory."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxrec.cells.cell import Cell, Event
from jaxrec.cells.weights import bias, orthogonal, weight
from jaxrec.types import Hidden


class LSTMState(NamedTuple):
    """Output ``h`` and memory ``c``, each ``(hidden,)``."""

    h: Hidden
    c: Hidden


class LSTM(Cell):
    """Long short-term memory (Gers et al. 2000): ``c' = f c + i g``, ``h' = o tanh(c')``.

    https://doi.org/10.1162/089976600300015015: the network of Hochreiter and Schmidhuber (1997) with the forget gate,
    without peepholes, as in cuDNN and PyTorch. State ``h`` and ``c``, output ``h (hidden,)``.

    ``forget_bias`` is where the forget gate's bias starts; 1 keeps memory from fading before training has begun
    (Jozefowicz et al. 2015), 0 is what PyTorch does on average.
    """

    def __init__(self, features: int, hidden: int, *, forget_bias: float = 1.0, rngs: nnx.Rngs):
        self.features, self.hidden = features, hidden
        self.wi, self.wf, self.wg, self.wo = (weight(rngs, features, hidden) for _ in range(4))
        self.ui, self.uf, self.ug, self.uo = (orthogonal(rngs, hidden) for _ in range(4))
        self.bi, self.bg, self.bo = (bias(hidden) for _ in range(3))
        self.bf = bias(hidden, forget_bias)

    def initial_state(self) -> LSTMState:
        return LSTMState(jnp.zeros(self.hidden), jnp.zeros(self.hidden))

    def project(self, event: Event) -> tuple[Hidden, Hidden, Hidden, Hidden]:
        x = event.x
        return x @ self.wi + self.bi, x @ self.wf + self.bf, x @ self.wg + self.bg, x @ self.wo + self.bo

    def step(self, state: LSTMState, projected: Any) -> LSTMState:
        h = state.h
        i = jax.nn.sigmoid(projected[0] + h @ self.ui)
        f = jax.nn.sigmoid(projected[1] + h @ self.uf)
        g = jnp.tanh(projected[2] + h @ self.ug)
        o = jax.nn.sigmoid(projected[3] + h @ self.uo)
        c = f * state.c + i * g
        return LSTMState(o * jnp.tanh(c), c)

    def read(self, state: LSTMState, projected: Any) -> Hidden:
        return state.h
