"""Splits: laws that hold for any sequences, and the boundaries."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from jaxrec.config import Mistake
from jaxrec.data import splits
from jaxrec.data.prepared import ranges

LENGTHS = st.lists(st.integers(1, 8), min_size=1, max_size=12)


def offsets_of(lengths):
    return np.concatenate([[0], np.cumsum(lengths)])


@given(LENGTHS)
def test_leave_one_out_takes_two_events_of_every_sequence_of_three(lengths):
    offsets = offsets_of(lengths)
    train_end, valid_end = splits.leave_one_out(offsets)
    for s, length in enumerate(lengths):
        expected = (length - 2, length - 1) if length >= 3 else (length, length)
        assert (train_end[s] - offsets[s], valid_end[s] - offsets[s]) == expected


@given(LENGTHS, st.data())
def test_by_time_puts_each_event_on_its_side_of_the_boundaries(lengths, data):
    offsets = offsets_of(lengths)
    times = np.concatenate([sorted(data.draw(st.lists(st.integers(0, 20), min_size=n, max_size=n))) for n in lengths])
    low, high = sorted(data.draw(st.lists(st.integers(0, 21), min_size=2, max_size=2, unique=True)))
    train_end, valid_end = splits.by_time(offsets, times, (low, high))
    assert (times[ranges(offsets[:-1], train_end)] < low).all()
    assert ((times[ranges(train_end, valid_end)] >= low) & (times[ranges(train_end, valid_end)] < high)).all()
    assert (times[ranges(valid_end, offsets[1:])] >= high).all()


@given(st.lists(st.tuples(st.integers(-3, 9), st.integers(-3, 9)), max_size=8))
def test_ranges_are_ranges_one_after_the_other(pairs):
    begin, end = (np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1))
    assert ranges(begin, end).tolist() == [n for low, high in pairs for n in range(low, high)]


def test_the_last_tenth_of_the_training_sequences_validates():
    offsets = np.arange(0, 46, 2)  # 22 sequences of two events; the last two are test
    ends = offsets[1:].copy(), offsets[1:].copy()
    for end in ends:
        end[-2:] = offsets[-3:-1]
    train_end, valid_end, held = splits.hold_out(offsets, ends, 0.1)
    assert held == 2
    assert (train_end == offsets[:-1]).nonzero()[0].tolist() == [18, 19, 20, 21]
    assert (valid_end == ends[1]).all()
    assert splits.hold_out(offsets, ends, 0.5)[2] == 10
    assert splits.hold_out(offsets, ends, 1.0)[2] == 19, "one sequence is left to train on"


def test_one_training_sequence_cannot_be_held_out():
    with pytest.raises(Mistake, match="--valid"):
        splits.hold_out(np.array([0, 3]), (np.array([3]), np.array([3])), 0.1)


@given(st.lists(st.integers(0, 50), min_size=3, max_size=60), st.floats(0.01, 0.99))
def test_a_quantile_leaves_at_most_its_share_before(times, share):
    place = splits.boundary(str(share), np.array(times))
    assert sum(t < place for t in times) <= share * len(times)
    assert sum(t <= place for t in times) > share * len(times) - 1e-9


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-02", 86400),
        ("1970-01-02T00:00:01", 86401),
        ("1970-01-02T02:00:00+02:00", 86400),
        ("1970-01-02T00:00:00Z", 86400),
    ],
)
def test_dates_are_utc_unless_they_say_otherwise(text, seconds):
    assert splits.boundary(text, np.array([])) == seconds * 1_000_000


@pytest.mark.parametrize("text", ["0", "1", "1.5", "-0.1", "nan", "yesterday", "2014-13-01", ""])
def test_other_boundaries_are_refused(text):
    with pytest.raises(Mistake, match=f"^boundary {text!r} is"):
        splits.boundary(text, np.arange(10))


def test_boundaries_that_leave_no_validation_are_refused():
    with pytest.raises(Mistake, match="fall on 1970-01-01T00:00:05Z and 1970-01-01T00:00:05Z, so validation would be"):
        splits.time_boundaries(("0.3", "0.6"), np.full(10, 5_000_000))
