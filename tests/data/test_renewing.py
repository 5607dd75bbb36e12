"""`jaxrec prepare` again: nothing where the same lies there, never something half made, whatever was killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jaxrec.config import Mistake
from jaxrec.data.options import Preparation
from jaxrec.data.prepare import prepare
from jaxrec.data.prepared import is_prepared, load
from jaxrec.data.renewing import prepare_into

ROOT = Path(__file__).resolve().parents[2]
LINES = [f"u{n % 5},i{n * n % 7},{1_500_000_000 + n}" for n in range(60)]


@pytest.fixture
def log(tmp_path):
    return written(tmp_path / "log.csv", LINES)


def written(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("user,item,time\n" + "\n".join(lines) + "\n")
    return path


def into(out, path, heard=None, onto=None, replace=False, **options):
    say = (lambda sentence: None) if heard is None else heard.append
    chosen = Preparation(data=str(path), **options)
    return prepare_into(chosen, str(out), say, None if onto is None else str(onto), replace)


def stamps(folder):
    return {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in [folder, *folder.iterdir()]}


def test_the_same_file_and_options_write_nothing_wherever_the_file_lies(log, tmp_path):
    out = tmp_path / "out"
    into(out, log, split="last-n")
    before = stamps(out)
    os.utime(log, (1, 1))
    moved = shutil.copy(log, written(tmp_path / "elsewhere" / "other.csv", []))
    for path in (log, moved):
        heard = []
        found = into(out, path, heard, split="last-n")
        assert heard == [f"{out}: holds this already (files of the same SHA-256, the same options); nothing is written"]
        assert found.card == load(out).card
        assert stamps(out) == before
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["elsewhere", "log.csv", "out"]


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (True, {}, "was made of other files, or files that have changed since; choose"),
        (False, {"split": "last-n", "ties": "shuffle"}, "was prepared with another --split and --ties; choose"),
    ],
)
def test_other_contents_are_refused_before_any_work_and_replaced_when_asked(log, tmp_path, change, options, words):
    out = tmp_path / "out"
    into(out, log)
    before = stamps(out)
    stat = log.stat()
    if change:  # neither size nor time tells
        log.write_text(log.read_text().replace("i2", "i9"))
        os.utime(log, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    heard = []
    with pytest.raises(Mistake, match=words):
        into(out, log, heard, **options)
    assert heard == []
    assert stamps(out) == before
    into(out, log, replace=True, **options)
    fresh = prepare(Preparation(data=str(log), **options), heard.append)
    assert load(out, verify=True).card == json.loads(json.dumps(fresh.card))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["log.csv", "out"]


def test_what_is_no_prepared_data_is_never_replaced(log, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thoughts.txt").write_text("dear")
    with pytest.raises(Mistake, match=r"thoughts\.txt is no part of prepared data"):
        into(tmp_path / "notes", log, replace=True)
    into(tmp_path / "out", log)
    (tmp_path / "out" / "thoughts.txt").write_text("dear")
    with pytest.raises(Mistake, match=r"thoughts\.txt is no part of prepared data"):
        into(tmp_path / "out", log, replace=True, split="last-n")
    assert load(tmp_path / "out", verify=True)


def test_damaged_data_of_the_same_is_made_again(log, tmp_path):
    out = tmp_path / "out"
    into(out, log)
    (out / "items.npy").write_bytes(b"")
    heard = []
    into(out, log, heard)
    assert "done now, from the source" in heard[0]
    assert load(out, verify=True)


def test_a_file_grows_in_its_place_once(log, tmp_path):
    out, more = (
        tmp_path / "out",
        written(tmp_path / "more.csv", ["u9,i3,1500000100", "u9,new,1500000101", "u1,i0,1400000000"]),
    )
    into(out, log)
    into(out, more, onto=out)
    assert load(out).card["counts"]["events"] == 63
    before, heard = stamps(out), []
    into(out, more, heard, onto=out)
    assert ["nothing is written" in sentence for sentence in heard] == [True]
    assert stamps(out) == before
    with pytest.raises(Mistake, match=r"holds the events of .*more\.csv already"):
        into(tmp_path / "other", more, onto=out)


def test_damaged_data_does_not_grow(log, tmp_path):
    """The hashes of what is written would vouch for what was wrong in it."""
    out, more = tmp_path / "out", written(tmp_path / "more.csv", ["u9,i3,1500000100"])
    into(out, log)
    damaged = bytearray((out / "items.npy").read_bytes())
    damaged[-3] ^= 1
    (out / "items.npy").write_bytes(damaged)
    with pytest.raises(Mistake, match=r"items"):
        into(tmp_path / "other", more, onto=out)
    assert not (tmp_path / "other").exists()


def test_growing_again_with_the_same_writes_nothing(log, tmp_path):
    more = written(tmp_path / "more.csv", ["u9,i3,1500000100"])
    into(tmp_path / "a", log)
    into(tmp_path / "b", more, onto=tmp_path / "a")
    before, heard = stamps(tmp_path / "b"), []
    into(tmp_path / "b", more, heard, onto=tmp_path / "a")
    assert ["nothing is written" in sentence for sentence in heard] == [True]
    assert stamps(tmp_path / "b") == before
    written(more, ["u9,i3,1500000101"])
    with pytest.raises(Mistake, match="was made of other files"):
        into(tmp_path / "b", more, onto=tmp_path / "a")


REPEATS = [f"u{n % 5},i{n // 10},{1_500_000_000 + n}" for n in range(60)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ties": "shuffle"}, "its ties are shuffled with seed 0"),
        ({"collapse_repeats": True}, "collapse-repeats left out events that could come back"),
        ({"min_item_events": 11}, None),
        ({"split": "given", "test": "log.csv"}, "its split was given by files"),
        ({"features": ("kind",)}, "it keeps features that are text"),
    ],
)
def test_what_cannot_be_added_to_says_why(tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    written(Path("log.csv"), REPEATS)
    text = Path("log.csv").read_text().splitlines()
    Path("log.csv").write_text("\n".join([f"{text[0]},kind", *(f"{line},a" for line in text[1:])]) + "\n")
    if words is None:
        with pytest.raises(Mistake):
            into("out", "log.csv", **options)
        return
    into("out", "log.csv", **options)
    Path("more.csv").write_text("user,item,time,kind\nu1,i1,1500000200,b\n")
    with pytest.raises(Mistake, match=rf"out cannot be added to, because {words}.*; prepare all the files together"):
        into("more", "more.csv", onto="out")


def test_options_are_those_of_before_or_refused_and_columns_alike(log, tmp_path):
    into(tmp_path / "out", log, split="last-n", last=2)
    more = written(tmp_path / "more.csv", ["u1,i1,1500000200"])
    with pytest.raises(Mistake, match=r"out was prepared otherwise than --last asks"):
        into(tmp_path / "more", more, onto=tmp_path / "out", last=3)
    grown = into(tmp_path / "more", more, onto=tmp_path / "out", split="last-n")
    assert grown.card["split"] == {"name": "last-n", "last": 2}
    more.write_text("who,item,time\nu1,i1,1500000201\n")
    with pytest.raises(Mistake, match="user"):
        into(tmp_path / "other", more, onto=tmp_path / "out")
    with pytest.raises(Mistake, match="name the file with --data"):
        into(tmp_path / "other", "demo", onto=tmp_path / "out")
    with pytest.raises(Mistake, match="drop it, or drop --on spark"):
        prepare_into(Preparation(), "other", print, "out", make=lambda options, say: pytest.fail("it prepared"))


def test_data_of_before_raw_events_were_kept_loads_and_cannot_be_added_to(log, tmp_path):
    out = tmp_path / "out"
    into(out, log)
    names = json.loads((out / "manifest.json").read_text())
    for file in out.glob("raw.*"):
        del names[file.name]
        file.unlink()
    (out / "manifest.json").write_text(json.dumps(names))
    assert load(out, verify=True).raw is None
    with pytest.raises(Mistake, match="no raw events were kept in it"):
        into(tmp_path / "b", written(tmp_path / "more.csv", LINES[:2]), onto=out)


KILLED = """
import importlib, os, signal, sys
place, name, count, *command = sys.argv[1:]
import jaxrec.data.streaming, jaxrec.data.buckets, jaxrec.data.large_growing
jaxrec.data.streaming.LARGE = {"table": 0, "parquet": 0}
jaxrec.data.buckets.ROWS = 20
jaxrec.data.large_growing.MANY = 0
module, _, method = place.partition(":")
owner = importlib.import_module(module)
owner = getattr(owner, method) if method else owner
work, left = getattr(owner, name), int(count)
def killed(*given, **named):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    return work(*given, **named)
setattr(owner, name, killed)
from jaxrec.cli import main
sys.exit(main(command))
"""
POINTS = {
    "after coding": ("jaxrec.data.large", "division", 1),
    "spreading over buckets": ("jaxrec.data.buckets", "spread", 1),
    "between two buckets": ("jaxrec.data.buckets:Writer", "write", 2),
    "before the first array": ("jaxrec.data.prepared", "write_array", 1),
    "between two arrays": ("jaxrec.data.prepared", "write_array", 6),
    "hashing, no manifest": ("jaxrec.data.prepared", "file_sha256", 9),
    "before it takes its place": ("jaxrec.data.prepared", "take_place", 1),
    "before the new name": ("os", "replace", 1),
    "between two names": ("os", "replace", 2),
}


SHORT = [("new", point) for point in ("after coding", "between two buckets", "hashing, no manifest")]
SHORT += [("onto", point) for point in ("between two arrays", "between two names")]
REST = [(verb, point) for verb in ("new", "replace", "onto") for point in POINTS if (verb, point) not in SHORT]
REST.remove(("new", "between two names"))  # nothing is moved aside
COMMANDS = {
    "new": ["--data", "log.csv", "--out", "out"],
    "replace": ["--data", "log.csv", "--out", "out", "--replace", "--split", "last-n"],
    "onto": ["--data", "more.csv", "--onto", "out", "--out", "out"],
}


def run(verb, point, place):
    """The command in a process of its own, killed at a point; its exit status."""
    own = {"PYTHONPATH": str(ROOT), "TMPDIR": str(place / "temporary")}
    command = [sys.executable, "-c", KILLED, *map(str, point), "prepare", *COMMANDS[verb]]
    return subprocess.run(command, cwd=place, env=os.environ | own, capture_output=True, check=False).returncode


def begun(place, verb):
    """A folder with what the command needs; the card of what is there before it."""
    (place / "temporary").mkdir()
    log = written(place / "log.csv", LINES)
    written(place / "more.csv", ["u9,i3,1500000100", "u9,new,1500000101"])
    return None if verb == "new" else into(place / "out", log).card


def lying(place):
    """Everything in a folder, with its bytes."""
    return {str(path.relative_to(place)): path.is_file() and path.read_bytes() for path in place.rglob("*")}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What each command leaves that nobody kills."""
    made = {}

    def of(verb):
        if verb not in made:
            place = tmp_path_factory.mktemp("undisturbed")
            begun(place, verb)
            assert run(verb, ("os", "replace", 99), place) == 0
            made[verb] = lying(place)
        return made[verb]

    return of


@pytest.mark.parametrize(("verb", "point"), [*SHORT, *(pytest.param(*case, marks=pytest.mark.long) for case in REST)])
def test_killed_anywhere_the_same_command_ends_the_same(tmp_path, undisturbed, verb, point):
    before = begun(tmp_path, verb)
    assert run(verb, POINTS[point], tmp_path) == -signal.SIGKILL
    if is_prepared(tmp_path / "out"):  # only what was there already
        assert load(tmp_path / "out", verify=True).card == json.loads(json.dumps(before))
    assert run(verb, ("os", "replace", 99), tmp_path) == 0
    assert lying(tmp_path) == undisturbed(verb)
