"""Slices against their definitions, one target at a time, on data of any shape."""

from types import SimpleNamespace

import numpy as np
from hypothesis import given, strategies as st

from jaxrec.data.prepared import Prepared
from jaxrec.data.vocabulary import Vocabulary
from jaxrec.evaluation import slices as room
from jaxrec.evaluation.slices import slices

FAMILIES = (("history",), ("popularity", "never"), ("repeat", "new"), ("tied", "untied"))


def made(sequences, times=None, known=None):
    """Whole sequences as test targets, but for their first event; training is counted from the items themselves."""
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in sequences])]).astype(np.int64)
    items = np.concatenate(sequences).astype(np.int32)
    candidates = int(items.max()) + 1
    known = candidates if known is None else known
    popularity = np.bincount(items, minlength=candidates + 1)
    popularity[known + 1 :] = 0
    ids = Vocabulary.from_strings(["x"])
    return Prepared(
        card={"mask_seen": "none", "unknown_targets": "miss"}, items=items, offsets=offsets, train_end=offsets[:-1],
        valid_end=offsets[:-1], users=np.arange(1, len(sequences) + 1, dtype=np.int32), popularity=popularity,
        item_ids=ids, user_ids=ids, known=known, candidates=candidates,
        times=None if times is None else np.concatenate(times).astype(np.int64),
    )  # fmt: skip


def asked(prepared):
    event = prepared.targets("test")
    sequence = prepared.sequence_of(event)
    return SimpleNamespace(
        example=sequence, position=event - prepared.offsets[sequence], target=prepared.items[event].astype(np.int64)
    )


def by_definition(prepared, sequences, times, s, p):
    """The names of the slices of the target at place ``p`` of sequence ``s``."""
    item = sequences[s][p]
    length = next(
        n for first, n in ((201, "201+"), (51, "51-200"), (21, "21-50"), (6, "6-20"), (1, "1-5")) if p >= first
    )
    names = {f"history {length}", "repeat" if item and item in sequences[s][:p] else "new"}
    counts = prepared.popularity
    if 0 < item <= prepared.known:
        more = sum(counts[i] > counts[item] for i in range(1, prepared.known + 1))
        names.add(f"popularity decile {10 * more // prepared.known + 1}")
    else:
        names.add("never in training")
    if times is not None:
        others = [t for q, t in enumerate(times[s]) if q != p]
        names.add("tied time" if times[s][p] in others else "untied time")
    return names


@st.composite
def data(draw):
    sequences = draw(st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=30), min_size=1, max_size=5))
    sequences.append([1, 2])
    times = [sorted(draw(st.integers(0, 15)) for _ in one) for one in sequences] if draw(st.booleans()) else None
    return sequences, times, draw(st.integers(2, 12))


@given(data(), st.integers(1, 40))
def test_every_target_is_in_the_slices_of_its_definition(found, budget):
    sequences, times, known = found
    prepared = made(sequences, times, min(known, max(map(max, sequences)) + 1))
    ranks, keep = asked(prepared), room.BUDGET
    room.BUDGET = budget
    try:
        masks = slices(prepared, ranks)
    finally:
        room.BUDGET = keep
    for number, (s, p) in enumerate(zip(ranks.example, ranks.position, strict=True)):
        names = {name for name, mask in masks.items() if mask[number]}
        assert names == by_definition(prepared, sequences, times, s, p)


@given(data())
def test_each_family_divides_all_targets(found):
    sequences, times, _ = found
    prepared = made(sequences, times)
    masks = slices(prepared, asked(prepared))
    for family in FAMILIES[: 4 if times else 3]:
        total = sum(mask.astype(int) for name, mask in masks.items() if name.startswith(family))
        np.testing.assert_array_equal(total, 1)
    assert any(name.startswith("tied") for name in masks) == (times is not None)


def test_long_histories_and_the_order_of_deciles():
    sequences = [[*range(1, 11), *[1] * 200, 2], [1, 10]]
    prepared = made(sequences, known=10)
    masks = slices(prepared, asked(prepared))
    assert masks["history 201+"].sum() == 10
    assert masks["history 51-200"].sum() == 150
    assert masks["popularity decile 1"].sum() == 200  # item 1, the most popular; its first event is no target
    assert masks["popularity decile 10"].sum() == 0, "equal counts share the tenth that they begin"


def test_no_targets_no_rows():
    prepared = made([[1], [2]])
    assert all(mask.shape == (0,) for mask in slices(prepared, asked(prepared)).values())
