"""The phased LSTM, whose units wake in turn."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxrec.cells.cell import DAY, Cell, Event
from jaxrec.cells.weights import bias, orthogonal, weight
from jaxrec.config import Mistake
from jaxrec.types import Hidden

PERIODS = 3.0  # a fresh cell's periods are from 1 to exp(3) units, as the paper's are by default


class PhasedState(NamedTuple):
    """Output ``h``, memory ``c``, and the time since the start modulo each unit's period, each ``(hidden,)``."""

    h: Hidden
    c: Hidden
    elapsed: Hidden


class PhasedLSTM(Cell):
    """Phased LSTM (Neil et al. 2016): an LSTM whose units change only while their own slow rhythm opens them.

    https://arxiv.org/abs/1610.09513, equations 6 to 10: with the phase ``phi = ((t - s) mod tau) / tau`` a unit's gate
    is ``k = 2 phi / r`` while ``phi < r / 2``, ``2 - 2 phi / r`` while ``phi < r``, and ``alpha phi`` else; an LSTM
    with peepholes proposes ``c~`` and ``h~``, and ``c' = k c~ + (1 - k) c``, ``h' = k h~ + (1 - k) h``.

    ``t`` is the time since the sequence's first event. The state carries it modulo the period, one number a unit, and
    each gap is reduced before it is added, so that no precision is lost however long the history. The paper sets
    ``leak``, its ``alpha``, to 0 after training; here it is always there, so that what is trained is what is served.

    ``unit`` seconds are one unit of time, a day by default; negative gaps count as none. Periods start log-uniform from
    1 to 20 units and shifts uniform over the period. ``ratio_on``, where ``r`` starts, is 0.05 in the paper, for
    thousands of time steps: then a unit sees one event in twenty, of a history of tens hardly any, so it is 0.2 here.
    Period and ratio are trained as logarithm and logit, which keeps them in their range. State `PhasedState`, output
    ``h``.
    """

    family = "time"
    wants = ("x", "gap")

    def __init__(
        self, features: int, hidden: int, *, unit: float = DAY, ratio_on: float = 0.2, leak: float = 0.001,
        forget_bias: float = 1.0, rngs: nnx.Rngs,
    ):  # fmt: skip
        if not 0 < ratio_on < 1:
            raise Mistake(f"PhasedLSTM: ratio_on={ratio_on} is not a part of the period; give 0 < ratio_on < 1")
        self.features, self.hidden, self.unit, self.leak = features, hidden, unit, leak
        self.wi, self.wf, self.wg, self.wo = (weight(rngs, features, hidden) for _ in range(4))
        self.ui, self.uf, self.ug, self.uo = (orthogonal(rngs, hidden) for _ in range(4))
        self.bi, self.bg, self.bo = (bias(hidden) for _ in range(3))
        self.bf = bias(hidden, forget_bias)
        self.pi, self.pf, self.po = (bias(hidden) for _ in range(3))
        period, shift = (jax.random.uniform(rngs.params(), (hidden,)) for _ in range(2))
        self.log_period = nnx.Param(PERIODS * period)
        self.shift = nnx.Param(shift * jnp.exp(PERIODS * period))
        self.ratio = bias(hidden, math.log(ratio_on / (1 - ratio_on)))

    def initial_state(self) -> PhasedState:
        return PhasedState(*(jnp.zeros(self.hidden) for _ in range(3)))

    def project(self, event: Event) -> tuple[Hidden, ...]:
        x, gap = event.x, event.elapsed(self.unit)
        gates = (x @ self.wi + self.bi, x @ self.wf + self.bf, x @ self.wg + self.bg, x @ self.wo + self.bo)
        return *gates, jnp.mod(gap, jnp.exp(self.log_period[...]))

    def step(self, state: PhasedState, projected: Any) -> PhasedState:
        h, c, elapsed = state
        elapsed = jnp.mod(elapsed + projected[4], jnp.exp(self.log_period[...]))
        k = self.openness(elapsed)
        i = jax.nn.sigmoid(projected[0] + h @ self.ui + self.pi * c)
        f = jax.nn.sigmoid(projected[1] + h @ self.uf + self.pf * c)
        new_c = f * c + i * jnp.tanh(projected[2] + h @ self.ug)
        o = jax.nn.sigmoid(projected[3] + h @ self.uo + self.po * new_c)
        return PhasedState(h + k * (o * jnp.tanh(new_c) - h), c + k * (new_c - c), elapsed)

    def openness(self, elapsed: Hidden) -> Hidden:
        """How far each unit is open."""
        period, ratio = jnp.exp(self.log_period[...]), jax.nn.sigmoid(self.ratio[...])
        phase = jnp.mod(elapsed - self.shift, period) / period
        rise = 2 * phase / ratio
        return jnp.where(phase < ratio / 2, rise, jnp.where(phase < ratio, 2 - rise, self.leak * phase))

    def read(self, state: PhasedState, projected: Any) -> Hidden:
        return state.h
