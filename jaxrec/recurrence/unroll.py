"""Run a cell over time: many events at once, or one event at a time."""

from typing import Any

import jax

from jaxrec.cells import Cell, Event
from jaxrec.recurrence.backends import choose
from jaxrec.recurrence.checks import check_events, check_reset, check_state, check_step
from jaxrec.recurrence.states import batched_initial, restart
from jaxrec.recurrence.trees import widened
from jaxrec.types import Resets, Restart


def unroll(
    cell: Cell, events: Event, *, state: Any = None, reset: Resets | None = None, backend: Any = None
) -> tuple[Any, Any]:
    """Run ``cell`` over ``events (batch, time, ...)``: ``(last state (batch, ...), outputs (batch, time, ...))``.

    ``state`` is where to go on from (None: the cell's initial state); where ``reset (batch, time)`` is True the row
    starts afresh before that event. ``backend`` is a name, a call such as ``scan(hoist=true)`` or an object, obeyed or
    refused; None takes the best that accepts the cell. Weights and events in half precision are widened first, so that
    state and outputs are float32. `Mistake` when the events lack a leaf or a step changes the state's tree or types.
    """
    batch, time = check_events(cell, events, ("batch", "time"))
    cell, events = widened(cell), widened(events)
    runner = choose(cell, backend, time)  # as it will run: a backend may refuse a state of two widths
    ready = cell.prepare()
    check_step(ready, events, axes=2)
    check_reset(reset, events.x.shape[:2])
    fresh = batched_initial(ready, batch)
    if state is not None:
        check_state(ready, state, fresh)
    return runner.run(ready, fresh if state is None else state, events, reset)


def start(cell: Cell, batch: int) -> Any:
    """The state ``(batch, ...)`` of ``batch`` people before their first event."""
    return batched_initial(widened(cell).prepare(), batch)


def advance(cell: Cell, state: Any, events: Event, *, reset: Restart | None = None) -> tuple[Any, Any]:
    """One event for each row, leaves ``(batch, ...)``: ``(next state, output)``, equal to what `unroll` computes.

    Where ``reset (batch,)`` is True the row starts afresh before its event.
    """
    (batch,) = check_events(cell, events, ("batch",))
    cell, events = widened(cell), widened(events)
    ready = cell.prepare()
    check_step(ready, events, axes=1)
    check_reset(reset, (batch,))
    fresh = batched_initial(ready, batch)
    check_state(ready, state, fresh)

    def one(state: Any, event: Event) -> tuple[Any, Any]:
        projected = ready.project(event)
        after = ready.step(state, projected)
        return after, ready.read(after, projected)

    after, output = jax.vmap(one)(restart(state, fresh, reset), events)
    return after, output
