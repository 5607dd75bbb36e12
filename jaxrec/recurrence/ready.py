"""What every run of a cell begins with, whoever runs it: checks, widening, derived weights, the first state."""

from typing import Any

from jax import Array

from jaxrec.cells import Cell, Event
from jaxrec.recurrence.checks import check_events, check_reset, check_state, check_step
from jaxrec.recurrence.states import batched_initial
from jaxrec.recurrence.trees import widened

SEQUENCE, ONE = ("batch", "time"), ("batch",)  # the leading axes of many events at once, and of one event


def admitted(cell: Cell, events: Event, axes: tuple[str, ...] = SEQUENCE) -> tuple[Cell, Event]:
    """Both as they will run, half precision widened: a backend may refuse a state of two widths."""
    check_events(cell, events, axes)
    return widened(cell), widened(events)


def begun(
    cell: Cell, state: Any, events: Event, reset: Array | None, axes: tuple[str, ...] = SEQUENCE
) -> tuple[Cell, Any, Event, Array | None]:
    """What `Backend.run` takes, of a cell and events that were `admitted`: the prepared cell and a state that fits it.

    None for a state is the initial one; a single event needs the state before it.
    """
    ready = cell.prepare()
    shape = events.x.shape[: len(axes)]
    check_step(ready, events, axes=len(axes))
    check_reset(reset, shape)
    fresh = batched_initial(ready, shape[0])
    if state is None and axes == SEQUENCE:
        return ready, fresh, events, reset
    check_state(ready, state, fresh)
    return ready, state, events, reset
