"""The simple recurrent unit."""

from collections.abc import Mapping
from math import exp, sqrt
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxrec.cells.cell import Event
from jaxrec.cells.kinds import ElementwiseCell
from jaxrec.cells.weights import bias, weight
from jaxrec.types import Hidden


class SRUState(NamedTuple):
    """Memory ``c`` and the highway gate ``r`` of the last event, which saw the memory before it; each ``(hidden,)``."""

    c: Hidden
    r: Hidden


class SRU(ElementwiseCell):
    """Simple recurrent unit (Lei et al. 2018): ``c' = f c + (1 - f) W x``, read through a highway past the cell.

    https://arxiv.org/abs/1709.02755 (fifth version, EMNLP), equations 1 to 4: ``f = sigmoid(Wf x + vf * c + bf)``,
    ``r = sigmoid(Wr x + vr * c + br)``, output ``r c' + (1 - r) alpha x``. Units meet in the products with ``x`` only:
    the cell is an `ElementwiseCell` of two leaves. ``br`` starts at ``highway_bias`` and ``alpha = sqrt(1 + 2
    exp(highway_bias))``, the paper's correction, keeps the output's variance at that of its input. Where ``hidden`` is
    not ``features``, ``Wh x`` takes the place of ``x``. ``vf`` and ``vr`` start at zero: gates of the input alone.
    Output ``(hidden,)``.
    """

    keeps: ClassVar[Mapping[str, int]] = {"bf": 1}

    def __init__(self, features: int, hidden: int, *, highway_bias: float = 0.0, rngs: nnx.Rngs):
        self.features, self.hidden = features, hidden
        self.alpha = sqrt(1 + 2 * exp(highway_bias))
        self.w, self.wf, self.wr = (weight(rngs, features, hidden) for _ in range(3))
        self.wh = weight(rngs, features, hidden) if features != hidden else None
        self.vf, self.vr = bias(hidden), bias(hidden)
        self.bf, self.br = bias(hidden), bias(hidden, highway_bias)

    def initial_state(self) -> SRUState:
        return SRUState(jnp.zeros(self.hidden), jnp.zeros(self.hidden))

    def project(self, event: Event) -> tuple[Hidden, Hidden, Hidden, Hidden]:
        x = event.x
        past = x if self.wh is None else x @ self.wh
        return x @ self.w, x @ self.wf + self.bf, x @ self.wr + self.br, self.alpha * past

    def step(self, state: SRUState, projected: Any) -> SRUState:
        new, forget, highway, _ = projected
        f = jax.nn.sigmoid(forget + self.vf * state.c)
        r = jax.nn.sigmoid(highway + self.vr * state.c)
        return SRUState(new + f * (state.c - new), r)

    def read(self, state: SRUState, projected: Any) -> Hidden:
        return projected[3] + state.r * (state.c - projected[3])
