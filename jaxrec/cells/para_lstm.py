"""The LSTM with diagonal recurrent matrices."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxrec.cells.cell import Event
from jaxrec.cells.kinds import ElementwiseCell
from jaxrec.cells.para_gru import diagonal
from jaxrec.cells.weights import bias, weight
from jaxrec.types import Hidden


class ParaLSTMState(NamedTuple):
    """Output ``h`` and memory ``c``, each ``(hidden,)``."""

    h: Hidden
    c: Hidden


class ParaLSTM(ElementwiseCell):
    """ParaLSTM (Danieli et al. 2025, ParaRNN): an LSTM with coupled gates and diagonal recurrence and peepholes.

    https://arxiv.org/abs/2510.21450, as in the authors' code, with one head:
    ``f = sigmoid(a_f * h + B_f x + c_f * c + b_f)``, ``n = tanh(a_c * h + B_c x + b_c)``, ``c' = f * c + (1 - f) * n``,
    ``o = sigmoid(a_o * h + B_o x + c_o * c' + b_o)``, ``h' = o * tanh(c')``. The input gate is ``1 - f``, and the
    output gate looks at the *new* memory. Unit i's pair ``(h, c)`` sees unit i's pair only, so its Jacobian is one
    2 x 2 block per unit and the cell is an `ElementwiseCell` of two leaves. ``a`` and the peepholes start normal with
    deviation ``2 / sqrt(5 hidden)``, ``b_f`` spread evenly from 0 to -1 as in that code; ``B`` LeCun normal as
    everywhere here. State two vectors ``(hidden,)``, output ``h``.
    """

    keeps: ClassVar[Mapping[str, int]] = {"bf": 1}

    def __init__(self, features: int, hidden: int, *, rngs: nnx.Rngs):
        self.features, self.hidden = features, hidden
        self.wf, self.wc, self.wo = (weight(rngs, features, hidden) for _ in range(3))
        self.af, self.ac, self.ao, self.cf, self.co = (diagonal(rngs, hidden) for _ in range(5))
        self.bf = nnx.Param(-jnp.linspace(0.0, 1.0, hidden))
        self.bc, self.bo = bias(hidden), bias(hidden)

    def initial_state(self) -> ParaLSTMState:
        return ParaLSTMState(jnp.zeros(self.hidden), jnp.zeros(self.hidden))

    def project(self, event: Event) -> tuple[Hidden, Hidden, Hidden]:
        x = event.x
        return x @ self.wf + self.bf, x @ self.wc + self.bc, x @ self.wo + self.bo

    def step(self, state: ParaLSTMState, projected: Any) -> ParaLSTMState:
        h, c = state
        f = jax.nn.sigmoid(projected[0] + self.af * h + self.cf * c)
        new = jnp.tanh(projected[1] + self.ac * h)
        c = c + (1 - f) * (new - c)
        o = jax.nn.sigmoid(projected[2] + self.ao * h + self.co * c)
        return ParaLSTMState(o * jnp.tanh(c), c)

    def read(self, state: ParaLSTMState, projected: Any) -> Hidden:
        return state.h
