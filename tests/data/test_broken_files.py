"""A broken file is a Mistake that names file, line, rule and remedy: never another library's traceback."""

import gzip
import os
import random

import polars as pl
import pytest

from jaxrec.config import Mistake
from jaxrec.data.options import Preparation
from jaxrec.data.prepare import prepare

DOUBT = (
    "is an event), and its values do not tell which columns are user and item; say so by position, as in "
    "--user-column 1 --item-column 2 --time-column 4, or put a header on top"
)
REMEDY = "fix it, or leave such rows out with --on-bad-row skip"
GOOD = "".join(f"u{n // 6},i{n % 7},{1_000_000_000 + n}\n" for n in range(60))


def silent(_):
    """A listener that does not listen."""


def mistake(path, **options):
    with pytest.raises(Mistake) as caught:
        prepare(Preparation(data=str(path), **options), silent)
    text = str(caught.value)
    assert "\n" not in text
    return text.replace(str(path), "FILE")


def after(tmp_path, content, name="events.csv", **options):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return mistake(path, **options)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "FILE is empty; it should hold one event or one session a line"),
        ("\n \n", "FILE holds only blank lines; it should hold one event or one session a line"),
        ("user,item,time\n", "FILE has a header and no events; add one event a line"),
        ("user,item,time\n\n\n", "FILE has a header and no events; add one event a line"),
        (
            "user,item\na,x\na,x\nb,x\n",
            "the data has 1 item(s), and a recommender needs at least two; give data with more items",
        ),
        (
            "userid,rating,when\n1,5,3\n",
            (
                "FILE has no columns known to be item and user or session; its columns are 'userid', 'rating', 'when'; "
                "name them with --item-column and --user-column, or give positions (--user-column 1) where the first "
                "line is an event"
            ),
        ),
        (
            "item,rating,when\n1,5,3\n",
            (
                "FILE has no column known to be the user or the session; its columns are 'item', 'rating', 'when'; "
                "add --user-column NAME or --session-column NAME"
            ),
        ),
        ("1,2,33\n1,4,55\n", f"FILE has no header ('1', '2', '33' {DOUBT}"),
        ("1\t2\t3\t40\n1\t4\t5\t44\n", f"FILE has no header ('1', '2', '3', '40' {DOUBT}"),
        ("1::2::33\n1::4::55\n", f"FILE has no header ('1', '2', '33' {DOUBT}"),
        (
            "1,2,1400000000,1400000001\n",
            "FILE has no header, and columns 3 and 4 could all be the time; name one: --time-column 4",
        ),
        (
            '{"user": 1}\n',
            "FILE has no column known to be the item; its columns are 'user'; add --item-column NAME",
        ),
        (
            '{"user": 1, "item": 2}\n{"user": 1, "item": }\n',
            f"FILE:2: this is no JSON object: Expecting value at character 21; {REMEDY}",
        ),
        (
            "{'user': 1}\n",
            (
                "FILE:1 begins with {, but no line is a JSON object (JSON puts texts in double quotes, and an object "
                "on one line); write it so"
            ),
        ),
        (
            '{"user": [1], "item": 2}\n',
            f"FILE:1: 'user' holds a list, not a single value; {REMEDY}",
        ),
        (
            '[{"user": 1, "item": 2},\n {"user": 3}]\n',
            f"FILE: entry 2: there is no item here; {REMEDY}",
        ),
        (
            '[{"user": 1, "item": 2},\n {"user": 3\n',
            "FILE:3: the list is no JSON: Expecting ',' delimiter; mend it or write it again",
        ),
        ("<html>\n", "FILE looks like a web page; write it as CSV, JSON lines or Parquet with user, item, time"),
        (
            "1\tU\t11/15/2019 8:55:22 AM\t\tN1 N2\n",
            f"FILE:1: the impressions 'N1 N2' do not end in -1 or -0, so clicks are unknown; {REMEDY}",
        ),
        (
            "1\tU\t11/15/2019 8:55:22 AM\t\tN1-0 N2-0\n",
            "FILE holds impressions and no click (-1); give the log of a training or validation set",
        ),
        (
            "1\tU\t11/15/2019 8:55:22 AM\t\tN1-1\n" * 3 + "1\tU\t11/15/0019 8:55:22 AM\t\tN1-1\n",
            (
                'FILE:4: timestamp "0019-11-15 08:55:22.000000" would be 0019-11-15, among times around 2019 '
                f"(--time-unit would take it so); {REMEDY}"
            ),
        ),
        ("user,item,rating\na,x,1\nb,y\nc,z,\n", f"FILE:3: there are 2 fields, the header has 3; {REMEDY}"),
        ("user,item,time\na,x,5\nb,y\n", f"FILE:3: there are 2 fields, the header has 3; {REMEDY}"),
        ("1::2::978300760\n" * 9 + "1::2\n", f"FILE:10: there are 2 fields, the other lines have 3; {REMEDY}"),
        (
            "user,item,time\na,x,1400000000\nb,y,1400000001\nb,y,-1\n",
            (
                'FILE:4: timestamp "-1" would be 1969-12-31, among times around 2014 (--time-unit would take it so); '
                f"{REMEDY}"
            ),
        ),
        (
            "user,item,time\na,x,1400000000\nb,y,1400000001000\nb,y,1400000002\n",
            f'FILE:3: timestamp "1400000001000" is beyond any date in seconds; {REMEDY}',
        ),
        ("1\n2\n", "FILE has one word on every line; a line should be `user item` or a session's items"),
        ("user,item,time\na,x,5\nb,y,n/a\n", f'FILE:3: timestamp "n/a" is not a number; {REMEDY}'),
        ("user,item,time\na,x,5\nb,y,nan\n", f'FILE:3: timestamp "nan" is not a number; {REMEDY}'),
        ("user,item,time\na,x,5\nb,y,\n", f"FILE:3: there is no time here; {REMEDY}"),
        (
            "user,item,time\na,x,2014-01-01\n\nb,y,01/02/2014\n",
            f'FILE:4: timestamp "01/02/2014" is not ISO text like the first ("2014-01-01"); {REMEDY}',
        ),
        (
            "user,item,time\na,x,1e30\n",
            f'FILE:2: timestamp "1e30" is beyond any date in nanoseconds; {REMEDY}',
        ),
        (
            "user,item\n\na,x\n,y\n,z\n",
            f"FILE:4: there is no user here (1 more like it); {REMEDY}",
        ),
        ('user,item\n"two\nlines",x\nb,""\n', f"FILE:4: there is no item here; {REMEDY}"),
        ("user,item,rating\na,x,1\n,,4\n", f"FILE:3: there is no user here; {REMEDY}"),
        (
            "user,item,title\na,x,t\nb,y,one, two\n",
            f"FILE:3: there are 4 fields, the header has 3; quote fields that contain ','; {REMEDY}",
        ),
        (b"user,item\na,x\nb,\xff\n", f"FILE:3: the text is not UTF-8; save the file as UTF-8; {REMEDY}"),
        (b"1 2\n1 3\n1 \xff\n", f"FILE:3: the text is not UTF-8; save the file as UTF-8; {REMEDY}"),
        (b"a\0b,c\n", "FILE is not text (it holds zero bytes); give CSV, TSV, .inter, text or Parquet"),
        ("user,item\na,x\nb,y\n".encode("utf-16"), "FILE is UTF-16 text; save it as UTF-8"),
        (b"PK\x03\x04....", "FILE is a zip archive; unpack it"),
        (
            "1 2\n1 3\n" * 9 + "1 2 3\n",
            f"FILE:19: '1 2 3' is not two words, and the first lines say that a line is `user item`; {REMEDY}",
        ),
        (
            "session_id:token\titem_id_list:token_seq\titem_id:token\n1\t2 3\t4\n",
            "FILE repeats the history on every row (item_id_list); give one event a row",
        ),
    ],
)
def test_text(tmp_path, content, sentence):
    assert after(tmp_path, content) == sentence


@pytest.mark.parametrize("skip", ["error", "skip"])
def test_an_open_quote_ends_the_reading_whatever_is_skipped(tmp_path, skip):
    text = after(tmp_path, 'user,item\nc,z\n"a,x\nb,y\n', on_bad_row=skip)
    assert text == "FILE:3: a quote is opened here and never closed; close it, or double quotes inside a field"


@pytest.mark.parametrize(
    ("options", "content", "sentence"),
    [
        (
            {"item_column": "sonng"},
            "user,song\na,x\n",
            "FILE has no column 'sonng' (--item-column); its columns are 'user', 'song'; did you mean 'song'?",
        ),
        (
            {"user_column": "item"},
            "user,item\na,x\n",
            "FILE: column 'item' is taken for two roles; name each, as in --user-column NAME",
        ),
        (
            {"user_column": "u"},
            "1 2\n1 3\n",
            "FILE:1 names no columns, so none is 'u'; add a header or drop --user-column",
        ),
        (
            {"sequence": "session"},
            "user,item\na,x\na,y\n",
            "--sequence session needs a session column; name it with --session-column or use --sequence user",
        ),
        (
            {"sequence": "user"},
            "session,item\na,x\na,y\n",
            "--sequence user needs a user; the data has sessions only, so use --sequence session",
        ),
        (
            {"split": "time"},
            "user,item\na,x\na,y\n",
            "--split time needs times, and the data has none; name the column with --time-column NAME",
        ),
        (
            {"split": "given"},
            "user,item\na,x\n",
            "--split given needs a test file; name it with --test FILE or choose another --split",
        ),
        (
            {},
            "user,item\na,x\na,y\n",
            (
                "split leave-one-out leaves nothing to validate on (valid_targets = 0); "
                "a sequence needs three events to be split"
            ),
        ),
        (
            {"k_core": 5},
            "user,item\na,x\na,y\n",
            "the filters leave 0 item(s), and a recommender needs at least two; lower --k-core and --min-*-events",
        ),
    ],
)
def test_options_that_the_data_does_not_allow(tmp_path, options, content, sentence):
    assert after(tmp_path, content, **options) == sentence


def test_files_that_do_not_fit_together(tmp_path):
    (tmp_path / "test.csv").write_text("session,item\n1,x\n1,y\n")
    text = after(tmp_path, "user,item\na,x\na,y\n", test=str(tmp_path / "test.csv"))
    assert text == "only 1 of the 2 given files have a user; give them the same columns"


def test_a_given_split_is_not_filtered(tmp_path):
    (tmp_path / "test.csv").write_text("user,item\na,x\n")
    text = after(tmp_path, "user,item\na,x\na,y\n", test=str(tmp_path / "test.csv"), k_core=2)
    assert text.startswith("filters would change a given split")


def test_paths(tmp_path):
    assert mistake(tmp_path / "nowhere.csv") == "FILE does not exist; give the path of a file of events, or 'demo'"
    assert mistake(tmp_path) == "FILE is a directory without prepared data or files; name a file of events"
    assert mistake(tmp_path / "*.csv") == (
        "FILE fits no file; give the path of a file of events, or a pattern like 'logs/*.parquet'"
    )


def test_pipes_and_paths_that_cannot_be_looked_at(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "is a pipe or a device" in mistake(tmp_path / "pipe")
    assert mistake(tmp_path / ("x" * 300)).startswith("FILE cannot be read (File name too long)")


def test_one_user_is_said(tmp_path):
    (tmp_path / "a.csv").write_text("user,item\n" + "".join(f"u,{n}\n" for n in range(5)))
    heard = []
    prepare(Preparation(data=str(tmp_path / "a.csv")), heard.append)
    assert any("has one user only, 'u'" in sentence for sentence in heard)


@pytest.mark.skipif(os.geteuid() == 0, reason="an administrator may read every file")
def test_permission(tmp_path):
    path = tmp_path / "secret.csv"
    path.write_text("user,item\n")
    path.chmod(0)
    assert mistake(path) == "FILE cannot be read (Permission denied); check the path and its permissions"


def test_permission_as_the_system_reports_it(tmp_path, monkeypatch):
    path = tmp_path / "secret.csv"
    path.write_text("user,item\n")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("jaxrec.data.sources.open", refuse, raising=False)
    assert mistake(path) == "FILE cannot be read (Permission denied); check the path and its permissions"


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_cut_gzip_file(tmp_path, share):
    whole = gzip.compress(("user,item,time\n" + GOOD).encode())
    text = after(tmp_path, whole[: int(share * len(whole))], "events.csv.gz")
    assert text.startswith("FILE is a damaged or cut gzip file (Compressed file ended")


def test_a_gzip_file_cut_beyond_the_sample(tmp_path):
    noise = random.Random(0)
    lines = "".join(f"{n // 9} {noise.getrandbits(40)}\n" for n in range(90_000))
    whole = gzip.compress(lines.encode(), 1)
    text = after(tmp_path, whole[: int(0.95 * len(whole))], "events.txt.gz")
    assert text.startswith("FILE is a damaged or cut gzip file (Compressed file ended")


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_a_cut_parquet_file(tmp_path, share):
    path = tmp_path / "events.parquet"
    pl.DataFrame({"user": list("aabb") * 9, "item": list("xyxz") * 9}).write_parquet(path)
    text = after(tmp_path, path.read_bytes()[: int(share * path.stat().st_size)], path.name)
    assert "Parquet" in text
    assert text.startswith("FILE is ")


def test_a_parquet_file_by_name_only(tmp_path):
    text = after(tmp_path, "user,item\na,x\n", "events.parquet")
    assert text == "FILE is not a Parquet file (it does not begin with PAR1); write it again or rename it"


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"user": ["a", None], "item": [1, 2]}, f"FILE: row 2: there is no user here; {REMEDY}"),
        (
            {"user": [1.0, float("nan")], "item": [1, 2]},
            f"FILE: row 2: there is no user here; {REMEDY}",
        ),
        (
            {"user": [1, 2], "item": [1.0, 2.5]},
            f"FILE: row 2: item 2.5 is not a whole number; write ids as text or whole numbers; {REMEDY}",
        ),
        (
            {"user": [1], "item": [["a", "b"]]},
            "FILE: column 'item' holds List(String), not ids; write one id a row as text or a whole number",
        ),
        (
            {"user": [1, 2], "item": [1.0, 2.0**60]},
            (
                "FILE: row 2: item 1.152921504606847e+18 is too large for a float to tell it from its neighbours; "
                f"write ids as text; {REMEDY}"
            ),
        ),
        (
            {"user": [1, 2], "item": [1, 2], "time": [5, None]},
            f"FILE: row 2: there is no time here; {REMEDY}",
        ),
        (
            {"user": [1] * 3, "item": [1] * 3, "time": pl.Series([18_000, 18_000, 9_999_999], dtype=pl.Date)},
            (
                'FILE: row 3: timestamp "+29349-01-25" would be 29349-01-25, among times around 2019 '
                f"(--time-unit would take it so); {REMEDY}"
            ),
        ),
        (
            {"user": [1], "item": [1], "time": [True]},
            "FILE: a time of type Boolean is neither a number nor a date; name another --time-column",
        ),
    ],
)
def test_parquet_columns(tmp_path, columns, sentence):
    path = tmp_path / "events.parquet"
    pl.DataFrame(columns).write_parquet(path)
    assert mistake(path) == sentence


def damaged(content, noise):
    """The bytes with one to three cuts, flips or insertions."""
    damage = bytearray(content)
    for _ in range(noise.randint(1, 3)):
        place = noise.randrange(len(damage))
        kind = noise.choice(["cut", "flip", "insert"])
        if kind == "cut":
            del damage[place + 1 :]
        elif kind == "flip":
            damage[place] ^= 1 << noise.randrange(8)
        else:
            damage[place:place] = noise.choice([b'"', b"\n", b",", b" ", b"\0", b"\xff", b"\r", b"\n\n"])
    return bytes(damage)


@pytest.mark.parametrize("name", ["events.csv", "events.inter", "pairs.txt", "sessions.txt", "events.csv.gz"])
def test_random_damage_is_read_or_is_a_mistake(tmp_path, name):
    table = "user,item,time\n" + GOOD
    atomic = table.replace("user,item,time", "user_id:token,item_id:token,timestamp:float").replace(",", "\t")
    pairs = "".join(f"{n // 6} {n % 7}\n" for n in range(60))
    sessions = "".join(" ".join(str(m % 7) for m in range(n, n + 1 + n % 5)) + "\n" for n in range(40))
    content = {"events.inter": atomic, "pairs.txt": pairs, "sessions.txt": sessions}.get(name, table).encode()
    content = gzip.compress(content) if name.endswith(".gz") else content
    path, noise, outcomes = tmp_path / name, random.Random(name), []
    for _ in range(60):
        path.write_bytes(damaged(content, noise))
        try:
            prepare(Preparation(data=str(path)), silent)
            outcomes.append("read")
        except Mistake:
            outcomes.append("mistake")
    assert "mistake" in outcomes
