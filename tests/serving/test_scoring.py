"""Parts hold what `recommend` gives; killed and run again they are the same files; Spark gives the same lists."""

import json
import os
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from jaxrec.config import Mistake
from jaxrec.data.demo import Demo
from jaxrec.data.options import Preparation
from jaxrec.data.prepare import prepare
from jaxrec.data.spark_session import need_java
from jaxrec.runs import build, bundle
from jaxrec.runs.options import Config, Model, Score
from jaxrec.serving import load, scoring

DEMO = Demo(users=40, items=60, events=10, genres=4, lag=2)


def quiet(_):
    pass


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    data = prepare(Preparation(demo=DEMO), quiet)
    config = Config(demo=DEMO, model=Model(width=8, depth=1))
    directory = tmp_path_factory.mktemp("scoring") / "bundle"
    bundle.save(directory, build.model(config.model, build.offered(data), seed=1), data, config)
    return directory


@pytest.fixture(scope="module")
def people(run):
    """Histories of every length, some empty, some of nothing but items that nobody knows."""
    ids, rng = load(run).bundle.item_ids.strings, np.random.default_rng(0)
    known = [[ids[item] for item in rng.integers(0, len(ids), rng.integers(0, 40))] for _ in range(200)]
    return [*known, ["nobody knows this"], []]


@pytest.fixture(params=["jsonl", "csv", "txt", "parquet", "directory"])
def written(request, people, tmp_path):
    kind, path = request.param, tmp_path / f"people.{request.param}"
    if kind == "parquet":
        pl.DataFrame({"history": people, "ignored": range(len(people))}).write_parquet(path, row_group_size=30)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps({"history": one, "user": f"u{n}"}) + "\n" for n, one in enumerate(people)))
    elif kind == "directory":
        path.mkdir()
        for number, begin in enumerate(range(0, len(people), 90)):
            lines = "".join(json.dumps(one) + "\n" for one in people[begin : begin + 90])
            (path / f"{number}.jsonl").write_text(lines)
    else:
        write_words(path, people, "," if kind == "csv" else " ")
    return path


def write_words(path, people, separator):
    path.write_text("".join(separator.join(one).replace("nobody knows this", "nobody") + "\n" for one in people))


def options(run, data, out, **more):
    return Score(**{"run": str(run), "data": str(data), "out": str(out), "k": 5, "part": 64} | more)


def same_as_recommend(frame, model, people, **how):
    """Lists as `recommend` gives them; it groups histories otherwise, so that scores may differ in their last bits."""
    assert frame["row"].to_list() == list(range(len(people)))
    for items, scores, expected in zip(frame["items"], frame["scores"], model.recommend(people, **how), strict=True):
        assert items.to_list() == [item for item, _ in expected]
        np.testing.assert_allclose(scores, [score for _, score in expected], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seen", [{}, {"exclude_seen": True}, {"no_exclude_seen": True}])
def test_it_is_what_recommend_gives(run, people, tmp_path, seen):
    path, how = tmp_path / "people.txt", {"exclude_seen": "exclude_seen" in seen} if seen else {}
    write_words(path, people, " ")
    found = scoring.score(options(run, path, tmp_path / "out", **seen), quiet)
    assert (found["histories"], found["new"], found["parts"]) == (202, 202, 4)
    same_as_recommend(pl.read_parquet(tmp_path / "out/*.parquet"), load(run), people, k=5, **how)


def test_every_form_of_histories_is_read(run, people, written, tmp_path):
    scoring.score(options(run, written, tmp_path / "out"), quiet)
    frame = pl.read_parquet(tmp_path / "out/*.parquet")
    same_as_recommend(frame, load(run), people, k=5)
    users = [f"u{n}" for n in range(len(people))] if written.suffix == ".jsonl" else [None] * len(people)
    assert frame["user"].to_list() == users


KILLED = """
import os, sys
from jaxrec.runs.options import Score
from jaxrec.serving import scoring
replace, left = os.replace, [int(sys.argv[4])]
def dies(one, two):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), 9)
    replace(one, two)
os.replace = dies
scoring.score(Score(run=sys.argv[1], data=sys.argv[2], out=sys.argv[3], k=5, part=64), print)
"""


def killed(run, path, out):
    """Scoring that was killed in its third part; when each finished part was written, by name."""
    command = [sys.executable, "-c", KILLED, str(run), str(path), str(out), "4"]  # the question, two parts, half of one
    assert subprocess.run(command, check=False).returncode == -9
    assert list(out.glob(".*.tmp"))
    parts = written_at(out)
    assert len(parts) == 2
    return parts


def written_at(out):
    return {file.name: file.stat().st_mtime_ns for file in out.glob("*.parquet")}


def files(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_killed_and_run_again_it_is_the_same(run, people, tmp_path):
    path, out = tmp_path / "people.txt", tmp_path / "out"
    write_words(path, people, " ")
    scoring.score(options(run, path, tmp_path / "whole"), quiet)
    parts = killed(run, path, out)
    found = scoring.score(options(run, path, out), quiet)
    assert (found["histories"], found["new"]) == (202, 202 - 2 * 64)
    assert written_at(out).items() >= parts.items()  # finished parts were left alone
    assert files(tmp_path / "whole") == files(out)
    assert scoring.score(options(run, path, out), quiet)["new"] == 0


def test_a_part_that_was_damaged_is_written_again(run, people, tmp_path):
    path, out = tmp_path / "people.txt", tmp_path / "out"
    write_words(path, people, " ")
    scoring.score(options(run, path, out), quiet)
    whole = files(out)
    for part, content in (("part-00001.parquet", whole["part-00001.parquet"][:500]), ("part-00002.parquet", b"")):
        (out / part).write_bytes(content)
    pl.read_parquet(out / "part-00003.parquet")[:3].write_parquet(out / "part-00003.parquet")
    assert scoring.score(options(run, path, out), quiet)["new"] == 202 - 64
    assert files(out) == whole
    for broken in ("{", "[]", "[1]"):
        (out / "_score.json").write_text(broken)
        with pytest.raises(Mistake, match=r"_score\.json is damaged; choose another --out or remove"):
            scoring.score(options(run, path, out), quiet)


def test_events_that_the_model_does_not_know_are_counted_and_said(run, tmp_path):
    path, heard = tmp_path / "people.jsonl", []
    path.write_text("".join(json.dumps(one) + "\n" for one in [["g0-i000", "x"], ["x", "y", "x"], [], ["g0-i000"]]))
    found = scoring.score(options(run, path, tmp_path / "out"), heard.append)
    assert found["of_new"] == {"events": 6, "unknown": 4, "strange": 1}
    assert heard[-1] == (
        "the model does not know the item of 4 of 6 events; 1 histories have no other and get the most popular items"
    )
    path.write_text('["g0-i000"]\n')
    heard.clear()
    scoring.score(options(run, path, tmp_path / "known"), heard.append)
    assert not any("does not know" in sentence for sentence in heard)


@pytest.mark.parametrize(("change", "sentence"), [({"k": 6}, "for another k"), ({"part": 9}, "for another part")])
def test_another_question_does_not_go_into_the_same_folder(run, people, tmp_path, change, sentence):
    path = tmp_path / "people.txt"
    write_words(path, people[:3], " ")
    scoring.score(options(run, path, tmp_path / "out"), quiet)
    with pytest.raises(Mistake, match=sentence):
        scoring.score(options(run, path, tmp_path / "out", **change), quiet)
    path.write_text("g0-i000\n")
    with pytest.raises(Mistake, match="for another data"):
        scoring.score(options(run, path, tmp_path / "out"), quiet)


def test_mistakes_name_the_place(run, tmp_path):
    path = tmp_path / "people.jsonl"
    path.write_text('["a"]\n{"histori": ["a"]}\n')
    with pytest.raises(Mistake, match=r"people.jsonl:2: a history has no 'histori'"):
        scoring.score(options(run, path, tmp_path / "out"), quiet)
    pl.DataFrame({"history": [["a"], ["a"]], "times": [[1.0], [1.0, 2.0]]}).write_parquet(tmp_path / "times.parquet")
    with pytest.raises(Mistake, match=r"times.parquet: row 2: 1 events have 2 times; give one an event"):
        scoring.score(options(run, tmp_path / "times.parquet", tmp_path / "timed"), quiet)
    for name in ("nofile", "demo"):
        with pytest.raises(Mistake, match=f"{name} does not exist; give a file with a history a line"):
            scoring.score(options(run, tmp_path / name, tmp_path / "out"), quiet)
    pl.DataFrame({"items": [["a"]]}).write_parquet(tmp_path / "people.parquet")
    with pytest.raises(Mistake, match="no column history; it has items"):
        scoring.score(options(run, tmp_path / "people.parquet", tmp_path / "other"), quiet)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    with pytest.raises(Mistake, match="did not write it"):
        scoring.score(options(run, path, tmp_path / "mine"), quiet)


def test_whole_numbers_stay_whole_numbers(run, tmp_path):
    model = load(run)
    assert not scoring.whole_numbers(model)
    read = scoring.of_lines(["g0-i000"], "", 1)
    frame = scoring.recommended(model, read, 7, options(run, "", ""))
    assert (frame["row"].to_list(), frame["items"].dtype) == ([7], pl.List(pl.String))


def on_spark(run, data, out, master="local[2]", **environ):
    """`jaxrec score --on spark` in a process of its own: JAX's threads and the fork that begins Java do not mix."""
    pytest.importorskip("pyspark")
    try:
        need_java()
    except Mistake as missing:
        pytest.skip(str(missing))
    words = ["score", "--on", "spark", "--spark-master", master, "--run", str(run), "--data", str(data), "--json"]
    words += ["--out", str(out), "--k", "5", "--part", "64"]
    submit = "--conf spark.sql.files.maxPartitionBytes=15000 --conf spark.driver.host=127.0.0.1 pyspark-shell"
    told = {"JDK_JAVA_OPTIONS": "-XX:TieredStopAtLevel=1", "PYSPARK_SUBMIT_ARGS": submit}
    command = [sys.executable, "-m", "jaxrec", *words]
    return subprocess.run(command, check=False, env=os.environ | told | environ, capture_output=True, text=True)


def test_spark_goes_on_and_ends_in_the_same_files(run, people, tmp_path):
    """What was killed here is finished there: a part is a part, whoever wrote it."""
    path, out = tmp_path / "people.txt", tmp_path / "out"
    write_words(path, people, " ")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    scoring.score(options(run, path, tmp_path / "whole"), quiet)
    parts = killed(run, path, out)
    done = on_spark(run, path, out)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["histories"], found["parts"], found["new"]) == (202, 4, 202 - 2 * 64)
    assert written_at(out).items() >= parts.items()
    assert files(tmp_path / "whole") == files(out)


@pytest.mark.long
def test_spark_gives_the_same_of_every_form(run, written, tmp_path):
    scoring.score(options(run, written, tmp_path / "whole"), quiet)
    done = on_spark(run, written, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "whole") == files(tmp_path / "out")


# Every Python that Spark begins reads this too. The first to name its third part ends the driver, then itself.
DRIVER_DIES = """
import os
driver, replace = int(os.environ.setdefault("THE_DRIVER", str(os.getpid()))), os.replace
def dies(one, two):
    if str(two).endswith("part-00002.parquet"):
        os.kill(driver, 9)
        os.kill(os.getpid(), 9)
    replace(one, two)
os.replace = dies
"""


@pytest.mark.long
def test_a_spark_job_that_was_killed_goes_on(run, people, tmp_path):
    path, out = tmp_path / "people.txt", tmp_path / "out"
    write_words(path, people, " ")
    scoring.score(options(run, path, tmp_path / "whole"), quiet)
    (tmp_path / "fault").mkdir()
    (tmp_path / "fault" / "sitecustomize.py").write_text(DRIVER_DIES)
    paths = os.pathsep.join([str(tmp_path / "fault"), os.environ.get("PYTHONPATH", "")])
    done = on_spark(run, path, out, master="local[1]", PYTHONPATH=paths)
    assert done.returncode == -9
    parts = written_at(out)
    assert 0 < len(parts) < 4
    assert list(out.glob(".*.tmp"))
    done = on_spark(run, path, out)
    assert json.loads(done.stdout)["new"] == 202 - 64 * len(parts), done.stderr
    assert written_at(out).items() >= parts.items()
    assert files(tmp_path / "whole") == files(out)
    assert scoring.score(options(run, path, out), quiet)["new"] == 0


@pytest.mark.long
@pytest.mark.parametrize(
    ("line", "sentence"),
    [(b'{"histori": ["a"]}', "a history has no 'histori'"), (b"\xff", "the text is not UTF-8; save the file as UTF-8")],
)
def test_a_mistake_in_a_worker_is_one_sentence(run, tmp_path, line, sentence):
    path = tmp_path / "people.txt"
    path.write_bytes(b'["a"]\n' + line + b"\n")
    done = on_spark(run, path, tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"jaxrec: {path}:2: {sentence}")
