"""Wrappers that let a reader see or touch the states of any cell."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
from jax import Array

from jaxrec.cells import Cell, Event


class Trajectory(NamedTuple):
    """What `Exposed` returns for every event."""

    output: Any
    state: Any


class Exposed(Cell):
    """The same cell, whose outputs are `Trajectory(output, state)`: beside what it shows, the state after the event."""

    def __init__(self, cell: Cell):
        self.cell = cell

    @property
    def wants(self) -> Sequence[str]:  # type: ignore[override]
        return self.cell.wants

    def prepare(self) -> Self:
        return type(self)(self.cell.prepare())

    def initial_state(self) -> Any:
        return self.cell.initial_state()

    def project(self, event: Event) -> Any:
        return self.cell.project(event)

    def step(self, state: Any, projected: Any) -> Any:
        return self.cell.step(state, projected)

    def read(self, state: Any, projected: Any) -> Trajectory:
        return Trajectory(self.cell.read(state, projected), state)


class Taps(NamedTuple):
    """The context of a tapped cell's events: what to add to states, by the name of the tap, and the context itself."""

    values: dict[str, Any]
    context: Any = None


class Tapped(Cell):
    """The same cell with ``events.context.values[name]`` added to the state after every event.

    Add zeros and differentiate with respect to them: the gradient at ``[b, t]`` is the loss's derivative by that state,
    through all that follows. A stack of tapped cells needs one ``name`` each.
    """

    def __init__(self, cell: Cell, name: str = "state"):
        self.cell, self.name = cell, name

    @property
    def wants(self) -> Sequence[str]:  # type: ignore[override]
        return (*self.cell.wants, "context")

    def prepare(self) -> Self:
        return type(self)(self.cell.prepare(), self.name)

    def initial_state(self) -> Any:
        return self.cell.initial_state()

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
