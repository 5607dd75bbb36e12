"""The minimal GRU, whose gate does not look at the state."""

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from jaxrec.cells.cell import Event
from jaxrec.cells.kinds import AffineCell
from jaxrec.cells.weights import bias, weight
from jaxrec.types import Hidden


class MinGRU(AffineCell):
    """Minimal GRU (Feng et al. 2024): ``z = sigmoid(Wz x + bz)``, ``n = Wn x + bn``, ``h' = (1 - z) h + z n``.

    https://arxiv.org/abs/2410.01201, section 3.1.3, the form without the positive ``g`` of its log-space appendix. With
    ``z`` free of the state it is a prefix sum. State and output ``(hidden,)``.
    """

    keeps: ClassVar[Mapping[str, int]] = {"bz": -1}

    def __init__(self, features: int, hidden: int, *, rngs: nnx.Rngs):
        self.features, self.hidden = features, hidden
        self.wz, self.wn = (weight(rngs, features, hidden) for _ in range(2))
        self.bz, self.bn = (bias(hidden) for _ in range(2))

    def initial_state(self) -> Hidden:
        return jnp.zeros(self.hidden)

    def project(self, event: Event) -> tuple[Hidden, Hidden]:
        return event.x @ self.wz + self.bz, event.x @ self.wn + self.bn

    def affine(self, projected: Any) -> tuple[Hidden, Hidden]:
        z = jax.nn.sigmoid(projected[0])
        return 1 - z, z * projected[1]
