"""The LSTM with layer normalisation."""

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxrec.cells.cell import Cell, Event
from jaxrec.cells.lstm import LSTMState
from jaxrec.cells.weights import bias, orthogonal, weight
from jaxrec.types import Hidden

EPSILON = 1e-5  # under the root: the paper has none, and the first state is all zeros


class LayerNormLSTM(Cell):
    """Layer-normalised LSTM (Ba et al. 2016): inputs, recurrence and memory each brought to mean 0 and variance 1.

    https://arxiv.org/abs/1607.06450, equations 20 to 22: ``(i, f, g, o) = LN(U h; a1) + LN(W x; a2) + b``,
    ``c' = sigmoid(f) c + sigmoid(i) tanh(g)``, ``h' = sigmoid(o) tanh(LN(c'; a3, b3))``. As in the paper, one mean and
    one variance serve all ``4 hidden`` pre-activations of a product; other code normalises each gate, or their sum.
    The paper's two other biases inside LN are in ``b``, since only their sum is identified. Gains start at 1, and ``b``
    at ``forget_bias`` for ``f`` and 0 elsewhere. State ``h`` and ``c``, output ``h (hidden,)``.
    """

    keeps: ClassVar[Mapping[str, int]] = {"b[1]": 1, "b[0]": -1}

    def __init__(self, features: int, hidden: int, *, forget_bias: float = 1.0, rngs: nnx.Rngs):
        self.features, self.hidden = features, hidden
        self.wi, self.wf, self.wg, self.wo = (weight(rngs, features, hidden) for _ in range(4))
        self.ui, self.uf, self.ug, self.uo = (orthogonal(rngs, hidden) for _ in range(4))
        self.a1, self.a2 = (nnx.Param(jnp.ones((4, hidden))) for _ in range(2))
        self.b = nnx.Param(jnp.zeros((4, hidden)).at[1].set(forget_bias))
        self.a3, self.b3 = bias(hidden, 1.0), bias(hidden)

    def initial_state(self) -> LSTMState:
        return LSTMState(jnp.zeros(self.hidden), jnp.zeros(self.hidden))

    def project(self, event: Event) -> Array:
        x = event.x
        return self.a2 * normalised(jnp.stack([x @ self.wi, x @ self.wf, x @ self.wg, x @ self.wo])) + self.b

    def step(self, state: LSTMState, projected: Any) -> LSTMState:
        h, c = state
        inner = jnp.stack([h @ self.ui, h @ self.uf, h @ self.ug, h @ self.uo])
        i, f, g, o = self.a1 * normalised(inner) + projected
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return LSTMState(jax.nn.sigmoid(o) * jnp.tanh(self.a3 * normalised(c) + self.b3), c)

    def read(self, state: LSTMState, projected: Any) -> Hidden:
        return state.h


def normalised(values: Array) -> Array:
    """Mean 0 and variance 1 over all entries."""
    centred = values - values.mean()
    return centred * jax.lax.rsqrt((centred**2).mean() + EPSILON)
