"""What the kinds give a cell: a window's step, and a composite's state, step and read from its wiring."""

from collections.abc import Callable
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrec.cells import GRU, LSTM, Cell, Composite, Event, WindowCell
from jaxrec.config import Mistake
from jaxrec.recurrence import Scan, unroll

B, T, D, H = 2, 6, 3, 4


def events() -> Event:
    return Event(jnp.asarray(np.random.default_rng(0).normal(size=(B, T, D)), jnp.float32))


class Recent(WindowCell):
    """Shows the last three inputs, and each one's sum beside it."""

    def initial_state(self) -> Any:
        return jnp.full((3, D), -1.0), jnp.zeros(3)

    def project(self, event: Event) -> Any:
        return event.x, event.x.sum()

    def read(self, state: Any, projected: Any) -> Any:
        return state


def test_a_window_holds_the_last_inputs_oldest_first() -> None:
    x = events()
    last, (window, sums) = unroll(Recent(), x, backend="scan")
    padded = np.concatenate([np.full((B, 2, D), -1.0), x.x], axis=1)
    for t in range(T):
        np.testing.assert_allclose(window[:, t], padded[:, t : t + 3])
        np.testing.assert_allclose(sums[:, t], np.where(t + np.arange(-2, 1) < 0, 0, window[:, t].sum(-1)), rtol=1e-6)
    np.testing.assert_array_equal(last[0], window[:, -1])


class Doubled(GRU):
    """Counts how often it is prepared."""

    prepared = 0

    def prepare(self) -> Self:
        Doubled.prepared += 1
        return self


class Two(Composite):
    """An LSTM over a GRU, whose output is added once more."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.layers = nnx.List([Doubled(D, H, rngs=rngs), LSTM(H, H, rngs=rngs)])

    def inner(self) -> dict[str, Cell]:
        return {"first": self.layers[0], "second": self.layers[1]}

    def wire(self, run: Callable[[str, Event], Any], events: Event) -> Any:
        low = run("first", events)
        return low + run("second", events._replace(x=jnp.tanh(low)))


def test_a_composite_is_its_cells_one_after_the_other() -> None:
    cell, x = Two(rngs=nnx.Rngs(0)), events()
    reset = jnp.zeros((B, T), bool).at[0, 3].set(True)
    first, low = unroll(cell.layers[0], x, reset=reset)
    second, high = unroll(cell.layers[1], Event(jnp.tanh(low)), reset=reset)
    Doubled.prepared = 0
    last, outputs = unroll(cell, x, reset=reset, backend=Scan())
    np.testing.assert_allclose(outputs, low + high, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), last, {"first": first, "second": second})
    assert Doubled.prepared == 1


class Wired(Two):
    """Runs the cells it is told to run."""

    order: tuple[str, ...] = ()

    def wire(self, run: Callable[[str, Event], Any], events: Event) -> Any:
        for name in self.order:
            events = events._replace(x=run(name, events))
        return events.x


@pytest.mark.parametrize(
    ("order", "words"),
    [
        (("first",), "Wired.wire does not run 'second'"),
        (("first", "second", "second"), "Wired.wire runs 'second', a second time"),
        (("first", "third"), "runs 'third', which is not among first, second"),
    ],
)
def test_a_composite_runs_each_cell_once(order: tuple[str, ...], words: str) -> None:
    cell = Wired(rngs=nnx.Rngs(0))
    cell.order = order
    with pytest.raises(Mistake) as caught:
        unroll(cell, events())
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
