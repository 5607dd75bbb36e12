"""SIGTERM to a real process of any verb: one sentence, status 75, no file half written, and the same command works."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
DEMO = ["--demo.users", "60", "--demo.items", "60", "--demo.events", "10", "--demo.genres", "4", "--demo.lag", "2"]
TINY = [*DEMO, *["--model.width", "4", "--epochs", "1", "--batch.size", "4", "--batch.length", "10"]]

PLANTED = """
import importlib, os, signal, sys, time
place, name, *command = sys.argv[1:]
module = importlib.import_module(place)
work = getattr(module, name)
def interrupted(*given, **named):
    done = work(*given, **named)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
    return done
setattr(module, name, interrupted)
from jaxrec.cli import main
sys.exit(main(command))
"""


def run(code, *words, place):
    """A process of its own, with a cache and a folder for temporary files of its own."""
    (place / "temporary").mkdir(exist_ok=True)
    own = {"PYTHONPATH": str(ROOT), "JAXREC_CACHE": str(place / "cache"), "TMPDIR": str(place / "temporary")}
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(
        command, cwd=place, env=os.environ | own, capture_output=True, text=True, timeout=300, check=False
    )


def jaxrec(*words, place):
    return run("import sys; from jaxrec.cli import main; sys.exit(main(sys.argv[1:]))", *words, place=place)


def files(place):
    """What lies there, hidden things included, but for caches."""
    return sorted(
        name for path in place.rglob("*") if not (name := str(path.relative_to(place))).startswith("cache/xla")
    )


def stopped(place, moment, *words):
    """Send SIGTERM when the function ``moment`` has returned; the last line that the process said."""
    began = time.perf_counter()
    done = run(PLANTED, *moment.split(":"), *words, place=place)
    assert done.returncode == 75, done.stderr
    assert time.perf_counter() - began < 50, "it slept on"
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """A file large enough to be told from an empty one, small enough to be prepared at once."""
    rng = np.random.default_rng(0)
    rows = [f"u{rng.integers(40)},i{rng.integers(30)},{1_500_000_000 + n}" for n in range(2000)]
    file = tmp_path_factory.mktemp("log") / "log.csv"
    file.write_text("user,item,time\n" + "\n".join(rows) + "\n")
    return file


@pytest.mark.parametrize("moment", ["jaxrec.data.assemble:gaps", "jaxrec.data.prepared:write_files"])
def test_prepare_leaves_nothing_and_can_be_done_again(tmp_path, log, moment):
    command = ("prepare", "--data", log, "--out", tmp_path / "out")
    said = stopped(tmp_path, moment, *command)
    assert said == "jaxrec: SIGTERM: no file is left half written; the same command does it again"
    assert files(tmp_path) == ["temporary"]
    assert jaxrec(*command, place=tmp_path).returncode == 0
    assert (tmp_path / "out" / "manifest.json").is_file()


def test_prepare_that_streams_takes_its_spool_along(tmp_path, log):
    large = "import jaxrec.data.streaming as s; s.LARGE = {'table': 0, 'parquet': 0}\n"
    done = run(
        large + PLANTED, "jaxrec.data.large", "read_into", "prepare", "--data", log, "--out", "out", place=tmp_path
    )
    assert done.returncode == 75, done.stderr
    assert files(tmp_path) == ["temporary"]


def test_prepare_as_tfds_can_be_done_again(tmp_path, log):
    pytest.importorskip("tensorflow_datasets")
    pytest.importorskip("array_record")
    command = ("prepare", "--data", log, "--out", tmp_path / "out", "--out-format", "tfds")
    stopped(tmp_path, "jaxrec.data.builders:shards", *command)
    assert [name for name in files(tmp_path) if name.startswith("out/") and (tmp_path / name).is_file()] == []
    assert jaxrec(*command, place=tmp_path).returncode == 0


def test_evaluate_leaves_the_run_as_it_was_and_can_be_done_again(tmp_path):
    assert jaxrec("train", *TINY, "--run", "run", place=tmp_path).returncode == 0
    before = files(tmp_path)
    result = (tmp_path / "run" / "result.json").read_bytes()
    command = ("evaluate", "--run", "run", "--metrics", "map@5", "--parquet", "ranks.parquet")
    stopped(tmp_path, "jaxrec.runs.judge:write_ranks", *command)
    assert files(tmp_path) == before
    assert (tmp_path / "run" / "result.json").read_bytes() == result
    done = jaxrec(*command, "--json", place=tmp_path)
    assert done.returncode == 0, done.stderr
    assert '"map@5"' in done.stdout
    assert (tmp_path / "ranks.parquet").is_file()


@pytest.mark.parametrize("entry", ["jaxrec", "jaxrec.runs"])
def test_a_signal_from_outside_is_obeyed_from_the_first_moment(tmp_path, log, entry):
    """As soon as the process listens, which is before it has imported anything large."""
    config = log.with_name("config.json")
    config.write_text(json.dumps({"data": str(log), "run": str(tmp_path / "run")}))
    words = {"jaxrec": ["inspect", str(log), "--html", "page.html"], "jaxrec.runs": [str(config)]}
    command = [sys.executable, "-m", entry, *words[entry]]
    own = {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=tmp_path, env=os.environ | own, stderr=subprocess.PIPE, text=True)
    status = Path(f"/proc/{process.pid}/status")
    if not status.exists():
        process.kill()
        pytest.skip("whether a process listens is told by /proc")
    while process.poll() is None and not listens(status.read_text()):
        time.sleep(0.001)
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75
    assert said.startswith("jaxrec: SIGTERM")
    assert not list(tmp_path.iterdir())


CUT_OFF = """
import os, signal, sys, time
class Finder:  # as a compiled module does that is cut off while it is imported
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(60)
            except BaseException as error:
                raise SystemError("returned a result with an exception set") from error
sys.meta_path.insert(0, Finder())
from {entry} import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("entry", "module"), [("jaxrec.cli", "rich"), ("jaxrec.runs.__main__", "jaxrec.runs.run")])
def test_an_import_that_is_cut_off_ends_in_one_sentence(tmp_path, log, entry, module):
    config = log.with_name("config.json")
    config.write_text(json.dumps({"data": str(log), "run": str(tmp_path / "run")}))
    words = {"jaxrec.cli": ["list", "cells"], "jaxrec.runs.__main__": [str(config)]}
    done = run(CUT_OFF.format(module=module, entry=entry), *words[entry], place=tmp_path)
    assert done.returncode == 75, done.stderr
    assert done.stderr.startswith("jaxrec: SIGTERM")
    assert done.stderr.count("\n") == 1


def listens(status):
    """Whether the process has a handler for SIGTERM."""
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)
