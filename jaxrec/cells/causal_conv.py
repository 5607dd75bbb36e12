"""A short causal convolution."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxrec.cells.cell import Event
from jaxrec.cells.kinds import WindowCell
from jaxrec.cells.weights import bias, positive, weight
from jaxrec.types import Hidden


class CausalConv(WindowCell):
    """Causal depthwise convolution (Waibel et al. 1989, one kernel a unit): ``y_t = b + sum_j k_j * (W x_{t-j})``.

    The time-delay network, https://doi.org/10.1109/29.21701, with one kernel for each unit instead of a full matrix at
    each delay: the short convolution in Mamba (Gu and Dao 2023) and its kin. Before the first event stand zeros.
    Kernels start uniform within ``1 / sqrt(width)``, the fan-in of one unit. State ``(width, hidden)``, the last
    projected inputs; output ``(hidden,)``.
    """

    family = "window"

    def __init__(self, features: int, hidden: int, *, width: int = 4, rngs: nnx.Rngs):
        positive(width=width)
        self.features, self.hidden, self.width = features, hidden, width
        self.w = weight(rngs, features, hidden)
        bound = width**-0.5
        self.kernel = nnx.Param(jax.random.uniform(rngs.params(), (width, hidden), minval=-bound, maxval=bound))
        self.b = bias(hidden)

    def initial_state(self) -> Any:
        return jnp.zeros((self.width, self.hidden))

    def project(self, event: Event) -> Hidden:
        return event.x @ self.w

    def read(self, state: Any, projected: Any) -> Hidden:
        return (self.kernel * state).sum(axis=0) + self.b
