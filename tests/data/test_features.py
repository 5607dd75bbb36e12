"""Columns, kinds of events, ratings and rows left out on request: what was asked is there and on the card."""

import datetime as dt

import numpy as np
import pytest

from jaxrec.config import Mistake
from jaxrec.data.demo import Demo
from jaxrec.data.options import Preparation
from jaxrec.data.prepare import prepare, prepare_cached
from jaxrec.data.prepared import load, save

HEADER = "user,item,time,kind,price,rating\n"
START = 1_400_000_000


def silent(_):
    """A listener that does not listen."""


def rows(count=40):
    kinds, words = ("view", "cart", "buy"), ("", "red", "green", "blue")
    return [
        (f"u{n % 5}", f"i{n * 7 % 11}", START + 5_000 * n, kinds[n % 3], words[n * 3 % 4], str(n % 5 + 1))
        for n in range(count)
    ]


def made(tmp_path, lines=None, header=HEADER, name="log.csv", **options):
    path = tmp_path / name
    separator = "\t" if name.endswith(".inter") else ","
    body = "".join(separator.join(map(str, row)) + "\n" for row in (rows() if lines is None else lines))
    path.write_text(header.replace(",", separator) + body)
    return prepare(Preparation(data=str(path), **options), silent)


def by_event(prepared):
    """(user, item, seconds) -> its place."""
    sequence = prepared.sequence_of(np.arange(len(prepared.items)))
    users, items = prepared.user_ids.decode(prepared.users[sequence]), prepared.item_ids.decode(prepared.items)
    return {key: place for place, key in enumerate(zip(users, items, (prepared.times // 1000).tolist(), strict=True))}


def test_features_stay_with_their_events_in_any_order(tmp_path):
    lines = rows()[::-1]
    prepared = made(tmp_path, lines, features=("price", "rating", "@hour", "@weekday", "@month", "@monthday"))
    place, values = by_event(prepared), {name: feature.values for name, feature in prepared.features.items()}
    ids = prepared.features["price"].ids.strings
    assert values["price"].dtype == np.int32
    assert {values[name].dtype for name in values if name != "price"} == {np.dtype(np.float32)}
    places = np.array([place[line[:3]] for line in lines])
    training = places < prepared.train_end[prepared.sequence_of(places)]
    learnt = {line[4] for line, trains in zip(lines, training, strict=True) if trains}
    assert set(ids) == learnt - {""}
    for line in lines:
        here, moment = place[line[:3]], dt.datetime.fromtimestamp(line[2], dt.UTC)
        assert ([None, *ids][values["price"][here]] or "") == (line[4] if line[4] in ids else "")
        assert values["rating"][here] == float(line[5])
        assert values["@hour"][here] == moment.hour
        assert values["@weekday"][here] == moment.weekday()
        assert (values["@month"][here], values["@monthday"][here]) == (moment.month, moment.day)


def test_calendar_features_before_1970(tmp_path):
    lines = [("u", f"i{n}", -(10**6) * n) for n in range(6)]
    prepared = made(tmp_path, lines, "user,item,time\n", features=("@weekday", "@hour"), time_unit="s")
    expected = [dt.datetime(1970, 1, 1) - dt.timedelta(seconds=10**6 * n) for n in range(5, -1, -1)]
    assert prepared.features["@weekday"].values.tolist() == [moment.weekday() for moment in expected]
    assert prepared.features["@hour"].values.tolist() == [moment.hour for moment in expected]


def test_a_value_of_the_future_has_no_code(tmp_path):
    lines = [("u", f"i{n}", START + n, "old" if n < 3 else "new") for n in range(5)]
    prepared = made(tmp_path, lines, "user,item,time,word\n", features=("word",))
    assert prepared.features["word"].ids.strings == ["old"]
    assert prepared.features["word"].values.tolist() == [1, 1, 1, 0, 0]


def test_features_and_weights_are_saved_with_the_rest(tmp_path):
    weights = ("view=1", "cart=0", "buy=5.5")
    options = {"features": ("price", "rating", "@hour"), "event_column": "kind", "event_weights": weights}
    prepared = made(tmp_path, **options)
    folder = save(prepared, tmp_path / "prepared")
    again = load(folder, verify=True)
    assert list(again.features) == list(prepared.features) == ["price", "rating", "@hour"]
    for name, feature in prepared.features.items():
        np.testing.assert_array_equal(again.features[name].values, feature.values)
        assert again.features[name].ids == feature.ids
        assert again.features[name].of == "event"
    np.testing.assert_array_equal(again.weights, prepared.weights)
    assert set(prepared.weights.tolist()) == {1.0, 5.5}
    (folder / "feature.0.npy").write_bytes((folder / "feature.0.npy").read_bytes()[:-1])
    with pytest.raises(Mistake, match=r"feature\.0\.npy has"):
        load(folder)


def test_kinds_of_weight_0_and_low_ratings_are_left_out_and_on_the_card(tmp_path):
    weights = ("view=0", "cart=3", "buy=5")
    prepared = made(tmp_path, event_weights=weights, event_column="kind", min_rating=2.0)
    kept = [row for row in rows() if row[3] != "view" and int(row[5]) >= 2]
    assert sorted(by_event(prepared)) == sorted(row[:3] for row in kept)
    source = prepared.card["source"]
    views = sum(row[3] == "view" for row in rows())
    low = sum(row[3] != "view" and int(row[5]) < 2 for row in rows())
    assert source["left_out"] == {
        "kind view has weight 0 (--event-weights)": views,
        "rating below 2 (--min-rating)": low,
    }
    assert source["event"]["weights"] == list(weights)
    assert source["rating"] == {"column": "rating", "min_rating": 2.0}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"features": ("colour",)}, r"no column 'colour' \(--features\)"),
        ({"features": ("price", "price")}, "names a column twice"),
        ({"features": ("@our",)}, "'@our' is no feature of the calendar"),
        ({"rating_column": "rating"}, "--rating-column rating does nothing alone"),
        ({"rating_column": "kind", "min_rating": 1.0}, "kind 'view' is not a number, and --min-rating needs one"),
        ({"event_column": "kind"}, r"needs --event-weights, as in .* it holds view \(14\)"),
        ({"event_column": "kind", "event_weights": ("view=1",)}, "kind 'cart' has no weight"),
        ({"event_column": "kind", "event_weights": ("views=1",)}, "names 'views', which column 'kind' does not hold"),
        ({"event_column": "kind", "event_weights": ("view:1",)}, "is not KIND=WEIGHT"),
        ({"event_column": "kind", "event_weights": ("view=-1",)}, "is not KIND=WEIGHT"),
        ({"event_weights": ("view=1",)}, "no column known to be the event"),
        ({"event_column": "kind", "event_weights": ("view=0", "cart=0", "buy=0")}, "no event is left"),
    ],
)
def test_options_that_cannot_be_followed(tmp_path, options, sentence):
    with pytest.raises(Mistake, match=sentence):
        made(tmp_path, **options)


@pytest.mark.parametrize(
    "option", [{"features": ("@hour",)}, {"min_rating": 1.0}, {"event_weights": ("a=1",)}, {"time_unit": "s"}]
)
def test_formats_without_columns_refuse_options_about_them(tmp_path, option):
    (tmp_path / "pairs").write_text("1 2\n1 3\n1 4\n")
    with pytest.raises(Mistake, match="does nothing; drop it"):
        prepare(Preparation(data=str(tmp_path / "pairs"), **option), silent)


def test_options_about_files_are_refused_for_the_demo():
    with pytest.raises(Mistake, match="--min-rating is about files"):
        prepare(Preparation(demo=Demo(users=20, items=60, events=8), min_rating=1.0), silent)
    prepared = prepare(Preparation(demo=Demo(users=20, items=60, events=8), features=("@hour",)), silent)
    assert set(prepared.features["@hour"].values) <= set(range(24))


# Side files

INTER = "user_id:token,item_id:token,timestamp:float\n"


@pytest.fixture
def recbole(tmp_path):
    (tmp_path / "x.item").write_text("item_id:token\tyear:float\tname:token_seq\ni0\t1999\tA b\ni1\t\tC\nz\t7\tZ\n")
    (tmp_path / "x.user").write_text("user_id:token\tage:token\nu0\t24\nu1\t30\n")
    lines = [(f"u{n % 3}", f"i{n % 4}", START + n) for n in range(20)]
    return lambda **options: made(tmp_path, lines, INTER, "x.inter", **options)


def test_side_files_give_features_of_items_and_users(recbole):
    prepared = recbole(features=("year", "name", "age"))
    year, name, age = (prepared.features[key] for key in ("year", "name", "age"))
    assert (year.of, name.of, age.of) == ("item", "item", "user")
    numbers = {raw: number for number, raw in enumerate(prepared.item_ids.strings, start=1)}
    assert len(year.values) == len(name.values) == prepared.candidates + 1
    assert year.values[numbers["i0"]] == 1999
    assert np.isnan(year.values[[0, numbers["i1"], numbers["i2"]]]).all()
    assert name.ids.strings == ["A b", "C"]
    assert name.values[[0, numbers["i0"], numbers["i1"], numbers["i2"]]].tolist() == [0, 1, 2, 0]
    ages = dict(zip(prepared.user_ids.strings, age.values[1:], strict=True))
    assert (ages["u0"], ages["u1"]) == (24, 30)
    assert np.isnan(ages["u2"])


def test_a_feature_nowhere_is_refused_with_what_there_is(recbole):
    with pytest.raises(Mistake, match=r"the \.item file has 'item_id', 'year', 'name'.*did you mean 'year'"):
        recbole(features=("yaer",))


def test_the_cache_sees_a_changed_side_file(recbole, tmp_path):
    recbole()
    options = Preparation(data=str(tmp_path / "x.inter"), features=("age",))
    first = prepare_cached(options, tmp_path / "cache", silent)
    (tmp_path / "x.user").write_text("user_id:token\tage:token\nu0\t25\nu1\t30\n")
    assert prepare_cached(options, tmp_path / "cache", silent).path != first.path


# Bad rows


def test_every_kind_of_bad_row_is_counted(tmp_path):
    good = "".join(f"u{n % 3},i{n % 4},{START + n}\n" for n in range(12)).encode()
    bad = b'b,y\nb,y,5,6\nb,\xff,1400000000\nb,,1400000000\nb,y,n/a\nb,y,-1\n"a"b,y,1400000000\n'
    (tmp_path / "a.csv").write_bytes(b"user,item,time\n" + good + bad + good)
    heard = []
    prepared = prepare(Preparation(data=str(tmp_path / "a.csv"), on_bad_row="skip"), heard.append)
    assert prepared.card["source"]["rows"] == [24]
    assert prepared.card["source"]["bad_rows"] == {
        "policy": "left out",
        "too few fields": 1,
        "too many fields": 1,
        "another encoding": 1,
        "broken quotes": 1,
        "no item": 1,
        "a time that is no number": 1,
        "an absurd time": 1,
    }
    assert any("7 bad rows left out" in sentence and "the first found is 14: " in sentence for sentence in heard)


def test_bad_lines_of_json_are_counted(tmp_path):
    good = "".join(f'{{"user": "u{n % 3}", "item": {n % 4}}}\n' for n in range(12))
    bad = '{"user": 1, "item":\n[1]\n\n{"user": 3}\n{"user": {"a": 1}, "item": 3}\n'
    (tmp_path / "a.jsonl").write_text(good + bad)
    card = prepare(Preparation(data=str(tmp_path / "a.jsonl"), on_bad_row="skip"), silent).card
    counted = {"policy": "left out", "broken JSON": 1, "another shape": 2, "no item": 1}
    assert card["source"]["bad_rows"] == counted


def test_a_quote_that_swallows_lines_is_said(tmp_path):
    text = 'user,item\na,x\n"b,y\nc",z\nd,w\n'
    (tmp_path / "a.csv").write_text(text + "".join(f"u,{n}\n" for n in range(4)))
    heard = []
    prepare(Preparation(data=str(tmp_path / "a.csv")), heard.append)
    assert any(":3: a field with line breaks begins here" in sentence for sentence in heard)


@pytest.mark.parametrize("end", [b"", b"v z w\n"])
def test_bad_lines_of_words_are_counted(tmp_path, end):
    good = b"".join(b"u%d i%d\n" % (n // 4, n % 5) for n in range(40))
    (tmp_path / "pairs").write_bytes(good + b"v \xff\n" + end)
    card = prepare(Preparation(data=str(tmp_path / "pairs"), on_bad_row="skip"), silent).card
    counted = {"another encoding": 1} | ({"another number of words": 1} if end else {})
    assert card["source"]["bad_rows"] == {"policy": "left out", **counted}
    assert card["source"]["rows"] == [40]
