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
from jaxrec.training.checkpoints import Checkpoints

TINY = Config(
    demo=Demo(users=60, items=60, events=10, genres=4, lag=2), model=Model(width=8, dropout=0.3, cell="lstm"),
    batch=Batch(layout="lanes", size=4, length=2), optimizer=Optimizer(schedule="cosine", warmup=3),
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


def die_at(step, patch):
    """Every step is saved, until the run dies after one that is not."""
    pause = fitting.Fitting.pause

    def dies(self, state, clock):
        if clock.step >= step:
            raise Killed
        return pause(self, state, clock)

    patch.setattr(fitting.Fitting, "pause", dies)
    patch.setattr(fitting.Loop, "adapt", lambda self, count, seconds: None)  # one step a dispatch


def test_a_run_killed_inside_an_epoch_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    whole = go(tmp_path / "whole")
    wanted = arrays(tmp_path / "whole")
    assert 32 < whole["steps"] / 2 < 64 < whole["steps"], "at 64 the run is inside its second epoch"
    for at in (10, 64):
        run = tmp_path / str(at)
        with monkeypatch.context() as patch:
            die_at(at, patch)
            with pytest.raises(Killed):
                go(run, checkpoint_seconds=0.0)
        assert Checkpoints(run / "checkpoints").latest() == at - 1
        resumed = go(run)
        assert resumed["test"] == whole["test"]
        assert losses(run) == losses(tmp_path / "whole")
        for name, value in arrays(run).items():
            np.testing.assert_array_equal(value, wanted[name], err_msg=name)


def test_lanes_move_from_one_device_to_several_and_from_mode_to_mode(tmp_path):
    alone, run = go(tmp_path / "alone"), tmp_path / "many"
    go(run, max_seconds=0.0)
    for mode, devices in (("jit", 2), ("pmap", 4)):
        stopped = go(run, parallel=mode, devices=devices, max_seconds=0.0)
        assert not stopped["complete"]
    many = go(run, parallel="shard_map", devices=2)
    assert many["run_id"] == alone["run_id"]
    (steps, events, wanted), (same, also, found) = (
        zip(*losses(tmp_path / name), strict=True) for name in ("alone", "many")
    )
    assert (steps, events) == (same, also)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_micro_batches_run_as_many_lanes_side_by_side(tmp_path):
    """`accumulate` means: so many lanes in all, some of them on the device at one time."""
    go(tmp_path / "wide", epochs=1)
    go(tmp_path / "parts", epochs=1, batch=replace(TINY.batch, size=2), optimizer=replace(TINY.optimizer, accumulate=2))
    (steps, events, wanted), (same, also, found) = (
        zip(*losses(tmp_path / run), strict=True) for run in ("wide", "parts")
    )
    assert (steps, events) == (same, also)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_an_epoch_of_lanes_trains_on_every_pair_and_is_no_other_run(tmp_path):
    result = go(tmp_path / "run", epochs=1)
    assert sum(events for _, events, _ in losses(tmp_path / "run")) == result["protocol"]["counts"]["train_pairs"]
    with pytest.raises(Mistake, match=r'batch\.layout: "lanes" -> "packed"'):
        go(tmp_path / "run", epochs=1, batch=replace(TINY.batch, layout="packed"))
