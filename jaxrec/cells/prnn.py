"""One network for the item, one for what is known of it."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxrec.cells.cell import Cell, Event
from jaxrec.cells.gru import GRU
from jaxrec.config import Mistake
from jaxrec.types import Hidden


class PRNN(Cell):
    """Parallel RNNs, one for each modality (Hidasi et al. 2016): a GRU on the item's vector beside a GRU on the
    context.

    https://doi.org/10.1145/2959100.2959167. ``output="both"`` shows the two states side by side, so that
    each has output weights of its own (the paper's p-RNN); ``"product"`` multiplies them (its parallel interaction).
    The two see nothing of each other. Both gate the state before the matrix product, as the paper's GRU does. The paper
    trains them in turns; here they learn together. The context should hold features of the item for what the paper
    does, and may hold any.

    State: the two GRUs' states, each ``(hidden,)``; output ``(2 hidden,)``, or ``(hidden,)`` for the product.
    """

    family = "context"
    wants = ("x", "context")
    keeps: ClassVar[Mapping[str, int]] = {"item.bz": 1, "side.bz": 1}

    def __init__(self, features: int, hidden: int, *, output: Literal["both", "product"] = "both", rngs: nnx.Rngs):
        if output not in ("both", "product"):
            raise Mistake(f'PRNN has no output={output!r}; choose "both" or "product"')
        self.output = output
        self.item, self.side = (GRU(features, hidden, reset="before", rngs=rngs) for _ in range(2))

    def initial_state(self) -> tuple[Hidden, Hidden]:
        return self.item.initial_state(), self.side.initial_state()

    def project(self, event: Event) -> tuple[Any, Any]:
        return self.item.project(event), self.side.project(event._replace(x=event.context))

    def step(self, state: tuple[Hidden, Hidden], projected: Any) -> tuple[Hidden, Hidden]:
        return self.item.step(state[0], projected[0]), self.side.step(state[1], projected[1])

    def read(self, state: tuple[Hidden, Hidden], projected: Any) -> Array:
        item, side = state
        return item * side if self.output == "product" else jnp.concatenate([item, side])
