"""LSTMs with gates for the time since the last event, in their three published forms."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxrec.cells.cell import DAY, Cell, Event
from jaxrec.cells.lstm import LSTMState
from jaxrec.cells.weights import bias, orthogonal, weight
from jaxrec.types import Hidden


class Projected(NamedTuple):
    """What the step needs of an event, each ``(hidden,)``: the gates' inputs and the time gates themselves."""

    i: Hidden
    g: Hidden
    o: Hidden
    t1: Hidden
    f: Hidden | None = None
    t2: Hidden | None = None


class TimeGate(nnx.Module):
    """``T = sigmoid(W x + tanh(v gap) + b)``; ``falling`` keeps ``v`` at or below 0.

    The paper demands that of one gate and projects ``v`` after each update. Here ``v = -softplus(s)`` of a free ``s``,
    which holds during every kind of training and is smooth; ``-v`` starts uniform in ``(0, 1)`` as the authors' does,
    a free ``v`` normal with their deviation of 0.1.
    """

    def __init__(self, features: int, hidden: int, *, falling: bool = False, rngs: nnx.Rngs):
        self.w, self.b, self.falling = weight(rngs, features, hidden), bias(hidden), falling
        if falling:
            start = jax.random.uniform(rngs.params(), (hidden,), minval=0.01)
            self.s = nnx.Param(jnp.log(jnp.expm1(start)))
        else:
            self.v = nnx.Param(0.1 * jax.random.normal(rngs.params(), (hidden,)))

    def __call__(self, x: Array, gap: Array) -> Hidden:
        v = -jax.nn.softplus(self.s[...]) if self.falling else self.v[...]
        return jax.nn.sigmoid(x @ self.w + jnp.tanh(gap * v) + self.b)


class TimeLSTM(Cell):
    """What the three forms share: input gate, candidate and output gate, with peepholes, and the time in the output."""

    family = "time"
    wants = ("x", "gap")

    def __init__(self, features: int, hidden: int, *, unit: float, rngs: nnx.Rngs):
        self.features, self.hidden, self.unit = features, hidden, unit
        self.wi, self.wg, self.wo = (weight(rngs, features, hidden) for _ in range(3))
        self.ui, self.ug, self.uo = (orthogonal(rngs, hidden) for _ in range(3))
        self.bi, self.bg, self.bo = (bias(hidden) for _ in range(3))
        self.pi, self.po = bias(hidden), bias(hidden)
        self.to = bias(hidden)

    def initial_state(self) -> LSTMState:
        return LSTMState(jnp.zeros(self.hidden), jnp.zeros(self.hidden))

    def project(self, event: Event) -> Projected:
        x, gap = event.x, event.elapsed(self.unit)
        gates = x @ self.wi + self.bi, x @ self.wg + self.bg, x @ self.wo + gap * self.to + self.bo
        return self.timed(Projected(*gates, t1=gates[0]), x, gap)

    @abstractmethod
    def timed(self, projected: Projected, x: Array, gap: Array) -> Projected:
        """The same with the form's time gates, and a forget gate where it has one."""

    @abstractmethod
    def memories(self, state: LSTMState, i: Hidden, g: Hidden, projected: Projected) -> tuple[Hidden, Hidden]:
        """The memory that the output sees, and the one that is kept."""

    def step(self, state: LSTMState, projected: Projected) -> LSTMState:
        i = jax.nn.sigmoid(projected.i + state.h @ self.ui + self.pi * state.c)
        g = jnp.tanh(projected.g + state.h @ self.ug)
        seen, kept = self.memories(state, i, g, projected)
        o = jax.nn.sigmoid(projected.o + state.h @ self.uo + self.po * seen)
        return LSTMState(o * jnp.tanh(seen), kept)

    def read(self, state: LSTMState, projected: Any) -> Hidden:
        return state.h


class ForgetGate(nnx.Module):
    """``f = sigmoid(W x + U h + p c + b)``, with the state's part apart."""

    def __init__(self, features: int, hidden: int, *, forget_bias: float, rngs: nnx.Rngs):
        self.w, self.u = weight(rngs, features, hidden), orthogonal(rngs, hidden)
        self.p, self.b = bias(hidden), bias(hidden, forget_bias)

    def project(self, x: Array) -> Hidden:
        return x @ self.w + self.b

    def __call__(self, state: LSTMState, projected: Projected) -> Hidden:
        return jax.nn.sigmoid(projected.f + state.h @ self.u + self.p * state.c)


class TimeLSTM1(TimeLSTM):
    """Time-LSTM 1 (Zhu et al. 2017): a time gate ``T`` beside the input gate, ``c' = f c + i T g``, and time in the
    output gate.

    https://doi.org/10.24963/ijcai.2017/504, equations 6 to 8: an LSTM with peepholes in which ``T = sigmoid(Wt x +
    tanh(vt gap) + bt)`` and ``o = sigmoid(Wo x + to gap + Uo h + po c' + bo)``, ``h' = o tanh(c')``. The inner ``tanh``
    is the authors' code's. There ``gap`` is the time until the NEXT event, which their sequences know; here, as in
    every cell, it is the time since the previous one, all that is known when the event arrives.

    ``unit`` seconds are one unit of ``gap``, a day by default; negative gaps count as none. ``to`` starts at 0, so that
    a gap of years does not saturate the output before training has begun; ``forget_bias`` is where ``bf`` starts. State
    ``LSTMState(h, c)``, output ``h``.
    """

    keeps: ClassVar[Mapping[str, int]] = {"forget.b": 1, "bi": -1}

    def __init__(
        self, features: int, hidden: int, *, unit: float = DAY, forget_bias: float = 1.0, rngs: nnx.Rngs
    ):  # fmt: skip
        super().__init__(features, hidden, unit=unit, rngs=rngs)
        self.forget = ForgetGate(features, hidden, forget_bias=forget_bias, rngs=rngs)
        self.time = TimeGate(features, hidden, rngs=rngs)

    def timed(self, projected: Projected, x: Array, gap: Array) -> Projected:
        return projected._replace(t1=self.time(x, gap), f=self.forget.project(x))

    def memories(self, state: LSTMState, i: Hidden, g: Hidden, projected: Projected) -> tuple[Hidden, Hidden]:
        c = self.forget(state, projected) * state.c + i * projected.t1 * g
        return c, c


class TimeLSTM2(TimeLSTM):
    """Time-LSTM 2 (Zhu et al. 2017): one time gate for what is shown now, ``c~ = f c + i T1 g``, another for what is
    kept, ``c' = f c + i T2 g``.

    https://doi.org/10.24963/ijcai.2017/504, equations 9 to 14: ``T1`` may only fall with the gap (its ``v`` is never
    positive, by ``v = -softplus(s)``), so that an event long after the last counts less at once; ``T2`` is free. ``h' =
    o tanh(c~)`` and ``o`` peeps at ``c~``. Gates, gap, options and state as in `TimeLSTM1`.
    """

    keeps: ClassVar[Mapping[str, int]] = {"forget.b": 1, "bi": -1}

    def __init__(
        self, features: int, hidden: int, *, unit: float = DAY, forget_bias: float = 1.0, rngs: nnx.Rngs
    ):  # fmt: skip
        super().__init__(features, hidden, unit=unit, rngs=rngs)
        self.forget = ForgetGate(features, hidden, forget_bias=forget_bias, rngs=rngs)
        self.now = TimeGate(features, hidden, falling=True, rngs=rngs)
        self.later = TimeGate(features, hidden, rngs=rngs)

    def timed(self, projected: Projected, x: Array, gap: Array) -> Projected:
        return projected._replace(t1=self.now(x, gap), t2=self.later(x, gap), f=self.forget.project(x))

    def memories(self, state: LSTMState, i: Hidden, g: Hidden, projected: Projected) -> tuple[Hidden, Hidden]:
        kept = self.forget(state, projected) * state.c
        assert projected.t2 is not None
        return kept + i * projected.t1 * g, kept + i * projected.t2 * g


class TimeLSTM3(TimeLSTM):
    """Time-LSTM 3 (Zhu et al. 2017): Time-LSTM 2 without a forget gate, ``c~ = (1 - i T1) c + i T1 g`` and ``c' =
    (1 - i) c + i T2 g``.

    https://doi.org/10.24963/ijcai.2017/504, equations 15 and 16; everything else as in `TimeLSTM2`.
    """

    keeps: ClassVar[Mapping[str, int]] = {"bi": -1}

    def __init__(self, features: int, hidden: int, *, unit: float = DAY, rngs: nnx.Rngs):
        super().__init__(features, hidden, unit=unit, rngs=rngs)
        self.now = TimeGate(features, hidden, falling=True, rngs=rngs)
        self.later = TimeGate(features, hidden, rngs=rngs)

    def timed(self, projected: Projected, x: Array, gap: Array) -> Projected:
        return projected._replace(t1=self.now(x, gap), t2=self.later(x, gap))

    def memories(self, state: LSTMState, i: Hidden, g: Hidden, projected: Projected) -> tuple[Hidden, Hidden]:
        assert projected.t2 is not None
        taken = i * projected.t1
        return state.c + taken * (g - state.c), (1 - i) * state.c + i * projected.t2 * g
