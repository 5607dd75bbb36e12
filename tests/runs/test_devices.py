"""Whole runs on several devices: the numbers of one, on whatever mesh they are gone on with."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jaxrec.config import Mistake
from jaxrec.data.demo import Demo
from jaxrec.runs.options import Batch, Config, Evaluation, Model, Optimizer
from jaxrec.runs.run import train

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
