"""Sweeps with real trainings: what is missing is trained and only that, and every end is written down as it was."""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxrec.cli import main
from jaxrec.config import Mistake
from jaxrec.runs.run import train
from jaxrec.sweeps.judging import judgement
from jaxrec.sweeps.ledger import Ledger
from jaxrec.sweeps.options import Sweep
from jaxrec.sweeps.rows import timeless
from jaxrec.sweeps.sweep import sweep

ROOT = Path(__file__).resolve().parents[2]
TINY = {
    "demo.users": 60, "demo.items": 240, "demo.genres": 4, "demo.lag": 2, "epochs": 1, "model.dropout": 0.0,
    "batch.size": 8, "batch.length": 10, "eval.metrics": ["hr@5", "ndcg@10"], "stop.patience": 0,
}  # fmt: skip
GRID = TINY | {"model.width": "4|8", "optimizer.lr": "0.01|0.1"}
CELL = """
import os
import jax
from jaxrec.cells import GRU

class Fails(GRU):
    def __init__(self, features, hidden, *, kind: str = "fine", rngs):
        if kind == "refused": raise RuntimeError("refused")
        if kind == "crash": os.kill(os.getpid(), 9)
        super().__init__(features, hidden, rngs=rngs)
        self.kind = kind

    def read(self, state, projected):
        if self.kind == "broken": return state * float("nan")
        if self.kind in ("fine", "refused"): return state
        words = {"error": "no such thing", "memory": "RESOURCE_EXHAUSTED: Out of memory"}[self.kind]
        def fail(x): raise RuntimeError(words)
        like = jax.ShapeDtypeStruct(state.shape, state.dtype)
        return state + jax.pure_callback(fail, like, jax.lax.stop_gradient(state), vmap_method="sequential")
"""
KINDS = {
    "fine": ("done", 1), "error": ("failed", 2), "memory": ("out_of_memory", 1), "refused": ("failed", 1),
    "broken": ("diverged", 1), "crash": ("failed", 2),
}  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("JAXREC_CACHE", str(tmp_path_factory.getbasetemp() / "sweeps-cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def go(out, given=GRID, **options):
    said: list[str] = []
    defaults = {"search": "grid", "workers": 2}
    found = sweep(Sweep(out=str(out), **defaults | options), given, command=["jaxrec", "sweep"], say=said.append)
    return found, said


def table(out):
    return [json.loads(line) for line in (out / "trials.jsonl").read_text().splitlines()]


def outcome(out):
    return [timeless(row) for row in table(out)]


def attempts(out):
    return Ledger(out / "ledger.sqlite").attempts()


def child(out, given=GRID, *words, limit=None):
    """A sweep in a process of its own, which leads a group; no file may grow beyond ``limit`` KiB."""
    flags = [word for name, value in given.items() for word in (f"--{name}", *listed(value))]
    command = [sys.executable, "-m", "jaxrec", "sweep", "--out", str(out), "--search", "grid", *flags, *words]
    if limit is not None:
        command = ["bash", "-c", f'ulimit -f {limit}; exec "$@"', "limited", *command]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def listed(value):
    return map(str, value) if isinstance(value, list) else [str(value)]


def until(condition, seconds=120.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def running(out):
    path = out / "ledger.sqlite"
    if not path.exists():
        return []
    try:
        return [row for row in attempts(out) if row["state"] == "running"]
    except (Mistake, sqlite3.Error):  # it is being made
        return []


def lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A grid that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "sweep"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXREC_CACHE", str(tmp_path_factory.getbasetemp() / "sweeps-cache"))
        patch.setenv("PYTHONPATH", str(ROOT))
        found, said = go(out)
    return out, found, said


def test_every_point_is_trained_once_as_a_run_of_its_own(whole, tmp_path):
    out, found, _ = whole
    rows = table(out)
    assert [row["point"] for row in rows] == [
        {"model.width": width, "optimizer.lr": lr} for width in (4, 8) for lr in (0.01, 0.1)
    ]
    assert found["trials"] == {"done": 4}
    assert found["complete"]
    best = max(rows, key=lambda row: row["valid"]["ndcg@10"])
    assert found["best"][0]["point"] == best["point"]
    for row in rows:
        result = json.loads((out / row["run"] / "result.json").read_text())
        assert result["run_id"] == row["id"]
        assert row["objectives"]["ndcg@10"] == row["valid"]["ndcg@10"] == row["readings"][-1]["values"]["ndcg@10"]
        assert row["test"]["ndcg@10"] == result["test"][result["headline"]]["ndcg@10"]
        assert (row["epochs"], len(row["attempts"])) == (1, 1)
        assert row["attempts"][0]["log"][-1].startswith("epoch 1")
    from jaxrec.config import changed, from_dict
    from jaxrec.runs.options import Config

    alone = from_dict(Config, rows[0]["config"])  # the same numbers as from one run by hand
    assert train(changed(alone, run=str(tmp_path / "alone")), say=lambda _: None)["run_id"] == rows[0]["id"]


def test_the_same_again_trains_nothing_and_another_space_is_refused(whole):
    out, before, _ = whole
    made, lines = len(attempts(out)), table(out)
    again, said = go(out)
    assert len(attempts(out)) == made
    assert again["trials"] == before["trials"]
    assert table(out) == lines
    assert not any("workers" in sentence for sentence in said)
    alone = sweep(Sweep(out=str(out)), {}, command=[], say=said.append)  # as before
    assert alone["trials"] == before["trials"]
    with pytest.raises(Mistake, match=r"another sweep: --model.width was 4\|8 and is now 4\|8\|16; choose another"):
        go(out, GRID | {"model.width": "4|8|16"})


def test_a_ledger_that_is_damaged_is_made_anew_from_the_run_folders(whole, tmp_path):
    out = tmp_path / "sweep"
    shutil.copytree(whole[0], out)
    ledger = out / "ledger.sqlite"
    for end in ("-wal", "-shm"):
        Path(f"{ledger}{end}").unlink(missing_ok=True)
    ledger.write_bytes(ledger.read_bytes()[:5000])
    for damage in (None, b""):
        if damage is not None:
            ledger.write_bytes(damage)
        with pytest.raises(Mistake, match=r"ledger.sqlite is (damaged|empty).* --rebuild makes it anew from the run"):
            go(out)
    expected = outcome(whole[0])
    found, said = go(out, rebuild=True)
    assert found["trials"] == {"done": 4}
    assert outcome(out) == expected
    assert attempts(out) == []
    assert (out / "ledger.sqlite.damaged-1").exists()
    assert any("made anew from 4 run folders" in sentence for sentence in said)
    assert go(out)[0]["trials"] == {"done": 4}


def test_a_second_sweep_waits_its_turn_and_a_killed_one_takes_its_workers_with_it(whole, tmp_path):
    """Kill -9 of the coordinator while two trials run: the workers leave in order, the same command goes on."""
    out = tmp_path / "sweep"
    longer = GRID | {"epochs": 1}
    first = child(out, longer, "--workers", "2")
    until(lambda: len(running(out)) == 2)
    with pytest.raises(Mistake, match=rf"a sweep, process {first.pid}, works in .* already"):
        go(out, longer)
    held = running(out)
    first.kill()
    first.communicate()
    until(lambda: not any(lives(row["pid"]) for row in held), 30)
    found, _ = go(out, longer)
    assert found["trials"] == {"done": 4}
    assert outcome(out) == outcome(whole[0])
    states = [row["state"] for row in attempts(out)]
    assert states.count("done") == 4
    assert set(states) <= {"done", "stopped", "died"}


@pytest.mark.parametrize("room", [40, 200])
def test_a_full_disk_is_one_sentence_and_the_same_command_goes_on(whole, tmp_path, room):
    out = tmp_path / "sweep"
    full = child(out, GRID, "--workers", "1", limit=room)
    _, said = full.communicate(timeout=120)
    assert full.returncode == 2, said
    assert "and the same command goes on from" in said.splitlines()[-1]
    assert go(out)[0]["trials"] == {"done": 4}
    assert outcome(out) == outcome(whole[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_sweep_in_order(whole, tmp_path, number):
    out = tmp_path / "sweep"
    first = child(out, GRID, "--workers", "2")
    until(lambda: len(running(out)) == 2)
    held = running(out)
    first.send_signal(number)
    _, said = first.communicate(timeout=60)
    assert first.returncode == 75, said
    assert f"{number.name}: " in said
    assert "the same command goes on from there" in said
    assert not any(lives(row["pid"]) for row in held)
    assert running(out) == []
    assert go(out)[0]["trials"] == {"done": 4}
    assert outcome(out) == outcome(whole[0])


def test_errors_are_retried_and_refusals_and_results_are_not(tmp_path):
    (tmp_path / "cell.py").write_text(CELL)
    cell = f"{tmp_path / 'cell.py'}:Fails(kind={{{'|'.join(KINDS)}}})"
    found, said = go(tmp_path / "sweep", TINY | {"model.width": 4, "model.cell": cell}, retries=1, workers=1)
    rows = {row["point"]["model.cell.kind"]: row for row in table(tmp_path / "sweep")}
    assert {kind: (row["state"], len(row["attempts"])) for kind, row in rows.items()} == KINDS
    last = {kind: row["attempts"][-1] for kind, row in rows.items()}
    assert last["error"]["reason"] == "JaxRuntimeError: RuntimeError: no such thing"
    assert last["error"]["log"][-1] == f"trial 1: failed: {last['error']['reason']}"
    assert last["error"]["signature"].split(":")[0] == last["memory"]["signature"].split(":")[0]
    assert last["crash"]["signature"] == "SIGKILL"
    assert last["refused"]["reason"].endswith("cell.py:8: RuntimeError: refused; correct the file")
    assert {kind["signature"]: kind["count"] for kind in found["failures"]}["SIGKILL"] == 2
    assert any(sentence.startswith("w0 ended with SIGKILL: ") for sentence in said)


def test_a_point_that_is_no_configuration_fails_and_the_others_go_on(tmp_path):
    given = TINY | {"model.width": 4, "demo.items": "240|480", "demo.events": "20|60"}
    found, _ = go(tmp_path / "sweep", given, workers=1)
    rows = table(tmp_path / "sweep")
    assert {row["state"] for row in rows} == {"done", "failed"}
    for row in rows:
        assert ("would run out" in row["notes"].get("refused", "")) == (row["state"] == "failed")
        assert len(row["attempts"]) == (row["state"] == "done")
    assert found["complete"]


def test_when_every_worker_fails_all_the_time_the_sweep_stops(tmp_path):
    (tmp_path / "cell.py").write_text(CELL)
    given = TINY | {"model.cell": f"{tmp_path / 'cell.py'}:Fails(kind=error)", "model.width": "4|5|6|7|8|9"}
    with pytest.raises(Mistake, match=r"every worker failed 3 times running and was put aside \(.*no such thing"):
        go(tmp_path / "sweep", given, workers=1)
    assert len(attempts(tmp_path / "sweep")) == 3
    assert [row["state"] for row in table(tmp_path / "sweep")] == ["waiting"] * 6


def test_a_budget_is_over_all_starts_and_a_larger_one_goes_on(tmp_path):
    out = tmp_path / "sweep"
    found, _ = go(out, max_seconds=0.5, workers=1)
    assert not found["complete"]
    assert found["ended"] == "0.5 seconds are spent; a larger --max-seconds goes on"
    began = time.monotonic()
    go(out, max_seconds=1.0, workers=1)
    assert time.monotonic() - began < 20
    assert "done" not in Ledger(out / "ledger.sqlite").counts()
    ledger = Ledger(out / "ledger.sqlite")
    assert ledger.spent().seconds > 1.0


def test_data_that_changes_under_a_sweep_is_noticed(tmp_path):
    lines = [f"{user},{item},{user + item}" for user in range(30) for item in range(user % 3, 12)]
    file = tmp_path / "events.csv"
    file.write_text("\n".join(["user,item,time", *lines]) + "\n")
    given = {name: value for name, value in TINY.items() if not name.startswith("demo")}
    given |= {"data": str(file), "model.width": "4|8", "time_unit": "s"}
    assert go(tmp_path / "sweep", given, workers=1)[0]["trials"] == {"done": 2}
    file.write_text("\n".join(["user,item,time", *lines[:-20]]) + "\n")
    with pytest.raises(Mistake, match=r"events.csv has changed since this sweep began"):
        go(tmp_path / "sweep", given)


def test_several_seeds_and_pruning(tmp_path):
    given = TINY | {"epochs": 4, "model.width": 4, "optimizer.lr": "0.1|0.03|0.01|1e-6"}
    found, _ = go(tmp_path / "sweep", given, workers=1, seeds=2, prune="median", objectives=("ndcg@10", "seconds"))
    rows = table(tmp_path / "sweep")
    assert [(row["seed"], row["repeat"]) for row in rows] == [(0, 0), (1, 1)] * 4
    assert {row["state"] for row in rows} == {"done", "pruned"}
    pruned = [row for row in rows if row["state"] == "pruned"]
    for row in pruned:
        assert 1 <= len(row["readings"]) < 4
        assert any((tmp_path / "sweep" / row["run"] / "checkpoints").iterdir())
        assert not (tmp_path / "sweep" / row["run"] / "result.json").exists()
    assert set(found["best"][0]["values"]) == {"ndcg@10", "seconds"}


def test_what_was_asked_for_is_not_taken_back_and_a_file_that_is_not_there_is_named(tmp_path):
    go(tmp_path / "sweep", trials=2, workers=1)
    with pytest.raises(Mistake, match=r"trials = 1 is fewer than the 2 .*give 2 or more"):
        go(tmp_path / "sweep", trials=1)
    with pytest.raises(Mistake, match=r"my_cel.py: cannot be read \(No such file"):
        go(tmp_path / "other", TINY | {"model.cell": "my_cel.py:MyCell|gru"})


def test_trials_of_one_bucket_that_a_worker_trains_together_are_what_each_is_alone(whole, tmp_path):
    """Also where a worker is killed in the midst of them."""
    found, _ = go(tmp_path / "sweep", workers=1, together=2)
    assert outcome(tmp_path / "sweep") == outcome(whole[0])
    assert found["trials"] == {"done": 4}
    process = child(tmp_path / "cut", GRID, "--workers", "1", "--together", "2")
    until(lambda: len(running(tmp_path / "cut")) == 2)
    for attempt in running(tmp_path / "cut"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(attempt["pid"], signal.SIGKILL)
    assert process.wait(120) == 0
    assert outcome(tmp_path / "cut") == outcome(whole[0])


def test_the_page_hears_who_won_and_what_mattered(whole):
    about, rows = json.loads((whole[0] / "sweep.json").read_text()), table(whole[0])
    found = judgement(about, rows)
    best = max(rows, key=lambda row: row["objectives"]["ndcg@10"])
    assert f"{best['test']['ndcg@10']:.4f}" in found["judged"]
    assert found["importances"] == [], "of four configurations nothing can be said"
    assert judgement({}, rows) == {"judged": "", "importances": []}
    assert main(["report", str(whole[0])]) == 0
    assert found["judged"].split(";")[0][1:] in (whole[0] / "report.html").read_text()


def test_by_hand_a_worker_helps_and_leaves(tmp_path):
    out = tmp_path / "sweep"
    go(out, max_seconds=0.01, workers=1)
    command = [sys.executable, "-m", "jaxrec.sweeps.worker", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert Ledger(out / "ledger.sqlite").counts() == {"done": 4}
    done = subprocess.run([*command[:-1], str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "holds no sweep" in done.stderr
    assert os.getpid() not in {row["pid"] for row in attempts(out)}
