"""The closed-form continuous-time network."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxrec.cells.cell import DAY, Cell, Event
from jaxrec.cells.weights import bias, weight
from jaxrec.types import Hidden


class CfC(Cell):
    """Closed-form continuous-time network (Hasani et al. 2022): ``h' = s g + (1 - s) k`` with ``s`` a sigmoid of time.

    https://doi.org/10.1038/s42256-022-00556-7, equation 4 (the gated form, the default of the authors' package ncps):
    a backbone ``u = 1.7159 tanh(0.666 (W x + U h + b))`` feeds four heads, ``g = tanh(Wg u + bg)``, ``k = tanh(Wk u +
    bk)`` and ``s = sigmoid(-((Wa u + ba) gap + (Wb u + bb)))``: a liquid network's approach to its fixed point, in
    closed form instead of an ODE solver. Gap 0 leaves ``s = sigmoid(-(Wb u + bb))``; a long one leaves ``g`` or ``k``
    alone, by the sign of ``Wa u + ba``.

    ``backbone`` is the width of its one layer; ``unit`` seconds are one unit of ``gap``, a day by default, and negative
    gaps count as none. Matrices start at their true fan-in (Glorot in ncps). State and output ``(hidden,)``.
    """

    family = "time"
    wants = ("x", "gap")

    def __init__(self, features: int, hidden: int, *, backbone: int = 128, unit: float = DAY, rngs: nnx.Rngs):
        self.features, self.hidden, self.backbone, self.unit = features, hidden, backbone, unit
        both = weight(rngs, features + hidden, backbone)[...]
        self.w, self.u, self.b = nnx.Param(both[:features]), nnx.Param(both[features:]), bias(backbone)
        self.wg, self.wk, self.wa, self.wb = (weight(rngs, backbone, hidden) for _ in range(4))
        self.bg, self.bk, self.ba, self.bb = (bias(hidden) for _ in range(4))

    def initial_state(self) -> Hidden:
        return jnp.zeros(self.hidden)

    def project(self, event: Event) -> tuple[Array, Array]:
        return event.x @ self.w + self.b, event.elapsed(self.unit)

    def step(self, state: Hidden, projected: Any) -> Hidden:
        given, gap = projected
        u = 1.7159 * jnp.tanh(0.666 * (given + state @ self.u))
        g, k = jnp.tanh(u @ self.wg + self.bg), jnp.tanh(u @ self.wk + self.bk)
        s = jax.nn.sigmoid(-((u @ self.wa + self.ba) * gap + (u @ self.wb + self.bb)))
        return k + s * (g - k)
