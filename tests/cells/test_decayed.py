"""What the decay of a state with time must do, whatever cell it is around."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrec.cells import GRU, LRU, LSTM, AffineCell, Cell, Decayed, ElementwiseCell, Event, IndRNN, MinGRU, find
from jaxrec.config import Call, Mistake
from jaxrec.recurrence import unroll

B, T, D, H = 2, 5, 3, 4
DAY = 86400.0


def build(text: str) -> Cell:
    return find(Call.parse(text), D, hidden=H, rngs=nnx.Rngs(0))


def random_x(time: int = T) -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).normal(size=(B, time, D)), jnp.float32)


@pytest.mark.parametrize(
    ("inner", "kind"),
    [(GRU, Cell), (LSTM, Cell), (IndRNN, ElementwiseCell), (MinGRU, AffineCell), (LRU, AffineCell)],
)
def test_a_decayed_cell_is_of_the_kind_of_what_it_wraps(inner: type[Any], kind: type[Cell]) -> None:
    cell = Decayed(D, inner(D, H, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(1))
    kinds = (AffineCell, ElementwiseCell, Cell)
    assert isinstance(cell, Decayed)
    assert next(one for one in kinds if isinstance(cell, one)) is kind
    assert type(cell.prepare()) is type(cell)
    again = Decayed(D, cell, rngs=nnx.Rngs(2))
    assert next(one for one in kinds if isinstance(again, one)) is kind


def test_a_decayed_affine_cell_steps_by_its_own_coefficients() -> None:
    for text in ("decayed(mingru)", "decayed(lru)", "decayed(rglru)"):
        cell = build(text)
        state = jax.tree.map(lambda leaf: leaf + 0.7, cell.initial_state())
        projected = cell.project(Event(jnp.ones(D), gap=jnp.asarray(5 * DAY)))
        a, b = cell.affine(projected)
        np.testing.assert_allclose(a * state + b, cell.step(state, projected), atol=1e-6)
        assert np.abs(a * state + b - cell.cell.step(state, projected[0])).max() > 1e-3, "the decay matters here"


class Prepared(Cell):
    """A cell whose weight is derived, and that wants more than its vector."""

    wants = ("x", "user", "gap")

    def __init__(self) -> None:
        self.w = nnx.Param(jnp.ones(D))

    def prepare(self) -> "Prepared":
        ready = Prepared()
        ready.w = nnx.Param(2 * self.w[...])
        return ready

    def initial_state(self) -> Any:
        return {"h": jnp.ones(D), "count": jnp.zeros((), int)}

    def project(self, event: Event) -> Any:
        return event.x * self.w + event.user

    def step(self, state: Any, projected: Any) -> Any:
        return {"h": state["h"] + projected, "count": state["count"] + 1}

    def read(self, state: Any, projected: Any) -> Any:
        return state["h"] - projected, state["count"]


def test_decayed_forwards_prepare_wants_project_and_read_and_leaves_whole_numbers_alone() -> None:
    cell = Decayed(D, Prepared(), rngs=nnx.Rngs(0))
    assert cell.wants == ("x", "user", "gap")
    gap = jnp.full((B, 1), 10 * DAY)
    ones = jnp.ones((B, 1, D))
    last, (seen, count) = unroll(cell, Event(ones, gap=gap, user=5 * ones))
    left = np.exp(-10 * np.asarray(cell.w[0]))
    np.testing.assert_allclose(seen, np.broadcast_to(left, (B, 1, D)), rtol=1e-5)
    np.testing.assert_allclose(last["h"], np.broadcast_to(left + 2 + 5, (B, D)), rtol=1e-6)
    assert count.tolist() == [[1]] * B
    assert cell.cell.w[...].tolist() == [1.0] * D, "prepare changes nothing"


def test_decayed_starts_with_time_constants_from_one_unit_to_a_thousand() -> None:
    constants = 1 / np.sort(np.asarray(Decayed(D, MinGRU(D, 4000, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(0)).w[0]))[::-1]
    assert constants.min() >= 1 - 1e-5
    assert constants.max() <= 1000 * (1 + 1e-5)
    np.testing.assert_allclose(np.log(constants) / np.log(1000), np.linspace(0, 1, 4000), atol=0.03)


def test_decay_never_amplifies_and_an_endless_gap_forgets_all_that_decays() -> None:
    cell = build("decayed")
    cell.b[0][...] = jnp.asarray([-1e3, 0.0, 0.0, 0.0])
    state = jnp.full((B, H), 0.7)
    x = random_x(1)
    for gap, kept in ((0.0, 0.7), (1e4 * DAY, 0.0)):
        wanted, _ = unroll(cell.cell, Event(x), state=jnp.asarray([[0.7, kept, kept, kept]] * B))
        cell.b[0][0] = -1e9
        found, _ = unroll(cell, Event(x, gap=jnp.full((B, 1), gap)), state=state)
        np.testing.assert_allclose(found, wanted, atol=2e-6)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("decayed(lstm, keep=d)", "no state called 'd' to keep; it has h, c"),
        ("decayed(gru, keep=h)", "one leaf without a name"),
        ("decayed(3)", "which 3 is not"),
        ("decayed(unit=true)", "unit=True is not float"),
    ],
)
def test_a_mistake_says_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(Mistake) as caught:
        build(text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_hidden_reaches_the_cell_inside() -> None:
    assert build("decayed(cell=gru(hidden=7), hidden=9)").cell.hidden == 7
    assert build("decayed(gru, hidden=9)").cell.hidden == 9
    assert build("decayed(hidden=9)").cell.hidden == 9
    assert build("decayed").cell.hidden == H
