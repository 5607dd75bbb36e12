"""Lists of recommendations as a whole: values by hand; experiments/metric_oracle.py compares with loops."""

import re

import numpy as np
import pytest
from hypothesis import given, strategies as st

from jaxrec.metrics import coverage, describe, diversity, gini, mean_popularity, novelty, tail_share

LISTS = np.array([[1, 2, 3], [1, 4, 0], [1, 2, 0]])


def test_values_by_hand():
    assert coverage(LISTS, 8) == 0.5
    assert mean_popularity(LISTS, [99, 10, 6, 2, 1]) == pytest.approx((3 * 10 + 2 * 6 + 2 + 1) / 7)


def test_gini_by_hand():
    assert gini([[1, 2, 3, 4]], 4) == 0
    assert gini([[1], [1]], 4) == 0.75, "one of four items gets every place"
    assert gini([[1, 2]], 4) == 0.5


def test_the_tail_begins_after_the_most_popular_fifth():
    popularity = [0, 50, 9, 8, 8, 1]
    assert tail_share([[1]], popularity) == 0
    assert tail_share([[2]], popularity) == 1
    assert tail_share([[1, 2], [5, 0]], popularity) == pytest.approx(2 / 3)
    assert tail_share([[1, 2]], [0, 7, 7, 1, 1, 1]) == 0, "equals stay together"


def test_novelty_is_self_information():
    assert novelty([[1]], [0, 7, 7]) == 1
    assert novelty([[1, 2]], [0, 6, 0]) == pytest.approx((-np.log2(7 / 8) + 3) / 2)


def test_diversity_by_hand():
    features = np.array([[9, 9], [2, 0], [0, 3], [1, 0], [0, 0]], float)
    assert diversity([[1, 2]], features) == 1
    assert diversity([[1, 3]], features) == pytest.approx(0)
    assert diversity([[1, 2, 3]], features) == pytest.approx(2 / 3)
    assert diversity([[1, 2, 4], [1, 3, 0], [1, 4, 0]], features) == pytest.approx(0.5), "nothing to compare: left out"
    assert np.isnan(diversity([[1, 4]], features))


def test_diversity_in_parts_is_the_same(monkeypatch):
    draw = np.random.default_rng(0)
    lists, features = draw.integers(1, 20, (50, 5)), draw.random((20, 4))
    whole = diversity(lists, features)
    monkeypatch.setattr("jaxrec.metrics.lists.BUDGET", 60)
    assert diversity(lists, features) == pytest.approx(whole)


def test_describe_names_every_number_and_diversity_only_where_there_are_features():
    popularity = np.array([0, 4, 3, 2, 1])
    plain = describe(LISTS, popularity, 4)
    assert list(plain) == ["coverage@3", "popularity@3", "gini@3", "tail@3", "novelty@3"]
    assert plain["coverage@3"] == 1
    assert "diversity@3" in describe(LISTS, popularity, 4, np.eye(5))
    assert "diversity@3" not in describe(LISTS, popularity, 4, np.zeros((5, 2))), "a number that does not exist"


@given(lists=st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), min_size=1, max_size=6))
def test_against_sets(lists):
    named = [item for row in lists for item in row if item]
    assert coverage(lists, 9) == len(set(named)) / 9
    if named:
        assert mean_popularity(lists, np.arange(10) ** 2) == pytest.approx(sum(item**2 for item in named) / len(named))


def test_empty_lists_cover_nothing_and_have_no_popularity():
    assert coverage(np.zeros((2, 3), int), 5) == 0
    with pytest.raises(ValueError, match="recommend nothing"):
        mean_popularity(np.zeros((2, 3), int), [0, 1])


@pytest.mark.parametrize(
    ("lists", "candidates", "part"), [([[6]], 5, "6"), ([[-1]], 5, "-1"), ([[1]], 0, "0"), ([[0.5]], 5, "float64")]
)
def test_errors_name_the_value(lists, candidates, part):
    with pytest.raises(ValueError, match=re.escape(part)):
        coverage(lists, candidates)
