"""Adding a file to prepared data is preparing all the files together; and what cannot be that is refused."""

import csv
import io
import shutil

import pytest
from hypothesis import given, reject, settings, strategies as st
from same_data import same_arrays

from jaxrec.config import Mistake
from jaxrec.data import buckets, coding, large_growing, leakage, prepared as prepared_module, streaming
from jaxrec.data.options import Preparation
from jaxrec.data.prepare import prepare
from jaxrec.data.prepared import load, save
from jaxrec.data.renewing import prepare_into

IDS = st.sampled_from(["0", "7", "12", "007", "x", "é", "123456789012345678901"])
NUMBERS = st.integers(0, 12).map(str)
SPLITS = st.sampled_from(
    [
        {},
        {"split": "last-n", "last": 2},
        {"split": "time", "boundaries": ("0.5", "0.7")},
        {"split": "time", "boundaries": ("0.6", "0.8"), "catalogue": "all", "unknown_targets": "drop"},
        {"split": "leave-one-out", "catalogue": "train"},
    ]
)
MORE = st.sampled_from(
    [
        {},
        {"deduplicate": "first"},
        {"deduplicate": "last"},
        {"deduplicate": "exact"},
        {"collapse_repeats": True},
        {"k_core": 2},
        {"min_item_events": 2, "filter_scope": "train"},
        {"session_gap": 0.1},
        {"session_gap": 0.1, "sequence": "user", "deduplicate": "first"},
        {"features": ("@hour", "price")},
        {"rating_column": "price", "min_rating": 2.0},
        {"event_column": "kind", "event_weights": ("a=1", "b=3", "c=0")},
        {"on_bad_row": "skip"},
    ]
)
VISITS = st.sampled_from(
    [
        {},
        {"sequence": "session"},
        {"session_gap": 0.1},
        {"sequence": "session", "deduplicate": "first"},
        {"sequence": "user", "deduplicate": "last"},
    ]
)
HEADER = ("user", "item", "time", "price", "kind")
# what a short log may be refused for, before anything is compared
REFUSED = ("left out events that could come back", "leaves nothing to", "validation would be empty", "no event is left")
REFUSED += ("already (same SHA-256)", "does not hold; drop it")  # two files of the same rows, none of a kind


@st.composite
def logs(draw, most=50):
    """Rows of user, item, time, price and kind in any order of time, with ties and repeats; the first twelve are
    enough to be split by themselves.
    """
    ids, start = draw(st.sampled_from([NUMBERS, IDS])), draw(st.sampled_from([10**9, 10**12, 10**15]))
    row = st.tuples(ids, ids, st.integers(0, 40), st.integers(0, 4), st.sampled_from("abc"))
    rows = [("5", item, 8 * n, 3, "a") for n, item in enumerate(["1", "2", "3", "1", "2", "3"])]
    rows += [("6", item, time + 1, 3, "b") for _, item, time, *_ in rows]
    rows += draw(st.lists(row, min_size=1, max_size=most))
    return [(user, item, start + time, *rest) for user, item, time, *rest in rows]


def text_of(rows, header=HEADER):
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([header, *rows])
    return file.getvalue()


def grown(folder, rows, cuts, options, header=HEADER):
    """(prepared together, prepared one after the other, the last in two parts), saved and loaded."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "all").mkdir(parents=True)
    places = [0, *cuts, len(rows)]
    files = [folder / "all" / f"{number}.csv" for number in range(len(cuts) + 1)]
    for file, begin, end in zip(files, places, places[1:], strict=False):
        file.write_text(text_of(rows[begin:end], header))
    quiet = lambda sentence: None  # noqa: E731
    together = prepare(Preparation(data=str(folder / "all"), **options), quiet)
    prepare_into(Preparation(data=str(files[0]), **options), folder / "0", quiet)
    for number, file in enumerate(files[1:]):
        file_then = file.rename(folder / file.name)  # the files before are gone by then
        files[number].unlink(missing_ok=True)
        file_then = halved(file_then) if file == files[-1] else file_then
        prepare_into(Preparation(data=str(file_then)), folder / str(number + 1), quiet, onto=str(folder / str(number)))
    return load(save(together, folder / "together")), load(folder / str(len(cuts)), verify=True)


def halved(file):
    """A directory of two files with the lines of one, where there are two."""
    header, *lines = file.read_text().splitlines(keepends=True)
    if len(lines) < 2:
        return file
    file.unlink()
    (folder := file.parent / "later").mkdir()
    for number, half in enumerate((lines[: len(lines) // 2], lines[len(lines) // 2 :])):
        (folder / f"{number}.csv").write_text("".join([header, *half]))
    return folder


def same(one, other, besides=()):
    same_arrays(one, other)
    apart = {"source", "name", "identity", *besides}
    told = [{key: value for key, value in found.card.items() if key not in apart} for found in (one, other)]
    assert told[0] == told[1]  # the fingerprint among them
    for key in ("rows", "time", "columns", "bad_rows", "left_out", "rating", "event"):
        assert one.card["source"].get(key) == other.card["source"].get(key), key


def compared(*case, besides=()):
    try:
        both = grown(*case)
    except Mistake as mistake:
        if any(words in str(mistake) for words in REFUSED):
            reject()  # too many of these fail the test
        raise
    same(*both, besides)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("growing") / "case"


def cuts_of(data, rows, most):
    return sorted(data.draw(st.lists(st.integers(12, len(rows) - 1), min_size=1, max_size=most, unique=True)))


@settings(max_examples=40)
@given(st.data(), logs(), SPLITS, MORE)
def test_one_after_the_other_is_all_together(folder, data, rows, split, more):
    cuts = cuts_of(data, rows, 2)
    compared(folder, rows, cuts, split | more)


@settings(max_examples=30)
@given(st.data(), logs(), SPLITS, st.sampled_from([("user", "item", "time"), ("session", "item", "time"), HEADER[:2]]))
def test_by_way_of_the_disk_it_is_the_same(folder, data, rows, split, header):
    cuts = cuts_of(data, rows, 2)
    rows = [row[: len(header)] for row in rows]
    if len(header) == 2 and split.get("split") == "time":
        split = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large_growing, "MANY", 0)
        patch.setattr(streaming, "BLOCK", 40)
        patch.setattr(prepared_module, "PIECE", 5)
        patch.setattr(leakage, "PIECE", 6)
        patch.setattr(coding, "DENSE", 10)
        for module in (buckets, large_growing):
            patch.setattr(module, "ROWS", 7)
        compared(folder, rows, cuts, split, header, besides=["leak_check"])


@settings(max_examples=20)
@given(st.data(), logs(), SPLITS, VISITS)
def test_sessions_inside_users_go_on_in_the_next_file(folder, data, rows, split, more):
    cuts = cuts_of(data, rows, 2)
    visits = [(*row[:3], data.draw(st.sampled_from(["s", "t", "1"]))) for row in rows]
    compared(folder, visits, cuts, split | more, ("user", "item", "time", "session"))
