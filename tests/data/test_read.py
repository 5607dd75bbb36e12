"""Every format gives back the events that were written, with ids as awkward as people's."""

import csv
import gzip
import io

import polars as pl
import pytest
from hypothesis import given, strategies as st

from jaxrec.data.options import Preparation
from jaxrec.data.read import read
from jaxrec.data.sources import Source

AWKWARD = st.one_of(
    st.sampled_from(
        [
            "007",
            "7",
            "7.0",
            " x ",
            'say "hi"',
            '"',
            "a,b",
            "a;b|c",
            "tab\there",
            "two\nlines",
            "é",
            "日本",
            "NA",
            "null",
            "-",
        ]
    ),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), min_size=1, max_size=6),
)
WORD = st.text(st.characters(categories=["L", "N"], include_characters="-_.'\"#"), min_size=1, max_size=5).filter(
    lambda word: word.casefold() not in ("user", "item")
)
TIMES = st.integers(365 * 86_400, 7_258_118_399)  # 1971 to 2200: none is absurd beside another
EVENTS = st.lists(st.tuples(AWKWARD, AWKWARD, TIMES), min_size=1, max_size=12)


def silent(_):
    """A listener that does not listen."""


def reading(path, **options):
    return read(Source(path), Preparation(data=str(path), **options), silent)


def written(path, content: bytes):
    path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)
    return path


def table(header, rows, separator=",", end="\n"):
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=separator, lineterminator=end)
    writer.writerows([header, *rows])
    return text.getvalue().encode()


def rows_of(events):
    return list(zip(events.user, events.item, (events.time // 1_000_000).tolist(), strict=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("name", "separator", "header"),
    [
        ("a.csv", ",", ("user", "item", "time")),
        ("a.csv.gz", ",", ("User_ID", "Item ID", "Timestamp")),
        ("a.tsv", "\t", ("UserId", "ItemId", "ts")),
        ("a.csv", ";", ("customer", "product", "date")),
        ("a", "|", ("visitor", "song", "unixReviewTime")),
        ("a.inter", "\t", ("user_id:token", "item_id:token", "timestamp:float")),
        ("a.inter.gz", "\t", ("user_id:token", "item_id:token", "timestamp:float")),
    ],
)
@given(events=EVENTS)
def test_tables_come_back(folder, name, separator, header, end, events):
    path = written(folder / name, table(header, events, separator, end))
    assert rows_of(reading(path)) == events


@given(EVENTS)
def test_parquet_comes_back(folder, events):
    path = folder / "a.parquet"
    pl.DataFrame(events, schema=["user", "item", "time"], orient="row").write_parquet(path)
    assert rows_of(reading(path)) == events


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "noname"])
@given(
    st.lists(st.tuples(WORD, st.lists(WORD, min_size=2, max_size=5)), min_size=1, max_size=5),
    st.sampled_from([" ", "\t"]),
)
def test_user_item_lines_come_back(folder, name, histories, blank):
    pairs = [(user, item) for user, items in histories for item in items]
    path = written(folder / name, "".join(f"{user}{blank}{item}\n" for user, item in pairs).encode())
    events = reading(path)
    assert list(zip(events.user, events.item, strict=True)) == pairs
    assert events.time is None
    assert events.session is None


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
@given(
    st.lists(st.lists(WORD, min_size=1, max_size=6), min_size=1, max_size=8), st.sampled_from(["\n", "\r\n", "\n\n"])
)
def test_sessions_come_back(folder, name, sessions, end):
    sessions = [*sessions, ["a", "b", "c"], ["d"]]  # lines of different widths, so that they cannot be `user item`
    path = written(folder / name, end.join(" ".join(items) for items in sessions).encode())
    events = reading(path)
    expected = [(str(number), item) for number, items in enumerate(sessions, start=1) for item in items]
    assert list(zip(events.session, events.item, strict=True)) == expected
    assert events.user is None


def test_two_words_a_line_are_users_only_when_the_first_comes_in_runs(tmp_path):
    users = written(tmp_path / "users", b"1 5\n1 6\n1 5\n2 5\n2 7\n")
    sessions = written(tmp_path / "sessions", b"1 5\n2 6\n3 5\n4 5\n5 7\n")
    assert reading(users).user.to_list() == ["1", "1", "1", "2", "2"]
    assert reading(sessions).session.to_list() == ["1", "1", "2", "2", "3", "3", "4", "4", "5", "5"]


def test_a_header_of_two_words_settles_what_two_words_are(tmp_path):
    path = written(tmp_path / "x", b"user item\n1 5\n2 6\n3 5\n")
    assert reading(path).user.to_list() == ["1", "2", "3"]


SECOND = 1_400_000_000


@pytest.mark.parametrize(
    ("values", "microseconds", "unit"),
    [
        (["1400000000", "1400000001"], [SECOND * 10**6, (SECOND + 1) * 10**6], "seconds"),
        (["1400000000.25", "1.4e9"], [SECOND * 10**6 + 250_000, SECOND * 10**6], "seconds"),
        (["1400000000123", "1300000000005"], [SECOND * 10**6 + 123_000, 1_300_000_000_005_000], "milliseconds"),
        (["5", "0", "-7"], [5 * 10**6, 0, -7 * 10**6], "seconds"),
        (["1400000000123456"], [SECOND * 10**6 + 123_456], "microseconds"),
        (["1400000000123456789"], [SECOND * 10**6 + 123_456], "nanoseconds"),
        (["2014-05-13", "2014-05-13 16:53:20"], [1_399_939_200 * 10**6, SECOND * 10**6], "ISO text"),
        (["2014-05-13T16:53:20.277Z"], [SECOND * 10**6 + 277_000], "ISO text"),
        (["2014-05-13T18:53:20+02:00"], [SECOND * 10**6], "ISO text"),
        (["2014-05-13 16:53"], [(SECOND - 20) * 10**6], "ISO text"),
    ],
)
def test_the_unit_of_time_is_decided_by_looking(tmp_path, values, microseconds, unit):
    path = written(
        tmp_path / "a.csv", table(("user", "item", "time"), [("u", f"i{n}", t) for n, t in enumerate(values)])
    )
    events = reading(path)
    assert (events.time.tolist(), events.unit) == (microseconds, unit)


@pytest.mark.parametrize(
    "column",
    [
        pl.Series("ts", [SECOND, SECOND + 1]),
        pl.Series("ts", [SECOND * 1000, SECOND * 1000 + 1000], dtype=pl.UInt64),
        pl.Series("ts", [float(SECOND), SECOND + 1.0]),
        pl.Series("ts", [SECOND * 10**6, (SECOND + 1) * 10**6]).cast(pl.Datetime("us")),
        pl.Series("ts", [SECOND * 10**3, (SECOND + 1) * 10**3]).cast(pl.Datetime("ms", "Europe/Berlin")),
        pl.Series("ts", ["2014-05-13 16:53:20", "2014-05-13 16:53:21"]),
    ],
    ids=lambda column: str(column.dtype),
)
def test_parquet_times_of_any_type_are_the_same_moments(tmp_path, column):
    pl.DataFrame({"user": ["a", "b"], "item": ["x", "y"], "ts": column}).write_parquet(tmp_path / "a.parquet")
    assert reading(tmp_path / "a.parquet").time.tolist() == [SECOND * 10**6, (SECOND + 1) * 10**6]


@pytest.mark.parametrize(
    "ids",
    [pl.Series([7, 12]), pl.Series([7.0, 12.0]), pl.Series(["7", "12"]), pl.Series(["7", "12"], dtype=pl.Categorical)],
    ids=lambda column: str(column.dtype),
)
def test_parquet_ids_of_any_type_are_text(tmp_path, ids):
    pl.DataFrame({"user": ids, "item": ids}).write_parquet(tmp_path / "a.parquet")
    assert reading(tmp_path / "a.parquet").item.to_list() == ["7", "12"]


def test_columns_can_be_named_and_the_rest_is_guessed(tmp_path):
    path = written(tmp_path / "a.csv", b"user,who,item,time\nu,w,i,5\n")
    assert reading(path).user.to_list() == ["u"]
    events = reading(path, user_column="who")
    assert events.user.to_list() == ["w"]
    assert events.columns == {"user": "who", "item": "item", "time": "time"}


def test_names_without_a_hint_can_be_named(tmp_path):
    path = written(tmp_path / "a.csv", b"a,b,c\nu,i,s\n")
    events = reading(path, item_column="b", session_column="c")
    assert (events.item.to_list(), events.session.to_list(), events.user) == (["i"], ["s"], None)


def test_recbole_columns_can_be_named_without_their_type(tmp_path):
    path = written(tmp_path / "a.inter", b"user_id:token\titem_id:token\tbrand:token\n1\t2\tb\n")
    assert reading(path, item_column="brand").item.to_list() == ["b"]


def test_of_several_fitting_columns_the_plainest_name_wins(tmp_path):
    path = written(tmp_path / "a.csv", b"movie,item_id,date,timestamp,uid\nm,i,2014-01-01,5,u\n")
    assert reading(path).columns == {"user": "uid", "item": "item_id", "time": "timestamp"}


def test_blank_lines_are_no_events(tmp_path):
    path = written(tmp_path / "a.csv", b"\n \n\nuser,item\r\n\r\n1,2\r\n\r\n3,4\r\n\r\n")
    events = reading(path)
    assert (events.user.to_list(), events.item.to_list()) == (["1", "3"], ["2", "4"])


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path):
    assert reading(written(tmp_path / "a.csv", b"\xef\xbb\xbfuser,item\n1,2\n")).columns["user"] == "user"


def test_a_path_is_never_a_pattern(tmp_path):
    written(tmp_path / "a1.csv", b"user,item\nwrong,file\n")
    assert reading(written(tmp_path / "a[1].csv", b"user,item\nu,i\n")).item.to_list() == ["i"]


def test_what_was_decided_is_said_before_reading(tmp_path):
    path = written(tmp_path / "a.csv", b"user,item,rating,time\n1,2,5,oops\n")
    heard = []
    with pytest.raises(ValueError, match="oops"):
        read(Source(path), Preparation(data=str(path)), heard.append)
    assert heard == [
        f"{path}: CSV; user = 'user', item = 'item', time = 'time' (by common names); not used: 'rating'",
        f"{path}: every event counts, whatever its 'rating'; --rating-column rating --min-rating N drops lower",
    ]
