"""Filters against slow counting."""

from collections import Counter

import numpy as np
from hypothesis import given, strategies as st

from jaxrec.data.filters import k_core, minimum_counts, repeats

EVENTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=60)


def slow_once(events, user_events, item_events):
    users, items = Counter(u for u, _ in events), Counter(i for _, i in events)
    return [(u, i) for u, i in events if users[u] >= user_events and items[i] >= item_events]


def columns(events):
    return np.array([u for u, _ in events]), np.array([i for _, i in events])


def kept(events, mask):
    return [event for event, stays in zip(events, mask, strict=True) if stays]


@given(EVENTS, st.integers(0, 5), st.integers(0, 5))
def test_minimum_counts_look_once_at_the_raw_data(events, user_events, item_events):
    mask = minimum_counts(*columns(events), user_events, item_events)
    assert kept(events, mask) == slow_once(events, user_events, item_events)


@given(EVENTS, st.integers(1, 5))
def test_k_core_is_the_fixed_point(events, k):
    expected = events
    while (fewer := slow_once(expected, k, k)) != expected:
        expected = fewer
    assert kept(events, k_core(*columns(events), k)) == expected


@given(EVENTS, st.integers(1, 5), st.randoms(use_true_random=False))
def test_k_core_contains_every_dense_subset(events, k, random):
    """The largest one: whatever subset has k events of each of its users and items lies inside."""
    subset = [event for event in events if random.random() < 0.7]
    while (fewer := slow_once(subset, k, k)) != subset:
        subset = fewer
    assert not Counter(subset) - Counter(kept(events, k_core(*columns(events), k)))


@given(EVENTS)
def test_a_repeat_is_of_its_own_sequence(events):
    users, items = columns(sorted(events, key=lambda event: event[0]))
    expected = [n > 0 and (users[n], items[n]) == (users[n - 1], items[n - 1]) for n in range(len(users))]
    assert repeats(users, items).tolist() == expected
