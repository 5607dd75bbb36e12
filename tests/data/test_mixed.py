"""A window at a time: every pair once, in rows like those of all the data at once, whoever asks for them and how."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given, strategies as st

from jaxrec.config import Mistake
from jaxrec.data import batches, mixed
from jaxrec.data.mixed import Mixed

LENGTHS = st.lists(st.tuples(st.integers(0, 23), st.integers(0, 3)), max_size=40)  # training events, later events
LAYOUTS = st.sampled_from(["packed", "windows"])


@pytest.fixture(autouse=True, scope="module")
def few_blocks():
    """Windows of few blocks, so that small data have many of both."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixed, "BLOCKS", 3)
        yield


def sequences(lengths):
    lengths = np.array(lengths, np.int64).reshape(-1, 2)
    offsets = np.concatenate([[0], np.cumsum(lengths.sum(axis=1))])
    return SimpleNamespace(offsets=offsets, train_end=offsets[:-1] + lengths[:, 0])


def whole(plan):
    return plan.part(0, plan.rows)


@given(LENGTHS, st.integers(1, 9), LAYOUTS, st.integers(1, 200), st.integers(0, 3), st.integers(0, 3))
@example([], 3, "packed", 5, 0, 0)
@example([(0, 4), (1, 2), (2, 0), (0, 0)], 3, "packed", 1, 0, 0)
def test_every_training_pair_is_there_once_and_the_counts_say_so(lengths, length, layout, over, seed, epoch):
    data = sequences(lengths)
    plan = Mixed(data, length, layout, over=over, seed=seed, epoch=epoch)
    found = whole(plan)
    wanted = [e for a, b in zip(data.offsets, data.train_end, strict=False) for e in range(a, b - 1)]
    assert sorted(found.index[found.index >= 0].tolist()) == wanted
    assert found.index.shape == found.reset.shape == (plan.rows, length)
    assert (plan.inputs, plan.slots) == (len(wanted), found.index.size)
    assert (found.index.dtype, found.reset.dtype) == (np.int32, bool)
    filled = found.index >= 0
    assert found.reset[:, 0].all()
    assert not found.reset[~filled].any()
    on = ~found.reset[:, 1:] & filled[:, 1:]  # where nothing begins, the event is the one after its neighbour
    assert (np.diff(found.index, axis=1)[on] == 1).all()
    assert (data.train_end[np.searchsorted(data.offsets, found.index[filled], "right") - 1] > found.index[filled]).all()


@given(LENGTHS, st.integers(1, 9), LAYOUTS, st.integers(1, 200), st.data())
def test_parts_are_parts_of_the_whole_in_any_order(lengths, length, layout, over, data):
    given_ = sequences(lengths)
    plan, again = (Mixed(given_, length, layout, over=over, seed=1, epoch=1) for _ in range(2))
    every = whole(plan)
    for _ in range(4):
        begin = data.draw(st.integers(0, plan.rows))
        end = data.draw(st.integers(begin, plan.rows))
        part = again.part(begin, end)
        np.testing.assert_array_equal(part.index, every.index[begin:end])
        np.testing.assert_array_equal(part.reset, every.reset[begin:end])


@given(st.lists(st.integers(1, 30), max_size=60), st.integers(1, 30))
def test_rows_are_counted_without_being_made(sizes, length):
    sizes = np.minimum(np.array(sizes, np.int64), length)
    row, _ = batches.LAYOUTS["packed"].place(sizes, length, np.random.default_rng(0))
    assert batches.LAYOUTS["packed"].rows(sizes, length) == (row.max() + 1 if len(row) else 0)


def test_one_window_holds_all_where_it_can_and_packs_as_well():
    data = sequences([(5, 1)] * 30 + [(3, 0)] * 40)
    plan, plain = Mixed(data, 8, "packed", over=10**6, seed=0, epoch=0), batches.packed(data, 8, seed=0, epoch=0)
    assert len(plan.windows) == 1
    assert plan.rows == plain.rows


def test_what_is_read_at_one_time_are_a_windows_blocks_of_neighbours():
    data = sequences([(10, 0)] * 3000)
    plan = Mixed(data, 9, "packed", over=300, seed=0, epoch=0)
    assert len(plan.windows) == 100
    seen = set()
    for number, (begin, end) in enumerate(zip(plan.ends[:-1].tolist(), plan.ends[1:].tolist(), strict=True)):
        blocks = set((plan.part(begin, end).index // 100).ravel().tolist())
        assert blocks == set(plan.windows[number].tolist())
        assert len(blocks) == 3
        seen |= blocks
    assert len(seen) == 300
    early, late = np.array_split(whole(plan).index[:, 0], 2)
    assert abs(early.mean() - late.mean()) < 3000, "the halves of an epoch are alike: its events are 0 to 29,999"


def test_seed_and_epoch_decide_and_a_window_differs_from_the_next():
    data = sequences([(6, 0)] * 100)
    make = lambda seed, epoch: whole(Mixed(data, 5, "windows", over=60, seed=seed, epoch=epoch)).index  # noqa: E731
    np.testing.assert_array_equal(make(3, 2), make(3, 2))
    for other in ((4, 2), (3, 3), (2, 3)):
        assert not np.array_equal(make(3, 2), make(*other))
    plan = Mixed(data, 5, "windows", over=60, seed=0, epoch=0)
    orders = {tuple(np.argsort(plan.plan(number).index[:, 0]).tolist()) for number in range(len(plan.windows))}
    assert len(orders) > len(plan.windows) // 2, "windows are shuffled apart"


def test_many_threads_read_the_same_rows_and_no_thread_stays():
    before = set(threading.enumerate())
    plan = Mixed(sequences([(6, 0)] * 200), 5, "packed", over=60, seed=0, epoch=0)
    every = whole(plan)
    with ThreadPoolExecutor(8) as threads:
        parts = list(threads.map(lambda row: plan.part(row, min(row + 7, plan.rows)), range(0, plan.rows, 7)))
    np.testing.assert_array_equal(np.concatenate([part.index for part in parts]), every.index)
    assert len(plan.made) <= mixed.KEPT
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive()


def test_events_beyond_an_int32_have_numbers():
    offsets = np.array([0, 4, 2**31 + 5, 2**31 + 9])
    data = SimpleNamespace(offsets=offsets, train_end=np.array([4, 4, 2**31 + 9]))
    plan = Mixed(data, 5, "packed", over=2**28, seed=0, epoch=0)
    found = whole(plan)
    assert found.index.dtype == np.int64
    assert sorted(found.index[found.index >= 0].tolist()) == [0, 1, 2, 2**31 + 5, 2**31 + 6, 2**31 + 7]


@pytest.mark.parametrize(
    ("change", "words"), [({"over": 0}, "over = 0"), ({"length": 0}, "length 0"), ({"epoch": -1}, "epoch -1")]
)
def test_what_cannot_be_shuffled_says_why(change, words):
    with pytest.raises(Mistake, match=words):
        Mixed(sequences([(4, 0)]), **{"length": 5, "layout": "packed", "over": 9, "seed": 0, "epoch": 0} | change)
