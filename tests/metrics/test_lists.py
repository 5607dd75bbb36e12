"""Coverage and mean popularity of lists of recommendations."""

import re

import numpy as np
import pytest
from hypothesis import given, strategies as st

from jaxrec.metrics import coverage, mean_popularity

LISTS = np.array([[1, 2, 3], [1, 4, 0], [1, 2, 0]])


def test_values_by_hand():
    assert coverage(LISTS, 8) == 0.5
    assert mean_popularity(LISTS, [99, 10, 6, 2, 1]) == pytest.approx((3 * 10 + 2 * 6 + 2 + 1) / 7)


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
