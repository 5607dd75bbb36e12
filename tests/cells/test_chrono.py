"""Chrono initialisation (Tallec and Ollivier 2018): the spans over which units forget are those that were asked for."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrec.cells import LSTM, MGU, Cell, Elman, Event, find
from jaxrec.cells.chrono import keepers, start_keeping
from jaxrec.cells.lstm import LSTMState
from jaxrec.config import Call, Mistake
from jaxrec.recurrence import Exposed, start, unroll

UNITS, HORIZON, EVENTS = 512, 200, 10
OTHERS = ("decayed(mgu)", "latentcross(sru)", "latentcross(qrnn)", "decayed(latentcross(lstm))", "gru(reset=before)")


def made(name: str, hidden: int = UNITS) -> Cell:
    return find(Call.parse(name), 1, hidden=hidden, rngs=nnx.Rngs(0))


def alone(name: str, horizon: int = HORIZON, hidden: int = UNITS) -> Cell:
    """A cell with nothing but chrono's biases: every other weight is zero."""
    shapes = jax.eval_shape(lambda: made(name, hidden))
    cell = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    start_keeping(cell, horizon, jax.random.key(1))
    return cell


def spans(cell: Cell) -> list[np.ndarray]:
    """Events within which what a cell remembers falls to 1/e, ``-1 / log z`` of what each unit keeps of it an event,
    for each memory: measured over `EVENTS` events without input, from a memory of ones.
    """
    vector = jnp.zeros((1, EVENTS, 1))
    flags = jnp.zeros((1, EVENTS), bool)
    events = Event(vector, gap=jnp.zeros((1, EVENTS)), context=vector, user=vector, start=flags)
    fresh = start(cell, 1)
    found = []
    for place, leaf in memories(fresh):
        leaves = jax.tree.leaves(fresh)
        leaves[place] = jnp.ones_like(leaf)
        _, seen = unroll(Exposed(cell), events, state=jax.tree.unflatten(jax.tree.structure(fresh), leaves))
        after = np.asarray(jax.tree.leaves(seen.state)[place], np.float64)[0]
        found.append(EVENTS / -np.log(after[-1]))
        np.testing.assert_allclose(after[0] ** EVENTS, after[-1], rtol=1e-4)  # it fades by the same share every time
    return found


def memories(state: Any) -> list[tuple[int, Any]]:
    """Numbers of a state's leaves that are a memory, of those ``(1, units)``: ``c`` of an LSTM, all that a GRU has."""
    flat = jax.tree_util.tree_leaves_with_path(state)
    wide = [(n, jax.tree_util.keystr(path), leaf) for n, (path, leaf) in enumerate(flat) if leaf.shape == (1, UNITS)]
    named = [(n, leaf) for n, name, leaf in wide if name.endswith((".c", ".session", "['pool']"))]
    return named or [(n, leaf) for n, _, leaf in wide]


@pytest.mark.parametrize("name", [*keepers(), *OTHERS])
def test_units_forget_over_the_spans_that_were_asked_for(name: str) -> None:
    """A unit keeps ``u / (1 + u)`` with ``u ~ U(1, horizon - 1)``: its span is ``1 / log(1 + 1 / u)``, from ``u + .44``
    to ``u + .5``. 512 draws are uniform by Kolmogorov and Smirnov at 1 %: their distribution is nowhere further from
    it than ``1.63 / sqrt(512) = .072``.
    """
    found = spans(alone(name))
    assert found
    for memory in found:
        shares = (1 / np.expm1(1 / memory) - 1) / (HORIZON - 2)
        assert np.abs(np.sort(shares) - (np.arange(UNITS) + 0.5) / UNITS).max() < 0.072
        assert shares.min() > -1e-3
        assert shares.max() < 1 + 1e-2  # float32 tells .99499 from .99501
        assert memory.mean() == pytest.approx(HORIZON / 2 + 0.5, rel=0.05)


@pytest.mark.parametrize("name", ["gru", "lstm", "mgu", "minlstm"])
def test_the_time_scale_follows_the_horizon(name: str) -> None:
    means = [np.mean(spans(alone(name, horizon))) for horizon in (20, 60)]
    assert means == pytest.approx([10.5, 30.5], rel=0.06)


@pytest.mark.parametrize("name", [*keepers(), "decayed(gru)"])
def test_chrono_touches_the_biases_that_keep_and_no_other_weight(name: str) -> None:
    cell, before = made(name, 4), made(name, 4)
    start_keeping(cell, 50, jax.random.key(0))
    changed = {
        jax.tree_util.keystr(path).removeprefix(".").removesuffix(".value")
        for (path, new), old in zip(jax.tree_util.tree_leaves_with_path(cell), jax.tree.leaves(before), strict=True)
        if not np.array_equal(new, old)
    }
    assert changed == {where.partition("[")[0] for where in cell.keeps}
    again = made(name, 4)
    start_keeping(again, 50, jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, cell, again)


def test_an_lstm_that_is_told_a_longest_lag_draws_as_a_model_does() -> None:
    """One place for the draw: the option's numbers are still those of the days when it had its own."""
    asked, plain = LSTM(3, 6, chrono=40, rngs=nnx.Rngs(0)), LSTM(3, 6, rngs=nnx.Rngs(0))
    rngs = nnx.Rngs(0)
    key = [rngs.params() for _ in range(9)][-1]  # after four matrices for inputs and four for the state
    np.testing.assert_array_equal(asked.bf[...], jnp.log(jax.random.uniform(key, (6,), minval=1.0, maxval=39.0)))
    start_keeping(plain, 40, key)
    jax.tree.map(np.testing.assert_array_equal, asked, plain)


def test_a_layer_norm_lstm_keeps_the_other_gates_where_they_were() -> None:
    cell = made("layernormlstm", 5)
    start_keeping(cell, 30, jax.random.key(0))
    b = np.asarray(cell.b[...])
    assert (np.exp(b[1]) >= 1).all()
    np.testing.assert_array_equal(b[0], -b[1])
    assert not b[2:].any()


@pytest.mark.parametrize("name", ["elman", "lru", "decayed(elman)", "phasedlstm"])
def test_a_cell_without_such_a_gate_is_refused_with_the_cells_that_have_one(name: str) -> None:
    with pytest.raises(
        Mistake, match=r"names no gate that keeps its state.* take one of gru, .*usergru, or name it in"
    ):
        start_keeping(made(name, 4), 30, jax.random.key(0))


class Named(Elman):
    keeps = {"c": 1}  # noqa: RUF012


class Own(MGU):
    keeps = {"bf": -1}  # noqa: RUF012


def test_a_cell_of_ones_own_says_in_a_word_which_bias_it_is() -> None:
    with pytest.raises(Mistake, match=r"Named.keeps names 'c', and there is no such parameter; correct"):
        start_keeping(Named(1, 2, rngs=nnx.Rngs(0)), 9, jax.random.key(0))
    cell = Own(1, 3, rngs=nnx.Rngs(0))
    start_keeping(cell, 9, jax.random.key(0))
    assert (np.asarray(cell.bf[...]) <= 0).all()


def test_signs_are_those_of_each_cell() -> None:
    """A GRU's large ``z`` keeps, an MGU's large ``f`` writes: after one event of no input, each has kept most."""
    h = jnp.ones(3)
    for name in ("gru", "mgu"):
        cell = alone(name, 1000, hidden=3)
        assert (np.asarray(cell.step(h, cell.project(Event(jnp.zeros(1))))) > 0.5).all()
    lstm = alone("lstm", 1000, hidden=3)
    after = lstm.step(LSTMState(h, h), lstm.project(Event(jnp.zeros(1))))
    assert (np.asarray(after.c) > 0.5).all()
