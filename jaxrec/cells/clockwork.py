"""The clockwork recurrent network."""

from typing import Any, NamedTuple, Self

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from jaxrec.cells.cell import Cell, Event
from jaxrec.cells.weights import bias, equal_parts, weight
from jaxrec.config import Mistake
from jaxrec.types import Hidden

MOST = 30  # modules: the longest period must fit in 32 bits


class ClockworkState(NamedTuple):
    """Output ``h (hidden,)`` and the number of the next event, modulo the longest period."""

    h: Hidden
    number: Array


class ClockworkRNN(Cell):
    """Clockwork network (Koutnik et al. 2014): modules of units that move at every 1st, 2nd, 4th, 8th ... event only.

    https://arxiv.org/abs/1402.3511, section 3, with the paper's exponential periods: module ``i`` of ``modules``
    takes ``h_i' = tanh(sum_{j >= i} U_ji h_j + W_i x + b_i)`` where its period ``2^i`` divides the number of the event,
    and else stays as it is. A module hears itself and slower ones: the recurrent matrix is block-triangular, and
    ``u[i]`` holds what reaches module ``i``. The first event is number 0, so that every module sees it; the paper
    leaves that open. All products are computed at every event, also those of resting modules. Output ``h (hidden,)``.
    """

    family = "simple"
    matrix: Array  # all of ``u``, with zeros elsewhere; `prepare` puts it together

    def __init__(self, features: int, hidden: int, *, modules: int = 4, rngs: nnx.Rngs):
        equal_parts(hidden, modules=modules)
        if modules > MOST:
            raise Mistake(f"ClockworkRNN: modules={modules} makes periods beyond 2^{MOST - 1}; give at most {MOST}")
        self.features, self.hidden, self.modules = features, hidden, modules
        size = hidden // modules
        self.w, self.b = weight(rngs, features, hidden), bias(hidden)
        self.u = nnx.List([weight(rngs, hidden - i * size, size) for i in range(modules)])

    def prepare(self) -> Self:
        columns = [jnp.pad(part[...], ((self.hidden - part.shape[0], 0), (0, 0))) for part in self.u]
        return self.with_derived(matrix=jnp.concatenate(columns, axis=1))

    def initial_state(self) -> ClockworkState:
        return ClockworkState(jnp.zeros(self.hidden), jnp.zeros((), jnp.int32))

    def project(self, event: Event) -> Hidden:
        return event.x @ self.w + self.b

    def step(self, state: ClockworkState, projected: Any) -> ClockworkState:
        h, number = state
        periods = 2 ** np.arange(self.modules, dtype=np.int32)
        due = jnp.repeat(number % periods == 0, self.hidden // self.modules)
        return ClockworkState(jnp.where(due, jnp.tanh(projected + h @ self.matrix), h), (number + 1) % periods[-1])

    def read(self, state: ClockworkState, projected: Any) -> Hidden:
        return state.h
