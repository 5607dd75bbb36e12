"""Files as the field hands them out: official archives, review dumps, news logs, part files."""

import gzip
import json

import polars as pl
import pytest

from jaxrec.config import Mistake
from jaxrec.data import exact
from jaxrec.data.folders import locate
from jaxrec.data.options import Preparation
from jaxrec.data.prepare import prepare_cached
from jaxrec.data.read import read


def reading(path, **options):
    """(rows, sentences): rows are (user or session, item, seconds or None)."""
    heard = []
    events = read(locate(str(path), heard.append), Preparation(data=str(path), **options), heard.append)
    owner = events.user if events.user is not None else events.session
    times = [None] * len(events.item) if events.time is None else (events.time / 1e6).tolist()
    return list(zip(owner, events.item, times, strict=True)), "\n".join(heard)


def file(tmp_path, name, text):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


MOVIES = [("1", "1193", 978300760.0), ("1", "661", 978302109.0), ("2", "1", 978300275.0)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ratings.dat", "1::1193::5::978300760\n1::661::3::978302109\n2::1::4::978300275\n"),
        ("u.data", "1\t1193\t5\t978300760\n1\t661\t3\t978302109\n2\t1\t4\t978300275\n"),
        ("ratings.csv", "userId,movieId,rating,timestamp\n1,1193,5,978300760\n1,661,3.5,978302109\n2,1,4,978300275\n"),
        ("clicks.csv", "1;1193;2000-12-31T22:12:40Z\n1;661;2000-12-31T22:35:09Z\n2;1;2000-12-31T22:04:35Z\n"),
        ("blanks", "1 1193 978300760\n1 661 978302109\n2 1 978300275\n"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_official_files_are_read_as_they_are(tmp_path, name, text, zipped):
    path = file(tmp_path, name + ".gz" * zipped, gzip.compress(text.encode()) if zipped else text)
    assert reading(path)[0] == MOVIES


def test_the_guess_by_values_is_said(tmp_path):
    _, heard = reading(file(tmp_path, "u.data", "1\t1193\t5\t978300760\n1\t661\t3\t978302109\n"))
    assert "column 1 is the user, column 2 is the item, column 4 is the time (the usual order)" in heard
    assert "column 3 looks like a rating" in heard


def test_amazon_ratings_have_the_product_first(tmp_path):
    text = "B00000001X,A1AAAAAAAAAAA,5.0,1400000000\n0000000001,A2AAAAAAAAAAA,3.0,1400000005\n"
    rows, heard = reading(file(tmp_path, "ratings_Books.csv", text))
    assert rows[0] == ("A1AAAAAAAAAAA", "B00000001X", 1400000000.0)
    assert "the second holds reviewers" in heard


def test_positions_name_columns_without_a_header_and_with_one(tmp_path):
    clicks = "1,2014-04-07T10:51:09.277Z,214536502,0\n1,2014-04-07T10:54:09.868Z,214536500,0\n"
    rows, _ = reading(file(tmp_path, "clicks.dat", clicks), session_column="1", item_column="3")
    assert [row[:2] for row in rows] == [("1", "214536502"), ("1", "214536500")]
    rows, _ = reading(file(tmp_path, "a.csv", "who,item\nu,x\n"), user_column="1")
    assert rows == [("u", "x", None)]


def test_a_header_is_not_taken_for_an_event(tmp_path):
    with pytest.raises(Mistake, match="looks like a header"):
        reading(file(tmp_path, "a.csv", "who;what;moment\na;b;1400000000\n"), user_column="1", item_column="2")


def test_a_first_event_with_another_kind_of_id_is_no_header(tmp_path):
    text = "anna::7::978300760\n1::8::978300761\n2::9::978300762\n"
    rows, _ = reading(file(tmp_path, "x.dat", text), user_column="1", item_column="2")
    assert [row[0] for row in rows] == ["anna", "1", "2"]


REVIEWS = {
    2014: ("reviewerID", "asin", "unixReviewTime", 1),
    2018: ("reviewerID", "asin", "unixReviewTime", 1),
    2023: ("user_id", "parent_asin", "timestamp", 1000),
}


@pytest.mark.parametrize("year", REVIEWS)
def test_amazon_reviews(tmp_path, year):
    user, item, time, scale = REVIEWS[year]
    more = {"asin": "variant"} if year == 2023 else {"reviewTime": "05 13, 2014"}
    lines = [
        json.dumps({**more, user: owner, item: thing, time: int(moment) * scale, "reviewText": 'so "so", \n :)'})
        for owner, thing, moment in MOVIES
    ]
    assert reading(file(tmp_path, "reviews.json", "\n".join(lines)))[0] == MOVIES
    assert reading(file(tmp_path, "list.json", "[" + ",".join(lines) + "]"))[0] == MOVIES


def test_numbers_of_any_size_are_the_ids_they_are(tmp_path):
    ids = [2**53 + 1, 2**63 - 1, 2**64 - 1, 10**30]
    lines = "".join(json.dumps({"user": number, "item": number}) + "\n" for number in ids)
    assert [row[0] for row in reading(file(tmp_path, "a.jsonl", lines))[0]] == list(map(str, ids))
    pl.DataFrame({"user": pl.Series(ids[:3], dtype=pl.UInt64), "item": [1, 2, 3]}).write_parquet(tmp_path / "a.parquet")
    assert [row[0] for row in reading(tmp_path / "a.parquet")[0]] == list(map(str, ids[:3]))


def test_clicks_of_a_news_log_are_events(tmp_path):
    text = (
        "1\tU1\t11/15/2019 8:55:22 AM\tN1 N2\tN3-1 N4-0 N5-1\n2\tU2\t11/15/2019 12:05:22 PM\t\tN3-0\n"
        "3\tU2\t11/15/2019 12:05:22 AM\t\tN3-1\n"
    )
    rows, heard = reading(file(tmp_path, "behaviors.tsv", text))
    assert rows == [("U1", "N3", 1573808122.0), ("U1", "N5", 1573808122.0), ("U2", "N3", 1573776322.0)]
    assert "the history field (no times) is not used" in heard


# Directories and patterns


def test_parts_are_one_source_in_the_order_of_their_names(tmp_path):
    for name, row in (("part-2.csv", "c,z,3"), ("part-10.csv", "b,y,2"), ("part-1.csv", "a,x,1")):
        file(tmp_path, f"logs/{name}", f"user,item,time\n{row}\n")
    file(tmp_path, "logs/_SUCCESS", "")
    file(tmp_path, "logs/.hidden", "no")
    expected = [("a", "x", 1.0), ("b", "y", 2.0), ("c", "z", 3.0)]
    assert reading(tmp_path / "logs")[0] == expected
    assert reading(tmp_path / "logs" / "part-*.csv")[0] == expected
    assert reading(tmp_path / "**" / "*.csv")[0] == expected


def test_the_cache_sees_every_part(tmp_path):
    log = "user,item\n" + "".join(f"u{n // 4},i{n % 5}\n" for n in range(40))
    file(tmp_path, "logs/a.csv", log)
    file(tmp_path, "logs/b.csv", log)
    options = Preparation(data=str(tmp_path / "logs"))
    first = prepare_cached(options, tmp_path / "cache", lambda _: None)
    assert first.card["name"] == "logs"
    file(tmp_path, "logs/b.csv", log + "u1,i9\n")
    assert prepare_cached(options, tmp_path / "cache", lambda _: None).path != first.path


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"a.csv": "user,item\na,x\n", "b.tsv": "user\titem\na\tx\n"}, "holds files of different kinds"),
        ({"a.csv": "user,item\na,x\n", "b.csv": "user;item\na;x\n"}, "files of one source must be alike"),
        ({"a.csv": "user,item\na,x\n", "b.csv": "user,song\na,x\n"}, "files of one source must be alike"),
        (
            {"a.csv": "user,item,time\na,x,1400000000\n", "b.csv": "user,item,time\na,x,1400000000000\n"},
            "must be alike",
        ),
        ({"train.txt": "1 2\n1 3\n", "test.txt": "1 2\n1 3\n"}, "holds test.txt beside train.txt"),
        ({"inner/a.csv": "user,item\n"}, "name them as in"),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path, files, sentence):
    for name, text in files.items():
        file(tmp_path, f"logs/{name}", text)
    with pytest.raises(Mistake, match=sentence):
        reading(tmp_path / "logs")


def test_of_a_known_archive_the_events_are_taken(tmp_path):
    file(tmp_path, "ml-1m/ratings.dat", "1::1193::5::978300760\n1::661::3::978302109\n2::1::4::978300275\n")
    file(tmp_path, "ml-1m/users.dat", "1::F::1::10::48067\n")
    file(tmp_path, "ml-1m/README", "text")
    rows, heard = reading(tmp_path / "ml-1m")
    assert rows == MOVIES
    assert "the events are in ratings.dat" in heard


# Units


@pytest.mark.parametrize(
    ("unit", "value", "seconds"),
    [("s", "-5", -5), ("s", "3000000000000", 3e12), ("ms", "5", 0.005), ("us", "5", 5e-6), ("ns", "5000", 5e-6)],
)
def test_a_unit_that_is_told_is_taken_at_its_word(tmp_path, unit, value, seconds):
    path = file(tmp_path, "a.csv", f"user,item,time\na,x,{value}\nb,y,{value}\nb,y,{value}\n")
    assert reading(path, time_unit=unit)[0][0][2] == seconds


@pytest.mark.parametrize(
    ("unit", "value", "sentence"),
    [
        ("iso", "1400000000", "is not ISO text"),
        ("s", "2014-01-01", "is not a number"),
        ("s", "9" * 18, "is beyond any date in seconds"),
    ],
)
def test_a_unit_that_does_not_fit_is_refused(tmp_path, unit, value, sentence):
    with pytest.raises(Mistake, match=sentence):
        reading(file(tmp_path, "a.csv", f"user,item,time\na,x,{value}\n"), time_unit=unit)


@pytest.mark.parametrize("absurd", ["0", "-1", "1300000000000", "9999999999", "13"])
def test_one_absurd_time_does_not_decide_the_unit_of_the_others(tmp_path, absurd):
    path = file(tmp_path, "a.csv", f"user,item,time\na,x,1400000000\nb,y,{absurd}\nb,z,1400000001\n")
    with pytest.raises(Mistake, match=f':3: timestamp "{absurd}"'):
        reading(path)
    rows, heard = reading(path, on_bad_row="skip")
    assert rows == [("a", "x", 1400000000.0), ("b", "z", 1400000001.0)]
    assert "1 bad rows left out" in heard


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_rows_stacked_in_chunks_are_the_rows(count, monkeypatch):
    monkeypatch.setattr(exact, "CHUNK", 2)
    rows = [[f"a{k}", None if k == 1 else f"b{k}"] for k in range(count)]
    assert exact.stacked(iter(rows), [3, 1]).rows() == list(map(tuple, rows))
