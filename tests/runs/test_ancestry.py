"""A run that starts from another is that one going on."""

import json
from dataclasses import replace

import numpy as np
import pytest

from jaxrec.config import Mistake
from jaxrec.data.demo import Demo
from jaxrec.runs.options import Batch, Config, Evaluation, Model, Optimizer, Stopping
from jaxrec.runs.run import train

CONFIG = Config(
    demo=Demo(users=60, items=60, events=10, genres=4, lag=2), epochs=4, model=Model(width=8, dropout=0.3),
    batch=Batch(size=4, length=10), stop=Stopping(patience=0, keep="last"), optimizer=Optimizer(lr=0.05, warmup=3),
    eval=Evaluation(metrics=("hr@5", "ndcg@10")),
)  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("JAXREC_CACHE", str(tmp_path_factory.getbasetemp() / "ancestry-cache"))


def go(config, run, **changes):
    return train(replace(config, run=str(run), **changes), say=lambda sentence: None)


def weights(run):
    with np.load(run / "bundle" / "weights.npz") as file:
        return {name: array.tobytes() for name, array in file.items()}


def records(run):
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.mark.parametrize("layout", ["packed", "lanes"])
def test_a_run_from_another_ends_as_one_that_was_never_parted(tmp_path, layout):
    config = replace(CONFIG, batch=Batch(size=4, length=10, layout=layout))
    whole = go(config, tmp_path / "whole")
    first = go(config, tmp_path / "first", epochs=2)
    second = go(config, tmp_path / "second", start_from=str(tmp_path / "first"))
    assert weights(tmp_path / "second") == weights(tmp_path / "whole")
    assert second["test"] == whole["test"]
    assert (second["epochs"], second["steps"]) == (4, whole["steps"])
    assert records(tmp_path / "first") + records(tmp_path / "second") == records(tmp_path / "whole")
    assert len({first["run_id"], second["run_id"], whole["run_id"]}) == 3
    assert whole["run_id"] == go(config, tmp_path / "again")["run_id"]


def test_another_rate_goes_on_from_the_same_state_and_a_cut_run_from_its_own(tmp_path):
    go(CONFIG, tmp_path / "first", epochs=2)
    rest = {"start_from": str(tmp_path / "first"), "optimizer": replace(CONFIG.optimizer, lr=0.01)}
    slow = go(CONFIG, tmp_path / "slow", **rest)
    part = go(CONFIG, tmp_path / "part", **rest | {"max_seconds": 1e-6})
    assert part["stopped"] == "max_seconds"
    assert go(CONFIG, tmp_path / "part", **rest)["test"] == slow["test"]
    assert weights(tmp_path / "part") == weights(tmp_path / "slow")
    go(CONFIG, tmp_path / "same", start_from=str(tmp_path / "first"))
    assert weights(tmp_path / "same") != weights(tmp_path / "slow")


def test_what_is_no_beginning_is_refused_before_anything_is_written(tmp_path):
    go(CONFIG, tmp_path / "first", epochs=2)
    cut = go(CONFIG, tmp_path / "cut", max_seconds=1e-6)
    assert not cut["complete"]
    wide = replace(CONFIG, model=replace(CONFIG.model, width=16))
    for changes, words in (
        ({"start_from": str(tmp_path / "nowhere")}, "holds no finished run; give"),
        ({"start_from": str(tmp_path / "cut")}, "was cut short; finish it first"),
        ({"start_from": str(tmp_path / "first"), "epochs": 2}, "epochs = 2 counts those .* has 2; give more"),
    ):
        with pytest.raises(Mistake, match=words):
            go(CONFIG, tmp_path / "new", **changes)
        assert not (tmp_path / "new").exists()
    with pytest.raises(Mistake, match=r"first' has another model .*model.width: 8 -> 16\); give the same"):
        go(wide, tmp_path / "wide", start_from=str(tmp_path / "first"))
