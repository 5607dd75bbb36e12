"""The launcher alone, with processes that are no trainings."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from jaxrec.config import Mistake
from jaxrec.parallel import launch
from jaxrec.parallel.launch import Child, Launch


def child(number, code):
    return Child(number, subprocess.Popen([sys.executable, "-c", code], start_new_session=True), None)


AGAIN = launch.TOGETHER["train"]
SLEEP = "import time; time.sleep(600)"


@pytest.fixture
def family():
    made: list[Child] = []

    def have(*codes):
        made.extend(child(number, code) for number, code in enumerate(codes))
        return made

    yield have
    launch.kill(made)


def test_a_process_that_dies_takes_the_others_with_it(family, monkeypatch):
    monkeypatch.setattr(launch, "GRACE", 0.5)
    children, said = family(SLEEP, "import os; os.kill(os.getpid(), 9)", SLEEP), []
    assert launch.watched(children, 3, AGAIN, said.append) == 1
    assert all(one.process.returncode == -signal.SIGKILL for one in children)
    (sentence,) = said
    assert sentence == (
        "process 1 of 0 to 2 ended (signal SIGKILL), so the others were ended too; the same command goes on from the "
        "last checkpoint, also with another -n"
    )


def test_the_one_that_was_killed_is_named_though_the_first_failed_too(family):
    children, said = family("raise SystemExit(1)", "import os; os.kill(os.getpid(), 9)"), []
    for one in children:
        one.process.wait()
    launch.watched(children, 2, AGAIN, said.append)
    assert said[0].startswith("process 1 of 0 to 1 ended (signal SIGKILL)")


def test_a_mistake_is_told_by_its_status_though_jax_aborts_who_still_waits(family):
    children, said = family("raise SystemExit(2)", "import os; os.abort()", "raise SystemExit(1)"), []
    for one in children:
        one.process.wait()
    assert launch.watched(children, 3, AGAIN, said.append) == 2
    assert said == []


@pytest.mark.parametrize(("codes", "status"), [((0, 0), 0), ((75, 75), 75), ((2, 2), 2)])
def test_what_all_say_alike_is_not_said_again(family, codes, status):
    said = []
    assert launch.watched(family(*(f"raise SystemExit({code})" for code in codes)), 2, AGAIN, said.append) == status
    assert said == []


def test_a_mistake_of_the_first_alone_is_enough(family, monkeypatch):
    monkeypatch.setattr(launch, "GRACE", 0.2)
    said = []
    assert launch.watched(family("raise SystemExit(2)", SLEEP), 2, AGAIN, said.append) == 2
    assert said == []


def test_signals_are_for_the_processes(family):
    """The launcher itself goes on watching: its processes save and leave with a status of their own."""
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
        "print('ready', flush=True); time.sleep(600)"
    )
    children = family()
    for number in range(2):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
        assert process.stdout.readline() == b"ready\n"
        children.append(Child(number, process, None))

    def later():
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGTERM)

    with launch.forwarding(children):
        threading.Thread(target=later).start()
        assert launch.watched(children, 2, AGAIN, lambda sentence: None) == 75


def test_what_a_silent_process_said_last_is_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "GRACE", 0.2)
    with open(tmp_path / "kept", "w+b") as kept:
        process = subprocess.Popen([sys.executable, "-c", "raise ValueError('ouch')"], stderr=kept)
        said: list[str] = []
        assert launch.watched([child(0, SLEEP), Child(1, process, kept)], 2, AGAIN, said.append) == 1
    assert said[0].endswith("  [1] ValueError: ouch")
    assert said[1].startswith("process 1 of 0 to 1 ended (status 1)")


@pytest.mark.parametrize(
    ("options", "words", "sentence"),
    [
        ({}, [], "launch runs `train` or `evaluate`, not 'nothing'"),
        ({}, ["sweep"], "not 'sweep'"),
        ({"nodes": 2, "node": 2, "coordinator": "a:1"}, ["train"], "node=2 of nodes=2; they count from 0, to 1"),
        ({"nodes": 2}, ["train"], "nodes=2 need a --coordinator host:port"),
    ],
)
def test_what_cannot_be_started_is_refused(options, words, sentence):
    with pytest.raises(Mistake, match=sentence):
        launch.refuse(Launch(**options), words)


def test_gpus_are_shared_out(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [launch.gpus(place, 2, 2) for place in range(2)] == [["0", "1"], ["2", "3"]]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,7")
    assert launch.gpus(2, 1, 3) == ["7"]
    with pytest.raises(Mistake, match="gpus-each=2 for 2 processes needs 4 GPUs, and CUDA_VISIBLE_DEVICES has 3"):
        launch.gpus(0, 2, 2)
