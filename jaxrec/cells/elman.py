"""The simple recurrent network."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from jaxrec.cells.cell import Cell, Event
from jaxrec.cells.weights import bias, orthogonal, weight
from jaxrec.config import Mistake
from jaxrec.types import Hidden

ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu}


class Elman(Cell):
    """Simple recurrent network (Elman 1990): ``h' = f(W x + U h + b)`` with ``f`` tanh or relu.

    https://doi.org/10.1207/s15516709cog1402_1, where ``f`` is the logistic function; tanh is what everybody has used
    since. ``U`` starts orthogonal, so that at the start no state grows or fades under it. State and output
    ``(hidden,)``.
    """

    family = "simple"

    def __init__(self, features: int, hidden: int, *, activation: Literal["tanh", "relu"] = "tanh", rngs: nnx.Rngs):
        if activation not in ACTIVATIONS:
            raise Mistake(f"Elman has no activation={activation!r}; choose one of {', '.join(ACTIVATIONS)}")
        self.features, self.hidden, self.activation = features, hidden, activation
        self.w = weight(rngs, features, hidden)
        self.u = orthogonal(rngs, hidden)
        self.b = bias(hidden)

    def initial_state(self) -> Hidden:
        return jnp.zeros(self.hidden)

    def project(self, event: Event) -> Hidden:
        return event.x @ self.w + self.b

    def step(self, state: Hidden, projected: Any) -> Hidden:
        return ACTIVATIONS[self.activation](projected + state @ self.u)
