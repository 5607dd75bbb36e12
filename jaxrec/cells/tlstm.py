"""The time-aware LSTM."""

from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import nnx

from jaxrec.cells.cell import DAY, Cell, Event
from jaxrec.cells.lstm import LSTM, LSTMState
from jaxrec.cells.weights import bias, orthogonal
from jaxrec.types import Hidden


class TLSTM(Cell):
    """Time-aware LSTM (Baytas et al. 2017): the short-term part of the memory fades with the time since the last event.

    https://doi.org/10.1145/3097983.3097997, section 3.1: ``s = tanh(Ud c + bd)``, ``c* = (c - s) + s g(gap)``, then an
    LSTM step from ``(h, c*)``, with ``g(gap) = 1 / log(e + gap)`` for gaps that may be long (the paper's other choice,
    ``1 / gap``, is for short ones). ``unit`` seconds are one unit of ``gap``: a day by default. Output ``h``.
    """

    family = "time"
    wants = ("x", "gap")
    keeps: ClassVar[Mapping[str, int]] = {"inner.bf": 1, "inner.bi": -1}

    def __init__(self, features: int, hidden: int, *, unit: float = DAY, forget_bias: float = 1.0, rngs: nnx.Rngs):
        self.features, self.hidden, self.unit = features, hidden, unit
        self.inner = LSTM(features, hidden, forget_bias=forget_bias, rngs=rngs)
        self.ud, self.bd = orthogonal(rngs, hidden), bias(hidden)

    def initial_state(self) -> LSTMState:
        return self.inner.initial_state()

    def project(self, event: Event) -> tuple[Any, Any]:
        return self.inner.project(event), 1 / jnp.log(jnp.e + event.elapsed(self.unit))

    def step(self, state: LSTMState, projected: Any) -> LSTMState:
        gates, fade = projected
        short = jnp.tanh(state.c @ self.ud + self.bd)
        return self.inner.step(LSTMState(state.h, state.c - short + fade * short), gates)

    def read(self, state: LSTMState, projected: Any) -> Hidden:
        return state.h
