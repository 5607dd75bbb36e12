"""Any prepared TFDS set of interactions, read without TensorFlow."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from jaxrec.config import Mistake
from jaxrec.data.options import Preparation
from jaxrec.data.prepare import prepare, prepare_cached
from jaxrec.data.read import located
from jaxrec.reports.listing import entries

tfds = pytest.importorskip("tensorflow_datasets")
F = tfds.features


def silent(_):
    """A listener that does not listen."""


def options(folder, data, **more):
    return Preparation(data=data, tfds_data_dir=str(folder / "tfds"), **more)


def from_csv(folder, rows, **more):
    """The oracle: the same rows in the same order, read from a CSV."""
    path, header = folder / "oracle.csv", ("user", "item", *["rating"] * (len(rows[0]) > 3), "time")
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return prepare(Preparation(data=str(path), **more), silent)


def store(folder, name, features, splits, *, shuffle=True, file_format="array_record"):
    """A TFDS data set as anybody writes one."""

    class Theirs(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("2.1.0")

        def __init__(self, **more):
            self.name = name
            super().__init__(**more)

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self, features=F.FeaturesDict(features), disable_shuffling=not shuffle, description="theirs"
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(examples) for split, examples in splits.items()}

        def _generate_examples(self, examples):
            yield from enumerate(examples)

    builder = Theirs(data_dir=str(folder / "tfds"))
    builder.download_and_prepare(file_format=file_format)
    return Path(builder.data_dir)


def many(kind):
    return F.Tensor(shape=(None,), dtype=kind)


def distinct_times(events=120, seed=1):
    """Rows of (user, item, seconds) with text ids that need care, no two times equal."""
    rng = np.random.default_rng(seed)
    times = 1_600_000_000 + rng.permutation(events)
    return [(f"ü{rng.integers(9)}", f"0{rng.integers(30)}, a", int(time)) for time in times]


EVENT = {"who": F.Text(), "deep": {"thing": F.Text()}, "at": np.int64, "image": F.Tensor(shape=(2, 2), dtype=np.uint8)}
TOLD = {"user_column": "who", "item_column": "deep/thing", "time_column": "at"}


def as_events(rows):
    image = np.zeros((2, 2), np.uint8)
    return [{"who": who, "deep": {"thing": thing}, "at": at, "image": image} for who, thing, at in rows]


def test_events_of_a_set_that_tfds_shuffled_come_back_in_order_of_time(tmp_path):
    rows = distinct_times()
    store(tmp_path, "theirs", EVENT, {"train": as_events(rows)})
    heard = []
    made = prepare(options(tmp_path, "tfds:theirs", **TOLD), heard.append)
    assert made.card["fingerprint"] == from_csv(tmp_path, rows).card["fingerprint"]
    assert made.card["name"] == "theirs"
    assert any("stored the examples shuffled" in line for line in heard)


FLAT = {"user_id": F.Text(), "item_id": F.Text(), "timestamp": np.int64}


def test_parquet_is_read_too_and_an_incomplete_one_refused(tmp_path):
    rows = distinct_times(events=250)
    examples = [dict(zip(FLAT, row, strict=True)) for row in rows]
    directory = store(tmp_path, "set", FLAT, {"train": examples}, shuffle=False, file_format="parquet")
    info = json.loads((directory / "dataset_info.json").read_text())
    [file] = directory.glob("*.parquet-*")
    there = pl.scan_parquet(file).select(pl.len()).collect().item()  # 200, for TFDS 4.9.10 itself loses some
    for promised in (there, there + 1):
        info["splits"][0]["shardLengths"] = [str(promised)]
        (directory / "dataset_info.json").write_text(json.dumps(info))
        if promised == there:
            source = tfds.builder_from_directory(directory).as_data_source("train")
            moments = {int(example["timestamp"]) for example in source}
            made = prepare(options(tmp_path, "tfds:set"), silent)
            kept = [row for row in rows if row[2] in moments]
            assert made.card["fingerprint"] == from_csv(tmp_path, kept).card["fingerprint"]
        else:
            with pytest.raises(Mistake, match=f"holds {there} of its {promised} examples"):
                prepare(options(tmp_path, "tfds:set"), silent)


def test_lists_are_sequences_and_need_no_time(tmp_path):
    histories = {f"u{n}": [f"i{(n * k) % 7}" for k in range(3 + n % 4)] for n in range(1, 15)}
    examples = [{"user_id": user, "item_id": items} for user, items in histories.items()]
    features = {"user_id": F.Text(), "item_id": F.Sequence(F.Text())}
    store(tmp_path, "lists", features, {"all_users": examples})
    made = prepare(options(tmp_path, "tfds:lists:2.1.0"), silent)
    found = {
        made.user_ids.decode([made.users[s]])[0]: made.item_ids.decode(made.items[begin:end])
        for s, (begin, end) in enumerate(zip(made.offsets, made.offsets[1:], strict=False))
    }
    assert found == histories


def test_lost_order_is_refused_and_kept_order_is_not(tmp_path):
    features = {"user_id": np.int64, "item_id": np.int64}
    rows = [(n % 5, (3 * n) % 11) for n in range(60)]
    examples = [{"user_id": user, "item_id": item} for user, item in rows]
    store(tmp_path, "lost", features, {"train": examples})
    with pytest.raises(Mistake, match="order of a user's events is lost; add --time-column"):
        prepare(options(tmp_path, "tfds:lost"), silent)
    store(tmp_path, "kept", features, {"train": examples}, shuffle=False)
    made = prepare(options(tmp_path, "tfds:kept"), silent)
    path = tmp_path / "kept.csv"
    path.write_text("user,item\n" + "".join(f"{user},{item}\n" for user, item in rows))
    assert made.card["fingerprint"] == prepare(Preparation(data=str(path)), silent).card["fingerprint"]


def test_splits_are_chosen_by_name(tmp_path):
    rows = distinct_times()
    train, test = as_events(rows[:80]), as_events(rows[80:])
    store(tmp_path, "parts", EVENT, {"train": train, "test": test})
    with pytest.raises(Mistake, match=r"has the splits .*; name one, as in tfds:parts@\w+, or @all"):
        prepare(options(tmp_path, "tfds:parts", **TOLD), silent)
    with pytest.raises(Mistake, match=r"'tset' is not among the splits .*; did you mean 'test'"):
        prepare(options(tmp_path, "tfds:parts@tset", **TOLD), silent)
    sizes = {}
    for split in ("train", "all", "train+test", "train[:50%]"):
        sizes[split] = prepare(options(tmp_path, f"tfds:parts@{split}", **TOLD), silent).card["counts"]["events"]
    assert sizes == {"train": 80, "all": 120, "train+test": 120, "train[:50%]": 40}
    given = prepare(options(tmp_path, "tfds:parts@train", test="tfds:parts@test", **TOLD), silent)
    assert given.card["split"]["name"] == "given"
    assert given.card["counts"]["test_events"] == 40


def test_the_cache_follows_contents_and_split_not_the_folder(tmp_path):
    rows = distinct_times()
    for place, events in (("a", rows), ("b", rows), ("c", rows[:-1])):
        store(tmp_path / place, "theirs", EVENT, {"train": as_events(events)})
    hashes = {place: located("tfds:theirs", options(tmp_path / place, "x")).sha256 for place in "abc"}
    assert hashes["a"] == hashes["b"] != hashes["c"]
    assert located("tfds:theirs@train[:9]", options(tmp_path / "a", "x")).sha256 != hashes["a"]
    heard = []
    prepare_cached(options(tmp_path / "a", "tfds:theirs", **TOLD), tmp_path / "cache", silent)
    prepare_cached(options(tmp_path / "b", "tfds:theirs", **TOLD), tmp_path / "cache", heard.append)
    assert "prepared before" in heard[-1]


def test_a_directory_can_be_named(tmp_path):
    rows = distinct_times()
    directory = store(tmp_path, "theirs", EVENT, {"train": as_events(rows)})
    made = prepare(Preparation(data=f"tfds:{directory}", **TOLD), silent)
    assert made.card["counts"]["events"] == len(rows)
    assert made.card["name"] == "theirs"


BROKEN = [
    ("tfds:", "names no data set"),
    ("tfds:movielens-100", "did you mean 'movielens-100k'"),
    ("tfds:movielens/100k-ratings", "without TensorFlow; tfds:movielens-100k"),
    ("tfds:nowhere_to_be_found", "has no data set 'nowhere_to_be_found'"),
    ("tfds:imdb_reviews", "is not prepared in"),
    ("tfds:./nowhere", "holds no TFDS data set"),
    ("tfds:theirs:9.9.9", "has no data set|cannot be opened"),
    ("tfds:theirs", "no column known to be the item; its columns are .*'deep/thing'"),
]


@pytest.mark.parametrize(("name", "sentence"), BROKEN, ids=[name for name, _ in BROKEN])
def test_what_cannot_be_read_is_one_sentence(tmp_path, name, sentence):
    store(tmp_path, "theirs", EVENT, {"train": as_events(distinct_times())})
    with pytest.raises(Mistake, match=sentence) as caught:
        prepare(options(tmp_path, name), silent)
    assert "\n" not in str(caught.value)


def test_what_only_tensorflow_reads_is_said(tmp_path):
    directory = store(tmp_path, "theirs", EVENT, {"train": as_events(distinct_times())})
    info = json.loads((directory / "dataset_info.json").read_text())
    (directory / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "tfrecord"}))
    with pytest.raises(Mistake, match=r"is stored as tfrecord in .*, which only TensorFlow reads; .*array_record"):
        prepare(options(tmp_path, "tfds:theirs", **TOLD), silent)


def test_lists_of_different_lengths_are_refused(tmp_path):
    features = {"user": np.int64, "item": many(np.int64), "time": many(np.int64)}
    examples = [{"user": 1, "item": [1, 2], "time": [1, 2]}, {"user": 2, "item": [1, 2, 3], "time": [1, 2]}]
    store(tmp_path, "uneven", features, {"train": examples}, shuffle=False)
    with pytest.raises(Mistake, match=r"example 2 has lists of \[2, 3\] entries"):
        prepare(options(tmp_path, "tfds:uneven"), silent)


def test_it_is_listed_with_the_other_data():
    assert [entry.call for entry in entries("data") if entry.name == "tfds"] == ["tfds:NAME"]


def test_tfds_is_imported_only_for_its_own_and_tensorflow_never(tmp_path):
    rows = distinct_times()
    store(tmp_path, "theirs", EVENT, {"train": as_events(rows)})
    (tmp_path / "some.csv").write_text("user,item\n" + "".join(f"u{n % 4},i{n % 9}\n" for n in range(40)))
    code = (
        "import sys\n"
        "from jaxrec.data.options import Preparation\n"
        "from jaxrec.data.prepare import prepare\n"
        "prepare(Preparation(data=sys.argv[1]))\n"
        "assert 'tensorflow_datasets' not in sys.modules\n"
        "prepare(Preparation(data='tfds:theirs', tfds_data_dir=sys.argv[2], user_column='who',\n"
        "                    item_column='deep/thing', time_column='at'))\n"
        "assert 'tensorflow_datasets' in sys.modules and 'tensorflow' not in sys.modules\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "some.csv"), str(tmp_path / "tfds")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
