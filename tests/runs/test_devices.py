"""Whole runs on several devices: the numbers of one, on whatever mesh they are gone on with."""

import gc
import gzip
import json
import re
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec.config import Mistake
from jaxrec.data.demo import Demo
from jaxrec.runs import planner, tracing
from jaxrec.runs.options import Batch, Config, Evaluation, Model, Optimizer
from jaxrec.runs.run import train
from jaxrec.training.spread import Spread, whole_tables

TINY = Config(
    demo=Demo(users=60, items=60, events=10, genres=4, lag=2), model=Model(width=8, dropout=0.3), epochs=3,
    batch=Batch(size=4, length=10),
    optimizer=Optimizer(schedule="cosine", warmup=3), eval=Evaluation(metrics=("hr@5", "ndcg@10")),
)  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXREC_CACHE", str(tmp_path / "cache"))


def go(run, **changes):
    said: list[str] = []
    return train(replace(TINY, run=str(run), **changes), say=said.append), said


def records(run):
    return [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("mode", ["jit", "shard_map", "pmap"])
def test_several_devices_train_the_same_run(tmp_path, mode):
    alone, _ = go(tmp_path / "alone", epochs=2)
    go(tmp_path / "many", epochs=2, max_seconds=0.0)
    many, _ = go(tmp_path / "many", epochs=2, parallel=mode, devices=2)  # begun on one device, gone on with on two
    assert many["run_id"] == alone["run_id"]
    losses = [[row["loss"] for row in records(tmp_path / run) if "loss" in row] for run in ("alone", "many")]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    with pytest.raises(Mistake, match=r"batch\.size = 4 rows cannot be shared evenly by 3 devices"):
        go(tmp_path / "odd", parallel=mode, devices=3)


def test_tables_in_pieces_train_the_same_run(tmp_path):
    """Begun on one device, gone on with on four that have a half of the tables each, ended on two."""
    few = {
        "epochs": 3, "model": replace(TINY.model, user=True), "optimizer": replace(TINY.optimizer, average=0.9)
    }  # fmt: skip
    alone, _ = go(tmp_path / "alone", **few)
    go(tmp_path / "many", **few, max_seconds=0.0)
    go(tmp_path / "many", **few, devices=4, shards=2, max_seconds=0.0)
    many, _ = go(tmp_path / "many", **few, devices=2, shards=2, parallel="shard_map")
    assert many["run_id"] == alone["run_id"]
    losses = [[row["loss"] for row in records(tmp_path / run) if "loss" in row] for run in ("alone", "many")]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    for name in ("test", "valid"):
        found, wanted = (result[name]["masked"]["ndcg@10"] for result in (many, alone))
        assert found == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize(("devices", "shards"), [(1, 1), (4, 2)])
def test_memory_is_foretold_and_a_training_compiles_once(tmp_path, monkeypatch, devices, shards):
    whole_tables.cache_clear()  # its programs would be those of every training in this process
    runs, spread = [], planner.spread
    monkeypatch.setattr(planner, "spread", lambda *given: runs.append(spread(*given)) or runs[-1])
    result, said = go(tmp_path / "a", devices=devices, shards=shards)
    (line,) = [sentence for sentence in said if sentence.startswith("memory: ")]
    assert "on each device, as compiled" in line
    assert result["complete"]
    assert len(runs[0].run.programs) == 1, "every dispatch of three epochs has the shapes of the first"


@pytest.mark.parametrize(("devices", "shards"), [(1, 1), pytest.param(4, 2, marks=pytest.mark.long)])
def test_a_training_has_its_state_once(tmp_path, monkeypatch, devices, shards):
    """Before a step: the table of items and two moments of it; what was drawn first is gone."""
    alive, call, width = [], Spread.__call__, 11 + 2 * shards

    def counted(self, state, *rest):
        gc.collect()
        alive.append(sum(leaf.shape == state.tables["item"].shape for leaf in jax.live_arrays()))
        return call(self, state, *rest)

    monkeypatch.setattr(Spread, "__call__", counted)
    go(tmp_path / "a", model=replace(TINY.model, width=width), devices=devices, shards=shards, epochs=1)
    assert set(alive) == {3}


def test_what_does_not_fit_is_refused_with_what_would_need_less(tmp_path, monkeypatch):
    """A machine whose memory is full. What would need more, as 512 negatives of 60 items do, is no advice."""
    monkeypatch.setattr(planner, "free_memory", lambda: 0.0)
    with pytest.raises(Mistake) as found:
        go(tmp_path / "a", batch=Batch(size=64, length=10), model=replace(TINY.model, width=64))
    words = str(found.value)
    numbers = re.findall(r"(needs|would need) ([\d.]+) (KiB|MiB)", words)
    needs, *others = (float(number) * {"KiB": 1, "MiB": 1024}[unit] for _, number, unit in numbers)
    assert len(others) >= 2
    assert others == sorted(others)
    assert others[-1] < needs
    assert "--batch.size 32 --optimizer.accumulate 2 (the same updates) would need" in words
    assert "sampled_softmax" not in words
    assert not (tmp_path / "a" / "result.json").exists()


def test_the_plan_counts_the_bytes_that_lie_on_a_device():
    given = {"a": jnp.zeros((3, 5)), "b": jnp.zeros(7, jnp.int32), "key": jax.random.key(0)}
    assert planner.held(given) == 4 * 15 + 4 * 7
    assert planner.size(3 * 2**20) == "3.0 MiB"
    assert not planner.Plan(1, 1, 5, 4.0).fits


def test_a_trace_is_written_and_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(tracing, "SECONDS", 0.0)
    plain, _ = go(tmp_path / "plain")
    traced, _ = go(tmp_path / "traced", trace=True)
    assert traced["run_id"] == plain["run_id"]
    assert traced["test"] == plain["test"]
    (found,) = (tmp_path / "traced" / "trace").rglob("perfetto_trace.json.gz")
    events = json.loads(gzip.decompress(found.read_bytes()))["traceEvents"]
    assert any("while" in event.get("name", "") for event in events), "the loop over steps is in it"
    assert not (tmp_path / "plain" / "trace").exists()
