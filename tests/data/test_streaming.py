"""Going by way of the disk changes nothing: same contents, same card; and what is not plain is read in memory."""

import csv
import gzip
import io
import shutil
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import event, example, given, settings, strategies as st
from same_data import same

from jaxrec.config import Mistake
from jaxrec.data import buckets, coding, leakage, prepared as prepared_module, streaming
from jaxrec.data.options import Preparation
from jaxrec.data.prepare import prepare
from jaxrec.data.prepared import contents, load, save

IDS = st.sampled_from(["0", "7", "12", "007", "-3", "x", "é", "123456789012345678901", "40000000"])
NUMBERS = st.integers(0, 30).map(str)
OPTIONS = st.sampled_from(
    [
        {},
        {"split": "last-n", "last": 2},
        {"split": "time", "boundaries": ("0.5", "0.7")},
        {"split": "time", "boundaries": ("0.6", "0.8"), "catalogue": "all", "unknown_targets": "drop"},
        {"split": "leave-one-out", "catalogue": "train"},
        {"split": "time", "boundaries": ("1970-01-01T00:00:20", "1970-01-01T00:00:30")},
    ]
)
few = settings(max_examples=40)


@st.composite
def logs(draw):
    """Rows of user, item, second; ids are small numbers or anything."""
    ids = draw(st.sampled_from([NUMBERS, IDS]))
    rows = draw(st.lists(st.tuples(ids, ids, st.integers(0, 50)), min_size=10, max_size=60))
    base = [("5", item, time) for item, time in zip(["1", "2", "3", "1", "2", "3"], range(0, 60, 10), strict=True)]
    return rows + base + [("6", item, time + 1) for _, item, time in base]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("streaming")


@pytest.fixture(autouse=True)
def pieces(monkeypatch):
    """Every piece is so small that a short log has many of each."""
    monkeypatch.setattr(streaming, "BLOCK", 40)
    monkeypatch.setattr(streaming, "ROWS", 7)
    monkeypatch.setattr(buckets, "ROWS", 9)
    monkeypatch.setattr(prepared_module, "PIECE", 5)
    monkeypatch.setattr(leakage, "PIECE", 6)
    monkeypatch.setattr(coding, "DENSE", 100)


def both(path, monkeypatch, **options):
    """(in memory, streamed), each with what was said; a Mistake in place of data that was refused."""
    made = []
    for size in (1 << 40, 0):
        monkeypatch.setattr(streaming, "LARGE", {"table": size, "parquet": size})
        heard = []
        try:
            made.append((prepare(Preparation(data=str(path), **options), heard.append), heard))
        except Mistake as mistake:
            made.append((str(mistake), heard))
    return made


def alike(plain, disk):
    (one, _), (other, heard) = plain, disk
    if isinstance(one, str) or isinstance(other, str):
        assert one == other
        return
    assert any(": streamed; " in sentence for sentence in heard)
    same(one, other)


def text_of(rows, header=("user", "item", "time")):
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([header, *(row[: len(header)] for row in rows)])
    return file.getvalue()


@few
@given(logs(), OPTIONS, st.booleans())
def test_a_table_comes_out_the_same(folder, rows, options, zipped):
    path = folder / ("log.csv.gz" if zipped else "log.csv")
    data = text_of(rows).encode()
    path.write_bytes(gzip.compress(data) if zipped else data)
    with pytest.MonkeyPatch.context() as patch:
        alike(*both(path, patch, **options))


@few
@given(logs(), OPTIONS, st.sampled_from(["text", "number", "date"]))
def test_parquet_comes_out_the_same(folder, rows, options, kind):
    import polars as pl

    user, item, time = (list(column) for column in zip(*rows, strict=True))
    columns = {"user": user, "item": item, "time": time}
    if kind == "number":
        columns |= {"user": [hash(one) % 50 for one in user], "item": [hash(one) % 50 for one in item]}
    frame = pl.DataFrame(columns)
    if kind == "date":
        frame = frame.with_columns(pl.from_epoch("time", time_unit="s"))
    path = folder / "log.parquet"
    frame.write_parquet(path)
    with pytest.MonkeyPatch.context() as patch:
        alike(*both(path, patch, **options))


@few
@given(logs(), st.sampled_from([("user", "item"), ("session", "item"), ("session", "item", "time")]))
def test_logs_without_times_and_sessions_come_out_the_same(folder, rows, header):
    path = folder / "plain.tsv"
    path.write_text(text_of(rows, header).replace(",", "\t"))
    with pytest.MonkeyPatch.context() as patch:
        alike(*both(path, patch))


USUAL = ("user", "item", "time")
MADE = [(USUAL, 0)] * 9 + [(("item", "user", "time"), 0)] * 2 + [(("user", "item_id", "time"), 0), (USUAL, 10**12)]


@st.composite
def several(draw):
    """Files of one source as (rows, header), most of them alike, some with other columns, another order of columns, or
    times of another unit; some have no rows.
    """
    rows = draw(logs())
    cuts = [0, *sorted(draw(st.lists(st.integers(0, len(rows)), min_size=1, max_size=3))), len(rows)]
    made = []
    for begin, end in pairwise(cuts):
        header, since = draw(st.sampled_from(MADE))
        made.append(([(user, item, since + time) for user, item, time in rows[begin:end]], header))
    return made


def write_part(path, rows, header, ending):
    import polars as pl

    frame = pl.DataFrame(rows, schema=USUAL, orient="row")
    frame = frame.select(pl.col(name.removesuffix("_id")).alias(name) for name in header)
    if ending == "parquet":
        frame.write_parquet(path)
    else:
        text = frame.write_csv().encode()
        path.write_bytes(gzip.compress(text) if ending == "csv.gz" else text)


def decided(made):
    """What was said, but for how it was done."""
    apart = ("streamed; ", "put in order in", "read in memory, because", "note: ")
    return [sentence for sentence in made[1] if not any(words in sentence for words in apart)]


@few
@given(several(), OPTIONS, st.sampled_from(["csv", "csv.gz", "parquet"]))
def test_several_files_come_out_as_in_memory(folder, made, options, ending):
    """With what is said of them, whatever they differ in; files that are not alike are refused alike."""
    shutil.rmtree(folder / "parts", ignore_errors=True)
    (folder / "parts").mkdir()
    for number, (rows, header) in enumerate(made):
        write_part(folder / "parts" / f"{number}.{ending}", rows, header, ending)
    with pytest.MonkeyPatch.context() as patch:
        plain, disk = both(folder / "parts", patch, **options)
    event(disk[0] if isinstance(disk[0], str) else "prepared")
    if isinstance(disk[0], str) or any("streamed" in sentence for sentence in disk[1]):
        alike(plain, disk)
    else:
        assert any("read in memory, because" in sentence for sentence in disk[1])
        assert plain[0].card == disk[0].card
    if not isinstance(disk[0], str):
        assert decided(plain) == decided(disk)


@pytest.mark.parametrize("unit", [10**9, 10**12, 10**15, 10**18], ids=["s", "ms", "us", "ns"])
def test_units_are_told_alike(tmp_path, monkeypatch, unit):
    """Nanoseconds that differ below a microsecond are ties in both."""
    rows = [(f"u{n % 3}", f"i{n % 5}", unit + (n * 7919) % 600) for n in range(40)]
    path = tmp_path / "log.csv"
    path.write_text(text_of(rows))
    plain, disk = both(path, monkeypatch)
    alike(plain, disk)
    assert plain[1][:2] == [sentence for sentence in disk[1] if "streamed" not in sentence][:2]


LINES = [f"u{n % 3},i{n % 5},{n}" for n in range(30)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('"u1",i2,40', "quotes"),
        ("u1,i2,2024-01-31", "not all whole numbers"),
        ("u1,i2,40.5", "not all whole numbers"),
        ("u1,,40", "missing"),
        (",i1,40", "missing"),
        ("u1,i1", "not all whole numbers"),
        ("u1,i1,40,50", "not well formed"),
        ("", "missing"),
    ],
)
def test_what_is_not_plain_is_read_in_memory(tmp_path, monkeypatch, line, reason):
    path = tmp_path / "log.csv"
    path.write_text("\n".join(["user,item,time", *LINES[:20], line, *LINES[20:]]) + "\n")
    (one, _), (other, heard) = both(path, monkeypatch)
    assert any("read in memory, because" in sentence and reason in sentence for sentence in heard), heard
    if isinstance(one, str):
        assert one == other
    else:
        assert one.card == other.card


def test_files_that_are_not_plain_never_begin_to_stream(tmp_path, monkeypatch):
    path = tmp_path / "log.csv"
    path.write_text("\n".join(["user,item,time", *LINES]) + "\n")
    for options in ({"k_core": 2}, {"collapse_repeats": True}, {"ties": "shuffle"}, {"session_gap": 1}):
        (one, _), (other, heard) = both(path, monkeypatch, **options)
        assert not any("stream" in sentence for sentence in heard)
        assert (one if isinstance(one, str) else one.card) == (other if isinstance(other, str) else other.card)


def test_saved_and_loaded_it_is_the_same_and_the_folder_goes(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "spool"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "spool").mkdir()
    path = tmp_path / "log.csv"
    path.write_text("\n".join(["user,item,time", *LINES]) + "\n")
    (one, _), (other, _) = both(path, monkeypatch)
    again = load(save(other, tmp_path / "prepared"), verify=True)
    assert {name: array.tolist() for name, array in contents(again).items()} == {
        name: array.tolist() for name, array in contents(one).items()
    }
    assert list((tmp_path / "spool").iterdir())
    del other
    assert not list((tmp_path / "spool").iterdir())


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(buckets, "renumber", full)
    path = tmp_path / "log.csv"
    path.write_text("\n".join(["user,item,time", *LINES]) + "\n")
    _, (sentence, _) = both(path, monkeypatch)
    assert "cannot be written (No space left on device); set TMPDIR to a folder with room" in sentence
    assert [entry.name for entry in tmp_path.iterdir()] == ["log.csv"]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=40), st.data())
@example([2**63 - 1, -(2**63)], None)
def test_the_value_at_a_rank(folder, values, data):
    path = folder / "values"
    np.array(values, np.int64).tofile(path)
    rank = data.draw(st.integers(0, len(values) - 1)) if data else 0
    assert buckets.at_rank(path, rank, min(values), max(values)) == sorted(values)[rank]


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(-(2**40), 2**40)), min_size=1, max_size=40),
    st.sampled_from([1, 1000, 1_000_000]),
)
def test_one_sort_is_a_sort_by_place_time_and_row(pairs, unit):
    place, time = np.array([one for one, _ in pairs], np.int32), np.array([two // unit * unit for _, two in pairs])
    assert buckets.in_place_and_time(place, time).tolist() == np.lexsort((time, place)).tolist()


def test_a_file_that_turns_out_not_to_be_plain_is_announced_once(tmp_path, monkeypatch):
    path = tmp_path / "log.csv"
    lines = [f"u{n % 5},i{n % 7},{n}" for n in range(60)]
    path.write_text("\n".join(["user,item,time", *lines, '"u1",i1,99']) + "\n")
    (_, plain), (_, heard) = both(path, monkeypatch)
    assert [line for line in heard if "read in memory, because it has quotes" not in line] == plain
    assert len(heard) == len(set(heard)) == len(plain) + 1
