"""Lanes: what the paper's loop would read, every training pair once, in one order whatever a step's length."""

import itertools
import time
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given, strategies as st

from jaxrec.config import Mistake
from jaxrec.data import batches
from jaxrec.data.lanes import lanes
from jaxrec.data.options import Preparation
from jaxrec.data.prepare import prepare

SEQUENCES = st.lists(st.tuples(st.integers(0, 23), st.integers(0, 3)), max_size=12)  # training events, later events
LENGTHS, WIDTHS = st.integers(1, 9), st.integers(1, 6)


def sequences(lengths):
    """What a plan reads of prepared data, for (training events, later events) of each sequence."""
    lengths = np.array(lengths, np.int64).reshape(-1, 2)
    offsets = np.concatenate([[0], np.cumsum(lengths.sum(axis=1))])
    return SimpleNamespace(offsets=offsets, train_end=offsets[:-1] + lengths[:, 0])


def streams(plan):
    """What every lane reads and where it is reset, ``(width, slots)``."""
    whole = plan.part(0, plan.rows)
    shape = (-1, plan.width, plan.length)
    return [leaf.reshape(shape).swapaxes(0, 1).reshape(plan.width, -1) for leaf in (whole.index, whole.reset)]


def by_hand(data, width):
    """The loop of the paper, one event of every lane at a time: [(event or -1, whether the state is reset)]."""
    waiting = [list(range(a, b - 1)) for a, b in zip(data.offsets, data.train_end, strict=False) if b - a > 1]
    running, read = [[] for _ in range(width)], []
    while waiting or any(running):
        now = []
        for lane in range(width):
            begins = not running[lane] and bool(waiting)
            if begins:
                running[lane] = waiting.pop(0)
            now.append((running[lane].pop(0), begins) if running[lane] else (-1, True))
        read.append(now)
    return read


@given(SEQUENCES, LENGTHS, WIDTHS)
@example([], 3, 2)
@example([(0, 4), (1, 2), (2, 0), (0, 0)], 3, 4)
@example([(23, 0), (2, 0), (2, 0), (2, 0), (2, 0)], 1, 2)
def test_lanes_read_what_the_loop_of_the_paper_reads(lengths, length, width):
    data = sequences(lengths)
    plan, wanted = lanes(data, length, width=width), by_hand(data, width)
    assert plan.rows == -(-len(wanted) // length) * width
    index, reset = streams(plan)
    for slot in range(index.shape[1]):
        now = list(zip(index[:, slot].tolist(), reset[:, slot].tolist(), strict=True))
        assert now == (wanted[slot] if slot < len(wanted) else [(-1, True)] * width)


@given(SEQUENCES, LENGTHS, WIDTHS)
def test_every_training_pair_is_there_once_and_the_counts_say_so(lengths, length, width):
    data = sequences(lengths)
    plan = lanes(data, length, width=width)
    whole = plan.part(0, plan.rows)
    wanted = [e for a, b in zip(data.offsets, data.train_end, strict=False) for e in range(a, b - 1)]
    assert sorted(whole.index[whole.index >= 0].tolist()) == wanted
    assert (whole.index.dtype, whole.reset.dtype, whole.index.shape) == (np.int32, bool, (plan.rows, length))
    assert (plan.inputs, plan.slots) == (len(wanted), whole.index.size)
    assert batches.waste(plan) == pytest.approx(batches.waste(whole))


@given(SEQUENCES, LENGTHS, WIDTHS)
def test_a_lane_goes_on_until_its_sequence_ends_and_starts_are_in_order(lengths, length, width):
    data = sequences(lengths)
    plan = lanes(data, length, width=width)
    index, reset = streams(plan)
    filled = index >= 0
    assert not (~filled[:, :-1] & filled[:, 1:]).any(), "padding comes when a lane has left for good"
    assert reset[~filled].all(), "what nobody reads does not grow"
    for lane, starts in zip(index, reset, strict=True):
        inner = (lane[1:] >= 0) & ~starts[1:]
        assert (np.diff(lane)[inner] == 1).all(), "without a reset the next event follows"
    slot, lane = np.nonzero((reset & filled).T)
    begun = index[lane, slot]
    assert (np.diff(begun) > 0).all(), "sequences begin in the order of the data, lanes in theirs"
    assert set(begun.tolist()) == {int(a) for a, b in zip(data.offsets, data.train_end, strict=False) if b - a > 1}


@given(SEQUENCES, LENGTHS, LENGTHS, WIDTHS)
def test_a_steps_length_does_not_change_what_a_lane_reads(lengths, length, other, width):
    data = sequences(lengths)
    (one, starts), (two, too) = (streams(lanes(data, choice, width=width)) for choice in (length, other))
    slots = min(one.shape[1], two.shape[1])
    np.testing.assert_array_equal(one[:, :slots], two[:, :slots])
    np.testing.assert_array_equal(starts[:, :slots], too[:, :slots])
    assert (one[:, slots:] == -1).all()
    assert (two[:, slots:] == -1).all()


@given(SEQUENCES, LENGTHS, WIDTHS, st.lists(st.integers(0, 40), max_size=4))
def test_parts_put_together_are_the_whole(lengths, length, width, cuts):
    plan = lanes(sequences(lengths), length, width=width)
    steps = plan.rows // width
    places = [0, *sorted(cut for cut in cuts if cut <= steps), steps]
    parts = [plan.part(a * width, b * width) for a, b in itertools.pairwise(places)]
    whole = plan.part(0, plan.rows)
    for name in ("index", "reset"):
        np.testing.assert_array_equal(np.concatenate([getattr(part, name) for part in parts]), getattr(whole, name))


def test_one_long_sequence_in_many_lanes_costs_no_memory():
    """A dense plan would have 512 million slots here; the plan grows with the sequences, a part with its steps."""
    plan = lanes(sequences([(1_000_001, 0)] + [(3, 0)] * 1000), 50, width=512)
    assert plan.slots == 512_000_000
    assert sum(np.asarray(leaf).nbytes for leaf in plan) < 32 * 1001
    last = plan.part(plan.rows - 512, plan.rows)
    assert last.index[0].tolist() == list(range(999_950, 1_000_000))
    assert (last.index[1:] == -1).all()


def test_two_hundred_thousand_sessions_are_planned_and_written_out_fast():
    rng = np.random.default_rng(0)
    data = sequences(np.stack([np.minimum(rng.geometric(0.25, 200_000), 70), np.zeros(200_000, int)], axis=1))
    began = time.process_time()
    plan = lanes(data, 1, width=32)
    for begin in range(0, plan.rows, 32 * 32):
        plan.part(begin, min(begin + 32 * 32, plan.rows))
    assert time.process_time() - began < 5, "about 0.2 s; a search among all sequences for every part takes minutes"
    assert batches.waste(plan) < 0.01


def test_diginetica_runs_in_lanes_with_hardly_a_slot_wasted(shared_data):
    folder = shared_data / "diginetica"
    files = {"data": str(folder / "train_sessions.txt.gz"), "test": str(folder / "test_sessions.txt.gz")}
    data = prepare(Preparation(**files), say=lambda line: None)
    plan = lanes(data, 1, width=100)
    assert batches.waste(plan) < 0.02
    inputs = streams(plan)[0]
    inputs = inputs[inputs >= 0]
    assert len(np.unique(inputs)) == len(inputs) == plan.inputs == data.card["counts"]["train_pairs"]
    assert (inputs + 1 < data.train_end[data.sequence_of(inputs)]).all()


@pytest.mark.parametrize(
    ("change", "words"), [({"length": 0}, "length 0 .* use 1 or more"), ({"width": 0}, "0 lanes .* use 1 or more")]
)
def test_lanes_that_cannot_be_made_say_why(change, words):
    with pytest.raises(Mistake, match=words):
        lanes(sequences([(4, 0)]), **{"length": 5, "width": 2} | change)


def test_events_beyond_an_int32_have_numbers():
    offsets = np.array([0, 4, 2**31 + 5, 2**31 + 9])
    plan = lanes(SimpleNamespace(offsets=offsets, train_end=np.array([4, 4, 2**31 + 9])), 2, width=2)
    whole = plan.part(0, plan.rows)
    assert whole.index.dtype == np.int64
    first = 2**31 + 5
    assert whole.index.tolist() == [[0, 1], [first, first + 1], [2, -1], [first + 2, -1]]


def test_a_part_is_whole_steps():
    plan = lanes(sequences([(9, 0)] * 4), 2, width=3)
    with pytest.raises(ValueError, match="rows 0 to 4 are no whole steps of 3 lanes"):
        plan.part(0, 4)
