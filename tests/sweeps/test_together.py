"""Trainings that run in one program are the runs that they are alone, in folders of their own."""

import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxrec import losses
from jaxrec.config import Call, Mistake, changed, resolve
from jaxrec.data.prepare import prepare_cached
from jaxrec.evaluation.ranks import Ranks, evaluate, evaluate_members
from jaxrec.losses.loss import Loss, traced
from jaxrec.runs import build, fitting, run
from jaxrec.runs.bundle import load
from jaxrec.runs.epochs import plan
from jaxrec.runs.fitting import Diverged, GivenUp
from jaxrec.runs.options import Config, Model
from jaxrec.sweeps import member, together
from jaxrec.sweeps.buckets import TRACED, bucket
from jaxrec.training.population import Executor, stack
from jaxrec.training.stop import Stopped

TINY = {
    "demo.users": 60, "demo.items": 240, "demo.genres": 4, "demo.lag": 2, "model.width": 4, "epochs": 3,
    "batch.size": 4, "stop.patience": 0,
}  # fmt: skip
OWN = [
    {"seed": 0, "optimizer.lr": 0.01}, {"seed": 1, "optimizer.lr": 0.003, "model.dropout": 0.4, "epochs": 2},
    {"seed": 2, "optimizer.lr": 0.03, "stop.patience": 1},
    {"seed": 0, "optimizer.weight_decay": 0.1, "model.init_scale": 0.5},
]  # fmt: skip


def config(folder, number, **other):
    return resolve(Config, flags=TINY | OWN[number % 4] | other | {"run": str(folder / str(number))}).section


@dataclass
class Job:
    config: Config


class Queue:
    """Trainings that wait; ``gives_up`` names epochs after which a training is given up."""

    def __init__(self, configs, gives_up=None):
        self.left, self.outcomes, self.heard, self.gives_up = [Job(one) for one in configs], {}, [], gives_up or {}

    def more(self, count):
        given, self.left = self.left[:count], self.left[count:]
        return given

    def ask(self, job, epoch, seconds, values):
        number = Path(job.config.run).name
        self.heard.append((number, epoch))
        return epoch >= self.gives_up.get(number, np.inf)

    def ended(self, job, outcome):
        self.outcomes[Path(job.config.run).name] = outcome
        if isinstance(outcome, KeyboardInterrupt):
            raise outcome


def train(queue, slots=2, executor=None):
    return together.train(queue, slots=slots, say=lambda sentence: None, executor=executor or Executor(slots))


def plain(result):
    """A result without what depends on the clock and the place."""
    return {key: value for key, value in result.items() if key not in ("seconds", "run")}


def near(a, b):
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key, value in a.items():
            near(value, b[key])
    elif isinstance(a, float):
        assert a == pytest.approx(b, rel=1e-5)
    else:
        assert a == b


def test_more_trainings_than_slots_end_as_each_does_alone(tmp_path):
    queue = Queue([config(tmp_path / "together", number) for number in range(4)])
    report = train(queue)
    assert report.slots == 2
    assert sorted(queue.outcomes) == ["0", "1", "2", "3"]
    for number in range(4):
        here, found = config(tmp_path / "alone", number), queue.outcomes[str(number)]
        wanted = run.train(here, say=lambda sentence: None)
        near(plain(found), plain(wanted))
        one, other = Path(here.run), tmp_path / "together" / str(number)
        assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in other.iterdir())
        records = [
            [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
            for folder in (one, other)
        ]
        assert [entry["step"] for entry in records[0]] == [entry["step"] for entry in records[1]]
        for name in ("greater", "equal", "target"):
            np.testing.assert_array_equal(np.load(one / "ranks.npz")[name], np.load(other / "ranks.npz")[name])
    again = Queue([config(tmp_path / "together", number) for number in range(4)])
    assert train(again) is None, "complete runs are answered from their folders"
    assert len(again.outcomes) == 4


def test_tables_in_pieces_and_traces_are_refused_and_not_passed_over(tmp_path):
    queue = Queue([config(tmp_path, 0, devices=2, shards=2), config(tmp_path, 1, trace=True)])
    assert train(queue) is None
    assert "shards=2" in str(queue.outcomes["0"])
    assert "trace" in str(queue.outcomes["1"])


def test_what_is_given_up_or_breaks_makes_room_and_leaves_the_others_alone(tmp_path):
    configs = [
        config(tmp_path, 0),
        config(tmp_path, 1, **{"optimizer.lr": 1e38}),
        *(config(tmp_path, n) for n in (2, 3)),
    ]
    queue = Queue(configs, gives_up={"2": 1})
    train(queue)
    assert isinstance(queue.outcomes["1"], Diverged)
    assert isinstance(queue.outcomes["2"], GivenUp)
    assert not (tmp_path / "2" / "result.json").exists()
    assert [epoch for number, epoch in queue.heard if number == "2"] == [1]
    assert [queue.outcomes[number]["epochs"] for number in "03"] == [3, 3]
    resumed = run.train(config(tmp_path, 2), say=lambda sentence: None)
    near(plain(resumed), plain(run.train(config(tmp_path / "alone", 2), say=lambda sentence: None)))


def test_a_cut_population_goes_on_from_its_checkpoints(tmp_path, monkeypatch):
    """Killed after some steps; who goes on has the numbers of who was never cut."""
    whole = Queue([config(tmp_path / "whole", number) for number in (0, 3)])
    train(whole)
    pause, dispatches = fitting.Fitting.pause, []

    def dies(self, held, clock):
        dispatches.append(clock.step)
        if len(dispatches) > 7:
            raise KeyboardInterrupt
        self.save(held())
        return pause(self, held, clock)

    with monkeypatch.context() as patch:
        patch.setattr(fitting.Fitting, "pause", dies)
        with pytest.raises(KeyboardInterrupt):
            train(Queue([config(tmp_path / "cut", number) for number in (0, 3)]))
    queue = Queue([config(tmp_path / "cut", number) for number in (0, 3)])
    train(queue)
    for number in "03":
        near(plain(queue.outcomes[number]), plain(whole.outcomes[number]))


def test_a_signal_saves_everybody_and_is_not_forgotten(tmp_path):
    """One comes in the midst of an epoch; all go on from there to where they would have come."""
    queue, ask = Queue([config(tmp_path, number) for number in (0, 3)]), Queue.ask

    def kicked(*heard):
        os.kill(os.getpid(), signal.SIGTERM)
        return ask(queue, *heard)

    queue.ask = kicked
    with pytest.raises(Stopped, match="SIGTERM"):
        train(queue)
    assert all(isinstance(outcome, Stopped) for outcome in queue.outcomes.values())
    again, alone = (
        Queue([config(tmp_path, number) for number in (0, 3)]),
        Queue([config(tmp_path / "a", n) for n in (0, 3)]),
    )
    train(again)
    train(alone)
    for number in "03":
        near(plain(again.outcomes[number]), plain(alone.outcomes[number]))


@pytest.mark.parametrize("split", ["valid", "test"])
def test_stacked_models_are_ranked_as_each_is(tmp_path, split):
    queue = Queue([config(tmp_path, number) for number in (0, 3)])
    train(queue)
    models = [load(tmp_path / number, allow_code=False).model for number in "03"]
    prepared = run.prepare_cached(config(tmp_path, 0), run.cache(), say=lambda sentence: None)
    found = evaluate_members(stack(models), prepared, split, k=5)
    for one, model in zip(found, models, strict=True):
        wanted = evaluate(model, prepared, split, k=5)
        for name in Ranks._fields:
            np.testing.assert_array_equal(getattr(one, name), getattr(wanted, name), err_msg=name)
    models[1].tables["item"] = models[1].tables["item"] * np.nan
    fine, broken = evaluate_members(stack(models), prepared, split)
    assert isinstance(fine, Ranks)
    assert "not a number" in str(broken)


def test_a_bucket_is_what_one_program_serves(tmp_path):
    """Whatever shares a bucket shares its step and the names of its rates; what a step takes traced divides nothing."""
    one = config(tmp_path, 0, loss="sampled_softmax(negatives=8, alpha=0.5)")
    alike = [
        {"seed": 5}, {"epochs": 9}, {"optimizer.lr": 1.0}, {"optimizer.clip": 0.0}, {"eval.users": 3},
        {"model.init": "glorot"}, {"model.init_scale": 0.5},
        {"model.init": "chrono", "model.horizon": 40},
        {"model.dropout": 0.9}, {"loss": "sampled_softmax(alpha=0.1, log_q=0.5, negatives=8, temperature=2)"},
    ]  # fmt: skip
    other = [
        {"model.dropout": 0.0}, {"model.width": 8}, {"batch.size": 8}, {"optimizer.name": "adam"},
        {"optimizer.momentum": 0.1}, {"model.state_dropout": 0.1}, {"loss": "sampled_softmax(negatives=9)"},
        {"optimizer.clip_value": 0.1}, {"optimizer.average": 0.9}, {"model.event_dropout": 0.1},
        {"loss": "sampled_softmax(negatives=8, propensity=0.1)"}, {"demo.users": 70}, {"model.cell": "lstm"},
        {"compute": "bfloat16"},
    ]  # fmt: skip

    def with_(**changes):
        flags = TINY | OWN[0] | {"loss": str(one.loss)} | changes
        return resolve(Config, flags=flags).section

    known = build.step(one, 10)
    for changes in alike:
        same = with_(**changes)
        assert bucket(same) == bucket(one), changes
        step, hyper = build.step(same, 20)
        assert step == known[0]
        assert hyper.keys() == known[1].keys()
    low, high = ({"optimizer.clip_value": value} for value in (0.1, 3.0))
    assert bucket(with_(**low)) == bucket(with_(**high))
    assert len({bucket(with_(**changes)) for changes in [{}, *other]}) == len(other) + 1
    kinds = [kind for kind in vars(losses).values() if isinstance(kind, type) and issubclass(kind, Loss)]
    floats = {name for kind in kinds if not getattr(kind, "__abstractmethods__", None) for name in traced(kind())}
    assert floats == set(TRACED["loss"])


def test_plans_of_one_seed_are_packed_once(tmp_path, monkeypatch):
    made = []
    plan = fitting.plan
    monkeypatch.setattr("jaxrec.sweeps.member.plan", lambda *given: made.append(given[2]) or plan(*given))
    one = config(tmp_path, 0)
    train(Queue([one, changed(one, run=str(tmp_path / "b"), optimizer=changed(one.optimizer, lr=0.002))]))
    assert sorted(made) == [0, 1, 2]


def test_plans_are_those_of_a_lone_run_and_do_not_pile_up(tmp_path, monkeypatch):
    one = config(tmp_path, 0, epochs=4)
    prepared = prepare_cached(one, tmp_path / "cache", say=lambda sentence: None)
    plans = member.Plans()
    for epoch in range(4):
        for seed in (0, 1, 1):
            asked = changed(one, seed=seed)
            found, alone = plans.of(asked, prepared, epoch), plan(asked, prepared, epoch)
            np.testing.assert_array_equal(found.index, alone.index)
    assert len(plans.made) == 8
    monkeypatch.setattr(member, "MEMORY", 0)
    plans.of(changed(one, seed=7), prepared, 0)
    assert len(plans.made) <= 3
    plans.close()


def test_a_model_that_cannot_be_drawn_in_one_program_is_built_as_it_is(tmp_path):
    """A user's cell may look at its weights; a mistake is the sentence of a lone run."""
    file = tmp_path / "looks.py"
    file.write_text(
        "import jax\nimport numpy as np\nfrom jaxrec.cells import GRU\n\nclass Looks(GRU):\n"
        "    def __init__(self, features, hidden, *, rngs):\n        super().__init__(features, hidden, rngs=rngs)\n"
        "        assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(self))\n"
    )
    offer = build.Offer(items=20, users=0, gaps=False, starts=False)
    for cell, exact in ((f"{file}:Looks", True), ("gru", False)):
        options = Model(width=4, cell=Call.parse(cell))
        for seed in (0, 3):
            found, alone = member.drawn(options, offer, seed=seed), build.model(options, offer, seed=seed)
            for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(alone), strict=True):
                np.testing.assert_allclose(a, b, rtol=0 if exact else 1e-6, atol=0 if exact else 1e-7)
    with pytest.raises(Mistake, match="needs users, and sequences are sessions here"):
        member.drawn(Model(width=4, user=True), offer, seed=0)
