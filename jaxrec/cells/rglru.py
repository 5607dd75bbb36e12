"""The real-gated linear recurrent unit."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxrec.cells.cell import Event
from jaxrec.cells.kinds import AffineCell
from jaxrec.cells.weights import bias, weight
from jaxrec.types import Hidden

SHARPNESS = 8.0  # the paper's constant c


class RGLRU(AffineCell):
    """Real-gated linear recurrent unit (De et al. 2024, Griffin): ``h' = a * h + sqrt(1 - a^2) * (i * u)``.

    https://arxiv.org/abs/2402.19427, equations 1 to 4: ``r = sigmoid(Wr u + br)``, ``i = sigmoid(Wi u + bi)``,
    ``log a = -8 softplus(lam) r``. In the paper the layer before has already brought the input to the state's width;
    here ``u = W x`` does. ``lam`` starts so that ``a`` at ``r = 1`` is uniform in ``[.9, .999]``. State and output
    ``(hidden,)``.
    """

    def __init__(self, features: int, hidden: int, *, rngs: nnx.Rngs):
        self.features, self.hidden = features, hidden
        self.w = weight(rngs, features, hidden)
        self.wr, self.wi = (weight(rngs, hidden, hidden) for _ in range(2))
        self.br, self.bi = bias(hidden), bias(hidden)
        slowest = jax.random.uniform(rngs.params(), (hidden,), minval=0.9, maxval=0.999)
        self.lam = nnx.Param(jnp.log(jnp.expm1(-jnp.log(slowest) / SHARPNESS)))  # softplus backwards

    def initial_state(self) -> Hidden:
        return jnp.zeros(self.hidden)

    def project(self, event: Event) -> tuple[Hidden, Hidden, Hidden]:
        u = event.x @ self.w
        return u, u @ self.wr + self.br, u @ self.wi + self.bi

    def affine(self, projected: Any) -> tuple[Hidden, Hidden]:
        u, reset, write = projected
        log_a = -SHARPNESS * jax.nn.softplus(self.lam[...]) * jax.nn.sigmoid(reset)
        # 1 - a^2 by expm1: next to a = 1 the difference would keep no digits; at a = 1 the root has no slope
        power = jnp.maximum(-jnp.expm1(2 * log_a), jnp.finfo(log_a.dtype).tiny)
        return jnp.exp(log_a), jnp.sqrt(power) * jax.nn.sigmoid(write) * u
