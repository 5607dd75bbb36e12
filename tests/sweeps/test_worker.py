"""One process's work: what it writes down, what it gives back, and when it leaves. The trainer is a stub."""

import errno
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from jaxrec.config import Mistake, to_dict
from jaxrec.runs import run
from jaxrec.runs.fitting import Diverged, GivenUp
from jaxrec.runs.folder import Busy
from jaxrec.runs.options import Config
from jaxrec.sweeps import crew, logs, worker as workers
from jaxrec.sweeps.crew import Crew, Machine, named, shares
from jaxrec.sweeps.heart import Heart, orphaned
from jaxrec.sweeps.ledger import Ledger, New
from jaxrec.sweeps.presence import Worker
from jaxrec.sweeps.store import NoRoom
from jaxrec.sweeps.verdicts import Lost, disk, numbers, verdict
from jaxrec.sweeps.worker import Shift
from jaxrec.training.stop import Stopped, StopSignal

RESULT = {
    "headline": "masked", "valid": {"masked": {"ndcg@10": 0.5}, "epoch": 2}, "test": {"masked": {"ndcg@10": 0.25}},
    "seconds": {"train": 3.0, "test": 1.0}, "epochs": 2, "model": {"parameters": {"tables": 10, "network": 5}},
}  # fmt: skip
OBJECTIVES = [{"name": name, "direction": "maximize"} for name in ("ndcg@10", "seconds", "parameters")]


class Free:
    """Nothing was compiled."""

    def taken(self) -> float:
        return 0.0


@pytest.fixture
def shift(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.begin({"objectives": OBJECTIVES, "prune": "none"})
    ledger.start({"retries": 0})
    ledger.add([New(number, f"id{number}", {}, to_dict(Config())) for number in range(3)])
    (tmp_path / "runs" / "id0").mkdir(parents=True)
    return Shift(tmp_path, ledger, Worker.here("w0"), Free())


def doing(monkeypatch, *outcomes):
    """Let trainings end one after the other in these ways; returns their configurations."""
    left, seen = list(outcomes), []

    def train(config, *, command, say, ask):
        seen.append(config)
        outcome = left.pop(0)
        found = outcome(ask) if callable(outcome) else outcome
        if isinstance(found, BaseException):
            raise found
        return found

    monkeypatch.setattr(run, "train", train)
    return seen


def states(shift):
    return [row["state"] for row in shift.ledger.rows()]


def test_a_trial_is_trained_in_its_own_folder_and_written_down(shift, monkeypatch):
    def read(ask):
        assert not ask(1, 1.5, {"ndcg@10": 0.5})
        return RESULT

    configs = doing(monkeypatch, read, RESULT, RESULT)
    shift.work(StopSignal(), stay=False)
    assert [config.run for config in configs] == [str(shift.out / "runs" / f"id{number}") for number in range(3)]
    row = shift.ledger.rows()[0]
    assert row["objectives"] == {"ndcg@10": 0.5, "seconds": 3.0, "parameters": 15}
    assert (row["test"], row["epochs"], row["seconds"]) == ({"ndcg@10": 0.25}, 2, 3.0)
    assert row["readings"] == [{"epoch": 1, "seconds": 1.5, "values": {"ndcg@10": 0.5}}]
    assert json.loads((shift.out / "runs" / "id0" / "trial.json").read_text())["state"] == "done"


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (GivenUp("given up after epoch 2"), "pruned"),
        (Diverged("step 3 is not finite"), "diverged"),
        (MemoryError(), "out_of_memory"),
        (Mistake("batch.size = 7 cannot be shared"), "failed"),
        (RuntimeError("boom"), "failed"),
    ],
    ids=str,
)
def test_every_end_has_a_state_and_the_others_go_on(shift, monkeypatch, outcome, state):
    doing(monkeypatch, outcome, RESULT, RESULT)
    shift.work(StopSignal(), stay=False)
    assert states(shift) == [state, "done", "done"]


@pytest.mark.parametrize("outcome", [Stopped("SIGTERM: saved"), KeyboardInterrupt()], ids=str)
def test_a_signal_gives_back_what_ran_and_what_had_not_begun(shift, monkeypatch, outcome):
    from jaxrec.sweeps import together

    def stopped(jobs, *, slots, say):
        [first] = jobs.more(1)
        jobs.ended(first, outcome)

    monkeypatch.setattr(together, "train", stopped)
    shift.together = 3
    with pytest.raises(type(outcome)):
        shift.work(StopSignal(), stay=True)
    assert states(shift) == ["waiting"] * 3
    assert [each["state"] for each in shift.ledger.attempts()] == ["stopped"] * 3


def test_a_program_of_several_that_breaks_fails_them_all_and_each_is_tried_alone(shift, monkeypatch):
    from jaxrec.sweeps import together

    def breaks(jobs, *, slots, say):
        assert slots == len(jobs.more(slots)) == 3
        raise MemoryError

    monkeypatch.setattr(together, "train", breaks)
    shift.ledger.start({"retries": 1})
    shift.together = 3
    configs = doing(monkeypatch, RESULT, RESULT, RESULT)
    shift.work(StopSignal(), stay=False)
    assert len(configs) == 3
    assert states(shift) == ["done"] * 3
    assert [each["state"] for each in shift.ledger.rows()[0]["attempts"]] == ["failed", "done"]
    assert shift.ledger.quarantined() == []


def test_a_full_disk_stops_the_worker_and_fails_no_trial(shift, monkeypatch):
    full = Mistake("runs/id0: No space left on device; free some space there")
    full.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    doing(monkeypatch, full)
    with pytest.raises(Mistake, match="No space left"):
        shift.work(StopSignal(), stay=True)
    assert states(shift) == ["waiting"] * 3


def test_a_folder_in_use_is_tried_again(shift, monkeypatch):
    doing(monkeypatch, Busy("is being trained by process 7"), RESULT, RESULT, RESULT)
    shift.work(StopSignal(), stay=False)
    assert states(shift) == ["done"] * 3
    assert [each["state"] for each in shift.ledger.rows()[0]["attempts"]] == ["stopped", "done"]


def test_what_was_taken_away_is_dropped_at_the_next_validation(shift, monkeypatch):
    def slept(ask):
        shift.ledger._store.all("UPDATE attempts SET born = 'another'")
        assert shift.ledger.reclaim() == [0]
        with pytest.raises(Lost) as lost:
            ask(1, 1.0, {"ndcg@10": 0.5})
        return lost.value

    doing(monkeypatch, slept, RESULT, RESULT, RESULT)
    shift.work(StopSignal(), stay=False)
    assert states(shift) == ["done"] * 3
    assert [each["state"] for each in shift.ledger.rows()[0]["attempts"]] == ["died", "done"]


def test_a_worker_in_quarantine_leaves_with_a_status_of_its_own(shift, monkeypatch):
    doing(monkeypatch, *(RuntimeError("boom") for _ in range(3)))
    shift.ledger.add([New(3, "id3", {}, to_dict(Config()))])
    with pytest.raises(SystemExit) as left:
        shift.work(StopSignal(), stay=True)
    assert left.value.code == workers.QUARANTINED


def test_a_disk_is_recognised_behind_a_mistake():
    full = Mistake("x")
    full.__cause__ = OSError(errno.EDQUOT, "quota")
    assert disk(full)
    assert disk(NoRoom("x"))
    assert not disk(Mistake("x"))
    assert not disk(OSError(errno.ENOENT, "x"))


def test_an_error_of_a_compiled_program_is_told_by_its_last_line():
    found = verdict(RuntimeError("INTERNAL: callback: Traceback (most recent call last):\n  at\nValueError: no"))
    assert (found.reason, found.again, found.state) == ("RuntimeError: ValueError: no", True, "failed")
    assert numbers({"a": 1, "b": float("nan"), "c": "text", "d": None}) == {"a": 1.0, "b": None}


def test_the_heart_keeps_leases_and_notices_when_they_are_gone(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.add([New(0, "a", {}, {})])
    me = Worker.here("w0")
    ledger.lease(me)
    first = ledger._store.all("SELECT beat FROM attempts")[0][0]
    with StopSignal() as stop, Heart(ledger, me, lambda _: "", 0.05) as heart:
        deadline = time.monotonic() + 10
        while ledger._store.all("SELECT beat FROM attempts")[0][0] == first:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert stop.requested is None
        ledger._store.all("UPDATE attempts SET state = 'expired'")
        while stop.requested is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert "was taken away" in heart.why
    assert threading.active_count() < 10


def test_the_heart_leaves_with_the_process_that_started_it(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    with StopSignal() as stop, Heart(ledger, Worker.here("w0"), lambda _: orphaned(1 << 22), 0.05) as heart:
        deadline = time.monotonic() + 10
        while stop.requested is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert heart.why == f"process {1 << 22}, which started this one, is gone"


def test_a_log_is_cut_where_the_trial_begins(tmp_path):
    file = logs.place(tmp_path, "w0")
    assert logs.tail(file) == []
    file.parent.mkdir()
    file.write_text(
        f"{logs.MARK}1, attempt 1\nold\n{logs.MARK}2, attempt 2\n" + "".join(f"line {n}\n" for n in range(30))
    )
    assert logs.tail(file) == [f"line {n}" for n in range(10, 30)]
    file.write_text(f"before any\n{logs.MARK}3, attempt 4\n")
    assert logs.tail(file) == []


def test_the_machine_is_shared_out():
    cpu, gpus = Machine(8, "cpu", 1), Machine(8, "gpu", 2)
    assert [share["NPROC"] for share in shares(cpu, 2, {})] == ["4", "4"]
    assert shares(cpu, 1, {}) == [{}]
    assert len(shares(cpu, None, {})) == 8
    assert shares(cpu, 8, {"XLA_FLAGS": "--a"})[0]["XLA_FLAGS"] == f"--a {crew.FLAG}=false"
    assert [share["CUDA_VISIBLE_DEVICES"] for share in shares(gpus, None, {})] == ["0", "1"]
    assert shares(gpus, None, {"CUDA_VISIBLE_DEVICES": "3,5"}) == [
        {"CUDA_VISIBLE_DEVICES": "3"}, {"CUDA_VISIBLE_DEVICES": "5"},
    ]  # fmt: skip
    crowded = shares(gpus, 4, {})
    assert [share["CUDA_VISIBLE_DEVICES"] for share in crowded] == ["0", "1", "0", "1"]
    assert crowded[0]["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.450"
    with pytest.raises(Mistake, match="a tpu serves one process at a time"):
        shares(Machine(8, "tpu", 4), 2, {})
    assert crew.shared(cpu, shares(cpu, 2, {})) == "2 workers, 4 threads each on 8 cores"
    assert crew.shared(gpus, shares(gpus, 2, {})) == "2 workers on 2 gpu devices"
    [alone] = shares(cpu, 1, {"XLA_FLAGS": "--a"}, together=4)
    assert alone["XLA_FLAGS"] == f"--a {crew.DEVICES}=8 {crew.FLAG}=false"
    assert crew.shared(cpu, [alone]) == "1 worker, with a device on each of 8 cores"
    assert shares(cpu, 1, {"XLA_FLAGS": f"{crew.DEVICES}=2"}, together=4) == [{}]  # somebody has chosen already
    assert len(shares(cpu, 2, {}, together=4)) == 2


def test_threads_follow_the_share():
    code = "import jax, os; (jax.numpy.ones((300, 300)) @ jax.numpy.ones((300, 300))).block_until_ready()\n"
    code += "print(sum('XLAEigen' in open(f'/proc/self/task/{t}/comm').read() for t in os.listdir('/proc/self/task')))"
    if not Path("/proc/self/task").exists():
        pytest.skip("threads are counted in /proc")
    env = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | {"NPROC": "3"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert int(done.stdout) == 3


def test_a_worker_that_does_not_leave_is_killed(tmp_path):
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(99)"
    )
    team = Crew(tmp_path, [{}])
    [post] = team.posts
    post.process = subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE)
    post.process.stdout.readline()
    team.stop(patience=0.2)
    deadline = time.monotonic() + 10
    while not (ended := team.ended()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert named(ended[0][2]) == signal.SIGKILL.name
    assert not team.working


def test_a_process_that_ends_at_once_is_started_ever_later(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    team = Crew(tmp_path, [{}])
    team.fill(1, [])
    while not team.ended():
        time.sleep(0.01)
    assert team.posts[0].failed == 1
    team.fill(1, [])
    assert not team.working
    team.posts[0].began -= 5
    team.fill(0, [])
    assert not team.working
    team.fill(1, ["w0"])
    assert not team.working
    team.fill(1, [])
    assert team.working
    team.stop()


def test_a_ledger_without_a_sweep_is_a_mistake(tmp_path):
    Ledger(tmp_path / "ledger.sqlite").close()
    assert sqlite3.connect(tmp_path / "ledger.sqlite").execute("SELECT count(*) FROM trials").fetchone() == (0,)
    with pytest.raises(Mistake, match="holds no sweep yet"):
        workers.given(Ledger(tmp_path / "ledger.sqlite"))


def test_programs_of_many_buckets_are_let_go_of(shift, monkeypatch):
    """A process that kept the programs of every width and length of a sweep would run out of memory."""
    forgotten = []
    workers.forget()  # nothing depends on what is compiled
    monkeypatch.setattr(workers, "forget", lambda: forgotten.append(True))
    for number in range(2 * workers.BUCKETS):
        shift.make_room(f"b{number}")
        shift.make_room(f"b{number}")
    assert len(forgotten) == 1
    assert len(shift.compiled_for) == workers.BUCKETS
