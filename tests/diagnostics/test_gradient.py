"""Gradients by lag against what is known: other ways to compute them, and cells whose gradients have a formula."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrec.cells import GRU, Cell, Elman, Event, find
from jaxrec.config import Call
from jaxrec.diagnostics.flow import contributions, gradient, gradient_matrix
from jaxrec.diagnostics.gradient import by_scan, by_taps, by_weights, matrix
from jaxrec.diagnostics.subject import advance, alone, stepwise, subject
from jaxrec.models import recommender
from jaxrec.models.recommender import Batch
from jaxrec.recurrence.trees import double

WIDTH, ITEMS = 8, 20


class Linear(Cell):
    """``h' = h W + x``."""

    def __init__(self, matrix):
        self.w = nnx.Param(jnp.asarray(matrix))

    def initial_state(self):
        return jnp.zeros(self.w.shape[0])

    def step(self, state, projected):
        return state @ self.w + projected


def model_of(name, depth=1, backend=None):
    gap, vector = jnp.zeros((1, 1)), jnp.zeros((1, 1, WIDTH))
    return recommender.build(
        lambda features, rngs: find(Call.parse(name), features, hidden=WIDTH, rngs=rngs),
        items=ITEMS, users=0, width=WIDTH, depth=depth, feedforward=0, norm=True, residual=True, tied=True, bias=True,
        user=False, backend=backend, wants=Event(x=vector, gap=gap), seed=0,
    )  # fmt: skip


def batch_of(rows, time, reset=None):
    item = jax.random.randint(jax.random.key(1), (rows, time), 1, ITEMS + 1)
    starts = None if reset is None else jnp.zeros((rows, time), bool).at[0, reset].set(True)
    return Batch(item=item, target=jnp.roll(item, 1, 1), gap=jnp.ones((rows, time)), reset=starts)


def apart(found, wanted):
    """The largest difference of two logarithms, infinite where one has a zero that the other has not."""
    if not np.array_equal(np.isneginf(found), np.isneginf(wanted)):
        return np.inf
    there = np.isfinite(wanted)
    return np.abs(found[there] - wanted[there]).max()


KINDS = ("gru", "lru", "mamba", "clockworkrnn", "mlstm", "causalconv", "phasedlstm")


@pytest.mark.parametrize("name", KINDS)
def test_the_reverse_scan_gives_what_taps_give_of_every_kind_of_cell(name):
    with jax.enable_x64(True):
        model, batch = double(model_of(name, depth=2)), double(batch_of(3, 11, reset=5))
        for at in (-1, 7):
            assert apart(by_scan(model, batch, at).log10(), by_taps(model, batch, at).log10()) < 1e-12


def test_what_comes_after_a_step_or_before_a_reset_has_no_gradient():
    found = by_scan(model_of("gru"), batch_of(2, 9, reset=3), 6).log10()[0]
    assert np.isneginf(found[:, 7:]).all()
    assert np.isneginf(found[0, :3]).all()
    assert np.isfinite(found[0, 3:7]).all()
    assert np.isfinite(found[1, :7]).all()


def test_a_matrix_holds_the_gradients_of_every_step():
    model, batch = model_of("gru", depth=2), batch_of(2, 10)
    whole = matrix(model, batch, jnp.arange(10)).log10()
    for at in range(10):
        assert apart(whole[at], by_scan(model, batch, at).log10()) < 1e-6
    record = gradient_matrix(model, batch, stride=3)[1]
    assert record["steps"] == [0, 3, 6, 9]
    assert [len(row) for row in record["log10"]] == [1, 2, 3, 4]


def test_truncated_back_propagation_shows_as_zeros():
    model, batch = model_of("gru", backend="scan(truncate=4)"), batch_of(2, 10)
    found = by_scan(model, batch).log10()[0]
    assert np.isneginf(found[:, :8]).all()
    assert np.isfinite(found[:, 8:]).all()
    assert apart(found, by_taps(model, batch).log10()[0]) < 1e-5
    record = gradient(model, batch)[0]
    assert (record["truncated"], record["place"]) == (4, 2)
    assert "truncated" not in gradient(model_of("gru"), batch)[0]


def test_a_linear_cell_has_the_gradient_of_its_matrix_powers_over_ten_thousand_steps():
    """float32 for 10,000 steps, against powers in float64 with their exponents taken out."""
    noise = np.random.default_rng(0)
    w = noise.standard_normal((6, 6)) * 0.15
    events = Event(x=jnp.asarray(noise.standard_normal((2, 10_000, 6)), jnp.float32))
    model = alone(Linear(w.astype(np.float32)), events)
    found = by_scan(model, events).log10()[0]
    slope = np.array(jax.random.normal(jax.random.key(0), (2, 6)), np.float64)
    slope /= np.linalg.norm(slope, axis=1, keepdims=True)
    power, wanted = np.zeros(2), np.zeros((2, 10_000))
    for step in range(9_999, -1, -1):
        size = np.linalg.norm(slope, axis=1, keepdims=True)
        power, slope = power + np.log10(size[:, 0]), slope / size
        wanted[:, step] = power
        slope = slope @ w.astype(np.float32).astype(np.float64).T
    assert wanted.min() < -3_000  # far beyond what float64 could hold
    assert np.abs(found - wanted).max() < 2e-6 * np.abs(wanted).max()


def test_an_orthogonal_cell_keeps_its_gradient():
    w = np.linalg.qr(np.random.default_rng(1).standard_normal((16, 16)))[0]
    events = Event(x=jnp.ones((3, 1_000, 16)))
    found = by_scan(alone(Linear(w.astype(np.float32)), events), events).log10()[0]
    assert np.abs(found).max() < 1e-4


def test_an_irnn_that_never_falls_below_zero_keeps_its_gradient_and_a_dead_one_has_none():
    events = Event(x=jnp.abs(jax.random.normal(jax.random.key(2), (4, 300, 3))))
    cell = find(Call.parse("irnn"), 3, hidden=5, rngs=nnx.Rngs(0))
    matrices = [leaf for leaf in jax.tree.leaves(cell) if leaf.ndim == 2 and leaf.shape == (5, 5)]
    assert len(matrices) == 1
    assert np.allclose(matrices[0], np.eye(5) * matrices[0][0, 0])
    alive = jax.tree.map(jnp.abs, cell)
    found = by_scan(alone(alive, events), events).log10()[0]
    scale = float(matrices[0][0, 0])
    assert np.allclose(found, np.arange(299, -1, -1) * np.log10(scale), atol=1e-4)
    dead = jax.tree.map(lambda leaf: -jnp.abs(leaf) if leaf.shape == (3, 5) else leaf, cell)
    record = gradient(alone(dead, events), events)[0]
    assert record["zeros"][1:] == [1.0] * (len(record["lags"]) - 1)
    assert record["log10_quantiles"]["0.5"][1] is None


def test_a_gru_whose_update_gate_is_constant_fades_at_its_rate():
    """With no weights into gate and candidate the step is ``z h + (1 - z) n(x)``: a factor z each event."""
    cell = GRU(3, 4, rngs=nnx.Rngs(0))
    for name in ("wz", "uz", "un", "cn"):
        setattr(cell, name, nnx.Param(jnp.zeros_like(getattr(cell, name)[...])))
    cell.bz = nnx.Param(jnp.full(4, 1.5))
    events = Event(x=jax.random.normal(jax.random.key(3), (5, 400, 3)))
    record = gradient(alone(cell, events), events)[0]
    z = 1 / (1 + np.exp(-1.5))
    lags = np.array(record["lags"])
    assert np.allclose(record["log10_quantiles"]["0.5"], lags * np.log10(z), atol=1e-3)
    assert record["horizons"]["lyapunov"]["value"] == pytest.approx(-1 / np.log(z), rel=1e-4)
    assert record["horizons"]["half_life"]["value"] == pytest.approx(np.log(0.5) / np.log(z), rel=1e-3)
    assert record["label"] == "vanishing"


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.4])
def test_a_tanh_cell_stays_below_the_bound_of_pascanu(scale):
    """``|g_k| <= s^k |g_0|`` with the largest singular value s of the matrix, for tanh' <= 1 (Pascanu et al. 2013)."""
    cell = Elman(3, 12, rngs=nnx.Rngs(1))
    cell.u = nnx.Param(scale * cell.u[...])
    events = Event(x=0.3 * jax.random.normal(jax.random.key(4), (6, 60, 3)))
    found = by_scan(alone(cell, events), events).log10()[0][:, ::-1]
    bound = np.arange(60) * np.log10(np.linalg.norm(cell.u[...], 2))
    assert (found - found[:, :1] <= bound + 1e-5).all()


def test_float32_loses_what_the_reverse_scan_keeps():
    """A default GRU's gradient over 300 events: the reverse scan in float32 against taps in float64."""
    model, batch = model_of("gru"), batch_of(2, 300)
    scanned, tapped = by_scan(model, batch).log10(), by_taps(model, batch).log10()
    with jax.enable_x64(True):
        wanted = by_taps(double(model), double(batch)).log10()
    assert np.isneginf(tapped[..., 0]).all()
    assert np.isfinite(wanted).all()
    assert apart(scanned, wanted) < 0.01


def test_what_each_step_adds_to_a_weights_gradient():
    """Against one copy of the network for each step, differentiated one by one."""
    with jax.enable_x64(True):
        model, batch = double(model_of("gru", depth=2)), double(batch_of(2, 3))
        found = by_weights(model, batch).log10()
        for row in range(2):
            wanted = one_copy_a_step(model, jax.tree.map(partial(row_of, row), batch), 3)
            assert np.allclose(10 ** found[:, row], wanted, atol=1e-10)


def row_of(row, leaf):
    return leaf[row : row + 1]


def one_copy_a_step(model, batch, time):
    """Norms ``(arrays, time)`` of the gradients of as many copies of the network as there are steps."""
    given = subject(model, batch)

    def loss(copies):
        state = given.network.start(1)
        for step, network in enumerate(copies):
            event = jax.tree.map(lambda leaf, step=step: leaf[:, step], given.events)
            state, hidden = advance(stepwise(network), state, event)
        return given.loss_at(hidden, -1).sum()

    slopes = jax.grad(loss)([model.network] * time)
    return np.array([[np.linalg.norm(leaf) for leaf in jax.tree.leaves(one)] for one in slopes]).T


def test_contributions_are_named_after_the_weights():
    record = contributions(model_of("gru", depth=2), batch_of(2, 6))
    assert {"0.cell.uz", "1.cell.uz", "norm.scale"} <= set(record["weights"])
    assert record["weights"]["norm.scale"]["half"] == 0  # the last norm is used once, at the prediction itself
