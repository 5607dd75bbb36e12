"""What a training remembers when it is cut: what early stopping has seen, and where the best weights are."""

import json
from dataclasses import replace

import numpy as np
import pytest

from jaxrec.data.demo import Demo
from jaxrec.runs import fitting
from jaxrec.runs.fitting import Diverged, GivenUp
from jaxrec.runs.options import Batch, Config, Evaluation, Model, Optimizer, Stopping
from jaxrec.runs.run import train
from jaxrec.training.stop import Stopped

# a learning rate so high that a later epoch is soon worse than an earlier one
CONFIG = Config(
    demo=Demo(users=60, items=60, events=10, genres=4, lag=2), epochs=30, checkpoint_seconds=0.0,
    model=Model(width=8, dropout=0.3), batch=Batch(size=4, length=10), stop=Stopping(patience=2),
    optimizer=Optimizer(lr=0.5, warmup=3), eval=Evaluation(metrics=("hr@5", "ndcg@10")),
)  # fmt: skip


class Killed(Exception):
    pass


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXREC_CACHE", str(tmp_path / "cache"))


def go(run):
    return train(replace(CONFIG, run=str(run)), say=lambda sentence: None)


def weights(run):
    with np.load(run / "bundle" / "weights.npz") as file:
        return {name: array.tobytes() for name, array in file.items()}


def judgements(run):
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [row["valid"] for row in rows if "valid" in row]


def test_early_stopping_knows_after_a_kill_what_it_had_seen_before(tmp_path, monkeypatch):
    """Killed after the best epoch and again after the first that was worse: another best or a fresh count of patience
    would stop elsewhere.
    """
    whole, run = go(tmp_path / "whole"), tmp_path / "cut"
    best, last = whole["valid"]["epoch"], whole["epochs"]
    assert (whole["stopped"], last) == ("patience", best + 2)
    for epoch in (best, best + 1):

        def dies(self, state, clock, epoch=epoch):
            if clock.epoch == epoch:  # complete epochs
                raise Killed
            return False

        with monkeypatch.context() as patch:
            patch.setattr(fitting.Fitting, "pause", dies)
            with pytest.raises(Killed):
                go(run)
    resumed = go(run)
    assert (resumed["stopped"], resumed["epochs"], resumed["valid"]["epoch"]) == ("patience", last, best)
    assert judgements(run) == judgements(tmp_path / "whole")
    assert weights(run) == weights(tmp_path / "whole")


def test_a_signal_that_comes_while_processes_agree_is_heard_the_next_time(tmp_path, monkeypatch):
    told, heard = fitting.Fitting.told, []

    def interrupted(self, *first):
        def united(value):
            self.signal.requested = "SIGTERM"
            return [value]

        with monkeypatch.context() as patch:
            patch.setattr(fitting.team, "united", united)
            heard.append(told(self, *first))
        return heard[-1]

    monkeypatch.setattr(fitting.Fitting, "told", interrupted)
    with pytest.raises(Stopped, match="SIGTERM: saved after step"):
        go(tmp_path / "run")
    assert [signal for signal, *_ in heard] == [None, "SIGTERM"]


def test_the_plan_of_every_epoch_is_made_once(tmp_path, monkeypatch):
    made, plan = [], fitting.plan

    def counted(config, prepared, epoch):
        made.append(epoch)
        return plan(config, prepared, epoch)

    monkeypatch.setattr(fitting, "plan", counted)
    monkeypatch.setattr("jaxrec.runs.run.plan", counted)
    result = go(tmp_path / "run")
    assert made == list(range(result["epochs"]))


def test_a_run_is_given_up_after_a_validation_and_goes_on_when_asked_otherwise(tmp_path):
    config, heard = replace(CONFIG, epochs=3, stop=Stopping(patience=0)), []

    def ask(epoch, seconds, values):
        heard.append((epoch, values["ndcg@10"]))
        assert seconds > 0
        return epoch == 2

    def trained(name, ask=None):
        return train(replace(config, run=str(tmp_path / name)), say=lambda sentence: None, ask=ask)

    trained("whole", lambda *reading: False)
    with pytest.raises(GivenUp, match="given up after epoch 2"):
        trained("cut", ask)
    assert [epoch for epoch, _ in heard] == [1, 2]
    assert not (tmp_path / "cut" / "result.json").exists()
    trained("cut", ask)
    assert [epoch for epoch, _ in heard] == [1, 2, 3]
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


def test_what_is_not_finite_is_a_mistake_of_its_own_kind(tmp_path):
    wild = replace(CONFIG, run=str(tmp_path / "run"), optimizer=Optimizer(lr=1e30, clip=0.0, name="adam", eps=1e-30))
    with pytest.raises(Diverged, match="not finite"):
        train(wild, say=lambda sentence: None)
