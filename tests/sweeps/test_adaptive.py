"""Sweeps whose proposals depend on what came out: a cut one goes on to the table of one that nothing disturbed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from jaxrec.cli import main
from jaxrec.sweeps.ledger import Ledger
from jaxrec.sweeps.rows import timeless
from jaxrec.training.stop import AGAIN

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    *("--demo.users", "60", "--demo.items", "240", "--demo.genres", "4", "--demo.lag", "2", "--epochs", "1"),
    *("--batch.size", "16", "--batch.length", "10", "--stop.patience", "0", "--eval.metrics", "hr@5", "ndcg@10"),
    *("--model.width", "4", "--optimizer.lr", "log(1e-3, 1e-1)", "--optimizer.weight-decay", "log(1e-6, 1e-2)"),
    *("--workers", "1"),
]
CHOICE = ["--model.cell", "gru|mgu"]
SEARCHES = {  # a sampler looks back after a few trials at random: ten of TPE, one generation of six of CMA-ES
    "tpe": (["--trials", "12"], 10),
    "cmaes": (["--trials", "9"], 7),
    "nsga2": (["--trials", "6", "--seeds", "2", "--objectives", "ndcg@10", "parameters", *CHOICE], 3),
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("JAXREC_CACHE", str(tmp_path_factory.getbasetemp() / "sweeps-cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("undisturbed")


def whole(place, search):
    """The folder of a sweep that nothing disturbed."""
    if not (place / search).exists():
        finish(start(place / search, search, SEARCHES[search][0]))
    return place / search


def start(out, search, words):
    command = [sys.executable, "-m", "jaxrec", "sweep", "--out", str(out), "--search", search, *TINY, *words]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def rows(out):
    return [timeless(json.loads(line)) for line in (out / "trials.jsonl").read_text().splitlines()]


def attempts(out):
    ledger = Ledger(out / "ledger.sqlite")
    try:
        return ledger.attempts()
    finally:
        ledger.close()


def finish(process):
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 0, said


def at_work(out, number):
    """The process that trains a trial with this number or a later one, None before there is one."""
    if not (out / "sweep.json").exists():  # the ledger is being made
        return None
    found = [row["pid"] for row in attempts(out) if row["number"] >= number and row["state"] == "running"]
    return found[-1] if found else None


def cut(process, out, number, how):
    """Disturb a sweep once a trial runs: a signal to it, or its end or its worker's without one."""
    deadline = time.monotonic() + 120
    while (worker := at_work(out, number)) is None:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    victim = worker if how == "worker" else process.pid
    os.kill(victim, signal.SIGTERM if how == "told" else signal.SIGKILL)


@pytest.mark.parametrize(("search", "how"), [("tpe", "told"), ("cmaes", "sweep"), ("nsga2", "worker")])
def test_a_cut_sweep_goes_on_to_the_table_of_one_that_nothing_disturbed(search, how, place, tmp_path):
    words, number = SEARCHES[search]
    expected = rows(whole(place, search))
    process = start(tmp_path / "cut", search, words)
    cut(process, tmp_path / "cut", number, how)
    if how != "worker":
        process.communicate(timeout=300)
        assert process.returncode == (AGAIN if how == "told" else -signal.SIGKILL)
        assert len([row for row in attempts(tmp_path / "cut") if row["state"] == "done"]) < int(words[1])
        process = start(tmp_path / "cut", search, words)
    finish(process)
    found = rows(tmp_path / "cut")
    assert [row["number"] for row in found] == list(range(int(words[1])))
    assert {row["state"] for row in found} == {"done"}
    assert [row["point"] for row in found] == [row["point"] for row in expected]
    assert found == expected
    ends = Counter(row["number"] for row in attempts(tmp_path / "cut") if row["state"] == "done")
    assert ends == Counter(row["number"] for row in found), "none twice"
    assert how == "sweep" or len(attempts(tmp_path / "cut")) > len(found), "a trial was cut, and went on"


def test_seeds_and_two_objectives_have_a_row_each_and_are_led_by_means(place, capsys):
    out = whole(place, "nsga2")
    assert main(["sweep", "--out", str(out), "--json"]) == 0
    said, found = json.loads(capsys.readouterr().out), rows(out)
    assert [(row["seed"], row["repeat"]) for row in found] == [(0, 0), (1, 1)] * 3
    pairs = list(zip(found[::2], found[1::2], strict=True))
    assert all(one["point"] == two["point"] for one, two in pairs)
    means = [(one["valid"]["ndcg@10"] + two["valid"]["ndcg@10"]) / 2 for one, two in pairs]
    first = means.index(max(means))
    values = {"ndcg@10": pytest.approx(means[first]), "parameters": pairs[first][0]["parameters"]}
    assert said["best"][0]["values"] == values
    assert [entry["direction"] for entry in said["objectives"]] == ["maximize", "minimize"]


def test_cmaes_refuses_a_choice_before_anything_is_trained(tmp_path, capsys):
    words = ["--search", "cmaes", "--trials", "4", *CHOICE]
    assert main(["sweep", "--out", str(tmp_path / "sweep"), *TINY, *words]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "jaxrec: --search cmaes needs a space of numbers that are always there, and model.cell is a choice between "
        "values; use tpe, or leave it out of the space"
    )
    assert not (tmp_path / "sweep").exists()
