"""Sweeps on a real Ray cluster and as submitit's jobs, disturbed, end in the table of one that stayed at home."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxrec.config import Mistake
from jaxrec.sweeps.hiring import hired
from jaxrec.sweeps.ledger import Ledger
from jaxrec.sweeps.options import Sweep
from jaxrec.sweeps.rows import timeless
from jaxrec.sweeps.sweep import sweep

ROOT = Path(__file__).resolve().parents[2]
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # and nobody else is let in
CELL = """
import os, pathlib, time
from jaxrec.cells import GRU

class Mine(GRU):
    pass

if "FAR" in os.environ or "SUBMITIT_EXECUTOR" in os.environ:
    if "jaxrec-cells-" not in __file__:
        raise RuntimeError(f"{__file__} is not what came with the trial")
    while not pathlib.Path("gate").exists():  # in the folder where the sweep began
        time.sleep(0.05)
"""
SPACE = {
    "demo.users": "60", "demo.items": "240", "demo.genres": "4", "demo.lag": "2", "epochs": "8",
    "model.dropout": "0.0", "batch.size": "8", "batch.length": "10", "eval.metrics": "ndcg@10", "stop.patience": "0",
    "model.width": "4", "model.cell": "mine.py:Mine", "optimizer.lr": "0.01|0.02|0.05",
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Where sweeps are started; no worker is."""
    place = tmp_path_factory.mktemp("home")
    (place / "mine.py").write_text(CELL)
    return place


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A head without processors and two nodes with one each."""
    pytest.importorskip("ray", reason="ray is an extra")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**QUIET, "PYTHONPATH": str(ROOT), "FAR": "1"}.items():
            patch.setenv(name, value)
        patch.setenv("JAXREC_CACHE", str(tmp_path_factory.mktemp("far")))
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        from ray.cluster_utils import Cluster

        small = {"node_ip_address": "127.0.0.1", "object_store_memory": 80 << 20}
        before = signal.getsignal(signal.SIGTERM)
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **small})
        try:
            for _ in range(2):
                made.add_node(num_cpus=1, **small)
            yield made
        finally:
            made.shutdown()
            signal.signal(signal.SIGTERM, before)


def begin(out, home, *words, space=SPACE):
    flags = [word for name, value in space.items() for word in (f"--{name}", value)]
    command = [sys.executable, "-m", "jaxrec", "sweep", "--out", str(out), "--search", "grid", *flags, *words]
    env = {name: value for name, value in os.environ.items() if name != "FAR"} | QUIET | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=home, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def table(out):
    return [timeless(json.loads(line)) for line in (out / "trials.jsonl").read_text().splitlines()]


def attempts(out):
    return Ledger(out / "ledger.sqlite").attempts() if (out / "sweep.json").exists() else []


def readings(out, number):
    return Ledger(out / "ledger.sqlite").readings(number)


def until(condition, process, seconds=120.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory, home):
    """The table of a sweep that nothing disturbed, on this machine."""
    out = tmp_path_factory.mktemp("whole") / "sweep"
    here = begin(out, home, "--workers", "1")
    said = here.communicate(timeout=120)
    assert here.returncode == 0, said
    return table(out)


def running(out, count=0):
    """Attempts that run and have validated so often."""
    return [row for row in attempts(out) if row["state"] == "running" and len(readings(out, row["number"])) >= count]


def both(out, home, process):
    """Let trials begin as soon as there are two workers; the first that has validated twice."""
    until(lambda: len({row["host"] for row in running(out)}) == 2, process)
    (home / "gate").touch()
    return until(lambda: running(out, 2), process)[0]


def ends(out):
    return sorted(row["number"] for row in attempts(out) if row["state"] == "done")


def test_a_node_that_is_killed_costs_no_trial_and_the_table_is_the_same(cluster, home, whole, tmp_path):
    out = tmp_path / "sweep"
    (home / "gate").unlink(missing_ok=True)
    far = begin(out, home, "--on", "ray", "--address", cluster.address)
    hit = both(out, home, far)
    [node] = [node for node in cluster.worker_nodes if node.node_id[:8] in hit["host"]]
    cluster.remove_node(node, allow_graceful=False)
    _, said = far.communicate(timeout=180)
    assert far.returncode == 0, said
    assert table(out) == whole
    assert {row["state"] for row in table(out)} == {"done"}
    assert ends(out) == [0, 1, 2]
    lost, after = [row for row in attempts(out) if row["number"] == hit["number"]]
    assert (lost["state"], lost["reason"]) == ("stopped", "its node is gone")
    assert lost["host"] != after["host"]
    assert "its node is gone; what it had waits for another" in said
    log = (out / "workers" / f"{after['worker']}.log").read_text().partition(f"trial {hit['number']}, ")[2]
    assert "resum" in log.splitlines()[3], log


def test_a_worker_that_is_killed_and_a_sweep_that_is_stopped_go_on(cluster, home, whole, tmp_path):
    out, words = tmp_path / "sweep", ("--on", "ray", "--address", cluster.address, "--workers", "1")
    far = begin(out, home, *words)
    (home / "gate").touch()
    [hit] = until(lambda: running(out), far)
    os.kill(hit["pid"], signal.SIGKILL)
    until(lambda: ends(out), far)
    far.send_signal(signal.SIGTERM)
    _, said = far.communicate(timeout=60)
    assert far.returncode == 75, said
    assert "the same command goes on from there" in said
    first = attempts(out)[0]
    assert (first["state"], first["reason"]) == ("failed", "the process ended with no exit status, as after SIGKILL")
    assert not running(out)
    again = begin(out, home, *words)
    assert again.wait(120) == 0, again.communicate()
    assert table(out) == whole
    assert ends(out) == [0, 1, 2]


def test_jobs_that_are_killed_or_given_notice_cost_no_trial(home, whole, tmp_path):
    pytest.importorskip("submitit", reason="submitit is an extra")
    out = tmp_path / "sweep"
    (home / "gate").unlink(missing_ok=True)
    jobs = begin(out, home, "--on", "slurm", "--workers", "2", "--slurm", "cluster=local", "timeout_min=10")
    noticed = both(out, home, jobs)
    os.kill(noticed["pid"], signal.SIGUSR2)  # as Slurm does before it takes the machine away
    [killed, *_] = until(lambda: [row for row in running(out) if row["pid"] != noticed["pid"]], jobs)
    os.kill(killed["pid"], signal.SIGKILL)
    _, said = jobs.communicate(timeout=180)
    assert jobs.returncode == 0, said
    assert table(out) == whole
    assert ends(out) == [0, 1, 2]
    found = {row["attempt"]: row for row in attempts(out)}
    assert found[noticed["attempt"]]["state"] == "stopped"
    assert found[killed["attempt"]]["reason"] == "the process ended with no exit status, as after SIGKILL"
    assert not (out / "desk.json").exists()
    assert "2 jobs at a time of this machine" in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"address": "h:1"}, "--address h:1 is of a cluster, and this sweep works here; say --on ray or --on slurm"),
        ({"on": "ray", "slurm": ("partition=gpu",)}, "--slurm partition=gpu is for Slurm; say --on slurm"),
        ({"on": "slurm"}, "--on slurm does not know how many jobs to have at a time; say --workers N"),
    ],
    ids=str,
)
def test_options_that_mean_nothing_together_are_refused(tmp_path, options, words):
    with pytest.raises(Mistake) as refused:
        sweep(Sweep(out=str(tmp_path / "s"), trials=1, **options), {}, command=[])
    assert str(refused.value) == words
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cluster=local", "gpu"], "--slurm gpu says no value; write name=value, as in partition=gpu timeout_min=120"),
        (["cluster=local nodes=2"], "--slurm nodes=2: a worker is one task of one node; say --workers instead"),
        (["cluster=local", "no_such=2"], "--slurm no_such=2 is refused by submitit: "),
        (["cluster=there"], "AutoExecutor doesn't know any executor named there"),
        (["partition=gpu"], 'is refused by submitit: Could not detect "srun"'),
    ],
    ids=str,
)
def test_words_that_submitit_does_not_know_are_refused(tmp_path, monkeypatch, words, said):
    pytest.importorskip("submitit", reason="submitit is an extra")
    monkeypatch.setenv("PATH", str(tmp_path))  # without Slurm
    options = Sweep(out=str(tmp_path), on="slurm", workers=1, slurm=tuple(words), address="127.0.0.1")
    with pytest.raises(Mistake) as refused:
        hired(tmp_path, options)
    assert said in str(refused.value)


@pytest.mark.parametrize(("on", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch, on, package):
    monkeypatch.delitem(sys.modules, f"jaxrec.sweeps.on_{on}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(Mistake, match=rf"--on {on} needs {package}: pip install 'jaxrec\[{on}\]'"):
        hired(tmp_path, Sweep(out=str(tmp_path), on=on, workers=1))


def test_slots_are_gpus_or_an_even_share_of_the_processors():
    slots = pytest.importorskip("jaxrec.sweeps.on_ray", reason="ray is an extra").slots
    gpus, cores = [{"CPU": 16.0, "GPU": 2.0}, {"CPU": 16.0, "GPU": 1.0}, {"CPU": 4.0}], [{"CPU": 6.0}, {"CPU": 6.0}, {}]
    assert slots(gpus, None) == (3, {"num_gpus": 1, "num_cpus": 0})
    assert slots(gpus, 2)[0] == 2
    assert slots(cores, None) == (12, {"num_cpus": 1})
    assert slots(cores, 2) == (2, {"num_cpus": 6})
    assert slots(cores, 3) == (3, {"num_cpus": 3})
    assert slots(cores, 20) == (20, {"num_cpus": 1})  # some wait until nodes come
    assert slots([{}], 3) == (3, {"num_cpus": 1})
    with pytest.raises(Mistake, match="neither GPUs nor CPUs"):
        slots([{}], None)
