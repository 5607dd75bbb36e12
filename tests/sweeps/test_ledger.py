"""The ledger: no trial is lost, none is done twice, whoever dies and whatever a clock says."""

import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from jaxrec.config import Mistake
from jaxrec.sweeps import ledger as ledgers
from jaxrec.sweeps.ledger import Ledger, New
from jaxrec.sweeps.presence import Worker, born, gone
from jaxrec.sweeps.rows import Table, timeless
from jaxrec.sweeps.space import parse

ABOUT = {
    "space": parse({"optimizer.lr": "log(1e-4, 1e-2)", "model.cell": "gru|lru(heads={1|2})"}).plain(),
    "search": "random", "seed": 0, "trials": 4,
}  # fmt: skip
RESULT = {"valid": {"ndcg@10": 0.5}, "test": {"ndcg@10": 0.4}, "objectives": {"ndcg@10": 0.5}, "seconds": 1.5}
ELSEWHERE = {"host": "far", "place": "another boot"}


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledger.sqlite")


def new(number, run_id=None, bucket="a", **config):
    return New(number, run_id or f"id{number}", {"seed": number}, {"devices": 1} | config, bucket)


def me(name="w0", **changes):
    return replace(Worker.here(name, "cpu", "abc"), **changes)


def states(ledger):
    return [row["state"] for row in ledger.rows()]


def at(monkeypatch, seconds):
    """Let the machine's clock show so much more."""
    later = time.monotonic() + seconds
    monkeypatch.setattr(ledgers, "clock", lambda: later)


def test_a_trial_is_leased_once_read_and_ended(ledger):
    ledger.add([new(0), new(1)])
    [lease] = ledger.lease(me())
    assert (lease.number, lease.id, lease.config, lease.point) == (0, "id0", {"devices": 1}, {"seed": 0})
    assert [each.number for each in ledger.lease(me("w1"), 5)] == [1]
    assert ledger.lease(me("w2")) == []
    assert ledger.held("w0", os.getpid()) == [lease.attempt]
    assert ledger.read(lease.attempt, {"epoch": 1, "seconds": 0.5, "values": {"ndcg@10": 0.5}})
    assert ledger.read(lease.attempt, {"epoch": 1, "seconds": 0.7, "values": {"ndcg@10": 0.5}})  # after a kill
    assert ledger.end(lease.attempt, "done", result=RESULT, log=["a", "b"]) == "done"
    assert ledger.end(lease.attempt, "failed") is None
    assert not ledger.read(lease.attempt, {"epoch": 2, "seconds": 0.5, "values": {}})
    row = ledger.rows()[0]
    assert row["readings"] == [{"epoch": 1, "seconds": 0.7, "values": {"ndcg@10": 0.5}}] == ledger.readings(0)
    assert row["valid"] == {"ndcg@10": 0.5}
    assert (row["state"], row["run"], row["code"], row["epochs"]) == ("done", "runs/id0", "abc", None)
    [attempt] = row["attempts"]
    assert {name: attempt[name] for name in ("worker", "pid", "device", "state", "log")} == {
        "worker": "w0", "pid": os.getpid(), "device": "cpu", "state": "done", "log": ["a", "b"],
    }  # fmt: skip
    assert attempt["end"] >= attempt["start"]
    assert [each["number"] for each in ledger.attempts()] == [0, 1]
    assert ledger.counts() == {"done": 1, "running": 1}
    assert ledger.spent().trials == 1


def test_leases_are_of_one_bucket_the_oldest_first(ledger):
    ledger.add([new(0, bucket="a"), new(1, bucket="b"), new(2, bucket="a"), new(3, bucket="a")])
    assert [lease.number for lease in ledger.lease(me(), 2)] == [0, 2]
    assert ledger.lease(me(), 2, bucket="c") == []
    assert [lease.number for lease in ledger.lease(me(), 2, bucket="a")] == [3]
    assert [lease.number for lease in ledger.lease(me(), 2)] == [1]


def test_a_configuration_proposed_twice_is_answered_not_trained(ledger):
    ledger.add([new(0), new(1, "id0"), new(2)])
    ledger.add([new(3, "id0")])
    assert [lease.number for lease in ledger.lease(me(), 9)] == [0, 2]
    tick = ledger.tick()
    ledger.end(1, "done", result=RESULT)
    changed = ledger.rows(tick)
    assert [row["number"] for row in changed] == [0, 1, 3]
    assert [row["same_as"] for row in changed] == [None, 0, 0]
    assert all(row["objectives"] == {"ndcg@10": 0.5} and row["state"] == "done" for row in changed)
    assert ledger.rows(ledger.tick()) == []
    assert ledger.counts() == {"done": 3, "running": 1}
    ledger.add([new(4, "id0")])  # alone in what changed: its original is looked up
    assert [row["state"] for row in ledger.rows(tick)][-1] == "done"


def test_adding_again_changes_nothing_and_another_trial_of_that_number_is_refused(ledger):
    ledger.add([new(0), new(1)])
    before = ledger.rows()
    ledger.add([new(0), new(1)])
    assert ledger.rows() == before
    assert ledger.next_number() == 2
    with pytest.raises(Mistake, match=r"trial 1 is id1 in .*, not other; choose another --out"):
        ledger.add([new(2), new(1, "other")])
    assert ledger.rows() == before


def test_another_definition_is_refused_with_what_differs(ledger):
    assert ledger.about is None
    ledger.begin(ABOUT | {"search": "tpe"})
    ledger.begin(ABOUT)  # nothing was proposed so far: whoever mistyped may say it again
    ledger.add([new(0)])
    assert ledger.begin(ABOUT | {"trials": 8})["trials"] == 8
    space = parse({"optimizer.lr": "log(1e-4, 1e-3)", "model.cell": "gru|lru(heads={1|2})", "epochs": 3}).plain()
    with pytest.raises(Mistake) as raised:
        ledger.begin(ABOUT | {"search": "tpe", "space": space})
    assert str(raised.value) == (
        f"{ledger.path.parent} holds another sweep: --optimizer.lr was log(0.0001, 0.01) and is now log(0.0001, 0.001);"
        " --search was random and is now tpe; --epochs was not given and is now 3; choose another --out, or ask as"
        " before"
    )
    assert ledger.about == ABOUT | {"trials": 8}


def test_failures_are_retried_by_signature_and_last(ledger):
    ledger.start({"retries": 1})
    ledger.add([new(0), new(1)])
    [first] = ledger.lease(me())
    assert ledger.end(first.attempt, "failed", signature="OSError nfs.py:7", reason="busy") == "waiting"
    assert [lease.number for lease in ledger.lease(me(), 5)] == [1]
    [again] = ledger.lease(me("w1"), 5)
    assert again.number == 0
    assert ledger.end(again.attempt, "failed", signature="ValueError a.py:1") == "waiting"  # another error
    [again] = ledger.lease(me("w1"))
    assert ledger.end(again.attempt, "failed", signature="OSError nfs.py:7") == "failed"
    assert [each["state"] for each in ledger.rows()[0]["attempts"]] == ["failed"] * 3


def test_a_verdict_is_not_retried(ledger):
    ledger.add([new(number) for number in range(5)])
    for state in ("failed", "diverged", "out_of_memory", "pruned"):
        [lease] = ledger.lease(me())
        assert ledger.end(lease.attempt, state, reason="width = 0 is out of range", again=False) == state
    assert ledger.quarantined() == []
    assert [lease.number for lease in ledger.lease(me())] == [4]


def test_a_worker_that_fails_three_times_running_is_put_aside(ledger):
    ledger.start({"retries": 5})
    ledger.add([new(number) for number in range(9)])

    def fail(worker, state="failed"):
        [lease] = ledger.lease(worker)
        ledger.end(lease.attempt, state, signature="RuntimeError x.py:1" if state == "failed" else "")

    fail(me())
    fail(me())
    fail(me(), "done")
    fail(me())
    fail(me())
    assert ledger.quarantined() == []
    fail(me())
    assert ledger.quarantined() == ["w0"]
    assert ledger.lease(me()) == []
    assert ledger.lease(me("w1"))
    ledger.start({})  # somebody has looked at it
    assert ledger.quarantined() == []


def test_one_trial_and_one_crash_of_many_count_once(ledger):
    ledger.start({"retries": 9})
    ledger.add([new(0)])
    for _ in range(5):
        [lease] = ledger.lease(me())
        ledger.end(lease.attempt, "failed", signature="RuntimeError x.py:1")
    assert ledger.quarantined() == []
    ledger.add([new(number) for number in range(1, 6)])
    leases = ledger.lease(me("w1"), 5)
    assert len(leases) == 5
    for place, lease in enumerate(leases):
        ledger.end(lease.attempt, "failed", signature="SIGSEGV", counts=place == 0)
    assert ledger.quarantined() == []
    assert len(ledger.lease(me("w1"), 5)) == 1  # what failed comes alone


def test_the_trial_of_a_dead_process_waits_again_and_counts_no_failure(ledger):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    worker = me(pid=child.pid, born=born(child.pid))
    ledger.add([new(0), new(1)])
    [lease] = ledger.lease(worker)
    assert not gone(worker)
    assert ledger.reclaim() == []
    child.kill()
    deadline = time.monotonic() + 10
    while not gone(worker) and time.monotonic() < deadline:  # a zombie from now on: nobody has waited for it
        time.sleep(0.01)
    assert ledger.reclaim() == [0]
    child.wait()
    assert ledger.beat(worker) == [lease.attempt]
    assert ledger.end(lease.attempt, "done", result=RESULT) is None
    assert states(ledger) == ["waiting", "waiting"]
    assert [lease.number for lease in ledger.lease(me())] == [0]
    assert ledger.rows()[0]["attempts"][0]["reason"] == f"process {child.pid} on {worker.host} is gone"


def test_another_process_of_the_same_number_is_not_the_worker(ledger):
    ledger.add([new(0)])
    ledger.lease(me(born="1"))
    assert ledger.reclaim() == [0]


def test_a_lease_that_is_not_kept_alive_expires(ledger, monkeypatch):
    ledger.start({"lease_seconds": 60})
    ledger.add([new(0), new(1)])
    [lease], [other] = ledger.lease(me()), ledger.lease(me("w1"))
    at(monkeypatch, 50)
    assert ledger.beat(me()) == []
    at(monkeypatch, 100)
    assert ledger.reclaim() == [1]
    assert ledger.beat(me("w1")) == [other.attempt]
    assert ledger.end(lease.attempt, "done") == "done"
    assert ledger.rows()[1]["attempts"][0]["reason"] == "w1 was not heard of for 60 seconds"


@pytest.mark.parametrize("jump", [-1e6, 1e6])
def test_the_wall_clock_may_jump(ledger, monkeypatch, jump):
    ledger.add([new(0)])
    ledger.lease(me())
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + jump)
    assert ledger.reclaim() == []
    assert ledger.beat(me()) == []
    assert 0 <= ledger.spent().device_seconds < 60


def test_a_lease_from_before_a_restart_of_the_machine_ends_at_once(ledger, monkeypatch):
    ledger.add([new(0), new(1)])
    ledger.lease(me(place="older-boot pid:[1] time:[1]"))
    assert ledger.reclaim() == [0]
    ledger.lease(me())
    at(monkeypatch, -1e5)  # a machine that gives no number to its starts: its clock began again
    assert ledger.reclaim() == [0]


def test_a_lease_of_another_machine_ends_when_its_beat_stands_still_for_long_enough(ledger, monkeypatch):
    ledger.start({"lease_seconds": 60})
    ledger.add([new(0)])
    far = me(**ELSEWHERE)
    monkeypatch.setattr(ledgers, "place", lambda: far.place)
    ledger.lease(far)  # written there, by a clock that shows something else
    monkeypatch.undo()
    ledger._store.all("UPDATE attempts SET beat = 1e9, begun = 1e9")
    for seconds, beat, expected in ((0, 1e9, []), (50, 1e9 + 1, []), (100, 1e9 + 1, []), (120, 1e9 + 1, [0])):
        ledger._store.all("UPDATE attempts SET beat = ?", beat)
        at(monkeypatch, seconds)
        assert ledger.reclaim() == expected


def test_what_was_given_back_waits_in_its_old_place(ledger):
    ledger.add([new(0), new(1)])
    [lease] = ledger.lease(me())
    assert ledger.end(lease.attempt, "waiting", reason="SIGTERM") == "waiting"
    assert [lease.number for lease in ledger.lease(me())] == [0]
    assert ledger.rows()[0]["attempts"][0]["state"] == "stopped"


def test_seconds_add_up_over_starts(ledger, monkeypatch):
    ledger.last(ledger.start({}), 5)
    ledger.last(ledger.start({}), 7)
    ledger.add([new(0, devices=2), new(1, devices=2)])
    ledger.lease(me(), 2)  # in one program: they share the two devices
    at(monkeypatch, 10)
    ledger.beat(me())
    spent = ledger.spent()
    assert spent.seconds == 12
    assert spent.device_seconds == pytest.approx(20, abs=0.5)


def test_a_file_that_is_no_ledger_is_a_mistake(tmp_path):
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"half of something else" * 100)
    with pytest.raises(Mistake, match=r"ledger.sqlite is damaged .*--rebuild"):
        Ledger(path)
    path.unlink()
    with pytest.raises(Mistake, match="unable to open database file; see to that"):
        Ledger(tmp_path / "nowhere" / "ledger.sqlite")


def test_a_damaged_page_is_found(tmp_path):
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger(path)
    ledger.add([new(number) for number in range(200)])
    ledger.check()
    ledger.close()
    content = bytearray(path.read_bytes())
    for place in range(4096, len(content) - 64, 512):
        content[place : place + 64] = os.urandom(64)
    path.write_bytes(content)
    with pytest.raises(Mistake, match=r"ledger.sqlite is damaged"):
        Ledger(path).check()


def test_a_version_to_come_is_refused(tmp_path):
    Ledger(tmp_path / "l").close()
    with sqlite3.connect(tmp_path / "l") as db:
        db.execute("PRAGMA user_version = 9")
    with pytest.raises(Mistake, match="is of version 9, and this jaxrec knows 1"):
        Ledger(tmp_path / "l")


def test_a_full_disk_changes_nothing(ledger):
    ledger.add([new(0)])
    pages = ledger._store.all("PRAGMA page_count")[0][0]
    ledger._store.all(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(Mistake, match=r"full; free some space there, and the same command goes on"):
        ledger.add([new(number, text="x" * 9999) for number in range(1, 99)])
    ledger._store.all("PRAGMA max_page_count = 999999")
    assert [row["number"] for row in ledger.rows()] == [0]
    ledger.add([new(1)])


@pytest.mark.parametrize("seed", range(4))
def test_many_workers_of_which_some_die_do_every_trial_once(tmp_path, seed):
    path, trials, done = tmp_path / "ledger.sqlite", 60, []
    Ledger(path).add([new(number, bucket=str(number % 3)) for number in range(trials)])

    def work(name):
        draw, mine, lives = random.Random(f"{seed} {name}"), Ledger(path), 0
        while True:
            worker = me(f"{name}-{lives}")
            leases = mine.lease(worker, draw.choice((1, 4)))
            if not leases and mine.counts().get("done") == trials:
                return
            if not leases or draw.random() < 0.2:  # it dies: from now on it is a process that never was
                lives += 1
                mine._store.all("UPDATE attempts SET born = 'dead' WHERE worker = ?", worker.name)
                mine.reclaim()
                continue
            done.extend(lease.number for lease in leases if mine.end(lease.attempt, "done", result=RESULT))

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(done) == list(range(trials))


def test_the_table_is_written_whole_and_only_when_something_changed(tmp_path, ledger):
    table = Table(tmp_path / "trials.jsonl")
    ledger.add([new(0), new(1, "id0"), new(2)])
    assert table.write(ledger)
    first = table.path.read_text().splitlines()
    assert not table.write(ledger)
    [lease] = ledger.lease(me())
    ledger.end(lease.attempt, "done", result=RESULT)
    assert table.write(ledger)
    after = table.path.read_text().splitlines()
    assert (len(after), after[2]) == (3, first[2])
    again = Table(tmp_path / "again.jsonl")
    again.write(ledger)
    assert again.path.read_bytes() == table.path.read_bytes()
    assert "attempts" not in timeless(ledger.rows()[0])


def test_ten_thousand_trivial_trials_take_seconds(tmp_path):
    began, trials, ledger = time.process_time(), 10_000, Ledger(tmp_path / "ledger.sqlite")
    table = Table(tmp_path / "trials.jsonl")
    for first in range(0, trials, 500):
        ledger.add([new(number) for number in range(first, first + 500)])
    while leases := ledger.lease(me()):
        ledger.read(leases[0].attempt, {"epoch": 1, "seconds": 0.1, "values": {"ndcg@10": 0.5}})
        ledger.end(leases[0].attempt, "done", result=RESULT)
        if leases[0].number % 500 == 0:
            ledger.counts(), ledger.reclaim(), table.write(ledger)
    table.write(ledger)
    seconds = time.process_time() - began
    print(f"10,000 trials: {seconds:.1f} s of CPU")
    assert len(table.path.read_bytes().splitlines()) == trials
    assert seconds < 60
