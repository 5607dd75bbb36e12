"""Ways to run a cell over time, and which is taken. `scan` is the definition of what every other must compute."""

from typing import Any, Protocol

from jax import Array

from jaxrec.cells import Cell, Event
from jaxrec.config import Call, Mistake, did_you_mean, squash
from jaxrec.recurrence.adjoint import Adjoint
from jaxrec.recurrence.associative import Associative
from jaxrec.recurrence.choice import winner
from jaxrec.recurrence.chunkwise import Chunkwise
from jaxrec.recurrence.composite import Wired
from jaxrec.recurrence.cudnn import Cudnn
from jaxrec.recurrence.newton import Newton
from jaxrec.recurrence.scan import Scan
from jaxrec.recurrence.window import Window


class Backend(Protocol):
    """Runs a prepared cell; everything it is given has been checked by `unroll`."""

    def refuses(self, cell: Cell) -> str | None:
        """Why it cannot run this cell, or None."""

    def run(self, cell: Cell, state: Any, events: Event, reset: Array | None) -> tuple[Any, Any]:
        """From a state ``(b, ...)`` over events ``(b, t, ...)``: last state ``(b, ...)``, outputs ``(b, t, ...)``."""


BACKENDS: dict[str, type[Any]] = {  # `choice.py` says which runs when none is demanded
    "scan": Scan,
    "adjoint": Adjoint,
    "associative": Associative,
    "chunkwise": Chunkwise,
    "newton": Newton,
    "cudnn": Cudnn,
    "window": Window,
    "composite": Wired,
}


def choose(cell: Cell, backend: Any = None, length: int | None = None) -> Backend:
    """The backend asked for, obeyed or refused; when None is, the best for so many events as `choice.TABLE` has it."""
    if backend is None:
        return named(winner(cell, BACKENDS, length)[0])
    chosen: Backend = named(backend) if isinstance(backend, Call | str) else backend
    reason = chosen.refuses(cell)
    if reason is not None:
        kind = type(chosen)
        word = next((name for name, known in BACKENDS.items() if known is kind), kind.__name__)
        raise Mistake(f"{word} cannot run {type(cell).__name__}: {reason}; choose another backend or none")
    return chosen


def accepts(cell: Cell, backend: Any = None) -> bool:
    """Whether `choose` would obey."""
    try:
        choose(cell, backend)
    except Mistake:
        return False
    return True


def named(backend: Call | str) -> Backend:
    """A backend from its name and options, as in ``scan(hoist=true)``."""
    call = Call.parse(backend) if isinstance(backend, str) else backend
    known = {squash(name): name for name in BACKENDS}
    if call.file is not None or squash(call.name) not in known:
        raise Mistake(
            f"no backend is called {str(call)!r} (there is {', '.join(BACKENDS)}){did_you_mean(call.name, BACKENDS)}"
        )
    name = known[squash(call.name)]
    accepted = list(getattr(BACKENDS[name], "__dataclass_fields__", ()))
    for option in call.options:
        if option not in accepted:
            raise Mistake(
                f"{name} has no option {option!r} (it has {', '.join(accepted)}){did_you_mean(option, accepted)}"
            )
    if call.arguments:
        raise Mistake(f"{call}: name the options of a backend, as in {name}({accepted[0] if accepted else ''}=...)")
    made: Backend = BACKENDS[name](**call.options)
    return made
