"""The rectified recurrent network that starts as the identity."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxrec.cells.cell import Cell, Event
from jaxrec.cells.weights import bias, positive, weight
from jaxrec.types import Hidden


class IRNN(Cell):
    """Identity recurrent network (Le et al. 2015): ``h' = relu(W x + U h + b)``, ``U`` starting as ``scale I``.

    https://arxiv.org/abs/1504.00941, section 2. At the start a state without input stays as it is, and so does its
    gradient; ``scale`` below 1 forgets (the paper takes .01 where memory need not be long). Nothing bounds the state:
    the paper clips gradients, and so should you. State and output ``(hidden,)``.
    """

    family = "simple"

    def __init__(self, features: int, hidden: int, *, scale: float = 1.0, rngs: nnx.Rngs):
        positive(hidden=hidden)
        self.features, self.hidden = features, hidden
        self.w = weight(rngs, features, hidden)
        self.u = nnx.Param(scale * jnp.eye(hidden))
        self.b = bias(hidden)

    def initial_state(self) -> Hidden:
        return jnp.zeros(self.hidden)

    def project(self, event: Event) -> Hidden:
        return event.x @ self.w + self.b

    def step(self, state: Hidden, projected: Any) -> Hidden:
        return jax.nn.relu(projected + state @ self.u)
