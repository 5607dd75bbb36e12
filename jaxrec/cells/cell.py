"""What a recurrent cell is: one example, one time step."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

DAY = 86400.0  # seconds


class Event(NamedTuple):
    """One event. Above cells every leaf gains ``(batch, time)`` in front; a leaf that is None is absent."""

    x: Array  # its vector
    gap: Array | None = None  # time since the previous event (float32)
    context: Any = None  # side information known at that moment
    user: Array | None = None  # vector of the person
    start: Array | None = None  # first event of a session: the cell may act on it; not a reset
    key: Array | None = None  # randomness for this event; None means deterministic

    def elapsed(self, unit: float) -> Array:
        """The gap in units of so many seconds; a negative one counts as none."""
        assert self.gap is not None
        return jnp.maximum(self.gap, 0) / unit


class Cell(nnx.Module):
    """A recurrence written for ONE example: no batch axis, no time axis.

    A subclass says what is different about it: `initial_state`, `step`, and where they help `project` (everything that
    needs no state, so that it can run for all steps at once), `read` and `prepare`. Weights are `nnx.Param`; Python
    numbers kept as attributes are static.
    """

    wants: Sequence[str] = ("x",)  # names of the Event leaves it reads; checked before it runs
    family: ClassVar[str] = "gated"  # what `jaxrec list cells` files it under
    # biases of gates, as in {"bf": 1, "inner.bi": -1, "b[0]": 1}: 1 where a large one keeps the state, -1 where a large
    # one writes over it; `start_keeping` draws them
    keeps: ClassVar[Mapping[str, int]] = {}

    def prepare(self) -> Self:
        """The cell with its derived weights computed, once for a whole sequence."""
        return self

    def with_derived(self, **weights: "Array | Cell") -> Self:
        """A copy that also holds ``weights``: what `prepare` returns of a cell that has derived ones."""
        ready = jax.tree.map(lambda leaf: leaf, self)
        for name, value in weights.items():
            setattr(ready, name, nnx.data(value))  # said, since flax takes a traced array for a static option
        return ready

    @abstractmethod
    def initial_state(self) -> Any:
        """The state before the first event: any pytree of arrays."""

    def project(self, event: Event) -> Any:
        """What the step needs of the event: any pytree, computed without the state."""
        return event.x

    @abstractmethod
    def step(self, state: Any, projected: Any) -> Any:
        """The next state: same tree, shapes and dtypes as ``state``."""

    def read(self, state: Any, projected: Any) -> Any:
        """What the layer above sees, after the step."""
        return state
