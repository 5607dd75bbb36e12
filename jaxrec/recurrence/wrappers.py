"""Wrappers that let a reader see or touch the states of any cell."""

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
from jax import Array

from jaxrec.cells import AffineCell, Cell, Composite, ElementwiseCell, Event, WindowCell, Wrapper


class Trajectory(NamedTuple):
    """What `Exposed` returns for every event."""

    output: Any
    state: Any


class Exposed(Wrapper):
    """The same cell, whose outputs are `Trajectory(output, state)`: beside what it shows, the state after the event.

    It stays of the cell's kind, so that the same backends take it.
    """

    def __new__(cls, cell: Cell) -> Self:
        kinds = (ExposedAffine, ExposedElementwise, ExposedWindow, ExposedComposite)
        return super().__new__(next((kind for kind in kinds if isinstance(cell, kind.__bases__[1])), cls))

    def __init__(self, cell: Cell):
        self.cell = cell

    def project(self, event: Event) -> Any:
        return self.cell.project(event)

    def step(self, state: Any, projected: Any) -> Any:
        return self.cell.step(state, projected)

    def read(self, state: Any, projected: Any) -> Trajectory:
        return Trajectory(self.cell.read(state, projected), state)


class ExposedElementwise(Exposed, ElementwiseCell):
    """Still elementwise."""


class ExposedAffine(Exposed, AffineCell):
    """Still affine."""

    def affine(self, projected: Any) -> tuple[Array, Array]:
        assert isinstance(self.cell, AffineCell)
        return self.cell.affine(projected)


class ExposedWindow(Exposed, WindowCell):
    """Still a window."""


class ExposedComposite(Exposed, Composite):
    """Still made of cells, each of them exposed."""

    def inner(self) -> dict[str, Cell]:
        assert isinstance(self.cell, Composite)
        return {name: Exposed(cell) for name, cell in self.cell.inner().items()}

    def wire(self, run: Callable[[str, Event], Any], events: Event) -> Trajectory:
        assert isinstance(self.cell, Composite)
        states = {}

        def told(name: str, events: Event) -> Any:
            output, states[name] = run(name, events)
            return output

        return Trajectory(self.cell.wire(told, events), states)


class Taps(NamedTuple):
    """The context of a tapped cell's events: what to add to states, by the name of the tap, and the context itself."""

    values: dict[str, Any]
    context: Any = None


class Tapped(Wrapper):
    """The same cell with ``events.context.values[name]`` added to the state after every event.

    Add zeros and differentiate with respect to them: the gradient at ``[b, t]`` is the loss's derivative by that state,
    through all that follows. A stack of tapped cells needs one ``name`` each.
    """

    adds = ("context",)

    def __init__(self, cell: Cell, name: str = "state"):
        self.cell, self.name = cell, name

    def project(self, event: Event) -> tuple[Any, Any]:
        return self.cell.project(event._replace(context=event.context.context)), event.context.values[self.name]

    def step(self, state: Any, projected: Any) -> Any:
        inner, tap = projected
        after = self.cell.step(state, inner)
        return jax.tree.map(
            lambda add, leaf: leaf if add is None else leaf + add, tap, after, is_leaf=lambda add: add is None
        )

    def read(self, state: Any, projected: Any) -> Any:
        return self.cell.read(state, projected[0])


def zero_taps(cell: Cell, batch: int, time: int) -> Any:
    """Zeros ``(batch, time, ...)`` for every real-valued leaf of the cell's state, None for the others."""

    def zeros(leaf: Any) -> Array | None:
        real = jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
        return jnp.zeros((batch, time, *jnp.shape(leaf)), jnp.result_type(leaf)) if real else None

    return jax.tree.map(zeros, cell.prepare().initial_state())


def tap(events: Event, values: dict[str, Any]) -> Event:
    """``events`` for a model whose cells are `Tapped`: ``values`` by the name of the tap."""
    return events._replace(context=Taps(values, events.context))
