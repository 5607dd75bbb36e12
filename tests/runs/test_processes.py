"""Whole runs of several processes, on loopback: the numbers of one, and what happens when one dies."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxrec.config import Mistake, resolve
from jaxrec.parallel.launch import free_port
from jaxrec.runs import planner
from jaxrec.runs.options import Config
from jaxrec.runs.run import evaluate, train

LIMIT = 240  # seconds; one process of a dead team could wait for ever
TINY: dict[str, Any] = {
    "demo.users": 24, "demo.items": 60, "demo.events": 10, "demo.genres": 4, "demo.lag": 2, "model.width": 8,
    "model.dropout": 0.3, "epochs": 2, "batch.size": 4, "batch.length": 5, "optimizer.schedule": "cosine",
    "optimizer.warmup": 3, "eval.metrics": ["hr@5", "ndcg@10", "ndcg@10[uni20,seed1]"],
}  # fmt: skip
MANY = TINY | {"epochs": 60, "checkpoint_seconds": 0.1}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXREC_CACHE", str(tmp_path / "cache"))


def words(options):
    """The options as a command line has them."""
    for name, value in options.items():
        yield f"--{name.replace('_', '-')}"
        if value is not True:
            yield from map(str, value if isinstance(value, list) else [value])


def launched(options, *launch, verb="train", devices=1, **env):
    """`jaxrec launch`; not waited for."""
    command = [sys.executable, "-m", "jaxrec", "launch", *launch, "--", verb, *words(options), "--json"]
    env = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"} | env
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def here(options, run, say=lambda sentence: None):
    """The same in this process alone."""
    return train(resolve(Config, flags=options | {"run": str(run)}).section, say=say)


def losses(run):
    records = [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if "loss" in record]


def same(found, wanted):
    """The run of one process, as far as sums in another order leave it so."""
    assert found["run_id"] == wanted["run_id"]
    np.testing.assert_allclose(losses(found["run"]), losses(wanted["run"]), rtol=1e-5)
    for reading, numbers in wanted["test"].items():
        if reading in ("masked", "unmasked", "sampled"):
            assert {name: found["test"][reading][name] for name in numbers} == pytest.approx(numbers, abs=1e-3)
    assert found["baselines"] == wanted["baselines"]


def test_two_processes_train_the_run_of_one(tmp_path):
    process = launched(TINY | {"run": tmp_path / "two"}, "-n", "2")
    out, said = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, said
    same(json.loads(out), here(TINY, tmp_path / "alone"))  # and so nothing else stands on standard output
    assert said.count("memory: ") == 1, "one process speaks for all"


def test_two_processes_judge_as_one(tmp_path):
    """The same ranks to the last one, in every file, also those that a run from before they were kept has not."""
    alone, two = tmp_path / "alone", tmp_path / "two"
    here(TINY | {"demo.users": 100, "epochs": 1}, alone)  # 64 sequences for one process, and the rest for the other
    (alone / "ranks-valid.npz").unlink()
    shutil.copytree(alone, two)
    more = ["map@5", "ndcg@10[pop20,seed2]"]
    wanted = evaluate(str(alone), metrics=more, parquet=str(tmp_path / "alone.parquet"), say=lambda sentence: None)
    options = {"run": two, "metrics": more, "parquet": tmp_path / "two.parquet"}
    process = launched(options, "-n", "2", verb="evaluate", XLA_FLAGS=os.environ["XLA_FLAGS"])
    out, said = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, said
    assert json.loads(out) == json.loads((two / "result.json").read_text()) == json.loads(json.dumps(wanted))
    assert said.count("two.parquet: ") == 1, "one process speaks for all"
    for name in ("ranks.npz", "ranks-valid.npz", "candidates.npz"):
        with np.load(alone / name) as one, np.load(two / name) as other:
            assert {key: one[key].tobytes() for key in one} == {key: other[key].tobytes() for key in other}
    assert (tmp_path / "alone.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_a_process_that_dies_ends_all_and_one_goes_on_with_their_run(tmp_path):
    run = tmp_path / "two"
    process = launched(MANY | {"run": run}, "-n", "2")
    wait_for_more_than(-1, run, process)
    os.kill(youngest(process.pid), signal.SIGKILL)
    killed = time.monotonic()
    _, said = process.communicate(timeout=LIMIT)
    assert time.monotonic() - killed < 30
    assert process.returncode == 1
    assert "process 1 of 0 to 1 ended (signal SIGKILL), so the other was ended too; the same command goes on" in said
    assert not (run / "result.json").exists()
    sentences: list[str] = []
    gone_on = here(MANY, run, sentences.append)
    assert any(sentence.startswith(f"resuming {run} after step ") for sentence in sentences)
    same(gone_on, here(MANY, tmp_path / "alone"))


def newest(run):
    """The step of the newest checkpoint; -1 before any."""
    return max((int(entry.name) for entry in (run / "checkpoints").glob("*") if entry.name.isdecimal()), default=-1)


def wait_for_more_than(step, run, process):
    began = time.monotonic()
    while newest(run) <= step and process.poll() is None and time.monotonic() < began + LIMIT:
        time.sleep(0.1)


def youngest(parent):
    """The process that a launcher has started last."""
    stats = [path.read_text() for path in Path("/proc").glob("[0-9]*/stat") if path.exists()]
    parents = {int(stat.split()[0]): int(stat.rpartition(")")[2].split()[1]) for stat in stats}
    return max(child for child, found in parents.items() if found == parent)


@pytest.mark.long
@pytest.mark.parametrize(
    ("processes", "devices", "options"),
    [
        (4, 1, {}),
        (2, 1, {"batch.layout": "lanes", "checkpoint_seconds": 0.1}),
        (2, 2, {"devices": 2, "shards": 2, "model.user": True}),
        (2, 1, {"events_on": "disk", "readers": 2}),
        (2, 2, {"events_on": "disk", "devices": 2, "shards": 2, "batch.layout": "lanes"}),
        (2, 1, {"parallel": "shard_map", "optimizer.average": 0.9, "optimizer.accumulate": 2}),
    ],
)
def test_processes_devices_and_layouts(tmp_path, processes, devices, options):
    process = launched(TINY | options | {"run": tmp_path / "many"}, "-n", str(processes), devices=devices)
    out, said = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, said
    same(json.loads(out), here(TINY | options | {"devices": 1, "shards": 1}, tmp_path / "alone"))


@pytest.mark.long
def test_a_run_changes_how_many_processes_it_has(tmp_path):
    """Cut short with two, gone on with by three, ended by one; a signal to one process stops all in order."""
    many, run = MANY | {"batch.size": 6}, tmp_path / "some"
    for processes in ("2", "3"):
        process = launched(many | {"run": run}, "-n", processes)
        wait_for_more_than(newest(run), run, process)
        os.kill(youngest(process.pid), signal.SIGTERM)
        _, said = process.communicate(timeout=LIMIT)
        assert process.returncode == 75
        assert "SIGTERM: saved after step" in said
    same(here(many, run), here(many, tmp_path / "alone"))


@pytest.mark.long
def test_a_machine_that_is_no_longer_heard_of_ends_the_others(tmp_path):
    """Two launchers, as on two machines; one of their processes is frozen, so that nothing tells the other of it."""
    where = f"127.0.0.1:{free_port()}"
    machines = [
        launched(MANY | {"run": tmp_path / "run"}, "--nodes", "2", "--node", node, "--coordinator", where)
        for node in ("0", "1")
    ]
    wait_for_more_than(-1, tmp_path / "run", machines[0])
    frozen, began = youngest(machines[1].pid), time.monotonic()
    os.kill(frozen, signal.SIGSTOP)
    try:
        machines[0].communicate(timeout=LIMIT)
        assert time.monotonic() - began < 30
        assert machines[0].returncode == 1
    finally:
        os.kill(frozen, signal.SIGKILL)
        machines[1].communicate(timeout=LIMIT)


@pytest.mark.long
def test_a_cluster_says_which_process_one_is(tmp_path):
    """As under `srun`, which starts a process for each of its tasks."""
    run = tmp_path / "two"
    slurm = {"SLURM_JOB_ID": "4711", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    tasks = [
        launched(TINY | {"run": run}, "--auto", **slurm, SLURM_PROCID=str(task), SLURM_LOCALID=str(task))
        for task in range(2)
    ]
    said = [task.communicate(timeout=LIMIT) for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], said
    assert said[1][0] == "", "the first has the result"
    same(json.loads(said[0][0]), here(TINY, tmp_path / "alone"))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"parallel": "pmap"}, "pmap sees the devices of one process"),
        ({"devices": 3, "shards": 2}, "shards=2 does not divide the 3 devices of a process"),
    ],
)
def test_what_processes_cannot_do_together_is_refused(options, sentence):
    with pytest.raises(Mistake, match=sentence):
        planner.refuse_together(resolve(Config, flags=TINY | options).section)
