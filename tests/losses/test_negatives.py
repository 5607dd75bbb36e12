"""Drawing items by count^alpha, against float64: which items, how often, and what is said of their chances."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.stats import chisquare

from jaxrec.losses.negatives import NOTHING, Candidates, Drawn, draw, popularity

SIZES = (1, 2, 3, 5, 63, 64, 65, 1000)  # catalogues: one block, several, a last one that is full or nearly empty
ALPHAS = (0.0, 0.5, 1.0)
DRAWS = 200_000
learn = jax.jit(popularity)
many = jax.jit(draw, static_argnums=2)


def counts_of(items, seed=0, zeros=0.2):
    """Training events ``(1 + items,)``, float64: some items have none, none has so few that a test cannot see it."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 21, items + 1) * (rng.random(items + 1) >= zeros)
    counts[1 + rng.integers(items)] = 7
    counts[0] = 99  # whatever stands there, padding is no item
    return counts.astype(float)


def chances(counts, alpha):
    powers = np.where(counts > 0, np.maximum(counts, 1) ** alpha, float(alpha == 0))
    powers[0] = 0
    return powers / powers.sum()


def hit(ids, items):
    ids = np.asarray(ids)
    assert ids.dtype == np.int32
    assert ids.min() >= 1
    assert ids.max() <= items
    return np.bincount(ids.reshape(-1), minlength=items + 1)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("items", SIZES)
def test_draws_follow_counts_to_the_power_and_nothing_else_is_drawn(items, alpha):
    counts = counts_of(items)
    wanted = chances(counts, alpha)
    found = hit(many(jax.random.key(items), learn(jnp.asarray(counts), alpha), (DRAWS,)), items)
    possible = wanted > 0
    assert possible[1:].all() or alpha > 0
    assert not found[~possible].any()
    assert found[possible].all()
    if possible.sum() > 1:
        assert chisquare(found[possible], DRAWS * wanted[possible]).pvalue > 1e-3


@pytest.mark.parametrize("wide", [False, True])
def test_draws_are_independent_and_take_any_shape(wide):
    """Pairs of neighbouring draws, and one draw as in an empty shape."""
    with jax.enable_x64(wide):
        known = learn(jnp.asarray([0.0, 1, 2, 3, 4]), 1.0)
        assert known.inside.dtype == (np.float64 if wide else np.float32)
        ids = np.asarray(many(jax.random.key(3), known, (DRAWS // 4, 4)))
        pairs = hit(5 * ids[:, 1::2] + ids[:, ::2], 24).reshape(5, 5)[1:, 1:]
        share = np.array([0.1, 0.2, 0.3, 0.4])
        assert chisquare(pairs.reshape(-1), DRAWS / 2 * np.outer(share, share).reshape(-1)).pvalue > 1e-3
        assert 1 <= int(draw(jax.random.key(0), known, ())) <= 4


@pytest.mark.parametrize("items", [1, 3, 64, 1000])
@pytest.mark.parametrize("last", [0.0, 3.0])
def test_the_ends_of_the_range_give_the_first_and_the_last_item_that_has_a_chance(items, last, monkeypatch):
    counts = counts_of(items)
    counts[[1, -1]] = 7 if items == 1 else [0, last]
    counts[1 + items // 2] = 7
    possible = np.flatnonzero(counts[1:]) + 1
    edge = jax.jit(lambda known, value: draw(value, known, ()))
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape, dtype: jnp.full(shape, key, dtype))
    for alpha in ALPHAS:
        ends = possible if alpha else np.array([1, items])
        known = learn(jnp.asarray(counts), alpha)
        assert [int(edge(known, value)) for value in (0.0, 1 - 2**-23)] == [ends[0], ends[-1]]


def inverse(counts, alpha, size, where, within, slack):
    """Items by inverse-CDF of blocks of ``size`` and then of items, and where rounding cannot change them; float64."""
    share = chances(counts, alpha)
    share = np.pad(share, (0, -len(share) % size)).reshape(-1, size)
    sums = np.cumsum(share.sum(1))
    block = np.searchsorted(sums, where * sums[-1], side="right")
    inner = np.cumsum(share, 1)[block]
    wanted = within * inner[:, -1]
    clear = (np.abs(inner - wanted[:, None]) > slack * inner[:, -1:]).all(1)
    clear &= (np.abs(sums - (where * sums[-1])[:, None]) > slack).all(1)
    return block * size + (inner <= wanted[:, None]).sum(1), clear


@settings(max_examples=30, derandomize=True)
@given(
    data=st.data(),
    items=st.sampled_from((1, 5, 30)),
    alpha=st.just(0.0) | st.floats(0.0625, 2, width=32),
    seed=st.integers(0, 2**31 - 1),
)
def test_any_counts_are_inverted_as_float64_does(data, items, alpha, seed):
    found = st.lists(st.sampled_from((0, 1, 2, 1000, 10**6)) | st.integers(0, 10**4), min_size=items, max_size=items)
    counts = np.array([0, *data.draw(found.filter(any))], float)
    known, key = learn(jnp.asarray(counts), alpha), jax.random.key(seed)
    ids = np.asarray(many(key, known, (400,)))
    where, within = np.asarray(jax.random.uniform(key, (2, 400)), float) * (1 - 2**-22)
    wanted, clear = inverse(counts, alpha, known.inside.shape[1], where, within, 3e-6)
    np.testing.assert_array_equal(ids[clear], wanted[clear])
    assert clear.mean() > 0.9
    assert (chances(counts, alpha)[ids] > 0).all()


@pytest.mark.parametrize("items", SIZES)
def test_what_is_said_of_a_draw_is_its_log_probability(items):
    counts = counts_of(items)
    every = jnp.arange(items + 1)
    for alpha in ALPHAS:
        known, wanted = learn(jnp.asarray(counts), alpha), chances(counts, alpha)
        possible = wanted > 0
        logs = np.asarray(known.log_drawn(every))
        np.testing.assert_allclose(np.exp(logs[possible]), wanted[possible], rtol=5e-6)
        assert np.isfinite(logs).all()
        assert known.items == items
    seen = np.exp(np.asarray(known.log_seen(every)))
    np.testing.assert_allclose(seen[counts > 0][1:], (counts / counts[1:].sum())[counts > 0][1:], rtol=5e-6)


def test_one_program_for_every_alpha_and_a_stack_of_alphas_is_each_alone():
    counts, traces = jnp.asarray(counts_of(65), jnp.float32), []

    @jax.jit
    def ids(key, alpha):
        traces.append(None)
        known = popularity(counts, alpha)
        return draw(key, known, (500,)), known.log_drawn(jnp.arange(66))

    alone = [ids(jax.random.key(1), alpha) for alpha in ALPHAS]
    assert len(traces) == 1
    together = jax.jit(jax.vmap(ids, in_axes=(None, 0)))(jax.random.key(1), jnp.array(ALPHAS))
    for place, (found, logs) in enumerate(alone):
        np.testing.assert_array_equal(together[0][place], found)
        np.testing.assert_allclose(together[1][place], logs, rtol=1e-6)
        np.testing.assert_array_equal(many(jax.random.key(1), popularity(counts, ALPHAS[place]), (500,)), found)
    assert (np.asarray(alone[0][0]) != np.asarray(alone[2][0])).any()


@pytest.fixture(scope="module")
def large():
    """A million items; a third were never seen, the others as in Zipf's law, in no order."""
    rng = np.random.default_rng(0)
    ranks = rng.permutation(10**6) + 1
    counts = np.append(0, np.where(rng.random(10**6) < 0.3, 0, np.ceil(2e6 / ranks)))
    return counts, learn(jnp.asarray(counts), 0.5)


def test_a_million_items_are_drawn_by_the_block(large):
    counts, known = large
    found = hit(many(jax.random.key(0), known, (4 * DRAWS,)), 10**6)[1:].reshape(500, -1).sum(1)
    wanted = chances(counts, 0.5)[1:].reshape(500, -1).sum(1)
    apart = 0.5 * np.abs(found / found.sum() - wanted).sum()
    assert apart < 0.013, "a perfect sampler has 0.010 here"


def test_a_million_items_each_keep_their_chance(large):
    """What the sums in float32 make of each item's chance."""
    counts, known = large
    inside, blocks = np.asarray(known.inside, float), np.asarray(known.blocks, float)
    within = np.diff(inside, axis=1, prepend=0) / inside[:, -1:]
    found = (within * np.diff(blocks, prepend=0)[:, None] / blocks[-1]).reshape(-1)[: len(counts)]
    assert 0.5 * np.abs(found - chances(counts, 0.5)).sum() < 1e-5


def test_a_million_items_without_the_third_that_was_never_seen(large):
    """Sums that are not added up from the left let an item in whose neighbour's sum was rounded another way."""
    counts, known = large
    step = np.diff(np.asarray(known.inside), axis=1, prepend=0).reshape(-1)[: len(counts)]
    assert (step >= 0).all()
    assert not step[counts == 0].any()


@pytest.mark.parametrize("power", [0.0, 0.3, 1.0])
def test_propensity_weights_are_counts_to_minus_the_power_and_one_in_the_mean_over_events(power):
    counts = counts_of(30)
    known = learn(jnp.asarray(counts), 0.5, power)
    weights = np.asarray(known.weights(jnp.arange(31)))
    counts[0] = 0
    np.testing.assert_allclose((counts * weights).sum() / counts.sum(), 1, rtol=1e-6)
    seen = counts > 0
    np.testing.assert_allclose(weights[seen] / weights[seen][0], (counts[seen] / counts[seen][0]) ** -power, rtol=1e-5)
    assert np.isfinite(weights).all()


def candidates(start, *shape):
    leaf = start + jnp.arange(np.prod(shape)).reshape(shape)
    return Candidates(leaf, leaf > start, leaf * 0.5)


def test_what_was_drawn_is_cut_by_position_and_what_is_shared_is_not():
    shared, own = candidates(0, 5), candidates(50, 6, 2)
    whole = Drawn(shared, own, jnp.arange(6), jnp.arange(6.0), None, jnp.ones(()), jax.random.key(0))
    for piece in range(3):
        part = jax.jit(partial(Drawn.piece, size=2))(whole, piece)
        assert part.shared is not None
        rows = slice(2 * piece, 2 * piece + 2)
        jax.tree.map(np.testing.assert_array_equal, part.own, jax.tree.map(lambda leaf, rows=rows: leaf[rows], own))
        jax.tree.map(np.testing.assert_array_equal, (part.shared, part.rate), (shared, whole.rate))
        np.testing.assert_array_equal(part.column, np.arange(6)[rows])
        np.testing.assert_array_equal(part.log_q, np.arange(6.0)[rows])
        assert (part.key == whole.key).all()
    again = whole.apart().joined(whole.common())
    assert jax.tree.structure(again) == jax.tree.structure(whole)
    assert whole.apart().shared is None
    assert whole.common().own is None
    moved = whole.located(lambda ids: ids + 100)
    np.testing.assert_array_equal(moved.own.ids, own.ids + 100)
    np.testing.assert_array_equal(moved.shared.ids, shared.ids + 100)
    np.testing.assert_array_equal(moved.own.log_q, own.log_q)
    assert NOTHING.located(lambda ids: ids + 100) == NOTHING
