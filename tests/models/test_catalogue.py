"""Counting against the catalogue, chunk by chunk, is exact: ties, masks and lists included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from jaxrec.models import catalogue
from jaxrec.models.pieces import in_pieces, run
from jaxrec.models.recommender import Recommender


def world(seed, items, rows, ties):
    """A model whose vectors are small integers (scores exact, many equal), hidden vectors, targets, seen items."""
    draw = np.random.default_rng(seed)
    table = draw.integers(-1, 2, (items + 1, 3)) if ties else draw.normal(size=(items + 1, 3))
    bias = draw.integers(0, 2, items + 1) if ties else draw.normal(size=items + 1)
    hidden = draw.integers(-1, 2, (rows, 3)) if ties else draw.normal(size=(rows, 3))
    seen = draw.integers(0, items + 1, (rows, 4)).astype(np.int32)
    target = draw.integers(1, items + 1, rows).astype(np.int32)
    tables = {"item": jnp.asarray(table, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}
    return Recommender(tables, None), jnp.asarray(hidden, jnp.float32), target, seen


def brute(model, hidden, target, seen, candidates):
    scores = np.asarray(hidden, np.float64) @ np.asarray(model.tables["item"], np.float64).T + np.asarray(
        model.tables["bias"]
    )
    rows = []
    for row, (goal, hide) in enumerate(zip(target, seen, strict=True)):
        others = [i for i in range(1, candidates + 1) if i != goal]
        shown = [i for i in others if i not in set(hide)]
        rows.append([sum(scores[row, i] > scores[row, goal] for i in part) for part in (others, shown)]
                    + [sum(scores[row, i] == scores[row, goal] for i in part) for part in (others, shown)])  # fmt: skip
    greater, greater_masked, equal, equal_masked = np.array(rows).T
    return greater, equal, greater_masked, equal_masked


counts = jax.jit(catalogue.counts, static_argnames=("candidates", "k", "budget"))


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), candidates=st.sampled_from([28, 30]), chunk=st.sampled_from([30, 7]))
def test_counts_equal_brute_force_with_ties_masks_and_chunks(seed, candidates, chunk):
    model, hidden, target, seen = world(seed, 30, 4, ties=True)
    target = np.minimum(target, candidates)
    found = counts(model, hidden, jnp.asarray(target), jnp.asarray(seen), candidates=candidates, budget=4 * chunk)
    for got, wanted in zip(found[:4], brute(model, hidden, target, seen, candidates), strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("broken", range(1, 11))
def test_an_item_that_scores_no_number_is_above_every_target_and_counts_once(broken):
    """Also where it is in the last chunk, of four, and in the one before."""
    model, hidden, target, _ = world(5, 10, 3, ties=False)
    target = np.array([one + (one == broken) if one < 10 else 1 + (broken == 1) for one in target])
    wanted = brute(model, hidden, target, np.zeros((3, 1)), 10)[0]
    tables = model.tables | {"item": model.tables["item"].at[broken].set(jnp.nan)}
    scores = np.asarray(model.scores(hidden))
    once = wanted + np.array([scores[row, broken] <= scores[row, goal] for row, goal in enumerate(target)])
    found = counts(Recommender(tables, None), hidden, jnp.asarray(target), None, candidates=10, budget=3 * 4)
    np.testing.assert_array_equal(found.greater, once)


@pytest.mark.parametrize("budget", [150, catalogue.BUDGET])
@pytest.mark.parametrize("k", [3, 200])
def test_lists_hold_the_best_unseen_items_in_order(budget, k):
    model, hidden, _, seen = world(3, 300, 5, ties=False)
    scores, items = catalogue.top_k(model, hidden, jnp.asarray(seen), candidates=290, k=k, budget=budget)
    full = np.asarray(hidden @ model.tables["item"].T + model.tables["bias"][None])
    for row in range(5):
        allowed = [i for i in range(1, 291) if i not in set(seen[row])]
        wanted = sorted(allowed, key=lambda i: -full[row, i])[:k]
        np.testing.assert_array_equal(items[row], wanted)
        np.testing.assert_allclose(scores[row], full[row, wanted], rtol=1e-5, atol=1e-5)


def test_a_list_longer_than_the_catalogue_ends_in_nothing():
    model, hidden, _, _ = world(0, 3, 2, ties=False)
    scores, items = catalogue.top_k(model, hidden, jnp.asarray([[1], [2]]), candidates=3, k=5)
    assert (np.sort(np.asarray(items), axis=1) == [[0, 0, 0, 2, 3], [0, 0, 0, 1, 3]]).all()
    assert np.isneginf(np.asarray(scores)[:, 2:]).all()


def test_a_target_never_counts_itself_whatever_the_last_bits_of_its_score():
    draw = np.random.default_rng(0)
    table = jnp.asarray(draw.normal(size=(2001, 64)), jnp.float32)
    model = Recommender({"item": table}, None)
    hidden = jnp.asarray(draw.normal(size=(256, 64)), jnp.float32)
    target = jnp.asarray(draw.integers(1, 2001, 256), jnp.int32)
    best = catalogue.counts(model, hidden + 1000 * table[target], target, None, candidates=2000)
    assert (np.asarray(best.greater) == 0).all()
    assert (np.asarray(best.equal) == 0).all()


def test_counts_vmap_over_models():
    worlds = [world(seed, 40, 3, ties=True) for seed in (0, 1)]
    models = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[one[0] for one in worlds])
    hidden, target = jnp.stack([one[1] for one in worlds]), jnp.asarray(worlds[0][2])
    seen = jnp.asarray(worlds[0][3])
    together = jax.vmap(lambda m, h: catalogue.counts(m, h, target, seen, candidates=40, k=4))(models, hidden)
    for number, (model, hid, _, _) in enumerate(worlds):
        alone = catalogue.counts(model, hid, target, seen, candidates=40, k=4)
        jax.tree.map(lambda a, b, n=number: np.testing.assert_array_equal(a[n], b), together, alone)


def test_a_model_that_scores_no_number_is_the_worst_not_the_best():
    model, hidden, target, _ = world(0, 20, 3, ties=False)
    found = catalogue.counts(model, hidden.at[1].set(jnp.nan), jnp.asarray(target), None, candidates=20)
    assert int(found.greater[1]) == 20  # one more than there are others
    assert int(found.greater[0]) < 19


@pytest.fixture(scope="module")
def cut():
    """Integer scores, of which many are equal, and the same model in pieces."""
    given = world(5, 30, 6, ties=True)
    return given, {count: in_pieces(given[0], jax.devices()[:count]) for count in (2, 8)}


@pytest.mark.parametrize("count", [2, 8])
def test_counts_and_lists_are_those_of_the_whole_table(cut, count):
    (model, hidden, target, seen), pieces = cut
    target = jnp.minimum(jnp.asarray(target), 28)
    for shown, budget in ((jnp.asarray(seen), 12), (None, catalogue.BUDGET)):
        wanted = catalogue.counts(model, hidden, target, shown, candidates=28, k=9, budget=budget)
        found = run(catalogue.counts, pieces[count], hidden, target, shown, candidates=28, k=9, budget=budget)
        jax.tree.map(np.testing.assert_array_equal, found, wanted)
        lists = run(catalogue.top_k, pieces[count], hidden, shown, candidates=28, k=30, budget=budget)
        expected = catalogue.top_k(model, hidden, shown, candidates=28, k=30, budget=budget)
        jax.tree.map(np.testing.assert_array_equal, lists, expected)


@pytest.mark.parametrize("count", [2, 8])
def test_a_sample_of_candidates_is_found_where_it_lies(cut, count):
    (model, hidden, target, seen), pieces = cut
    args = hidden, jnp.asarray(target), jnp.asarray(seen)
    wanted = catalogue.among(model, *args, candidates=30)
    found = run(catalogue.among, pieces[count], *args, candidates=30)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_a_score_that_is_no_number_is_the_worst_in_pieces_too(cut):
    (model, hidden, target, _), _ = cut
    broken = hidden.at[2].set(jnp.nan)
    found = run(catalogue.counts, in_pieces(model, jax.devices()[:4]), broken, jnp.asarray(target), None, candidates=30)
    assert found.greater[2] == 30
    assert (np.delete(np.asarray(found.greater), 2) < 30).all()


def test_each_device_holds_its_piece_and_all_scores_are_nowhere(cut):
    (model, hidden, _, _), pieces = cut
    assert {shard.data.shape for shard in pieces[8].tables["item"].addressable_shards} == {(4, 3)}
    assert pieces[8].items == model.items == 30
    with pytest.raises(ValueError, match="counts or top_k"):
        pieces[8].scores(hidden)
