"""The simplified state space layer."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from jaxrec.cells.cell import Event
from jaxrec.cells.kinds import AffineCell
from jaxrec.cells.weights import positive
from jaxrec.config import Mistake


class S5(AffineCell):
    """Simplified state space layer (Smith et al. 2023): a diagonal linear system held between events, from HiPPO-N.

    https://arxiv.org/abs/2208.04933, section 3.2, with zero-order hold: ``lam' = exp(lam dt)``,
    ``h' = lam' h + (lam' - 1) / lam (B x)``, ``y = 2 Re(C h) + D * x``: of each conjugate pair one is kept, so that
    ``hidden`` complex numbers stand for a real state of ``2 hidden``. ``lam`` starts at the spectrum of HiPPO-N,
    ``B`` and ``C`` as real LeCun normal matrices in its basis, ``dt`` log-uniform in ``[dt_min, dt_max]``, one for
    each state. Unlike in the authors' code, ``Re lam = -exp(decay)`` cannot become positive. Complex parameters are
    kept as real pairs. State complex ``(hidden,)``, output ``(features,)``.
    """

    def __init__(
        self, features: int, hidden: int, *, dt_min: float = 0.001, dt_max: float = 0.1, rngs: nnx.Rngs
    ):  # fmt: skip
        positive(features=features, hidden=hidden)
        if not 0 < dt_min <= dt_max:
            raise Mistake(f"S5: no step is between dt_min={dt_min} and dt_max={dt_max}; give 0 < dt_min <= dt_max")
        self.features, self.hidden = features, hidden
        turn, basis = hippo(hidden)
        self.decay = nnx.Param(jnp.full(hidden, np.log(0.5), dtype=float))
        self.turn = nnx.Param(jnp.asarray(turn, float))
        share = jax.random.uniform(rngs.params(), (hidden,))
        self.log_step = nnx.Param(np.log(dt_min) + share * np.log(dt_max / dt_min))
        inward = jax.random.normal(rngs.params(), (features, 2 * hidden)) / jnp.sqrt(1.0 * features)
        outward = jax.random.normal(rngs.params(), (2 * hidden, features)) / jnp.sqrt(2.0 * hidden)
        real, imaginary = jnp.asarray(basis.real, float), jnp.asarray(basis.imag, float)
        self.b = nnx.Param(jnp.stack([inward @ real, -inward @ imaginary]))
        self.c = nnx.Param(jnp.stack([real.T @ outward, imaginary.T @ outward]))
        self.d = nnx.Param(jax.random.normal(rngs.params(), (features,)))

    def initial_state(self) -> Array:
        return jax.lax.complex(jnp.zeros(self.hidden), jnp.zeros(self.hidden))

    def project(self, event: Event) -> tuple[Array, Array]:
        return event.x, jax.lax.complex(event.x @ self.b[0], event.x @ self.b[1])

    def affine(self, projected: Any) -> tuple[Array, Array]:
        lam = jax.lax.complex(-jnp.exp(self.decay[...]), self.turn[...])
        log_kept = lam * jnp.exp(self.log_step[...])
        return jnp.exp(log_kept), jnp.expm1(log_kept) / lam * projected[1]

    def read(self, state: Array, projected: Any) -> Array:
        return 2 * (state.real @ self.c[0] - state.imag @ self.c[1]) + self.d * projected[0]


def hippo(hidden: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """HiPPO-N of ``2 hidden`` states: the positive half of its imaginary spectrum, and their vectors as columns.

    It is the normal part of HiPPO-LegS: ``-1/2`` on the diagonal, elsewhere antisymmetric, so that all
    eigenvalues have real part ``-1/2`` and the eigenvectors are orthonormal.
    """
    root = np.sqrt(np.arange(2 * hidden) + 0.5)
    products = np.outer(root, root)
    turn, basis = np.linalg.eigh(-1j * (np.triu(products, 1) - np.tril(products, -1)))
    return turn[hidden:], basis[:, hidden:]
