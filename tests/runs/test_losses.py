"""Every loss through one flag, and the profile gru4rec: trained, cut, resumed, saved and served."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

import jaxrec
from jaxrec.cli import _resolve_train
from jaxrec.config import Call, Mistake, resolve
from jaxrec.data.demo import Demo
from jaxrec.reports.listing import entries
from jaxrec.runs import build, fitting
from jaxrec.runs.options import Batch, Config, Evaluation, Model, Optimizer, Stopping
from jaxrec.runs.profiles import profile_file
from jaxrec.runs.run import train

DEMO = Demo(users=60, items=60, events=10, genres=4, lag=2)
TINY = Config(
    demo=DEMO, model=Model(width=8), batch=Batch(size=4, length=10), epochs=2, eval=Evaluation(metrics=("ndcg@10",))
)
GRU4REC = {
    "demo.users": 60, "demo.items": 60, "demo.events": 10, "demo.genres": 4, "demo.lag": 2, "model.width": 8,
    "batch.size": 4, "epochs": 2, "optimizer.momentum": 0.2, "model.state_dropout": 0.2, "eval.every": 1,
}  # fmt: skip
SMALL = "negatives=16, in_batch=true, hits=kept"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXREC_CACHE", str(tmp_path / "cache"))


def profiled(**flags):
    return resolve(Config, flags=GRU4REC | flags, profile=profile_file("gru4rec")).section


def go(run, config):
    return train(replace(config, run=str(run)), say=lambda sentence: None)


def weights(run):
    with np.load(run / "bundle" / "weights.npz") as file:
        return dict(file)


@pytest.mark.parametrize("name", [entry.name for entry in entries("losses")])
def test_every_loss_trains_through_its_name(tmp_path, name):
    go(tmp_path / "run", replace(TINY, loss=Call(name), optimizer=Optimizer(lr=0.02)))
    rows = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < 0.97 * losses[0]


@pytest.mark.parametrize(
    "written",
    [f"sampled_softmax({SMALL}, correction=raw)", f"bpr_max({SMALL}, elu=0.5, reg=1)", "BPR-Max(negatives=3)"],
)
def test_a_loss_is_written_as_people_write_it(written):
    chosen = build.loss(Call.parse(written))
    assert chosen.hits == ("kept" if SMALL in written else "masked")
    assert isinstance(getattr(chosen, "reg", 1.0), float)


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("bpr_maxx", "there is no loss 'bpr_maxx'"),
        ("bpr_max(negativs=3)", "BPRMax has no option 'negativs'"),
        ("bpr_max(hits=keep)", "hits = 'keep' is not one of 'masked', 'kept'; did you mean 'kept'"),
        ("bpr(negatives=0)", "negatives = 0 leaves nothing to tell a target from"),
        ("bpr(negatives=1.5)", "negatives = 1.5 is not a whole number"),
        ("bpr(alpha=-1)", "alpha = -1.0 is out of range; give a number at least 0"),
        ("bpr(temperature=0)", "temperature = 0.0 is out of range; give a number above 0"),
        ("gbce(t=2)", "t = 2.0 is out of range; give a number at least 0 and at most 1"),
        ("gbce(alpha=0.5)", "gbce is calibrated for uniform negatives"),
        ("sce(items=0)", "items = 0 is out of range; give a number at least 1"),
        ("bpr(3)", "name the options of BPR"),
    ],
)
def test_what_cannot_be_is_one_sentence(written, sentence):
    with pytest.raises(Mistake) as found:
        build.loss(Call.parse(written))
    assert sentence in str(found.value)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ({"one_hot": True}, "add --model.no-tied"),
        ({"embedding": 5}, "model.embedding = 5 gives items vectors of another width than those that score"),
        ({"embedding": 5, "tied": False}, "add --model.no-residual"),
        ({"embedding": 5, "one_hot": True}, "keep one"),
        ({"one_hot": True, "tied": False, "residual": False, "user": True}, "leave model.one_hot out"),
    ],
)
def test_vectors_that_go_in_may_differ_from_those_that_score_only_where_that_makes_sense(model, sentence):
    with pytest.raises(Mistake, match=sentence):
        build.model(replace(Model(width=8), **model), build.Offer(9, 4, False, False), seed=0)


def test_rows_that_are_all_read_cannot_be_changed_lazily():
    with pytest.raises(Mistake, match="take a loss that samples"):
        build.step(replace(TINY, optimizer=Optimizer(lazy=True)), 10)


def test_a_profile_lies_under_the_file_and_the_flags(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("epochs = 3\n[model]\nwidth = 30\n[optimizer]\nlr = 0.01\n")
    argv = ["--profile", "gru4rec", f"--config={file}", "--optimizer.lr", "0.02"]
    resolved, _ = _resolve_train(argv)
    found = resolved.section
    assert (found.optimizer.lr, found.model.width, found.epochs, found.batch.layout) == (0.02, 30, 3, "lanes")
    origins = {key: resolved.origins[key] for key in ("optimizer.lr", "model.width", "batch.layout", "seed")}
    assert origins == {
        "optimizer.lr": "flag", "model.width": "mine.toml", "batch.layout": "profile gru4rec", "seed": "default",
    }  # fmt: skip
    with pytest.raises(Mistake, match=r"there is no profile 'gru4re' .* did you mean 'gru4rec'"):
        _resolve_train(["--profile", "gru4re"])


@pytest.mark.parametrize(
    "flags",
    [
        {"loss": f"sampled_softmax({SMALL}, correction=raw, alpha=0.5)"},
        {"loss": f"bpr_max({SMALL}, elu=0.5)", "model.tied": False, "model.embedding": 5},
        {"loss": f"bpr_max({SMALL}, elu=0.5)", "model.tied": False, "model.one_hot": True,
         "model.cell": "gru(reset=before)"},
        {"loss": f"sampled_softmax({SMALL})", "optimizer.average": 0.8, "model.event_dropout": 0.3},
        {"loss": f"bpr_max({SMALL})", "compute": "bfloat16", "model.feedforward": 1},
    ],
    ids=["shared", "separate", "one-hot", "averaged", "bfloat16"],
)  # fmt: skip
def test_the_profile_resumes_to_the_same_bits_and_recommends(tmp_path, monkeypatch, flags):
    config = profiled(**flags)
    whole = go(tmp_path / "whole", config)
    pause = fitting.Fitting.pause

    def dies(self, held, clock):
        if clock.step >= 20:
            raise KeyboardInterrupt
        self.save(held())
        return pause(self, held, clock)

    with monkeypatch.context() as patch:
        patch.setattr(fitting.Fitting, "pause", dies)
        patch.setattr(fitting.Loop, "adapt", lambda self, count, seconds: None)
        with pytest.raises(KeyboardInterrupt):
            go(tmp_path / "cut", config)
    again = go(tmp_path / "cut", config)
    assert again["test"] == whole["test"]
    for name, leaf in weights(tmp_path / "whole").items():
        np.testing.assert_array_equal(weights(tmp_path / "cut")[name], leaf, err_msg=name)
    model = jaxrec.load(tmp_path / "whole")
    lists = model.recommend([["g0-i000", "g1-i001"]], k=5)
    person = model.start()
    for item in ("g0-i000", "g1-i001"):
        person = model.observe(person, item)
    assert [item for item, _ in lists[0]] == [item for item, _ in model.top_k(person, k=5)]


def test_the_last_weights_are_kept_where_they_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(fitting.Fitting, "judged", worse_and_worse(fitting.Fitting.judged))
    last, best = (go(tmp_path / keep, replace(TINY, stop=Stopping(patience=0, keep=keep))) for keep in ("last", "best"))
    assert (last["valid"]["epoch"], best["valid"]["epoch"]) == (2, 1)
    kept, other = weights(tmp_path / "last"), weights(tmp_path / "best")
    assert any((kept[name] != leaf).any() for name, leaf in other.items())


def worse_and_worse(judged):
    """Validation whose numbers fall from call to call."""
    calls = itertools.count()

    def fallen(self, model):
        ranks, found = judged(self, model)
        found["masked"][self.metric] = 1 / (1 + next(calls))
        return ranks, found

    return fallen
