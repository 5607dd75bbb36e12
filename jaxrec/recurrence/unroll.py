"""Run a cell over time: many events at once, or one event at a time."""

from typing import Any

import jax

from jaxrec.cells import Cell, Event
from jaxrec.recurrence.backends import choose
from jaxrec.recurrence.ready import ONE, admitted, begun
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
    cell, events = admitted(cell, events)
    runner = choose(cell, backend, events.x.shape[1])
    return runner.run(*begun(cell, state, events, reset))


def start(cell: Cell, batch: int) -> Any:
    """The state ``(batch, ...)`` of ``batch`` people before their first event."""
    return batched_initial(widened(cell).prepare(), batch)


def advance(cell: Cell, state: Any, events: Event, *, reset: Restart | None = None) -> tuple[Any, Any]:
    """One event for each row, leaves ``(batch, ...)``: ``(next state, output)``, equal to what `unroll` computes.

    Where ``reset (batch,)`` is True the row starts afresh before its event.
    """
    cell, events = admitted(cell, events, ONE)
    ready, state, events, reset = begun(cell, state, events, reset, ONE)
    fresh = batched_initial(ready, events.x.shape[0])

    def one(state: Any, event: Event) -> tuple[Any, Any]:
        projected = ready.project(event)
        after = ready.step(state, projected)
        return after, ready.read(after, projected)

    after, output = jax.vmap(one)(restart(state, fresh, reset), events)
    return after, output
