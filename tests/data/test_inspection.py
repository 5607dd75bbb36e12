"""Inspection: every number against a slow count in plain Python, the warnings on planted faults, real files."""

import csv
import math
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, strategies as st

from jaxrec.config import Mistake, field_types
from jaxrec.data.inspection import inspect
from jaxrec.data.options import Preparation
from jaxrec.data.prepare import prepare
from jaxrec.data.prepared import save

events = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 6), st.integers(0, 9)), min_size=2, max_size=60
).filter(lambda rows: len({item for _, item, _ in rows}) > 1)  # fmt: skip


def written(folder, rows, header=("user", "item", "time")):
    path = folder / "log.csv"
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def look(path, **options):
    return inspect(Preparation(data=str(path), **options), say=lambda sentence: None)


def histories(rows):
    """User -> [(item, time)], oldest first, ties in the order of the file."""
    found = defaultdict(list)
    for user, item, time in rows:
        found[user].append((item, time))
    return {user: sorted(seen, key=lambda pair: pair[1]) for user, seen in found.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("inspection")


@given(rows=events)
@example(rows=[(0, item, item) for item in range(20)] + [(1, item, 20) for item in range(10)])
def test_every_number_equals_a_slow_count(folder, rows):
    found = look(written(folder, [(f"u{u}", f"i{i}", 1_600_000_000 + 60 * t) for u, i, t in rows]))
    people = histories(rows)
    n, items = len(rows), Counter(item for _, item, _ in rows)
    assert found["counts"]["events"] == n
    assert found["counts"]["sequences"] == len(people)
    assert found["counts"]["items"] == len(items)
    pairs = {(user, item) for user, item, _ in rows}
    assert found["counts"]["pairs"] == len(pairs)
    assert math.isclose(found["counts"]["density"], len(pairs) / (len(people) * len(items)))
    lengths = sorted(map(len, people.values()))
    assert found["lengths"]["quantiles"]["0"] == lengths[0]
    assert found["lengths"]["quantiles"]["0.5"] == lengths[(len(lengths) - 1) // 2]
    assert found["lengths"]["quantiles"]["1"] == lengths[-1]
    assert found["lengths"]["under_three"] == sum(length < 3 for length in lengths)
    for bar in found["lengths"]["histogram"]:
        assert bar["sequences"] == sum(bar["from"] <= length <= bar["to"] for length in lengths)
    again = [(item, k) for seen in people.values() for k, (item, _) in enumerate(seen) if item in dict(seen[:k])]
    direct = sum(a[0] == b[0] for seen in people.values() for a, b in pairwise(seen))
    assert math.isclose(found["repeats"]["share"], len(again) / n)
    assert math.isclose(found["repeats"]["direct_share"], direct / n)
    assert found["repeats"]["duplicates"] == n - len(set(rows))
    check_popularity(found["popularity"], sorted(items.values(), reverse=True))
    check_time(found, people, rows)


def check_popularity(found, counts):
    n, total = len(counts), sum(counts)
    differences = sum(abs(a - b) for a in counts for b in counts)
    assert math.isclose(found["gini"], differences / (2 * n * total), abs_tol=1e-12)
    assert math.isclose(found["top_10_share"], sum(counts[: math.ceil(n / 10)]) / total)
    assert math.isclose(found["top_1_share"], sum(counts[: math.ceil(n / 100)]) / total)
    assert sum(counts[: found["half"]]) >= total / 2 > sum(counts[: found["half"] - 1])
    assert found["once"] == counts.count(1)
    for rank, events, share in zip(*(found["curve"][key] for key in ("rank", "events", "share")), strict=True):
        assert events == counts[rank - 1]
        assert math.isclose(share, sum(counts[:rank]) / total)


def check_time(found, people, rows):
    tied = sum(
        sum(other == time for _, other in seen) > 1 for seen in people.values() for _, time in seen
    )  # fmt: skip
    last = sum(sum(time == seen[-1][1] for _, time in seen) > 1 for seen in people.values())
    assert math.isclose(found["ties"]["events_tied_share"], tied / len(rows))
    assert math.isclose(found["ties"]["users_tied_last_share"], last / len(people))
    assert sum(found["time"]["buckets"]["events"]) == len(rows)
    gaps = sorted(60.0 * (b[1] - a[1]) for seen in people.values() for a, b in pairwise(seen))
    if gaps:
        assert (found["time"]["gap_seconds"]["0"], found["time"]["gap_seconds"]["1"]) == (gaps[0], gaps[-1])
    else:
        assert found["time"]["gap_seconds"] is None


@given(rows=events)
def test_filters_leave_what_preparing_with_them_leaves(folder, rows):
    path = written(folder, [(f"u{u}", f"i{i}", 1_600_000_000 + 60 * t) for u, i, t in rows])
    for row in look(path)["filters"]:
        kept = slow_filter(rows, *row["flags"].split())
        assert (row["events"], row["sequences"], row["items"]) == (
            len(kept), len({u for u, _ in kept}), len({i for _, i in kept}),
        ), row["flags"]  # fmt: skip


def slow_filter(rows, flag, value=""):
    """The pairs (user, item) that a filter leaves."""
    if not value.isdigit():
        if value == "exact":
            return [(u, i) for u, i, _ in set(rows)]
        if value == "first":
            return list({(u, i) for u, i, _ in rows})
        seen = [(u, [item for item, _ in one]) for u, one in histories(rows).items()]
        return [(u, item) for u, items in seen for k, item in enumerate(items) if k == 0 or items[k - 1] != item]
    left, least = [(u, i) for u, i, _ in rows], int(value)
    while True:
        users, items = Counter(u for u, _ in left), Counter(i for _, i in left)
        kept = [
            (u, i) for u, i in left
            if (flag == "--min-item-events" or users[u] >= least) and (flag == "--min-user-events" or items[i] >= least)
        ]  # fmt: skip
        if kept == left or flag != "--k-core":
            return kept
        left = kept


@pytest.mark.parametrize("split", ["leave-one-out", "time"])
def test_splits_leave_what_preparing_with_them_leaves(tmp_path, split):
    draw = np.random.default_rng(0)
    rows = [
        (f"u{draw.integers(150)}", f"i{draw.integers(30)}", int(draw.integers(10**9, 2 * 10**9))) for _ in range(400)
    ]
    path = written(tmp_path, rows)
    row = next(row for row in look(path)["splits"] if row["split"] == split)
    card = prepare(Preparation(data=str(path), split=split, catalogue="all"), say=lambda sentence: None).card
    for name in ("train_events", "known_items", "valid_targets", "test_targets"):
        assert row[name] == card["counts"][name], name
    assert row["unknown_test_targets"] == card["counts"]["unknown_test_targets"]
    assert row["leaks"] == card["leaks"]


def test_prepared_data_is_looked_at_as_it_is(tmp_path):
    rows = [(f"u{k % 7}", f"i{k * k % 11}", 10**9 + 3600 * k) for k in range(90)]
    path = written(tmp_path, rows)
    save(prepare(Preparation(data=str(path)), say=lambda sentence: None), tmp_path / "prepared")
    raw, found = look(path), look(tmp_path / "prepared")
    for key in ("counts", "lengths", "popularity", "repeats", "time"):
        assert found[key] == raw[key], key
    [row] = found["splits"]
    assert row["test_targets"] == raw["splits"][0]["test_targets"] == 7
    assert found["first_rows"]["columns"] == ["user", "item", "time"]


def told(found):
    return " ".join(one["sentence"] for one in found["warnings"])


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([(u, i, 10**9 + min(i, 4)) for u in range(9) for i in range(6)], "have a tied last event"),
        ([(u, i, 10**9 + i // 50) for u in range(9) for i in range(100)], "sorted by item inside a tie"),
        ([(u, -i, 10**9 + i // 50) for u in range(9) for i in range(100)], "ids descend in 100.0%"),
        ([(u, i, 10**9 + i) for u in range(9) for i in (1, 2, 2, 3, 4)], "9 events (20.0%) have user, item and time"),
        ([(u, i % 3, 10**9 + i) for u in range(9) for i in range(9)], "100.0% of the test targets are items the user"),
        ([(u, f"{u}-{i}", 10**9 + i) for u in range(9) for i in range(9)], "never occur in training"),
        ([(u, i, 10**9 + i) for u in range(90) for i in range(2 + u % 2)], "have fewer than three events"),
        ([(u, i + 9 * u, 10**9 + i) for u in range(9) for i in range(9)], "of the items occur once"),
        ([(u, i * (i % 2), 10**9 + i) for u in range(9) for i in range(9)], "one item has 55.6% of all events"),
        ([(u, i, 10**9 - 8 * 10**8 * (u < 1) + i) for u in range(9) for i in range(9)], "9 events are before 1980"),
        ([(u, i, 10**9 + 3 * 10**9 * (u < 1) + i) for u in range(9) for i in range(9)], "9 events are in the future"),
        ([(u, 5, 10**9 + i) for u in range(9) for i in range(9)], "there is one item only"),
    ],
)  # fmt: skip
def test_a_planted_fault_is_told_and_a_clean_log_is_not(tmp_path, rows, sentence):
    assert sentence in told(look(written(tmp_path, rows)))
    draw = np.random.default_rng(1)  # distinct times, ten items often, no repeats
    clean = [(u, i, 1_600_000_000 + 1000 * k + u) for u in range(900) for k, i in enumerate(draw.permutation(12)[:8])]
    left = told(look(written(tmp_path, clean)))
    assert left.replace("split leave-one-out, the default, leaks the future", "").count("split") == 0
    assert sentence not in left


def test_remedies_name_flags_that_exist(tmp_path):
    rows = [(u, f"{u % 5}-{i % 3}", 10**9 - 8 * 10**8 * (u < 1) + i // 2) for u in range(20) for i in range(2 + u)]
    known = {f"--{name.replace('_', '-')}" for name in field_types(Preparation)}
    named = [word.strip(",;") for one in look(written(tmp_path, rows))["warnings"] for word in one["remedy"].split()]
    flags = {word for word in named if word.startswith("--")}
    assert flags
    assert flags <= known


def test_a_log_without_time_says_so_and_still_has_splits(tmp_path):
    path = tmp_path / "pairs.txt"
    path.write_text("".join(f"{u} {i}\n" for u in range(5) for i in range(6)))
    found = look(path)
    assert found["time"] is None
    assert found["repeats"]["duplicates"] is None
    assert "there is no time" in told(found)
    rows = {row["split"]: row for row in found["splits"]}
    assert rows["leave-one-out"]["test_targets"] == 5
    assert "needs times" in rows["time"]["refused"]


def test_filters_that_are_asked_for_are_applied_first(tmp_path):
    rows = [(u, i, 10**9 + i) for u in range(6) for i in range(5 + 3 * (u == 0))]
    path = written(tmp_path, rows)
    assert look(path)["counts"]["items"] == 8
    assert look(path, min_item_events=2)["counts"]["items"] == 5
    with pytest.raises(Mistake, match="leave 0 item"):
        look(path, k_core=50)


def test_buckets_start_on_mondays_and_hold_every_event(tmp_path):
    day = 86_400
    rows = [(1, k % 5, 1_700_438_400 + 3 * day * k) for k in range(80)]  # 2023-11-20 was a Monday
    buckets = look(written(tmp_path, rows))["time"]["buckets"]
    assert buckets["unit"] == "week"
    assert buckets["start"][0] == "2023-11-20"
    assert buckets["events"][:3] == [3, 2, 2]
    assert sum(buckets["events"]) == 80


def test_movielens_100k_has_the_known_ties(shared_data):
    found = look(shared_data / "ml-100k/ml-100k.inter.gz")
    assert f"{found['ties']['events_tied_share']:.1%}" == "75.8%"
    assert f"{found['ties']['users_tied_last_share']:.1%}" == "44.0%"
    assert (found["counts"]["sequences"], found["counts"]["items"], found["counts"]["events"]) == (943, 1682, 100_000)
    assert "44.0% of users have a tied last event" in told(found)
    assert 0.45 < found["ties"]["ascending_share"] < 0.55


def test_sessions_of_two_files_are_looked_at_as_they_were_cut(shared_data):
    options = Preparation(data=str(shared_data / "yoochoose-1-64/train_sessions.txt.gz"))
    test = str(shared_data / "yoochoose-1-64/test_sessions.txt.gz")
    found = inspect(replace(options, test=test), say=lambda sentence: None)
    [row] = found["splits"]
    assert (row["split"], row["test_targets"]) == ("given", 55_898)
