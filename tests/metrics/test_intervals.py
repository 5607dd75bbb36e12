"""Bootstrap intervals and the permutation test: against draws one by one, against enumeration, and against laws."""

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, strategies as st

from jaxrec.config import Mistake
from jaxrec.metrics import intervals
from jaxrec.metrics.intervals import bootstrap, holm, permutation


def by_drawing(values, groups, rounds, seed):
    """The definition: draw groups with replacement, take the mean over all their targets."""
    draw = np.random.default_rng(seed)
    people = [values[groups == name] for name in np.unique(groups)]
    means = []
    for _ in range(rounds):
        picked = np.concatenate([people[place] for place in draw.integers(0, len(people), len(people))])
        means.append(picked.mean())
    return np.quantile(means, [0.025, 0.975])


@pytest.mark.parametrize("kinds", [4, 10_000])  # few distinct values, and all distinct
def test_the_interval_is_that_of_drawing_people_one_by_one(kinds):
    draw = np.random.default_rng(0)
    groups = np.sort(draw.integers(0, 200, 1500))
    values = draw.integers(0, kinds, 1500) / kinds + (groups < 60)  # people differ: groups matter
    wanted = by_drawing(values, groups, 3000, 1)
    found = bootstrap(values, groups=groups, rounds=3000)
    width = wanted[1] - wanted[0]
    np.testing.assert_allclose(found, wanted, atol=0.1 * width)
    alone = bootstrap(values, rounds=3000)
    assert alone[1] - alone[0] < 0.6 * width, "targets of one person are not independent"


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    draw = np.random.default_rng(3)
    covered = 0
    for seed in range(400):
        low, high = bootstrap(draw.random(150) < 0.3, seed=seed, rounds=400, level=0.9)
        covered += low <= 0.3 <= high
    assert 0.85 < covered / 400 < 0.95


@given(values=st.lists(st.floats(-5, 5), min_size=1, max_size=30), seed=st.integers(0, 99), level=st.floats(0.1, 0.99))
def test_laws_of_the_interval(values, seed, level):
    low, high = bootstrap(values, seed=seed, rounds=50, level=level)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
    assert (low, high) == bootstrap(values, seed=seed, rounds=50, level=level)
    wider = bootstrap(values, seed=seed, rounds=50, level=(1 + level) / 2)
    assert wider[0] <= low
    assert wider[1] >= high


def test_a_constant_has_no_width_and_one_target_no_doubt():
    np.testing.assert_allclose(bootstrap(np.full(500, 0.25)), [0.25, 0.25])
    np.testing.assert_allclose(bootstrap([0.5, 0.7], groups=[3, 3]), [0.6, 0.6])


@pytest.mark.parametrize("distinct", [False, True])
def test_sixty_thousand_targets_need_little_memory(distinct):
    values = np.random.default_rng(0).random(60_000)
    values = values if distinct else np.round(values, 1)
    tracemalloc.start()
    bootstrap(values, rounds=200)
    permutation(values - 0.5, rounds=200)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6


def exact(differences):
    """Share of all sign patterns at least as extreme as what was observed."""
    sums = [abs(np.dot(signs, differences)) for signs in itertools.product((-1, 1), repeat=len(differences))]
    return np.mean(np.array(sums) >= abs(np.sum(differences)) - 1e-9)


@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=9))
def test_the_permutation_test_is_the_enumeration_of_all_signs(differences):
    assert permutation(differences, rounds=4000) == pytest.approx(exact(differences), abs=0.045)


def test_groups_flip_together():
    differences, groups = np.repeat([1.0, 1.0, 1.0, -1.0], 50), np.repeat([0, 1, 2, 3], 50)
    assert permutation(differences) < 0.001
    assert permutation(differences, groups=groups) == pytest.approx(exact([1, 1, 1, -1]), abs=0.02)


def test_no_difference_is_certain_and_a_large_one_is_the_smallest_value():
    assert permutation(np.zeros(40)) == 1
    assert permutation(np.ones(40), rounds=99) == 0.01


def test_without_a_difference_small_p_values_are_as_rare_as_they_say():
    draw = np.random.default_rng(5)
    found = np.array([permutation(draw.normal(size=40), seed=seed, rounds=199) for seed in range(400)])
    assert 0.02 < np.mean(found <= 0.05) < 0.085


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.6, 0.5]), [1, 1])
    assert holm([]).size == 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: bootstrap([]), r"shape \(0,\)"),
        (lambda: bootstrap([1.0, np.nan]), "1 of 2 values are not finite"),
        (lambda: bootstrap([1.0], groups=[1, 2]), r"groups have shape \(2,\)"),
        (lambda: bootstrap([1.0], level=1.5), "level = 1.5"),
        (lambda: permutation([1.0], rounds=0), "rounds = 0"),
    ],
)
def test_mistakes_name_the_value(call, words):
    with pytest.raises(Mistake, match=words):
        call()


def test_parts_cover_every_round(monkeypatch):
    monkeypatch.setattr(intervals, "BUDGET", 10)
    assert list(intervals._parts(7, 3)) == [3, 3, 1]
    assert list(intervals._parts(2, 100)) == [1, 1]
