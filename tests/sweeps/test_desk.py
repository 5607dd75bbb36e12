"""Workers on other machines: whatever carries their words, the answers are the ledger's; files travel or are missed."""

import json
import re
import socket
import stat
import threading
import time
from contextlib import closing
from dataclasses import asdict
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client
from pathlib import Path

import pytest

from jaxrec.cells.find import _INSTEAD, load, path_of
from jaxrec.config import Mistake, to_dict
from jaxrec.runs.bundle import read_code
from jaxrec.runs.options import Config, Model
from jaxrec.sweeps import far
from jaxrec.sweeps.away import Away
from jaxrec.sweeps.desk import Desk
from jaxrec.sweeps.far import same_code
from jaxrec.sweeps.heart import Heart
from jaxrec.sweeps.ledger import Ledger, New
from jaxrec.sweeps.pasts import Pasts
from jaxrec.sweeps.presence import Worker
from jaxrec.sweeps.remote import Remote, Unreachable
from jaxrec.sweeps.rows import timeless
from jaxrec.sweeps.sockets import Open, carrier
from jaxrec.sweeps.store import NoRoom
from jaxrec.sweeps.team import Ended
from jaxrec.training.stop import AGAIN, StopSignal
from jaxrec.words import Call

OBJECTIVES = [{"name": "ndcg@10", "direction": "maximize"}]
READING = {"epoch": 1, "seconds": 1.5, "values": {"ndcg@10": 0.1 + 0.2}}
RESULT = {"objectives": {"ndcg@10": 1 / 3}, "valid": {"ndcg@10": 1 / 3}, "test": {"ndcg@10": None}, "seconds": 3.0}


def trials(count, **options):
    return [New(number, f"id{number}", {"n": number}, to_dict(Config(**options))) for number in range(count)]


def begun(out, count=3, **options):
    """A ledger as a sweep has it when workers come."""
    out.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(out / "ledger.sqlite")
    about = ledger.begin({"objectives": OBJECTIVES, "prune": "none"})
    (out / "sweep.json").write_text(json.dumps(about))
    ledger.start({"retries": 0})
    ledger.add(trials(count, **options))
    return ledger


@pytest.fixture
def home(tmp_path):
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def desk(tmp_path, home):
    begun(tmp_path / "sweep")
    return Desk(tmp_path / "sweep", home)


@pytest.fixture
def at_socket(desk):
    with closing(Open(desk, "127.0.0.1", desk.place.out / "desk.json")):
        yield desk.place.out / "desk.json"


@pytest.fixture(params=["told", "socket"])
def remote(request, desk, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = request.getfixturevalue("at_socket") if request.param == "socket" else None
    (tmp_path / "copies").mkdir()
    connect = (lambda: desk.ask) if file is None else (lambda: carrier(file))
    yield Remote(connect, desk.place.out, tmp_path / "copies", patience=0.2)
    _INSTEAD.clear()


def shift(books, me):
    """What a worker does with the books, and all that they answered."""
    [first, second] = books.lease(me, 2)
    yield [lease._replace(attempt=0) for lease in (first, second)]
    yield books.read(first.attempt, READING)
    yield books.beat(me)
    yield len(books.held(me.name, me.pid))
    yield books.end(first.attempt, "done", result=RESULT, log=["ä", "b"], compile_seconds=0.5)
    yield books.end(second.attempt, "failed", reason="no", signature="E", again=False)
    yield books.read(second.attempt, READING)
    yield books.lease(me, 1, "another bucket")
    yield books.quarantined()
    yield [timeless(row) for row in books.rows()]
    yield [row["number"] for row in books.rows(books.tick() - 1)]
    pasts = Pasts(OBJECTIVES)
    pasts.look(books)
    yield pasts.trials()


def test_from_far_the_answers_are_those_of_the_ledger(remote, tmp_path):
    me = Worker.here("w0", "cpu", "abc")
    remote.enter(me)
    expected = list(shift(begun(tmp_path / "here"), me))
    assert list(shift(remote, me)) == expected
    assert (remote.about["objectives"], remote.options["retries"]) == (OBJECTIVES, 0)


def test_what_a_person_can_mend_is_told_there(remote, monkeypatch):
    def full(self, *given):
        raise NoRoom("ledger.sqlite: database or disk is full; free some space there")

    monkeypatch.setattr(Ledger, "tick", full)
    with pytest.raises(NoRoom, match="free some space there"):
        remote.tick()
    with pytest.raises(RuntimeError, match="ValueError: 'start' is nothing that a worker asks"):
        remote._ask("start", {})


def test_the_file_of_a_cell_comes_with_the_trial_under_its_own_name(remote, desk, home, tmp_path):
    """The folder where the sweep began is not to be seen, or has another file by now."""
    (home / "cells").mkdir()
    (home / "cells" / "mine.py").write_bytes("# -*- coding: latin-1 -*-\nNAME = 'é'\n".encode("latin-1"))
    cell = Call("Mine", file="cells/mine.py")
    ledger = Ledger(desk.place.ledger)
    ledger.add([New(9, "own", {}, to_dict(Config(model=Model(cell=cell))), "own")])
    me = Worker.here("w0")
    [lease] = remote.lease(me, 1, "own")
    assert lease.config["model"]["cell"] == str(cell)
    assert not Path("cells/mine.py").exists()
    assert read_code(cell) == {"cells/mine.py": (home / "cells" / "mine.py").read_bytes()}
    assert load("cells/mine.py").NAME == "é"
    assert path_of("cells/mine.py").name == "mine.py"


def test_a_file_of_cells_that_is_gone_gives_the_trials_back(remote, desk):
    ledger = Ledger(desk.place.ledger)
    ledger.add([New(9, "own", {}, to_dict(Config(model=Model(cell=Call("Mine", file="mine.py")))), "own")])
    with pytest.raises(Mistake, match=r"mine.py: cannot be read \(No such file"):
        remote.lease(Worker.here("w0"), 1, "own")
    assert ledger.counts() == {"waiting": 4}


def test_data_that_a_worker_does_not_see_gives_the_trials_back(remote, desk, home, tmp_path):
    (home / "clicks.csv").write_text("user,item\n1,2\n")
    ledger = Ledger(desk.place.ledger)
    ledger.add([New(9, "data", {}, to_dict(Config(data="clicks.csv")), "data")])
    me = Worker.here("w0")
    with pytest.raises(Mistake, match=r"clicks.csv is not to be seen on .*; let data lie where all workers see it"):
        remote.lease(me, 1, "data")
    (tmp_path / "clicks.csv").write_text("other\n")
    with pytest.raises(Mistake, match=r"clicks.csv is another file on"):
        remote.lease(me, 1, "data")
    assert ledger.counts() == {"waiting": 4}
    remote.enter(me)  # goes to where the sweep was started, and sees it
    assert Path.cwd() == home
    assert len(remote.lease(me, 1, "data")) == 1


def test_a_worker_that_does_not_see_the_folder_says_so(remote, desk, tmp_path):
    elsewhere = Remote(remote._connect, tmp_path / "local", tmp_path)
    with pytest.raises(Mistake, match=r"local is not the folder of this sweep on .*on a shared file system"):
        elsewhere.enter(Worker.here("w0"))
    (desk.place.out / "sweep.json").unlink()
    with pytest.raises(Mistake, match=r"sweep.json: No such file"):
        remote.enter(Worker.here("w0"))


def test_a_worker_is_known_while_it_is_there_and_can_be_let_go(remote, desk):
    me = Worker.here("w3")
    remote.enter(me)
    assert desk.present() == {"w3": me.pid}
    assert remote.again().dismissed("w3") == ""
    desk.dismiss(["w3"])
    assert remote.dismissed("w3") == "the sweep has no more work for it"


def test_many_ask_at_once_and_each_trial_is_given_once(at_socket, tmp_path):
    Ledger(tmp_path / "sweep" / "ledger.sqlite").add(trials(40)[3:])
    found: list[int] = []

    def work(name):
        remote = Remote(lambda: carrier(at_socket), tmp_path / "sweep", tmp_path)
        while leases := remote.lease(Worker.here(name), 1):
            found.append(leases[0].number)

    threads = [threading.Thread(target=work, args=(f"w{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(found) == list(range(40))


def test_only_who_has_the_key_is_answered_and_silence_keeps_nobody_waiting(at_socket):
    about = json.loads(at_socket.read_text())
    assert stat.S_IMODE(at_socket.stat().st_mode) == 0o600
    with socket.create_connection((about["host"], about["port"])):
        assert json.loads(carrier(at_socket)(json.dumps({"call": "tick", "given": [], "named": {}})))["answer"] > 0
        with pytest.raises(AuthenticationError):
            Client((about["host"], about["port"]), authkey=b"guessed")
    at_socket.write_text(json.dumps(about | {"key": "00"}))
    with pytest.raises(ConnectionError, match=r"another process answers at 127.0.0.1"):
        carrier(at_socket)


def test_where_nobody_answers_a_worker_leaves(desk, tmp_path):
    open_ = Open(desk, "127.0.0.1", desk.place.out / "desk.json")
    remote = Remote(lambda: carrier(desk.place.out / "desk.json"), desk.place.out, tmp_path, patience=0.1)
    assert remote.tick() > 0
    open_.close()
    assert not (desk.place.out / "desk.json").exists()
    remote._carry = None
    with pytest.raises(Unreachable, match=r"nobody answers for the sweep in .*sweep: .*No such file"):
        remote.tick()
    with StopSignal() as stop, Heart(remote, Worker.here("w0"), lambda desk: desk.dismissed("w0"), 0.05) as heart:
        deadline = time.monotonic() + 10
        while stop.requested is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert heart.why.startswith("nobody answers for the sweep")


def test_a_machine_with_another_commit_is_refused_where_the_commit_matters():
    me = Worker.here("w0", code="abc")
    same_code(me, {"strict_code": False, "code": "def"})
    same_code(me, {"strict_code": True, "code": "abc"})
    with pytest.raises(Mistake, match=r"has code abc, and --strict-code asks for def; install that one there"):
        same_code(me, {"strict_code": True, "code": "def"})


def test_what_keeps_a_worker_from_beginning_is_its_last_word(desk, tmp_path):
    found = far.work(tmp_path / "local", "w0", "job 7", lambda: desk.ask, None, {})
    assert found.status == 2
    assert re.search(r"^jaxrec: .*local is not the folder of this sweep on .* \(job 7\)", found.log[0])
    assert not (tmp_path / "local").exists()


class Queue(Away):
    """Whoever is started waits for a machine until ``left`` says how it ended."""

    def __init__(self, out, desk, count):
        super().__init__(out, count, desk)
        self.left, self.killed, self.closed = {}, [], False

    def start(self, post):
        self.begun(post)
        return post.name

    def over(self, post):
        return Ended(post, self.pid(post), *self.left.pop(post.name)) if post.name in self.left else None

    def end(self, post):
        self.killed.append(post.name)

    def close(self):
        self.closed = True


def test_who_waits_for_a_machine_is_not_waited_for(desk, tmp_path):
    team = Queue(tmp_path, desk, 2)
    team.fill(2, [])
    desk.enter(asdict(Worker.here("w1")))
    assert team.children == [Worker.here("w1").pid]
    team.kill(lambda name, pid: pid == Worker.here("w1").pid)
    assert team.killed == ["w1"]
    desk.forget("w1")
    team._came.clear()
    began = time.monotonic()
    team.stop(patience=60.0)
    assert time.monotonic() - began < 10
    assert team.closed
    assert [(each.post.name, each.pid, each.status) for each in team.ended()] == [("w0", 0, AGAIN), ("w1", 0, AGAIN)]
    assert team.ended() == []
    assert not team.working
    assert desk.dismissed("w0")


def test_a_lost_node_is_no_failure_of_its_place_and_an_error_after_a_long_wait_is(desk, tmp_path):
    team = Queue(tmp_path, desk, 1)
    [post] = team.posts
    for status, failed in ((1, 1), (1, 2), (None, 0), (0, 0)):
        post.began = -1e9
        team.fill(1, [])
        post.began -= 3600.0
        team.left["w0"] = (status, "so", ["last word"])
        [ended] = team.ended()
        assert (ended.status, post.failed, post.log, post.process) == (status, failed, ["last word"], None)
