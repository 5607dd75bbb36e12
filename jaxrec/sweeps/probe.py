"""How many trainings run together best: measured in a short probe, and within the memory that there is."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec.training.population import Executor, Members, Together, together
from jaxrec.training.source import Source
from jaxrec.training.step import Step


class Report(NamedTuple):
    """How trainings ran together: the executor, member-steps a second of each that was tried, members at one time, and
    the bytes that the program needs.
    """

    executor: Executor
    probed: dict[Executor, float]
    slots: int
    bytes: int


def fastest(
    step: Step, ways: Sequence[Executor], given: Members, data: Source
) -> tuple[Together, dict[Executor, float]]:
    """The executor that ran most member-steps a second in a short probe, and what each did; a lone one is not tried.
    A process probes what is alike once.
    """
    if len(ways) == 1:
        return together(step, ways[0]), {}
    key = step, tuple(ways), np.shape(given.plan)
    if key not in _PROBED:
        _PROBED[key] = {way: speed(together(step, way), given, data) for way in ways}
    speeds = _PROBED[key]
    return together(step, max(speeds, key=speeds.__getitem__)), speeds


_PROBED: dict[tuple[Step, tuple[Executor, ...], tuple[int, ...]], dict[Executor, float]] = {}


def speed(run: Together, given: Members, data: Source, steps: int = 4) -> float:
    """Member-steps a second, compilation apart: the better of two short turns."""
    seconds = []
    for end in (1, steps, steps):
        bounds = jnp.zeros((len(given.bounds), 2), jnp.int32).at[:, 1].set(end)
        copy = given._replace(state=jax.tree.map(jnp.copy, given.state), bounds=bounds)  # calls consume their state
        began = time.perf_counter()
        jax.block_until_ready(run(copy, data))
        seconds.append(time.perf_counter() - began)
    return len(given.bounds) * steps / min(seconds[1:])


def sentence(report: Report) -> str:
    tried = ", ".join(f"{name} {speed:,.0f}" for name, speed in report.probed.items())
    measured = f"; member-steps a second: {tried}" if tried else ""
    return f"{report.slots} trainings at a time by {report.executor}, {report.bytes / 2**20:,.0f} MiB{measured}"
