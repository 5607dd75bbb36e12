"""Cells wired together, each over the whole sequence on the backend that suits it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
from jax import Array

from jaxrec.cells import Cell, Composite, Event
from jaxrec.recurrence.checks import own


@dataclass(frozen=True)
class Wired:
    """`Composite.wire` over whole sequences: what lies between the cells runs for all events at once.

    Every inner cell takes its best backend; ``prefer`` names one for all inner cells that it does not refuse.
    """

    prefer: Any = None

    def refuses(self, cell: Cell) -> str | None:
        from jaxrec.recurrence.backends import named  # it lists this class

        if not isinstance(cell, Composite):
            return "it is not a Composite, made of cells"
        if reason := own(cell, Composite, ("initial_state", "project", "step", "read"), "wire"):
            return reason
        if self.prefer is not None and all(named(self.prefer).refuses(part) for part in parts(cell)):
            return f"{self.prefer} runs none of its cells {', '.join(cell.inner())}"
        return None

    def run(self, cell: Composite, state: Any, events: Event, reset: Array | None) -> tuple[Any, Any]:
        def row(state: Any, events: Event, reset: Array | None) -> tuple[Any, Any]:
            def one(name: str, cell: Cell, events: Event) -> tuple[Any, Any]:
                batch = jax.tree.map(lambda leaf: leaf[None], (state[name], events, reset))
                return jax.tree.map(lambda leaf: leaf[0], self.runner(cell, events).run(cell, *batch))

            return cell.through(one, events)

        return jax.vmap(row)(state, events, reset)

    def runner(self, cell: Cell, events: Event) -> Any:
        """The backend of an inner cell."""
        from jaxrec.recurrence.backends import choose, named  # they list this class

        wanted = self if isinstance(cell, Composite) else None if self.prefer is None else named(self.prefer)
        if wanted is not None and wanted.refuses(cell) is None:
            return wanted
        return choose(cell, length=len(jax.tree.leaves(events)[0]))


def parts(cell: Composite) -> Iterator[Cell]:
    """The inner cells, and those inside them, that are not made of cells."""
    for inner in cell.inner().values():
        yield from parts(inner) if isinstance(inner, Composite) else [inner]
