"""Batches: every training pair once, never across sequences, resets where pieces begin, hardly a slot wasted."""

import time
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given, strategies as st

from jaxrec.config import Mistake
from jaxrec.data import batches
from jaxrec.data.options import Preparation
from jaxrec.data.prepare import prepare

LAYOUTS = [batches.packed, batches.windows]
LENGTHS = st.lists(st.tuples(st.integers(0, 23), st.integers(0, 3)), max_size=12)  # training events, later events


def sequences(lengths):
    """What a plan reads of prepared data, for (training events, later events) of each sequence."""
    lengths = np.array(lengths, np.int64).reshape(-1, 2)
    offsets = np.concatenate([[0], np.cumsum(lengths.sum(axis=1))])
    return SimpleNamespace(offsets=offsets, train_end=offsets[:-1] + lengths[:, 0])


def sessions(count=200_000):
    """Session lengths as in click logs: most are short, some long, a few have no training event at all."""
    rng = np.random.default_rng(0)
    train = np.minimum(rng.geometric(0.25, count), 70) * (rng.random(count) < 0.92)
    return sequences(np.stack([train, np.where(train == 0, 4, 0)], axis=1))


def pieces(plan):
    """(row, first column, events) of every piece: a run of slots from one reset to the next, or to the padding."""
    for row, (index, reset) in enumerate(zip(plan.index, plan.reset, strict=True)):
        begins = np.flatnonzero(reset)
        for begin, end in zip(begins, [*begins[1:], int((index >= 0).sum())], strict=True):
            yield row, begin, index[begin:end]


@pytest.mark.parametrize("layout", LAYOUTS)
@given(lengths=LENGTHS, length=st.integers(1, 9), seed=st.integers(0, 5), epoch=st.integers(0, 5))
@example(lengths=[], length=3, seed=0, epoch=0)
@example(lengths=[(0, 4), (1, 2), (2, 0), (0, 0)], length=3, seed=0, epoch=0)
def test_every_training_pair_is_there_once(layout, lengths, length, seed, epoch):
    data = sequences(lengths)
    plan = layout(data, length, seed=seed, epoch=epoch)
    wanted = [e for a, b in zip(data.offsets, data.train_end, strict=False) for e in range(a, b - 1)]
    assert sorted(plan.index[plan.index >= 0].tolist()) == wanted
    assert plan.index.dtype == np.int32
    assert plan.reset.dtype == bool
    assert plan.index.shape == plan.reset.shape == (len(plan.index), length)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("mean", "length"), [(3, 20), (30, 20), (30, 200)])
def test_a_plan_takes_the_memory_that_was_foretold(layout, mean, length):
    train = np.random.default_rng(0).geometric(1 / mean, 600_000 // mean)
    data = sequences(np.stack([train, np.ones_like(train)], axis=1))
    events, told = batches.bytes_while_made(data, length, layout.__name__)
    assert events == np.maximum(train - 1, 0).sum()
    tracemalloc.start()
    layout(data, length, seed=0, epoch=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0.8 < peak / told < 1.1


@pytest.mark.parametrize("layout", LAYOUTS)
@given(lengths=LENGTHS, length=st.integers(1, 9), epoch=st.integers(0, 5))
def test_a_piece_is_a_run_of_one_sequence_and_a_reset_is_its_beginning(layout, lengths, length, epoch):
    data = sequences(lengths)
    plan = layout(data, length, seed=1, epoch=epoch)
    filled = plan.index >= 0
    assert not (~filled[:, :-1] & filled[:, 1:]).any(), "padding comes last"
    assert filled[:, 0].all(), "no row is empty"
    assert plan.reset[:, 0].all(), "a row never continues the row above"
    assert not plan.reset[~filled].any()
    for _, _, events in pieces(plan):
        assert (np.diff(events) == 1).all()
        owner = np.searchsorted(data.offsets, events[[0, -1]], side="right") - 1
        assert owner[0] == owner[1]


@given(lengths=LENGTHS, length=st.integers(1, 9), epoch=st.integers(0, 5))
def test_both_layouts_place_the_same_pieces_and_windows_gives_each_a_row(lengths, length, epoch):
    data = sequences(lengths)
    packed, windows = (list(pieces(layout(data, length, seed=0, epoch=epoch))) for layout in LAYOUTS)
    assert sorted(tuple(events) for _, _, events in packed) == sorted(tuple(events) for _, _, events in windows)
    assert [row for row, _, _ in windows] == list(range(len(windows)))
    assert len({row for row, _, _ in packed}) <= len(windows)


@given(st.lists(st.integers(1, 10), min_size=1, max_size=40), st.integers(0, 3))
def test_packing_is_best_fit_decreasing(sizes, epoch):
    """The number of rows is that of the textbook algorithm, which looks for a place for one piece at a time."""
    plan = batches.packed(sequences([(size + 1, 0) for size in sizes]), 10, seed=0, epoch=epoch)
    left = []
    for size in sorted(sizes, reverse=True):
        fitting = [space for space in left if space >= size]
        if fitting:
            left.remove(min(fitting))
        left.append((min(fitting) if fitting else 10) - size)
    assert len(plan.index) == len(left)
    assert sorted((plan.index < 0).sum(axis=1).tolist()) == sorted(left)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_plan_is_decided_by_seed_and_epoch(layout):
    data = sequences([(size, 1) for size in range(40)])
    plan = layout(data, 8, seed=3, epoch=2)
    again = layout(data, 8, seed=3, epoch=2)
    assert np.array_equal(plan.index, again.index)
    assert np.array_equal(plan.reset, again.reset)
    for other in (layout(data, 8, seed=4, epoch=2), layout(data, 8, seed=3, epoch=3), layout(data, 8, seed=2, epoch=3)):
        assert not np.array_equal(plan.index, other.index)


def test_cuts_move_so_that_every_event_comes_to_be_read_with_its_past():
    """One sequence of 21 training events: over the epochs every input but the first stands behind its predecessor."""
    data, behind = sequences([(21, 1)]), set()
    firsts = set()
    for epoch in range(60):
        found = [events for _, _, events in pieces(batches.packed(data, 5, seed=0, epoch=epoch))]
        firsts.add(min(events[-1] for events in found) + 1)
        behind |= {e for events in found for e in events[1:].tolist()}
    assert firsts == {1, 2, 3, 4, 5}
    assert behind == set(range(1, 20))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_come_in_no_order(layout):
    plan = layout(sequences([(5, 0)] * 100 + [(2, 0)] * 100), 4, seed=0, epoch=0)
    for found in (plan.index[:, 0], plan.reset.sum(axis=1)):
        early, late = np.array_split(found, 2)
        assert abs(early.mean() - late.mean()) <= 0.25 * np.ptp(found), "the halves of an epoch are alike"


def test_a_sequence_that_fits_is_never_cut():
    data = sequences([(6, 2), (3, 0), (6, 0)])
    for epoch in range(10):
        found = sorted(events.tolist() for _, _, events in pieces(batches.packed(data, 5, seed=0, epoch=epoch)))
        assert found == [[0, 1, 2, 3, 4], [8, 9], [11, 12, 13, 14, 15]]


@pytest.mark.parametrize("length", [20, 50])
def test_sessions_pack_almost_without_waste_and_fast(length):
    data = sessions()
    began = time.process_time()
    plan = batches.packed(data, length, seed=0, epoch=0)
    seconds = time.process_time() - began
    assert batches.waste(plan) < 0.01 < 0.5 < batches.waste(batches.windows(data, length, seed=0, epoch=0))
    assert seconds < 3, "200,000 sessions take about 0.1 s; a search per piece would take minutes"


def test_pieces_of_one_size_meet_different_neighbours_each_epoch():
    data = sequences([(3, 0)] * 60)
    neighbours = [
        {frozenset(row[plan_reset].tolist()) for row, plan_reset in zip(plan.index, plan.reset, strict=True)}
        for plan in (batches.packed(data, 6, seed=0, epoch=epoch) for epoch in range(2))
    ]
    assert len(neighbours[0] & neighbours[1]) < len(neighbours[0])


def test_diginetica_packs_with_less_than_five_percent_waste(shared_data):
    folder = shared_data / "diginetica"
    files = {"data": str(folder / "train_sessions.txt.gz"), "test": str(folder / "test_sessions.txt.gz")}
    data = prepare(Preparation(**files), say=lambda line: None)
    assert (data.train_end == data.offsets[:-1]).any(), "test sessions have no training part, and are here"
    for length in (20, 50):
        plan = batches.packed(data, length, seed=0, epoch=0)
        assert batches.waste(plan) < 0.05
        inputs = plan.index[plan.index >= 0]
        assert len(np.unique(inputs)) == len(inputs) == data.card["counts"]["train_pairs"]
        assert (inputs + 1 < data.train_end[data.sequence_of(inputs)]).all()


def test_waste_is_the_share_of_padding():
    index = np.array([[4, 5, -1, -1], [0, 1, 2, -1]], np.int32)
    assert batches.waste(batches.Plan(index, index >= 0)) == 3 / 8
    assert batches.waste(batches.packed(sequences([]), 4, seed=0, epoch=0)) == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [({"length": 0}, "length 0 .* use 1 or more"), ({"seed": -1}, "seed -1"), ({"epoch": -2}, "epoch -2")],
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_plan_that_cannot_be_made_says_why(layout, change, words):
    with pytest.raises(Mistake, match=words):
        layout(sequences([(4, 0)]), **{"length": 5, "seed": 0, "epoch": 0} | change)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_events_beyond_an_int32_have_numbers(layout):
    offsets = np.array([0, 4, 2**31 + 5, 2**31 + 9])
    plan = layout(SimpleNamespace(offsets=offsets, train_end=np.array([4, 4, 2**31 + 9])), 5, seed=0, epoch=0)
    assert plan.index.dtype == np.int64
    assert sorted(plan.index[plan.index >= 0].tolist()) == [0, 1, 2, 2**31 + 5, 2**31 + 6, 2**31 + 7]
