"""Filters, sessions from pauses, ties and splits through a whole preparation, against slow Python and by their laws."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st

from jaxrec.config import Mistake
from jaxrec.data.demo import Demo
from jaxrec.data.options import Preparation, effective
from jaxrec.data.prepare import prepare

EVENT = st.tuples(st.sampled_from(["u", "v", "w"]), st.sampled_from("abcd"), st.integers(0, 40), st.sampled_from("st"))
# what every split needs; in order of time every item is met in the first half
BASE = [("u", item, time, "s") for item, time in zip("abcdabc", (1, 4, 9, 13, 25, 31, 38), strict=True)]
BASE += [("v", item, time, "t") for item, time in zip("dcbabcd", (0, 3, 8, 15, 26, 33, 40), strict=True)]
LOGS = st.lists(EVENT, max_size=30).map(lambda more: BASE + more)
FILTERS = st.fixed_dictionaries(
    {
        "k_core": st.integers(0, 3),
        "deduplicate": st.sampled_from(["none", "exact", "first", "last"]),
        "collapse_repeats": st.booleans(),
    }
)
SPLITS = [
    {"split": "leave-one-out"},
    {"split": "last-n", "last": 2},
    {"split": "time", "boundaries": ("0.6", "0.8"), "catalogue": "all"},
]
few = settings(max_examples=25)  # each prepares two or three files


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("protocol")


def made(folder, rows, *, sessions=True, name="log.csv", **options):
    header = "user,item,time,session" if sessions else "user,item,time"
    lines = [",".join(map(str, row if sessions else row[:3])) for row in rows]
    path = folder / name
    path.write_text("\n".join([header, *lines]) + "\n")
    return prepare(Preparation(data=str(path), **options), lambda _: None)


def possible(*arguments, **options):
    """The preparation; examples too small for the split or the filters are set aside."""
    try:
        return made(*arguments, **options)
    except Mistake as error:
        assume(not any(words in str(error) for words in ("leaves nothing", "would be empty", "filters leave")))
        raise


def events_of(prepared):
    """(user, item, second, sequence number) of every event, in order."""
    sequence = prepared.sequence_of(np.arange(len(prepared.items)))
    users = prepared.user_ids.decode(prepared.users[sequence])
    items = [prepared.item_ids.strings[item - 1] for item in prepared.items]
    return list(zip(users, items, (prepared.times // 1000).tolist(), sequence.tolist(), strict=True))


def histories(rows):
    """Slow: user -> events by time, ties as in the rows."""
    users = {}
    for row in rows:
        users.setdefault(row[0], []).append(row)
    return {user: sorted(events, key=lambda event: event[2]) for user, events in users.items()}


# Splits


@few
@given(LOGS, st.sampled_from(SPLITS), st.sampled_from(["user", "session"]))
def test_every_split_partitions_the_events_of_every_kind_of_sequence(folder, rows, options, sequence):
    prepared = possible(folder, rows, sequence=sequence, **options)
    parts = np.stack([prepared.offsets[:-1], prepared.train_end, prepared.valid_end, prepared.offsets[1:]])
    assert (np.diff(parts, axis=0) >= 0).all()
    assert Counter(event[:3] for event in events_of(prepared)) == Counter(row[:3] for row in rows)
    event = np.arange(len(prepared.items))
    learnt = event < prepared.train_end[prepared.sequence_of(event)]
    if options["split"] == "time":
        assert prepared.times[learnt].max() < prepared.times[~learnt].min()
    else:
        n = options.get("last", 1)
        lengths = np.diff(prepared.offsets)
        for end, before in ((prepared.offsets[1:], prepared.valid_end), (prepared.valid_end, prepared.train_end)):
            assert (end - before).tolist() == [n * (length > 2 * n) for length in lengths]
    assert not any(finding["leaks"] for finding in prepared.card["leak_check"]["findings"] if not finding["by_design"])


@few
@given(LOGS)
def test_last_one_is_leave_one_out(folder, rows):
    one, other = (possible(folder, rows, split=split) for split in ("last-n", "leave-one-out"))
    for name in ("items", "offsets", "train_end", "valid_end", "popularity"):
        assert getattr(one, name).tolist() == getattr(other, name).tolist()
    assert one.card["leaks"] == other.card["leaks"]
    assert one.card["split"] == {"name": "last-n", "last": 1}


# Sessions


@few
@given(LOGS, st.integers(1, 30))
def test_a_pause_longer_than_the_gap_begins_a_session(folder, rows, gap):
    prepared = possible(folder, rows, sessions=False, session_gap=gap / 60, split="leave-one-out")
    expected = []
    for user, events in histories(rows).items():
        pauses = [float("inf")] + [two[2] - one[2] for one, two in pairwise(events)]
        for pause, (_, item, time, _) in zip(pauses, events, strict=True):
            if pause > gap:
                expected.append((user, []))
            expected[-1][1].append((item, time))
    found = {}
    for user, item, time, sequence in events_of(prepared):
        found.setdefault(sequence, (user, []))[1].append((item, time))
    assert sorted(found.values()) == sorted(expected)
    assert prepared.card["sequence"] == "session"


@few
@given(LOGS)
def test_an_endless_gap_cuts_nothing(folder, rows):
    plain = possible(folder, rows, sessions=False)
    cut = possible(folder, rows, sessions=False, session_gap=1e9)
    assert events_of(plain) == events_of(cut)
    assert (plain.card["sequence"], cut.card["sequence"]) == ("user", "session")


def test_a_gap_marks_the_starts_of_sessions_in_the_sequence_of_a_user(tmp_path):
    rows = [("u", item, time, "s") for item, time in zip("abcdab", (0, 60, 121, 181, 300, 301), strict=True)]
    users = made(tmp_path, rows, sequence="user", session_gap=1)
    assert users.starts.tolist() == [True, False, True, False, True, False]
    assert users.card["filters"]["session_gap"] == 1


@pytest.mark.parametrize(
    ("header", "options", "sentence"),
    [
        ("user,item", {"session_gap": 5}, "--session-gap needs times"),
        ("session,item,time", {"session_gap": 5}, "--session-gap cuts a user's events"),
        ("user,item,time,visit", {"session_gap": 5, "session_column": "visit"}, "keep one"),
        ("user,item", {"deduplicate": "exact"}, "--deduplicate exact compares times"),
        ("user,item", {"ties": "shuffle"}, "--ties shuffle needs times"),
        ("user,item,time", {"deduplicate": "last", "filter_scope": "train"}, "use --deduplicate first"),
    ],
)
def test_what_the_data_does_not_allow(tmp_path, header, options, sentence):
    width = header.count(",") + 1
    rows = "".join(",".join(map(str, (n // 4, n % 3, n, n // 2)[:width])) + "\n" for n in range(12))
    (tmp_path / "log.csv").write_text(f"{header}\n{rows}")
    with pytest.raises(Mistake, match=sentence):
        prepare(Preparation(data=str(tmp_path / "log.csv"), **options), lambda _: None)


# Filters


@few
@given(LOGS, st.sampled_from(["exact", "first", "last"]))
def test_duplicates_go(folder, rows, which):
    prepared = possible(folder, rows, sessions=False, deduplicate=which)
    expected = []
    for events in histories(rows).values():
        seen, kept = set(), []
        for user, item, time, _ in reversed(events) if which == "last" else events:
            key = (item, time) if which == "exact" else item
            if key not in seen:
                kept.append((user, item, time))
            seen.add(key)
        expected += kept
    assert sorted(event[:3] for event in events_of(prepared)) == sorted(expected)


def test_the_first_of_a_user_is_the_first_in_time_also_over_sessions_that_overlap(tmp_path):
    rows = [("u", "a", 5, "s"), ("u", "b", 90, "s"), ("u", "c", 95, "s"), ("u", "b", 10, "t"), ("u", "d", 99, "t")]
    rows += [("v", item, time, "s") for item, time in zip("abcd", range(4), strict=True)]
    prepared = made(tmp_path, rows, sequence="session", deduplicate="first")
    mine = [event[1:] for event in events_of(prepared) if event[0] == "u"]
    assert mine == [("a", 5, 1), ("c", 95, 1), ("b", 10, 2), ("d", 99, 2)]


@few
@given(LOGS, FILTERS, st.sampled_from(["user", "session"]))
def test_filters_at_their_fixed_point_change_nothing(folder, rows, filters, sequence):
    once = possible(
        folder, rows, sequence=sequence, split="time", catalogue="all", boundaries=("0.5", "0.7"), **filters
    )
    items = [event[1] for event in events_of(once)]
    numbers = [event[3] for event in events_of(once)]
    if filters["collapse_repeats"]:
        assert not any(one == two for one, two in pairwise(zip(numbers, items, strict=True)))
    if filters["k_core"]:
        assert min(Counter(items).values()) >= filters["k_core"]
        assert min(Counter(numbers).values()) >= filters["k_core"]
    left = [(user, item, time, f"s{number}") for user, item, time, number in events_of(once)]
    options = {"sequence": sequence, "split": "time", "catalogue": "all", "boundaries": ("0.5", "0.7")}
    again = made(folder, left, **options, **filters)
    assert sorted(events_of(again)) == sorted(events_of(once))
    assert again.card["counts"]["removed"] == {"events": 0, "sequences": 0, "items": 0}


def test_each_filter_is_counted_on_the_card(tmp_path):
    """x stands once; without it a, a are neighbours, and collapsed; then u2 has too few."""
    rows = [("u", item, time, "s") for time, item in enumerate("aabbabab")]
    rows += [("v", item, 50 + time, "s") for time, item in enumerate("axabb")]
    rows += [("w", item, 70 + time, "s") for time, item in enumerate("abab")]
    options = {"collapse_repeats": True, "min_item_events": 2, "k_core": 3, "deduplicate": "exact"}
    removed = made(tmp_path, rows, **options).card["filters"]["removed"]
    assert list(removed) == ["deduplicate", "collapse_repeats", "minimum_counts", "k_core"]
    assert {name: counts["events"] for name, counts in removed.items()} == {
        "deduplicate": 0,
        "collapse_repeats": 3 + 1,  # aa and bb of u, bb of v; then aa of v
        "minimum_counts": 1,  # x
        "k_core": 2,  # a, b of v
    }
    assert removed["k_core"]["sequences"] == 1


@few
@given(LOGS, st.sampled_from(SPLITS), st.integers(1, 3), st.integers(0, 3), st.randoms(use_true_random=False))
def test_counts_of_training_alone_are_blind_to_the_rest(folder, rows, split, k, least, random):
    """Other items in validation and test leave the training part as it was; and they stay what they are."""
    options = split | {"k_core": k, "min_item_events": least, "filter_scope": "train"}
    unfiltered = possible(folder, rows, sessions=False, **split)
    filtered = possible(folder, rows, sessions=False, **options)
    assert held(filtered) == held(unfiltered)
    later = {event[:3] for event in held(unfiltered)}
    assume(not later & set(learnt(unfiltered)))
    changed = [(u, random.choice("abcdxyz") if (u, i, t) in later else i, t, s) for u, i, t, s in rows]
    other = possible(folder, changed, sessions=False, **options)
    assert learnt(other) == learnt(filtered)
    kept = Counter(item for _, item, _ in learnt(filtered))
    assert not kept or min(kept.values()) >= k


def learnt(prepared):
    events = np.arange(len(prepared.items))
    inside = events < prepared.train_end[prepared.sequence_of(events)]
    return sorted(event[:3] for event, here in zip(events_of(prepared), inside, strict=True) if here)


def held(prepared):
    inside = Counter(learnt(prepared))
    return sorted((Counter(event[:3] for event in events_of(prepared)) - inside).elements())


def test_training_alone_may_be_filtered_beside_a_given_test(tmp_path):
    (tmp_path / "train").write_text("a b c\n" * 6 + "d a b\n" + "a c b\n" * 3)
    (tmp_path / "test").write_text("a d b\nd e a\n")
    options = {"data": str(tmp_path / "train"), "test": str(tmp_path / "test"), "min_item_events": 2}
    with pytest.raises(Mistake, match="--filter-scope train"):
        prepare(Preparation(**options), lambda _: None)
    prepared = prepare(Preparation(**options, filter_scope="train"), lambda _: None)
    assert (prepared.item_ids.strings, prepared.known) == (["a", "b", "c", "d", "e"], 3)
    assert len(prepared.targets("test")) == 4
    assert prepared.card["filters"]["removed"]["minimum_counts"] == {"events": 1, "sequences": 0, "items": 1}


# Ties


@few
@given(LOGS, st.integers(0, 5))
def test_a_shuffle_stays_inside_its_ties(folder, rows, seed):
    plain = possible(folder, rows, sessions=False)
    drawn = possible(folder, rows, sessions=False, ties="shuffle", ties_seed=seed)
    again = possible(folder, rows, sessions=False, ties="shuffle", ties_seed=seed)
    assert events_of(drawn) == events_of(again)
    assert drawn.card["fingerprint"] == again.card["fingerprint"]
    assert [(user, time, number) for user, _, time, number in events_of(drawn)] == [
        (user, time, number) for user, _, time, number in events_of(plain)
    ]
    assert sorted(events_of(drawn)) == sorted(events_of(plain))
    assert drawn.card["ties"]["policy"] == f"shuffled with seed {seed}"


def test_a_shuffle_has_no_preference(tmp_path):
    """400 pairs ascend in the file; about half descend when drawn, and another seed draws others."""
    rows = [(f"u{n // 8}", item, n % 8 * 10, "s") for n in range(400) for item in ("a", "b")]
    orders = []
    for seed in (0, 1):
        prepared = made(tmp_path, rows, sessions=False, ties="shuffle", ties_seed=seed)
        names = [event[1] for event in events_of(prepared)]
        orders.append([one < two for one, two in zip(names[::2], names[1::2], strict=True)])
    assert all(150 < sum(order) < 250 for order in orders)
    assert orders[0] != orders[1]


def test_orders_made_of_items_are_refused_with_the_reason():
    for ties in ("item", "item-id", "id", "random"):
        with pytest.raises(Mistake, match=f"^ties = {ties!r} is refused; use file or shuffle, because .* its id, are"):
            Preparation(ties=ties)


# Identity


@pytest.mark.parametrize(
    ("base", "change", "decides"),
    [
        ({}, {"deduplicate": "first"}, True),
        ({}, {"collapse_repeats": True}, True),
        ({}, {"session_gap": 30}, True),
        ({}, {"filter_scope": "train"}, True),
        ({}, {"ties": "shuffle"}, True),
        ({}, {"ties_seed": 1}, False),
        ({"ties": "shuffle"}, {"ties_seed": 1}, True),
        ({}, {"last": 2}, False),
        ({"split": "last-n"}, {"last": 2}, True),
    ],
)
def test_what_decides_the_result_is_part_of_its_identity(base, change, decides):
    demo = {"demo": Demo(users=10, items=60, events=8)}
    same = effective(Preparation(**demo, **base)) == effective(Preparation(**demo, **base | change))
    assert same != decides
