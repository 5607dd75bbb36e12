"""Preparation against slow Python, and the laws of its result."""

import csv
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from jaxrec.config import Mistake, field_types, watch
from jaxrec.data import prepare as prepare_module
from jaxrec.data.demo import Demo
from jaxrec.data.inspection import inspect
from jaxrec.data.options import Preparation
from jaxrec.data.prepare import prepare, prepare_cached

SMALL = Demo(users=20, items=60, events=8)
# user, item, time, session; four events of u0 and of u1 make sure that something can be trained and tested
BASE = [
    *[("u0", "a", 3, "s"), ("u0", "b", 20, "s"), ("u0", "a", 70, "t"), ("u0", "c", 90, "t")],
    *[("u1", "c", 5, "s"), ("u1", "b", 30, "s"), ("u1", "d", 80, "s"), ("u1", "a", 95, "s")],
]
EVENT = st.tuples(
    st.sampled_from(["u0", "u1", "u2", "u3"]), st.sampled_from("abcdef"), st.integers(0, 99), st.sampled_from("st")
)
LOGS = st.lists(EVENT, max_size=30).map(lambda more: BASE + more)
DISTINCT = st.lists(EVENT, max_size=30, unique_by=lambda event: event[2]).map(
    lambda more: BASE + [event for event in more if event[2] not in {time for *_, time, _ in BASE}]
)
HEADER = ("user", "item", "time", "session")
OPTIONS = st.fixed_dictionaries(
    {
        "split": st.sampled_from(["leave-one-out", "time"]),
        "catalogue": st.sampled_from(["auto", "all", "train"]),
        "unknown_targets": st.sampled_from(["miss", "drop"]),
        "boundaries": st.sampled_from([("0.6", "0.8"), ("0.5", "1970-01-01T00:01:15")]),
    }
)


def silent(_):
    """A listener that does not listen."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("prepare")


def made(folder, rows, header=HEADER, name="log.csv", **options):
    path = folder / name
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return prepare(Preparation(data=str(path), **options), silent)


def possible(folder, rows, **options):
    """The preparation, or None where the split leaves one of its parts empty."""
    try:
        return made(folder, rows, **options)
    except Mistake as error:
        if "leaves nothing to" in str(error) or "would be empty" in str(error):
            return None
        raise


def events_of(prepared):
    """(user, item, milliseconds) of every event in order; item None where it is not in the vocabulary."""
    sequence = prepared.sequence_of(np.arange(len(prepared.items)))
    users = prepared.user_ids.decode(prepared.users[sequence])
    items = [prepared.item_ids.decode([item])[0] if item else None for item in prepared.items]
    times = [None] * len(items) if prepared.times is None else prepared.times.tolist()
    return list(zip(users, items, times, strict=True))


def histories(rows):
    """Slow: sequences by the time of their first event, events by time; ties as in the rows."""
    by_user = {}
    for user, item, time, _ in rows:
        by_user.setdefault(user, []).append((user, item, time * 1000))
    sequences = [sorted(events, key=lambda event: event[2]) for events in by_user.values()]
    return sorted(sequences, key=lambda events: events[0][2])


@given(LOGS)
def test_events_are_in_order_of_time_then_row_and_none_is_lost(folder, rows):
    prepared = made(folder, rows)
    expected = histories(rows)
    assert events_of(prepared) == [event for events in expected for event in events]
    assert np.diff(prepared.offsets).tolist() == [len(events) for events in expected]


@given(LOGS, OPTIONS)
def test_training_numbers_the_items_and_counts_their_popularity(folder, rows, options):
    if (prepared := possible(folder, rows, **options)) is None:
        return
    events = [event for events in histories(rows) for event in events]
    sequence = prepared.sequence_of(np.arange(len(events)))
    training = np.arange(len(events)) < prepared.train_end[sequence]
    seen = list(dict.fromkeys(item for (_, item, _), learnt in zip(events, training, strict=True) if learnt))
    rest = list(dict.fromkeys(item for _, item, _ in events if item not in seen))
    whole = options["catalogue"] == "all" or (options["catalogue"] == "auto" and options["split"] == "leave-one-out")
    assert prepared.known == len(seen)
    assert prepared.item_ids.strings == (seen + rest if whole else seen)
    assert prepared.candidates == len(prepared.item_ids)
    assert prepared.items[training].min() > 0
    assert [item in prepared.item_ids.strings for _, item, _ in events] == (prepared.items > 0).tolist()
    counted = Counter(item for (_, item, _), learnt in zip(events, training, strict=True) if learnt)
    assert prepared.popularity.tolist() == [0, *(counted[item] for item in prepared.item_ids.strings)]


@given(LOGS, OPTIONS, st.sampled_from(["valid", "test"]))
def test_targets_are_the_events_of_a_split_that_have_a_history(folder, rows, options, split):
    if (prepared := possible(folder, rows, **options)) is None:
        return
    begins, ends = (
        (prepared.train_end, prepared.valid_end) if split == "valid" else (prepared.valid_end, prepared.offsets[1:])
    )
    found = [
        event
        for first, begin, end in zip(prepared.offsets[:-1], begins, ends, strict=True)
        for event in range(begin, end)
        if event > first
    ]
    dropping = options["unknown_targets"] == "drop"
    known = [event for event in found if 1 <= prepared.items[event] <= prepared.known]
    assert prepared.targets(split).tolist() == (known if dropping else found)
    assert prepared.card["counts"][f"{split}_targets"] == len(known if dropping else found)
    assert prepared.card["counts"][f"unknown_{split}_targets"] == len(found) - len(known)


@given(LOGS, OPTIONS)
def test_the_parts_cover_every_sequence_in_order(folder, rows, options):
    if (prepared := possible(folder, rows, **options)) is None:
        return
    assert (prepared.offsets[:-1] <= prepared.train_end).all()
    assert (prepared.train_end <= prepared.valid_end).all()
    assert (prepared.valid_end <= prepared.offsets[1:]).all()
    counts = prepared.card["counts"]
    assert counts["train_events"] + counts["valid_events"] + counts["test_events"] == counts["events"] == len(rows)


@settings(max_examples=30)
@given(DISTINCT, OPTIONS, st.randoms(use_true_random=False))
def test_with_distinct_times_the_order_of_the_rows_changes_nothing(folder, rows, options, random):
    prepared = possible(folder, rows, **options)
    shuffled = possible(folder, random.sample(rows, len(rows)), name="shuffled.csv", **options)
    assert (prepared is None) == (shuffled is None)
    if prepared is not None:
        assert prepared.card["fingerprint"] == shuffled.card["fingerprint"]
        assert events_of(prepared) == events_of(shuffled)


@given(LOGS)
def test_gaps_starts_and_ties_are_what_slow_counting_says(folder, rows):
    prepared = made(folder, rows)
    gaps, starts, tied, tied_last = [], [], [], []
    for events in histories(rows):
        times = [time for *_, time in events]
        gaps += [0, *((two - one) / 1000 for one, two in pairwise(times))]
        tied += [times.count(time) > 1 for time in times]
        tied_last.append(tied[-1])
        visits = [
            visit for *_, visit in sorted((row for row in rows if row[0] == events[0][0]), key=lambda row: row[2])
        ]
        starts += [visit not in visits[:place] for place, visit in enumerate(visits)]
    assert prepared.gaps.dtype == np.float32
    assert prepared.gaps.tolist() == gaps
    assert prepared.starts.tolist() == starts
    ties = prepared.card["ties"]
    assert ties["events_tied_share"] == pytest.approx(np.mean(tied))
    assert ties["users_tied_last_share"] == pytest.approx(np.mean(tied_last))


def test_gaps_are_subtracted_before_they_are_rounded(tmp_path):
    """Milliseconds of today do not fit into float32; their differences do."""
    now = 1_700_000_000_000
    rows = [("u", item, now + time, "s") for item, time in zip("abcd", (0, 1, 1001, 1001), strict=True)]
    assert made(tmp_path, rows).gaps.tolist() == pytest.approx([0, 0.001, 1.0, 0])


def test_microseconds_decide_the_order_that_milliseconds_would_not(tmp_path):
    rows = [("u", item, 1_700_000_000_000_000 + time, "s") for item, time in zip("abcd", (9, 7, 5, 1), strict=True)]
    prepared = made(tmp_path, rows)
    assert prepared.item_ids.decode(prepared.items) == ["d", "c", "b", "a"]
    assert len(set(prepared.times.tolist())) == 1


def test_a_session_number_is_a_session_of_its_user(tmp_path):
    prepared = made(tmp_path, BASE, sequence="session")
    assert prepared.card["sequence"] == "session"
    assert prepared.user_ids.decode(prepared.users) == ["u0", "u1", "u0"]
    assert np.diff(prepared.offsets).tolist() == [2, 4, 2]
    assert prepared.starts is None


@pytest.mark.parametrize(
    ("sequence", "split", "mask", "catalogue"),
    [
        ("user", "leave-one-out", "history", "all"),
        ("user", "time", "history", "train"),
        ("session", "leave-one-out", "none", "all"),
    ],
)
def test_automatic_decisions_are_on_the_card(sequence, split, mask, catalogue):
    card = prepare(Preparation(demo=SMALL, sequence=sequence, split=split), silent).card
    assert (card["sequence"], card["split"]["name"], card["mask_seen"], card["catalogue"]) == (
        sequence,
        split,
        mask,
        catalogue,
    )


def test_the_card_says_what_leaks():
    assert prepare(Preparation(demo=SMALL), silent).card["leaks"].startswith("leaks the future: ")
    assert prepare(Preparation(demo=SMALL, split="time"), silent).card["leaks"].startswith("no leak across time: ")


def test_filters_look_at_the_raw_data_once_and_the_core_again(tmp_path):
    log = zip("aaaaabbbbbcccd", "xyxyzxyxyzxyxw", strict=True)  # z has two events; c has three; d and w have one
    rows = [(user, item, time, "s") for time, (user, item) in enumerate(log)]
    once = made(tmp_path, rows, min_user_events=3, min_item_events=2)
    assert (once.user_ids.strings, sorted(once.item_ids.strings)) == (["a", "b", "c"], ["x", "y", "z"])
    assert once.card["counts"]["removed"] == {"events": 1, "sequences": 1, "items": 1}
    core = made(tmp_path, rows, k_core=4)
    assert (core.user_ids.strings, sorted(core.item_ids.strings)) == (["a", "b"], ["x", "y"])
    assert core.card["counts"]["removed"] == {"events": 6, "sequences": 2, "items": 2}


# Given splits


def write(path, text):
    path.write_text(text)
    return str(path)


def test_given_test_events_follow_the_same_users_earlier_events(tmp_path):
    data = write(tmp_path / "a.csv", "user,item\nu,a\nv,b\nu,c\nv,a\n")
    valid = write(tmp_path / "b.csv", "user,item\nv,c\n")
    test = write(tmp_path / "c.csv", "user,item\nu,d\nw,a\nw,b\n")
    prepared = prepare(Preparation(data=data, valid=valid, test=test), silent)
    assert [(user, item) for user, item, _ in events_of(prepared)] == [
        *[("u", "a"), ("u", "c"), ("u", "d")],
        *[("v", "b"), ("v", "a"), ("v", "c")],
        *[("w", "a"), ("w", "b")],
    ]
    assert prepared.train_end.tolist() == [2, 5, 6]
    assert prepared.valid_end.tolist() == [2, 6, 6]
    assert prepared.targets("valid").tolist() == [5]
    assert prepared.targets("test").tolist() == [2, 7]
    assert prepared.item_ids.strings == ["a", "c", "b", "d"]
    assert prepared.known == 3


def test_given_sessions_keep_to_their_file(tmp_path):
    data = write(tmp_path / "train", "a b c\n" * 10 + "d a b c\n")
    test = write(tmp_path / "test", "a b\na e c\n")
    prepared = prepare(Preparation(data=data, test=test), silent)
    assert prepared.user_ids.strings == [*map(str, range(1, 12)), "test:1", "test:2"]
    assert prepared.train_end[10] == prepared.offsets[10]  # the last of eleven is held out
    assert prepared.valid_end[10] == prepared.offsets[11]
    assert (prepared.valid_end[11:] == prepared.offsets[11:13]).all()
    assert prepared.item_ids.strings == ["a", "b", "c", "d", "e"]
    assert prepared.known == 3
    assert len(prepared.targets("test")) == 3
    assert prepared.card["split"] == {"name": "given", "held_out": 1}


@pytest.mark.parametrize(("time", "sentence"), [(50, "leaks the future: "), (99, "no leak across time: ")])
def test_given_files_are_compared_in_time(tmp_path, time, sentence):
    train = "user,item,time\n" + "".join(f"u{n},a,{n}\nu{n},b,{n + 60}\n" for n in range(9))
    data, test = write(tmp_path / "a.csv", train), write(tmp_path / "b.csv", f"user,item,time\nu1,c,{time}\n")
    assert prepare(Preparation(data=data, test=test), silent).card["leaks"].startswith(sentence)


# Cache


def test_the_cache_knows_contents_and_deciding_options_only(tmp_path):
    log = "user,item\n" + "".join(f"u{n // 4},i{n % 5}\n" for n in range(40))
    here, there = write(tmp_path / "log.csv", log), tmp_path / "elsewhere" / "log.csv"
    there.parent.mkdir()
    write(there, log)
    cache = tmp_path / "cache"
    first = prepare_cached(Preparation(data=here), cache, silent)
    assert first.path.parent == cache
    heard = []
    again = prepare_cached(Preparation(data=str(there), boundaries=("0.1", "0.2")), cache, heard.append)
    assert (again.path, heard) == (first.path, [f"{first.path}: prepared before"])
    other = prepare_cached(Preparation(data=here, mask_seen="none"), cache, silent)
    assert other.path != first.path
    assert other.card["fingerprint"] != first.card["fingerprint"]
    write(tmp_path / "log.csv", log + "u9,i1\n")
    assert prepare_cached(Preparation(data=here), cache, silent).path != first.path
    assert len(list(cache.iterdir())) == 3


def test_another_process_may_fill_the_cache_first(tmp_path, monkeypatch):
    options, build = Preparation(demo=SMALL), prepare_module.build

    def slow(*arguments):
        monkeypatch.setattr(prepare_module, "build", build)
        prepare_cached(options, tmp_path, silent)
        return build(*arguments)

    monkeypatch.setattr(prepare_module, "build", slow)
    prepared = prepare_cached(options, tmp_path, silent)
    assert [prepared.path] == list(tmp_path.iterdir())


def test_a_prepared_directory_is_loaded_as_it_is(tmp_path):
    first = prepare_cached(Preparation(demo=SMALL), tmp_path, silent)
    again = prepare(Preparation(data=str(first.path)), silent)
    assert (again.path, again.card) == (first.path, first.card)


ANOTHER = {
    "time_unit": "ms", "features": ("age",), "min_rating": 3.0, "event_weights": ("view=1",), "on_bad_row": "skip",
    "sequence": "session", "deduplicate": "exact", "collapse_repeats": True, "filter_scope": "train", "ties": "shuffle",
    "split": "time", "boundaries": ("0.5", "0.6"), "catalogue": "train", "unknown_targets": "drop", "mask_seen": "none",
    "held_out": 0.5, "session_gap": 30.0, "last": 2,
}  # fmt: skip
PLAIN = ("data", "verify", "tfds_data_dir", "tfds_manual_dir", "demo")
OTHERWISE = r"was prepared otherwise than {} asks; drop it, or prepare the file of events again with it"


@pytest.mark.parametrize("look", [prepare, inspect])
def test_prepared_data_refuses_every_option_that_was_decided_otherwise(tmp_path, look):
    place = str(prepare_cached(Preparation(demo=SMALL), tmp_path, silent).path)
    for name, annotation in field_types(Preparation).items():
        if name not in PLAIN:
            value = ANOTHER.get(name, 1 if "int" in str(annotation) else "x")
            with pytest.raises(Mistake, match=OTHERWISE.format(f"--{name.replace('_', '-')}")):
                look(Preparation(data=place, **{name: value}), silent)
    with pytest.raises(Mistake, match=OTHERWISE.format("--demo.users")):
        look(Preparation(data=place, demo=replace(SMALL, users=7)), silent)
    with pytest.raises(Mistake, match="than --split and --last ask; drop them, or prepare the file of events again"):
        look(Preparation(data=place, split="last-n", last=2), silent)


@pytest.mark.parametrize(
    "options",
    [
        {"split": "time", "boundaries": ("0.7", "0.8"), "min_user_events": 2},
        {"split": "last-n", "last": 2, "mask_seen": "none"},
        {"features": ("@hour",), "collapse_repeats": True},
    ],
)
def test_prepared_data_takes_the_options_that_it_was_prepared_with(tmp_path, options):
    """A whole configuration, such as a run's `config.json`, with the prepared directory in the place of the file."""
    first = prepare_cached(Preparation(demo=SMALL, **options), tmp_path, silent)
    again = Preparation(data=str(first.path), demo=SMALL, verify=True, **options)
    with watch(again) as seen:
        assert prepare(again, silent).card == first.card
    assert seen.unread(options) == []
    said = {"split": first.card["split"]["name"], "sequence": "user", "catalogue": first.card["catalogue"]}
    prepare(Preparation(data=str(first.path), **said), silent)  # what the card says in its own words


@pytest.mark.parametrize("split", ["leave-one-out", "time"])
def test_options_count_as_read_whether_or_not_the_cache_has_them(tmp_path, split):
    """An option that nothing read is reported to the user, who must not see it come and go."""
    unread = []
    for _ in range(2):
        options = Preparation(demo=SMALL, split=split, boundaries=("0.7", "0.8"))
        with watch(options) as seen:
            prepare_cached(options, tmp_path, silent)
        unread.append(seen.unread(["demo.users", "k_core", "split", "boundaries", "user_column"]))
    assert unread[0] == unread[1] == (["user_column"] if split == "time" else ["boundaries", "user_column"])
