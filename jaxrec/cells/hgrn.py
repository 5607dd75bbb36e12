"""The hierarchically gated recurrent network, one layer of it."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxrec.cells.cell import Event
from jaxrec.cells.kinds import AffineCell
from jaxrec.cells.weights import bias, weight
from jaxrec.config import Mistake
from jaxrec.types import Hidden

EPSILON = 1e-5  # of the layer norm


class HGRN(AffineCell):
    """Hierarchically gated recurrent network (Qin et al. 2023): a complex forget gate that never falls below a bound.

    https://arxiv.org/abs/2311.04823, section 3.2: ``c = silu(Wr x + br) + i silu(Wi x + bi)``,
    ``f = lower + (1 - lower) sigmoid(Wf x + bf)``, ``h' = f exp(i theta) h + (1 - f) c``, output
    ``Wo (norm([Re h, Im h]) * silu(Wg x + bg)) + bo``, with the layer norm before the gate as in the authors' code.
    There the bounds of all layers are learned, and grow from layer to layer; this is one layer, with a bound given:
    0 below, towards 1 above. ``theta`` starts at ``10000^(-2k / hidden)``. State complex ``(hidden,)``, output
    ``(features,)``.
    """

    def __init__(self, features: int, hidden: int, *, lower: float = 0.0, rngs: nnx.Rngs):
        if not 0 <= lower < 1:
            raise Mistake(f"HGRN: lower={lower} bounds no forget gate; give 0 <= lower < 1")
        self.features, self.hidden, self.lower = features, hidden, lower
        self.wr, self.wi, self.wf = (weight(rngs, features, hidden) for _ in range(3))
        self.br, self.bi, self.bf = (bias(hidden) for _ in range(3))
        self.wg, self.bg = weight(rngs, features, 2 * hidden), bias(2 * hidden)
        self.theta = nnx.Param(10000.0 ** (-2 * jnp.arange(hidden) / hidden))
        self.scale, self.shift = bias(2 * hidden, 1.0), bias(2 * hidden)
        self.wo, self.bo = weight(rngs, 2 * hidden, features), bias(features)

    def initial_state(self) -> Array:
        return jax.lax.complex(jnp.zeros(self.hidden), jnp.zeros(self.hidden))

    def project(self, event: Event) -> tuple[Hidden, Hidden, Hidden, Hidden]:
        x = event.x
        real, imaginary = jax.nn.silu(x @ self.wr + self.br), jax.nn.silu(x @ self.wi + self.bi)
        return real, imaginary, x @ self.wf + self.bf, jax.nn.silu(x @ self.wg + self.bg)

    def affine(self, projected: Any) -> tuple[Array, Array]:
        real, imaginary, logit, _ = projected
        take = (1 - self.lower) * jax.nn.sigmoid(-logit)  # 1 - f, which would cancel next to f = 1
        keep = 1 - take
        turned = jax.lax.complex(keep * jnp.cos(self.theta[...]), keep * jnp.sin(self.theta[...]))
        return turned, jax.lax.complex(take * real, take * imaginary)

    def read(self, state: Array, projected: Any) -> Array:
        both = jnp.concatenate([state.real, state.imag])
        apart = both - both.mean()
        normed = apart * jax.lax.rsqrt((apart**2).mean() + EPSILON)
        return ((normed * self.scale + self.shift) * projected[3]) @ self.wo + self.bo
