"""`adjoint`: the reverse pass of any cell in the order that a processor likes.

Automatic differentiation of a loop keeps whatever a derivative mentions and adds every weight's gradient at every step.
Here a step is read as equations: matrix products, tanh, sigmoid and exp are kept (only those of them that a derivative
needs), all that is cheap is computed again, and weights' gradients are one product for a piece of many steps. For a GRU
this is the reverse pass one would derive by hand, and it is derived from the cell's own step.
"""

from dataclasses import dataclass
from typing import Any

import jax
from jax import Array
from jax.dtypes import float0

from jaxrec.cells import Cell, Event
from jaxrec.config import Mistake
from jaxrec.recurrence.reverse import Plan, block, parted
from jaxrec.recurrence.scan import Scan
from jaxrec.recurrence.states import spread
from jaxrec.recurrence.trees import joined, piece

VALUES = 2**17  # of a piece's inputs: enough for its matrix products to be efficient, few enough for a cache


@dataclass(frozen=True)
class Adjoint:
    """Reverse pass in pieces: keeps what is costly, computes the rest again, one product a piece for each weight.

    ``piece`` is the number of steps; None takes as many as give its products work and fit a cache. It has no forward
    mode: `jax.jvp` needs scan.
    """

    piece: int | None = None

    def __post_init__(self) -> None:
        given = self.piece
        if given is not None and (isinstance(given, bool) or not isinstance(given, int) or given < 1):
            raise Mistake(f"adjoint: piece={given!r} is not a number of steps; give a whole number of at least 1")

    def refuses(self, cell: Cell) -> str | None:
        return None

    def run(self, cell: Cell, state: Any, events: Event, reset: Array | None) -> tuple[Any, Any]:
        if not events.x.size:
            return Scan().run(cell, state, events, reset)
        time = events.x.shape[1]
        length = min(time, self.piece) if self.piece else divisor(time, -(-VALUES * time // events.x.size))
        cell, state, inputs = spread((cell, state, (events, reset)), (cell, state, events, reset))
        done = []
        for begin, end, size in ((0, time - time % length, length), (time - time % length, time, time % length)):
            if begin < end:
                state, outputs = run_pieces(cell, state, piece(inputs, begin, end), size)
                done.append(outputs)
        return state, joined(*done)


def divisor(time: int, wanted: int) -> int:
    """The first number from ``wanted`` to its double that divides ``time``, else ``wanted``; at most ``time``."""
    return next((n for n in range(min(wanted, time), 2 * wanted) if time % n == 0), wanted)


def run_pieces(cell: Cell, state: Any, inputs: Any, length: int) -> tuple[Any, Any]:
    """Over inputs ``(batch, time, ...)``, ``length`` steps at a time: last state and outputs ``(batch, time, ...)``."""
    plan = Plan(cell, state, jax.eval_shape(lambda inputs: block(inputs, 0, length), inputs), length)
    smooth, rest, join = parted((plan.step.share(jax.tree.leaves(cell)), cell, state, inputs))

    def forward(smooth: Any, rest: Any) -> Any:
        last, outputs, saved = plan.run(join(smooth, rest))
        return (last, outputs), (smooth, rest, saved)

    def backward(kept: Any, slopes: Any) -> Any:
        smooth, rest, saved = kept
        by_last, by_outputs = ([leaf for leaf in part if leaf.dtype != float0] for part in slopes)
        return plan.backward(join(smooth, rest), saved, by_last, by_outputs), None

    run = jax.custom_vjp(lambda smooth, rest: forward(smooth, rest)[0])
    run.defvjp(forward, backward)
    last, outputs = run(smooth, rest)
    return jax.tree.unflatten(jax.tree.structure(state), last), jax.tree.unflatten(plan.outputs, outputs)
