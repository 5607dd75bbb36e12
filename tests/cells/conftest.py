"""Hold a cell against a float64 numpy step that was written from its paper alone."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrec.cells import Cell, Event
from jaxrec.recurrence import unroll

BATCH, TIME, FEATURES = 2, 5, 3
HOUR, DAY = 3600.0, 86400.0
# seconds, with ties, from none to a year; exact in float32
GAPS = np.array([[0, HOUR, 3 * DAY, 365 * DAY, 0], [7 * DAY, 1, 0, HOUR, 100]])
STARTS = np.array([[True, False, False, True, False], [True, True, False, False, True]])
Weights = dict[str, np.ndarray]
Step = Callable[[Weights, Any, Any], tuple[Any, np.ndarray]]


@pytest.fixture
def follows_paper() -> Callable[..., None]:
    return follows


def follows(
    make: Callable[[nnx.Rngs], Cell], step: Step, state: Any, *, scale: float = 0.3, atol: float = 3e-6,
    unit: float = 1, idle: Sequence[str] = (),
) -> None:  # fmt: skip
    """Outputs in float32 and float64, and gradients by every weight and by the inputs, are those of ``step``.

    ``step(p, state, event) -> (state, output)`` sees one event of one row as float64 arrays (an `Event`; gaps are
    `GAPS` divided by ``unit``) and the weights by name, as in ``p["wf"]`` or ``p["inner.wi"]``. ``state`` is what it
    starts from, or a function of ``p`` that says so. Weights are moved by noise of ``scale`` from where they start, so
    that no bias hides behind its zero; those named ``idle`` cancel by the equations themselves.
    """
    cell, events = jittered(make(nnx.Rngs(0)), np.float32, scale), sample(unit)
    wanted = outputs(step, state, named(cell), events)
    _, found = unroll(cell, as_events(cell, events, np.float32))
    np.testing.assert_allclose(found, wanted, atol=atol, rtol=1e-7)
    with jax.enable_x64(True):
        double = jittered(make(nnx.Rngs(0)), np.float64, scale)
        wanted = outputs(step, state, named(double), events)
        _, found = unroll(double, as_events(double, events, np.float64))
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, wanted, atol=1e-12, rtol=1e-11)
        gradients(double, step, state, events, wanted.shape, idle)


def gradients(
    cell: Cell, step: Step, state: Any, events: Event, shape: tuple[int, ...], idle: Sequence[str]
) -> None:  # fmt: skip
    """Along two random directions of every leaf the slope is the oracle's, by central differences."""
    noise = np.random.default_rng(2)
    slant = noise.normal(size=shape)

    def loss(cell: Cell, x: Any) -> Any:
        return (unroll(cell, as_events(cell, events._replace(x=x), np.float64))[1] * slant).sum()

    by_cell, by_x = jax.jit(jax.grad(loss, argnums=(0, 1)))(cell, jnp.asarray(events.x))
    found = named(by_cell) | {"x": np.asarray(by_x)}
    p = named(cell)
    for key, array in (p | {"x": events.x}).items():
        if key in idle:
            assert np.abs(found[key]).max() < 1e-12, f"{key} has an effect"
        else:
            assert found[key].any(), f"{key} has no effect"
        for direction in noise.normal(size=(2, *array.shape)):
            ends = []
            for nudge in (1e-5, -1e-5):
                moved = array + nudge * direction
                given = (p, events._replace(x=moved)) if key == "x" else (p | {key: moved}, events)
                ends.append((outputs(step, state, *given) * slant).sum())
            slope = (ends[0] - ends[1]) / 2e-5
            assert (found[key] * direction).sum() == pytest.approx(slope, rel=1e-5, abs=1e-8), key


def outputs(step: Step, state: Any, p: Weights, events: Event) -> np.ndarray:
    """The oracle's outputs ``(batch, time, ...)``."""
    rows = []
    for row in range(BATCH):
        here, found = state(p) if callable(state) else state, []
        for time in range(TIME):
            here, output = step(p, here, Event(*(leaf[row, time] for leaf in events[:5])))
            found.append(output)
        rows.append(found)
    return np.array(rows)


def sample(unit: float) -> Event:
    """Float64 events that are exact in float32."""
    noise = np.random.default_rng(1)
    x, context, user = noise.normal(size=(3, BATCH, TIME, FEATURES)).astype(np.float32).astype(np.float64)
    return Event(x, gap=(GAPS / unit).astype(np.float32).astype(np.float64), context=context, user=user, start=STARTS)


def as_events(cell: Cell, events: Event, dtype: Any) -> Event:
    """What the cell wants of the events, on the device."""
    real = {
        name: jnp.asarray(getattr(events, name), dtype) for name in ("gap", "context", "user") if name in cell.wants
    }
    start = {"start": jnp.asarray(events.start)} if "start" in cell.wants else {}
    return Event(jnp.asarray(events.x, dtype), **real, **start)


def jittered(cell: Cell, dtype: Any, scale: float) -> Cell:
    noise = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(np.asarray(leaf, np.float64) + noise.normal(size=leaf.shape) * scale, dtype), cell
    )


def named(cell: Cell) -> Weights:
    """Every weight by its place, as ``wf``, ``inner.wi`` or ``layers.0.w``."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(cell):
        words = re.findall(r"\w+", jax.tree_util.keystr(path))
        name = ".".join(word for word in words if word not in ("value", "raw_value"))
        assert name not in found
        found[name] = np.asarray(leaf, np.float64)
    return found
