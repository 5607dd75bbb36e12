"""The independently recurrent network."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from jaxrec.cells.cell import Event
from jaxrec.cells.elman import ACTIVATIONS
from jaxrec.cells.kinds import ElementwiseCell
from jaxrec.cells.weights import bias, weight
from jaxrec.config import Mistake
from jaxrec.types import Hidden


class IndRNN(ElementwiseCell):
    """Independently recurrent network (Li et al. 2018): ``h' = f(W x + u * h + b)``, ``f`` relu or tanh.

    https://arxiv.org/abs/1803.04831, equation 4. Units meet only in the layer above. ``u`` starts uniform in
    ``[0, growth ** (1 / longest)]`` in the paper, so that no unit grows by more than ``growth`` (2, say) over the
    ``longest`` sequence; here in ``[0, 1]``, its limit. State and output ``(hidden,)``.
    """

    family = "simple"

    def __init__(self, features: int, hidden: int, *, activation: Literal["relu", "tanh"] = "relu", rngs: nnx.Rngs):
        if activation not in ACTIVATIONS:
            raise Mistake(f"IndRNN has no activation={activation!r}; choose one of {', '.join(ACTIVATIONS)}")
        self.features, self.hidden, self.activation = features, hidden, activation
        self.w = weight(rngs, features, hidden)
        self.u = nnx.Param(jax.random.uniform(rngs.params(), (hidden,)))
        self.b = bias(hidden)

    def initial_state(self) -> Hidden:
        return jnp.zeros(self.hidden)

    def project(self, event: Event) -> Hidden:
        return event.x @ self.w + self.b

    def step(self, state: Hidden, projected: Any) -> Hidden:
        return ACTIVATIONS[self.activation](projected + self.u * state)
