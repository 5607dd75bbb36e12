"""Steps on several devices: every device has the whole parameters and some of the rows, and of the lanes' states."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jax
from jax import Array

from jaxrec.parallel.strategy import Mode, distribute
from jaxrec.training.loop import run_steps
from jaxrec.training.optimisers import Hyper
from jaxrec.training.source import Source
from jaxrec.training.step import Metrics, State, Step


@lru_cache(maxsize=16)
def spread(step: Step, mode: Mode, devices: tuple[jax.Device, ...]) -> "Spread":
    """One for equal steps: a process that trains them again compiles nothing anew."""
    return Spread(step, mode, devices)


class Spread:
    """``run_steps`` compiled for ``devices``; call it as the loop does. The old state's memory is reused for the new.

    A state's ``carry`` is cut as the batch's rows are, so that a lane never leaves its device; whoever else sees the
    state sees its ``carry`` whole. Raises Mistake when the rows cannot be shared evenly.
    """

    def __init__(self, step: Step, mode: Mode, devices: int | Sequence[jax.Device]):
        def steps(
            state: State, source: Source, index: Array, reset: Array, bounds: Array, hyper: Hyper, carry: Any,
            axis: str | None = None,
        ) -> tuple[State, Metrics, Any]:  # fmt: skip
            state, metrics = run_steps(step, state._replace(carry=carry), source, index, reset, bounds, hyper, axis)
            return state._replace(carry=None), metrics, state.carry

        split = (None, None, 1, 1, None, None, 0)
        self.run = distribute(steps, mode, devices, split=split, out=(None, None, 0), donate=(0, 6))

    def place(self, state: State, source: Source, hyper: Hyper) -> tuple[State, Source, Hyper]:
        """The three where the devices want them: a loop that starts from these copies nothing at its calls."""
        return (
            self.run.put(0, state._replace(carry=None))._replace(carry=state.carry),
            self.run.put(1, source),
            self.run.put(5, hyper),
        )

    def __call__(
        self, state: State, source: Source, index: Any, reset: Any, bounds: Any, hyper: Hyper
    ) -> tuple[State, Metrics]:
        whole, carry = state._replace(carry=None), state.carry
        whole, metrics, carry = self.run(whole, source, index, reset, bounds, hyper, carry)
        return whole._replace(carry=carry), metrics
