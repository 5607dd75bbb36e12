"""Prepared data as a TFDS data set: read back it is the same, and others read it without jaxrec."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from jaxrec.cli import main
from jaxrec.config import Mistake
from jaxrec.data.export import dataset_name, export
from jaxrec.data.options import Preparation
from jaxrec.data.prepare import prepare
from jaxrec.data.prepared import ARRAYS, VOCABULARIES

pytest.importorskip("tensorflow_datasets")

IDS = ["a", "07", "ü\nb", ' "x", ', "long " * 30, "\u2028", "-1", "z"]


def silent(_):
    """A listener that does not listen."""


@st.composite
def logs(draw):
    """Rows of (user, item, time, session) with at least three events a user, and whether the last two are written."""
    people = draw(st.lists(st.sampled_from(IDS), min_size=1, max_size=4, unique=True))
    rows = []
    for person in people:
        items = draw(st.lists(st.sampled_from(IDS), min_size=3, max_size=8))
        times = draw(st.lists(st.integers(0, 20), min_size=len(items), max_size=len(items)))
        rows += [
            (person, item, 1_700_000_000_000 + 997 * time, place // 2)
            for place, (item, time) in enumerate(zip(items, times, strict=True))
        ]
    return rows, draw(st.booleans()), draw(st.booleans()), draw(st.sampled_from(["all", "train"]))


def prepared_from(folder, rows, timed=True, sessions=True, **options):
    path = folder / "log.csv"
    header = ["user", "item", *["time"] * timed, *["session"] * sessions]
    with open(path, "w", newline="") as file:
        kept = [[*row[:2], *row[2:3] * timed, *row[3:] * sessions] for row in rows]
        csv.writer(file).writerows([header, *kept])
    return prepare(Preparation(data=str(path), **options), silent)


def read_back(directory):
    return prepare(Preparation(data=f"tfds:{directory}"), silent)


def assert_same(one, two):
    assert one.card == two.card
    assert (one.known, one.candidates) == (two.known, two.candidates)
    for name in ARRAYS:
        left, right = getattr(one, name), getattr(two, name)
        assert (left is None) == (right is None), name
        if left is not None:
            assert left.dtype == right.dtype, name
            assert np.array_equal(left, right), name
    assert list(one.features) == list(two.features)
    for name, feature in one.features.items():
        other = two.features[name]
        assert (feature.of, feature.ids, feature.origin) == (other.of, other.ids, other.origin)
        assert feature.values.dtype == other.values.dtype
        assert np.array_equal(feature.values, other.values, equal_nan=feature.values.dtype.kind == "f")
    for name in VOCABULARIES:
        assert getattr(one, name) == getattr(two, name)


@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(logs())
def test_what_is_read_back_is_what_was_prepared(tmp_path_factory, log):
    rows, timed, sessions, catalogue = log
    folder = tmp_path_factory.mktemp("law")
    try:
        prepared = prepared_from(folder, rows, timed, sessions, catalogue=catalogue)
    except Mistake:  # one item, or nothing to train on
        return
    assert_same(prepared, read_back(export(prepared, folder / "tfds", silent)))


def histories(users=30, items=20, events=9, seed=3):
    rng = np.random.default_rng(seed)
    return [
        (f"u{user}", f"i{rng.integers(items)}", 1_700_000_000 + user + 100 * event, event // 3)
        for user in range(users)
        for event in range(events)
    ]


def test_a_time_split_by_sessions_in_several_files_is_the_same(tmp_path, monkeypatch):
    from jaxrec.data import builders

    monkeypatch.setattr(builders, "SHARD", 50)
    prepared = prepared_from(tmp_path, histories(), split="time", sequence="session")
    assert (prepared.items == 0).any() or prepared.card["catalogue"] == "train"
    directory = export(prepared, tmp_path / "tfds", silent)
    assert len(list(directory.glob("*.array_record-*"))) == 6  # 270 events in files of 50
    assert_same(prepared, read_back(directory))


def test_weights_and_features_travel_along(tmp_path):
    rows = histories(users=9)
    lines = "".join(
        f"{user}\t{item}\t{time}\t{['view', 'buy'][place % 2]}\t{place / 7 if place % 3 else ''}\t{'ab'[place % 2]} \n"
        for place, (user, item, time, _) in enumerate(rows)
    )
    header = "user_id:token\titem_id:token\ttimestamp:float\tevent:token\tprice:float\tshop:token\n"
    (tmp_path / "log.inter").write_text(header + lines)
    items = sorted({item for _, item, *_ in rows})[1:]
    described = "".join(f"{item}\t{place / 3}\tgenre {place % 4}\n" for place, item in enumerate(items))
    (tmp_path / "log.item").write_text("item_id:token\tyear:float\tgenre:token\n" + described)
    asked = {"features": ("price", "shop", "year", "genre", "@hour"), "event_weights": ("view=1", "buy=3")}
    prepared = prepare(Preparation(data=str(tmp_path / "log.inter"), **asked), silent)
    assert {feature.of for feature in prepared.features.values()} == {"event", "item"}
    assert prepared.weights is not None
    assert_same(prepared, read_back(export(prepared, tmp_path / "tfds", silent)))


STRANGER = """
import sys
sys.modules["jaxrec"] = None
import tensorflow_datasets as tfds
source = tfds.data_source("log", data_dir=sys.argv[1], split="sequences")
info = tfds.builder("log", data_dir=sys.argv[1]).info
names = info.metadata["item_ids"]
for example in source:
    items = [names[item - 1] for item in example["items"]]
    parts = [items[:example["train_end"]], items[example["train_end"]:example["valid_end"]],
             items[example["valid_end"]:]]
    print(example["user_id"].decode(), *(",".join(part) for part in parts), example["times"].tolist()[-1])
print(info.metadata["card"]["split"]["name"])
assert "tensorflow" not in sys.modules
"""


def test_others_read_it_without_jaxrec(tmp_path):
    rows = histories(users=7)
    export(prepared_from(tmp_path, rows), tmp_path / "tfds", silent)
    command = [sys.executable, "-c", STRANGER, str(tmp_path / "tfds")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *lines, split = done.stdout.splitlines()
    items = {user: [row[1] for row in rows if row[0] == user] for user, *_ in rows}
    last = {user: 1000 * max(row[2] for row in rows if row[0] == user) for user, *_ in rows}
    assert lines == [
        " ".join([user, ",".join(taken[:-2]), taken[-2], taken[-1], str(last[user])]) for user, taken in items.items()
    ]
    assert split == "leave-one-out"


def test_a_changed_export_is_refused(tmp_path):
    directory = export(prepared_from(tmp_path, histories()), tmp_path / "tfds", silent)
    file = directory / "metadata.json"
    metadata = json.loads(file.read_text())
    ids = metadata["item_ids"]
    file.write_text(json.dumps(metadata | {"item_ids": [ids[1], ids[0], *ids[2:]]}))
    with pytest.raises(Mistake, match="damaged or changed after it was written"):
        read_back(directory)
    with pytest.raises(Mistake, match="loaded whole; leave out @train"):
        read_back(f"{directory}@train")


def test_a_damaged_export_is_refused(tmp_path):
    directory = export(prepared_from(tmp_path, histories()), tmp_path / "tfds", silent)
    [file] = directory.glob("*.array_record-*")
    data = bytearray(file.read_bytes())
    middle = np.flatnonzero(np.frombuffer(data, np.uint8))[500]
    data[middle : middle + 40] = bytes(40)
    file.write_bytes(data)
    with pytest.raises(Mistake, match="is damaged"):
        read_back(directory)


def test_an_export_that_exists_is_not_overwritten(tmp_path):
    prepared = prepared_from(tmp_path, histories())
    export(prepared, tmp_path / "tfds", silent)
    with pytest.raises(Mistake, match="tfds/log exists already"):
        export(prepared, tmp_path / "tfds", silent)


@pytest.mark.parametrize(
    ("name", "expected"), [("ml-100k", "ml_100k"), ("30Music", "jaxrec_30music"), ("a b.c", "a_b_c"), ("ü", "jaxrec")]
)
def test_names_are_those_that_tfds_takes(name, expected):
    assert dataset_name(name) == expected


def test_the_command_line_writes_one_and_trains_from_it(tmp_path, capsys):
    path = tmp_path / "log.csv"
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([["user", "item", "time", "session"], *histories()])
    out = str(tmp_path / "tfds")
    assert main(["prepare", "--data", str(path), "--out", out, "--out-format", "tfds", "--json"]) == 0
    said = capsys.readouterr()
    card = json.loads(said.out)  # nothing of TFDS's own on standard output
    assert f'tfds.data_source("log", data_dir="{out}", split="sequences")' in said.err
    again = ["prepare", "--data", "tfds:log", "--tfds-data-dir", out, "--out", str(tmp_path / "arrays"), "--json"]
    assert main(again) == 0
    assert json.loads(capsys.readouterr().out)["fingerprint"] == card["fingerprint"]
