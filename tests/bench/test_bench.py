"""Timing tells longer from shorter, compiling from running, and where a number comes from."""

import json
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec.bench.timing import Times, alternate, append_row, ratio, stages
from jaxrec.runs import machine


def test_the_card_names_what_a_number_depends_on(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    card = machine.card()
    assert card["packages"]["jax"].startswith(jax.__version__)
    assert card["packages"]["numpy"] == np.__version__
    assert card["settings"]["OMP_NUM_THREADS"] == "3"
    assert card["devices"] == ["8 x cpu (cpu)"]
    assert 1 <= card["cores_usable"] <= card["cores"]
    assert card["cpu"]
    assert card["memory_gib"] > 0
    assert json.loads(json.dumps(card)) == card


def test_the_card_does_not_import_jax_unless_asked():
    code = "import sys; from jaxrec.runs.machine import card; c = card(devices=False); print('jax' in sys.modules, c)"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("False {'cpu'")
    assert "devices" not in done.stdout


def test_the_commit_is_that_of_the_checkout_itself(tmp_path):
    def git(*words):
        command = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert machine._git(tmp_path) == {}
    git("init")
    assert machine._git(tmp_path) == {}
    (tmp_path / "file").write_text("1")
    (tmp_path / "inside").mkdir()
    rows = tmp_path / machine.RESULTS / "rows.jsonl"
    rows.parent.mkdir(parents=True)
    rows.write_text("{}\n")
    git("add", "file", machine.RESULTS)
    git("commit", "-m", "one")
    commit = git("rev-parse", "HEAD")
    assert machine._git(tmp_path.resolve()) == {"commit": commit, "dirty": False}
    (tmp_path / "untracked").write_text("1")
    rows.write_text("{}\n{}\n")  # by the script that asks
    assert machine._git(tmp_path.resolve())["dirty"] is False
    (tmp_path / "file").write_text("2")
    assert machine._git(tmp_path.resolve()) == {"commit": commit, "dirty": True}
    assert machine._git((tmp_path / "inside").resolve()) == {}


def test_stages_run_what_they_timed_and_know_its_memory():
    rows = 256
    found = stages(lambda x, n: jnp.sum(jnp.sin(x @ x) ** n), jnp.ones((rows, rows)), 2, static_argnums=1)
    x = jnp.ones((rows, rows))
    assert float(found.compiled(x)) == pytest.approx(float(jnp.sum(jnp.sin(x @ x) ** 2)), rel=1e-5)
    assert set(found.seconds) == {"lower", "compile", "first"}
    assert min(found.seconds.values()) > 0
    assert found.memory["arguments"] == 4 * rows**2
    assert found.memory["outputs"] == 4
    assert found.memory["peak"] >= found.memory["arguments"] + found.memory["outputs"]
    assert found.flops >= 2 * rows**3
    row = json.loads(json.dumps(found.row()))
    assert row["peak_bytes"] == found.memory["peak"]
    assert row["compile_seconds"] == found.seconds["compile"]


def test_compilation_is_not_counted_as_running():
    slow_to_trace = jax.jit(lambda x: (time.sleep(0.2), x + 1)[1])
    found = stages(slow_to_trace, jnp.ones(3))
    assert found.seconds["lower"] >= 0.2
    assert found.seconds["first"] < 0.2
    assert found.cached == bool(jax.config.jax_compilation_cache_dir)


def test_candidates_take_turns_and_the_order_rotates():
    seen = []
    times = alternate({name: lambda name=name: seen.append(name) for name in "abc"}, rounds=4, least=0.0)
    counted = "".join(seen[-12:])
    assert counted == "abcbcacababc"
    assert all(len(one.wall) == len(one.cpu) == 4 and one.calls == 1 for one in times.values())


def test_waiting_is_wall_time_and_not_processor_time():
    def spin():
        until = time.process_time() + 0.02
        while time.process_time() < until:
            pass

    times = alternate({"sleep": lambda: time.sleep(0.02), "spin": spin}, rounds=3, warmup=0, least=0.0)
    assert times["sleep"].seconds >= 0.02
    assert times["spin"].seconds >= 0.02
    assert times["sleep"].cpu_seconds < 0.01
    assert times["spin"].cpu_seconds >= 0.02


def test_short_calls_are_repeated_within_a_round():
    times = alternate({"short": lambda: time.sleep(0.001), "long": lambda: time.sleep(0.03)}, rounds=2, least=0.02)
    assert times["short"].calls > 1
    assert times["long"].calls == 1
    assert 0.001 <= times["short"].seconds < times["long"].seconds


def test_the_ratio_is_taken_within_rounds():
    """Both slow down together by ten: medians of times would mix rounds, ratios do not."""
    base = Times((1.0, 10.0, 100.0), (1.0, 1.0, 1.0), 1)
    mine = Times((2.0, 20.0, 150.0), (1.0, 1.0, 1.0), 1)
    assert ratio({"mine": mine, "base": base}, "mine", "base") == {"ratio": 2.0, "ratio_low": 1.5, "ratio_high": 2.0}
    assert mine.seconds == 20.0
    assert mine.row()["seconds_low"] == 2.0
    assert mine.row()["seconds_high"] == 150.0


def test_nothing_to_time_is_refused():
    with pytest.raises(ValueError, match="0 candidates in 9 rounds"):
        alternate({})
    with pytest.raises(ValueError, match="1 candidates in 0 rounds"):
        alternate({"a": lambda: None}, rounds=0)


def test_rows_are_appended_and_never_half(tmp_path):
    path = tmp_path / "results" / "speed.jsonl"
    for row in ({"name": "gru", "seconds": 0.5}, {"name": "mgu", "note": "naïve"}):
        append_row(path, row)
    with pytest.raises(ValueError, match="not JSON compliant"):
        append_row(path, {"seconds": float("nan")})
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [{"name": "gru", "seconds": 0.5}, {"name": "mgu", "note": "naïve"}]
