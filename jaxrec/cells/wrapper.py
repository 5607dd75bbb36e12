"""What a cell around another cell has of it."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp

from jaxrec.cells.cell import Cell, Event
from jaxrec.config import Mistake


class Wrapper(Cell):
    """A cell around another, its ``cell``: it starts from that cell's state, and is prepared with it.

    One that is also of a kind, such as `AffineCell`, answers for what that kind derives: a backend that looks for
    methods of a cell's own looks through the wrapper at the cell inside.
    """

    cell: Cell
    adds: ClassVar[Sequence[str]] = ()  # names of the Event leaves that it reads beside those of its cell

    @property
    def wants(self) -> Sequence[str]:  # type: ignore[override]
        return tuple(dict.fromkeys((*self.cell.wants, *self.adds)))

    @property
    def keeps(self) -> Mapping[str, int]:  # type: ignore[override]
        return {f"cell.{name}": sign for name, sign in self.cell.keeps.items()}

    def prepare(self) -> Self:
        return self.with_derived(cell=self.cell.prepare())

    def initial_state(self) -> Any:
        return self.cell.initial_state()


def shown(cell: Cell, features: int, rule: str) -> int:
    """Width of what ``cell`` shows the layer above; `Mistake`, which begins with ``rule``, unless it is one vector."""

    def run() -> Any:
        vector, ready = jnp.zeros(features), cell.prepare()
        event = Event(
            vector, gap=jnp.zeros(()), context=vector, user=vector, start=jnp.zeros((), bool), key=jax.random.key(0)
        )
        projected = ready.project(event)
        return ready.read(ready.step(ready.initial_state(), projected), projected)

    output = jax.eval_shape(run)
    if not isinstance(output, jax.ShapeDtypeStruct) or len(output.shape) != 1:
        raise Mistake(f"{rule}, and {type(cell).__name__} shows {output}; wrap a cell that shows one vector")
    return int(output.shape[0])
