"""Whole runs in lanes: killed in the middle of a sequence, on several devices, in micro-batches."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jaxrec.config import Mistake
from jaxrec.data.demo import Demo
from jaxrec.runs import fitting
from jaxrec.runs.options import Batch, Config, Evaluation, Model, Optimizer
from jaxrec.runs.run import train

TINY = Config(
    demo=Demo(users=40, items=60, events=12, genres=4, lag=2), model=Model(width=8, dropout=0.3, cell="lstm"),
    batch=Batch(layout="lanes", size=4, length=3), optimizer=Optimizer(schedule="cosine", warmup=3),
    eval=Evaluation(metrics=("hr@5", "ndcg@10")), epochs=2,
)  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXREC_CACHE", str(tmp_path / "cache"))


def go(run, config=TINY, **changes):
    return train(replace(config, run=str(run), **changes), say=lambda sentence: None)


def losses(run):
    rows = map(json.loads, (Path(run) / "metrics.jsonl").read_text().splitlines())
    return [(row["step"], row["events"], row["loss"]) for row in rows if "loss" in row]


def arrays(run):
    with np.load(Path(run) / "bundle" / "weights.npz") as file:
        return dict(file)


class Killed(Exception):
    pass


@pytest.mark.parametrize("at", [10, 64])
def test_a_run_killed_inside_an_epoch_goes_on_to_the_same_bits(tmp_path, monkeypatch, at):
    whole = go(tmp_path / "whole")
    assert whole["steps"] > 2 * 32, "at 64 the run is in its second epoch"
    pause = fitting.Fitting.pause

    def dies(self, state, clock):
        if clock.step >= at:
            raise Killed
        return pause(self, state, clock)

    with monkeypatch.context() as patch:
        patch.setattr(fitting.Fitting, "pause", dies)
        patch.setattr(fitting.Loop, "adapt", lambda self, count, seconds: None)  # one step a dispatch
        with pytest.raises(Killed):
            go(tmp_path / "cut", checkpoint_seconds=0.0)
    checkpoints = fitting.Checkpoints(tmp_path / "cut" / "checkpoints")
    assert checkpoints.latest() == at - 1
    resumed = go(tmp_path / "cut")
    assert resumed["test"] == whole["test"]
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    left, right = arrays(tmp_path / "whole"), arrays(tmp_path / "cut")
    for name, value in left.items():
        np.testing.assert_array_equal(value, right[name], err_msg=name)


@pytest.mark.parametrize("mode", ["jit", "shard_map", "pmap"])
def test_lanes_move_to_another_number_of_devices_and_back(tmp_path, mode):
    alone = go(tmp_path / "alone")
    go(tmp_path / "many", max_seconds=0.0)
    go(tmp_path / "many", parallel=mode, devices=2, max_seconds=0.0)
    go(tmp_path / "many", parallel=mode, devices=4, max_seconds=0.0)
    many = go(tmp_path / "many", parallel=mode, devices=2)
    assert many["run_id"] == alone["run_id"]
    (steps, events, wanted), (same, also, found) = (
        zip(*losses(tmp_path / run), strict=True) for run in ("alone", "many")
    )
    assert (steps, events) == (same, also)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    with pytest.raises(Mistake, match=r"batch\.size = 4 rows cannot be shared evenly by 3 devices"):
        go(tmp_path / "odd", parallel=mode, devices=3)


def test_micro_batches_run_as_many_lanes_side_by_side(tmp_path):
    """`accumulate` means: so many lanes in all, some of them on the device at one time."""
    go(tmp_path / "wide", epochs=1)
    go(tmp_path / "parts", epochs=1, batch=replace(TINY.batch, size=2), optimizer=replace(TINY.optimizer, accumulate=2))
    (steps, events, wanted), (same, also, found) = (
        zip(*losses(tmp_path / run), strict=True) for run in ("wide", "parts")
    )
    assert (steps, events) == (same, also)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_an_epoch_of_lanes_trains_on_every_pair(tmp_path):
    result = go(tmp_path / "run", epochs=1)
    assert sum(events for _, events, _ in losses(tmp_path / "run")) == result["protocol"]["counts"]["train_pairs"]


def test_the_layout_is_part_of_a_runs_identity(tmp_path):
    go(tmp_path / "run", epochs=1)
    with pytest.raises(Mistake, match=r"batch\.layout: 'lanes' -> 'packed'"):
        go(tmp_path / "run", epochs=1, batch=replace(TINY.batch, layout="packed"))
