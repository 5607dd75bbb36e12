"""The linear recurrent unit."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxrec.cells.cell import Event
from jaxrec.cells.kinds import AffineCell
from jaxrec.cells.weights import positive
from jaxrec.config import Mistake


class LRU(AffineCell):
    """Linear recurrent unit (Orvieto et al. 2023): ``h' = lam * h + gamma * (B x)``, ``y = Re(C h) + D * x``.

    https://arxiv.org/abs/2303.06349, section 3: ``lam = exp(-exp(nu) + i exp(theta))`` never leaves the unit disc,
    starts uniform on the ring ``r_min <= |lam| <= r_max`` with phase up to ``max_phase``; ``gamma``, trained in its
    logarithm, starts at ``sqrt(1 - |lam|^2)``, so that states start at the scale of their inputs. Complex parameters
    are kept as real pairs. State complex ``(hidden,)``, output ``(features,)``.
    """

    def __init__(
        self, features: int, hidden: int, *, r_min: float = 0.0, r_max: float = 1.0, max_phase: float = 6.283,
        rngs: nnx.Rngs,
    ):  # fmt: skip
        positive(features=features, hidden=hidden)
        if not 0 <= r_min < r_max <= 1:
            raise Mistake(f"LRU: the ring from r_min={r_min} to r_max={r_max} is none; give 0 <= r_min < r_max <= 1")
        self.features, self.hidden = features, hidden
        inner, phase = (jax.random.uniform(rngs.params(), (hidden,), minval=1e-6) for _ in range(2))
        # |lam|^2 uniform: points uniform on the ring. Drawn as 1 - |lam|^2, since |lam|^2 itself can round to 1
        missing = jnp.minimum((1 - r_max**2) + inner * (r_max**2 - r_min**2), 1 - 1e-6)
        self.nu = nnx.Param(jnp.log(-0.5 * jnp.log1p(-missing)))
        self.theta = nnx.Param(jnp.log(max_phase * phase))
        self.gamma = nnx.Param(0.5 * jnp.log(missing))
        normal = jax.random.normal
        self.b = nnx.Param(normal(rngs.params(), (2, features, hidden)) / jnp.sqrt(2.0 * features))
        self.c = nnx.Param(normal(rngs.params(), (2, hidden, features)) / jnp.sqrt(1.0 * hidden))
        self.d = nnx.Param(normal(rngs.params(), (features,)))

    def initial_state(self) -> Array:
        return jax.lax.complex(jnp.zeros(self.hidden), jnp.zeros(self.hidden))

    def project(self, event: Event) -> tuple[Array, Array, Array]:
        x = event.x
        scale = jnp.exp(self.gamma[...])
        return x, scale * (x @ self.b[0]), scale * (x @ self.b[1])

    def affine(self, projected: Any) -> tuple[Array, Array]:
        decay, turn = jnp.exp(-jnp.exp(self.nu[...])), jnp.exp(self.theta[...])
        return jax.lax.complex(decay * jnp.cos(turn), decay * jnp.sin(turn)), jax.lax.complex(*projected[1:])

    def read(self, state: Array, projected: Any) -> Array:
        return state.real @ self.c[0] - state.imag @ self.c[1] + self.d * projected[0]
