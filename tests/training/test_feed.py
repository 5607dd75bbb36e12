"""Events that stay on disk: every read is what the device would read, whoever reads ahead, and no thread is left."""

import os
import threading
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from hypothesis import given, strategies as st

from jaxrec.config import Mistake
from jaxrec.data.batches import packed
from jaxrec.data.context import Context
from jaxrec.data.lanes import lanes
from jaxrec.data.prepared import Prepared
from jaxrec.parallel import team
from jaxrec.training import feed as feeding
from jaxrec.training.feed import Feed, Mapped, taken
from jaxrec.training.source import Bare, load, slabs

EVENTS = 60
DRAW = np.random.default_rng(0)
PREPARED = Prepared(
    card={}, items=DRAW.integers(1, 9, EVENTS).astype(np.int32), offsets=np.array([0, 7, 8, 30, EVENTS]),
    train_end=np.array([6, 8, 28, EVENTS]), valid_end=np.array([7, 8, 29, EVENTS]),
    users=np.array([3, 1, 2, 4], np.int32), popularity=np.arange(10), item_ids=None, user_ids=None, known=9,
    candidates=9, gaps=DRAW.exponential(size=EVENTS).astype(np.float32), starts=DRAW.random(EVENTS) < 0.3,
    context=Context(
        DRAW.integers(5, size=(EVENTS, 2)).astype(np.int32), DRAW.normal(size=(EVENTS, 1)).astype(np.float32)
    ),
)  # fmt: skip
BARE = Prepared(**{**vars(PREPARED), "gaps": None, "starts": None, "context": None})


def threads():
    return {thread for thread in threading.enumerate() if thread.name.startswith("jaxrec-events")}


def same(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("prepared", "user"), [(PREPARED, True), (PREPARED, False), (BARE, True), (BARE, False)])
@given(st.lists(st.integers(-1, EVENTS - 2), min_size=6, max_size=6), st.lists(st.booleans(), min_size=6, max_size=6))
def test_a_batch_from_the_host_is_that_of_the_device(prepared, user, index, reset):
    index, reset = np.array(index, np.int32).reshape(2, 3), np.array(reset).reshape(2, 3)
    same(Mapped(prepared, user).batch(index, reset), load(prepared, user=user).batch(index, reset))


@pytest.mark.parametrize("plan", [packed(PREPARED, 5, seed=0, epoch=0), lanes(PREPARED, 5, width=4)])
def test_every_process_gathers_the_events_of_its_rows_alone(plan, monkeypatch):
    """Put beside each other these are the batches of one process, and nobody reads what another does."""
    data, whole, read = Mapped(PREPARED, True), load(PREPARED, user=True), []
    monkeypatch.setattr(feeding, "taken", lambda values, where: read.append(len(where)) or taken(values, where))
    monkeypatch.setattr(team, "size", lambda: 2)
    halves = []
    for process in range(2):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        halves.append(list(Feed(data).slabs(plan, size=4, steps=3, begin=0, lay=lambda *own: own)))
    for slab, *found in zip(slabs(plan, size=4, steps=3, begin=0), *halves, strict=True):
        assert {leaf.shape[:2] for half in found for leaf in jax.tree.leaves(half.own)} == {(3, 2)}
        _, *joined = jax.tree.map(lambda *rows: np.concatenate(rows, axis=1), *(half.own for half in found))
        for step in range(3):
            mine = Bare(whole.counts).batch(*jax.tree.map(lambda leaf, step=step: leaf[step], joined))
            same(mine, whole.batch(slab.index[step], slab.reset[step]))
    leaves = len(jax.tree.leaves((PREPARED.items, data.sides()))) + 2  # targets and owners
    assert sum(read) == plan.inputs * leaves, "no event twice"


@pytest.mark.parametrize("readers", [1, 2, 5])
def test_slabs_come_in_order_whatever_the_number_of_readers(readers):
    plan, whole = packed(PREPARED, 5, seed=0, epoch=0), load(PREPARED, user=True)
    noise = np.random.default_rng(readers)

    def lay(*own):
        time.sleep(noise.exponential(0.002))
        return own

    found = Feed(Mapped(PREPARED, True), readers).slabs(plan, size=1, steps=2, begin=3, lay=lay)
    wanted = list(slabs(plan, size=1, steps=2, begin=3))
    assert len(wanted) > 4
    for one, other in zip(found, wanted, strict=True):
        assert (one.count, one.end, one.last) == (other.count, other.end, other.last)
        np.testing.assert_array_equal(one.index, other.index)
        source, index, reset = one.read(whole)
        same(source.batch(index[0], reset[0]), whole.batch(other.index[0], other.reset[0]))
    assert not threads()


def test_what_fails_in_a_thread_is_raised_where_it_is_waited_for_and_no_thread_stays():
    cut = Prepared(**{**vars(PREPARED), "items": PREPARED.items[:20]})
    found = Feed(Mapped(cut, False), 2).slabs(packed(cut, 5, seed=0, epoch=0), size=1, steps=1, begin=0, lay=None)
    with pytest.raises(Mistake, match=r"damaged: index \d+ is out of bounds .* prepare the data again"):
        list(found)
    assert not threads()


def test_no_thread_stays_when_nobody_reads_on():
    plan = packed(PREPARED, 5, seed=0, epoch=0)
    found = Feed(Mapped(PREPARED, False), 3).slabs(plan, size=1, steps=1, begin=0, lay=lambda *own: own)
    next(found)
    assert threads()
    found.close()
    assert not threads()


def test_events_beyond_an_int32_are_read_by_numbers_that_the_device_can_hold(tmp_path):
    """A file of eight gigabytes, nearly all of it a hole that takes no place on the disk."""
    last = 2**31 + 9
    items = np.memmap(tmp_path / "items", np.int32, "w+", shape=(last,))
    items[:4], items[-4:] = [1, 2, 3, 4], [5, 6, 7, 8]
    huge = SimpleNamespace(
        items=items, offsets=np.array([0, 4, last - 4, last]), train_end=np.array([4, 4, last]), gaps=None, starts=None,
        context=None, users=np.array([1, 2, 3]), popularity=np.ones(9),
    )  # fmt: skip
    huge.sequence_of = lambda events: Prepared.sequence_of(huge, events)
    (slab,) = Feed(Mapped(huge, True)).slabs(
        packed(huge, 5, seed=0, epoch=0), size=2, steps=1, begin=0, lay=lambda *own: own
    )
    source, index, reset = slab.read(Bare())
    assert index.dtype == source.items.dtype == source.owners.dtype == np.int32
    batch = jax.tree.map(jax.numpy.asarray, source).batch(index[0], reset[0])
    rows = {tuple(batch.item[row].tolist()): row for row in range(2)}
    together = dict(zip(batch.item.ravel().tolist(), batch.target.ravel().tolist(), strict=True))
    assert {item: together[item] for item in (1, 2, 3, 5, 6, 7)} == {1: 2, 2: 3, 3: 4, 5: 6, 6: 7, 7: 8}
    assert {row for row in rows if any(row)}
    owners = dict(zip(batch.item.ravel().tolist(), batch.user.ravel().tolist(), strict=True))
    assert {item: owners[item] for item in (1, 3, 5, 7)} == {1: 1, 3: 1, 5: 3, 7: 3}
    with pytest.raises(Mistake, match=r"2,147,483,657 events are more than an int32 .* --events-on disk"):
        load(huge, user=False)


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system cannot be told which pages come")
def test_where_memory_does_not_hold_the_files_their_pages_are_asked_for(tmp_path, monkeypatch):
    """Every byte that is read lies in a page that was asked for, in runs that do not meet; the slab is the same."""
    monkeypatch.setattr(feeding, "PAGE", 32)  # so that small files have many
    asked = {}

    def advise(file, begin, size, advice):
        assert advice == os.POSIX_FADV_WILLNEED
        asked.setdefault(os.readlink(f"/proc/self/fd/{file}"), []).append((begin, begin + size))

    monkeypatch.setattr(os, "posix_fadvise", advise)
    kept = {name: getattr(PREPARED, name) for name in ("items", "gaps", "starts")} | PREPARED.context._asdict()
    for name, values in kept.items():
        np.save(tmp_path / f"{name}.npy", values)
    files = {path.stem: np.load(path, mmap_mode="r") for path in tmp_path.iterdir()}
    context = Context(files["codes"], files["numbers"])
    mapped = replace(PREPARED, **{name: files[name] for name in ("items", "gaps", "starts")}, context=context)
    index = np.array([[5, 6, 7, 30, 31, -1], [40, 54, -1, -1, -1, -1]])
    same(*(Mapped(mapped, True, beyond=beyond).slots(index) for beyond in (False, True)))
    assert {Path(name).stem for name in asked} == files.keys()
    events = np.concatenate([index[index >= 0], index[index >= 0] + 1])
    for name, runs in asked.items():
        values = files[Path(name).stem]
        wanted = set(((values.offset + events * values.strides[0]) // 32).tolist())
        assert {page for begin, end in runs for page in range(begin // 32, end // 32)} == wanted
        assert all(one[1] < two[0] for one, two in pairwise(runs))
    asked.clear()
    Mapped(mapped, True, beyond=True).slots(np.full((2, 3), -1))
    assert not asked
