"""A whole run: the result says what was measured, and no interruption changes a bit of it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jaxrec.config import Mistake
from jaxrec.data.demo import Demo
from jaxrec.evaluation.ranks_file import load
from jaxrec.metrics import evaluate as measure
from jaxrec.reports.results import print_result
from jaxrec.runs import fitting
from jaxrec.runs.options import Batch, Config, Evaluation, Model, Optimizer, Stopping
from jaxrec.runs.run import evaluate, train
from jaxrec.training.checkpoints import Checkpoints
from jaxrec.training.stop import Stopped

DEMO = Demo(users=60, items=60, events=10, genres=4, lag=2)
TINY = Config(
    demo=DEMO, model=Model(width=8, dropout=0.3), batch=Batch(size=4, length=10), epochs=3,
    optimizer=Optimizer(schedule="cosine", warmup=3), eval=Evaluation(metrics=("hr@5", "ndcg@10")),
)  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXREC_CACHE", str(tmp_path / "cache"))


def go(run, config=TINY, **changes):
    said: list[str] = []
    return train(replace(config, run=str(run), **changes), say=said.append), said


def timeless(value):
    """Without wall times and places."""
    if isinstance(value, dict):
        return {name: timeless(inner) for name, inner in value.items() if name not in ("seconds", "run")}
    return value


def records(run):
    return [timeless(json.loads(line)) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]


def arrays(run):
    with np.load(Path(run) / "bundle" / "weights.npz") as file:
        return dict(file)


def same(a, b, result_a, result_b):
    assert timeless(result_a) == timeless(result_b)
    assert records(a) == records(b)
    left, right = arrays(a), arrays(b)
    assert left.keys() == right.keys()
    for name, value in left.items():
        np.testing.assert_array_equal(value, right[name], err_msg=name)


def test_the_result_says_what_the_ranks_say_and_the_same_run_gives_the_same_bits(tmp_path):
    result, _ = go(tmp_path / "a")
    again, _ = go(tmp_path / "b")
    same(tmp_path / "a", tmp_path / "b", result, again)
    with np.load(tmp_path / "a" / "ranks.npz", allow_pickle=False) as ranks:
        assert len(ranks["target"]) == result["protocol"]["counts"]["test_targets"]
        masked = measure(("hr@5", "ndcg@10"), ranks["greater_masked"], ranks["equal_masked"])
        unmasked = measure(("hr@5", "ndcg@10"), ranks["greater"], ranks["equal"])
    assert {name: result["test"]["masked"][name] for name in masked} == masked
    assert result["test"]["unmasked"] == unmasked
    assert set(result["baselines"]) == {"popularity", "markov", "markov3", "markov3_shares"}
    assert result["ceiling"]["masked"]["ndcg@10"] > result["baselines"]["popularity"]["masked"]["ndcg@10"]
    assert result["run_id"].endswith("-s0")
    assert json.loads((tmp_path / "a" / "result.json").read_text()) == result
    for name in ("config.json", "command.txt", "machine.json", "metrics.jsonl", "checkpoints", "bundle"):
        assert (tmp_path / "a" / name).exists(), name


def test_another_seed_is_another_run_of_the_same_configuration(tmp_path):
    first, _ = go(tmp_path / "a", epochs=1)
    second, _ = go(tmp_path / "b", epochs=1, seed=1)
    assert first["run_id"].split("-")[0] == second["run_id"].split("-")[0]
    assert first["test"] != second["test"]


class Killed(Exception):
    pass


@pytest.mark.parametrize("moment", ["first step", "mid epoch", "before best", "after best", "while testing"])
def test_a_run_killed_at_any_moment_goes_on_to_the_same_bits(tmp_path, moment, monkeypatch):
    whole, _ = go(tmp_path / "whole")
    with monkeypatch.context() as patch:
        plant(patch, moment)
        with pytest.raises(Killed):
            go(tmp_path / "cut", checkpoint_seconds=0.0)
    assert not (tmp_path / "cut" / "result.json").exists()
    resumed, said = go(tmp_path / "cut")
    assert any(line.startswith("resuming") for line in said) == (moment != "first step")
    same(tmp_path / "whole", tmp_path / "cut", whole, resumed)


def plant(patch, moment):
    """Make the training die at a named point, as a kill would: nothing after it is written."""

    def die(*args, **named):
        raise Killed

    if moment in ("first step", "mid epoch"):
        at, pause = {"first step": 1, "mid epoch": 20}[moment], fitting.Fitting.pause

        def dies_at(self, state, clock):
            if clock.step >= at:
                raise Killed
            return pause(self, state, clock)

        patch.setattr(fitting.Fitting, "pause", dies_at)
        patch.setattr(fitting.Loop, "adapt", lambda self, count, seconds: None)  # one step a dispatch
    elif moment == "before best":
        patch.setattr(fitting.SharedCheckpoints, "save_best", die)
    elif moment == "after best":
        save = fitting.SharedCheckpoints.save_best
        patch.setattr(fitting.SharedCheckpoints, "save_best", lambda *args: (save(*args), die()))
    else:
        patch.setattr(fitting.Fitting, "chosen", die)


COMMAND = [
    "--demo.users", "60", "--demo.items", "60", "--demo.events", "10", "--demo.genres", "4", "--demo.lag", "2",
    "--model.width", "8", "--batch.size", "4", "--batch.length", "10", "--epochs", "400", "--stop.patience", "0",
]  # fmt: skip


def test_sigterm_saves_exits_75_and_the_same_command_goes_on(tmp_path):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "jaxrec", "train", "--run", str(run), *COMMAND]
    process = subprocess.Popen(command, env=os.environ, stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 240
    while time.time() < deadline and not (run / "metrics.jsonl").exists():
        time.sleep(0.2)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert "the same command, without --fresh, goes on" in said
    before = records(run)
    limited = [*command, "--max-seconds", "0.5"]
    again = subprocess.run(limited, check=False, env=os.environ, capture_output=True, text=True, timeout=240)
    assert again.returncode == 0, again.stderr
    assert "resuming" in again.stderr
    result = json.loads((run / "result.json").read_text())
    assert result["stopped"] == "max_seconds"
    assert not result["complete"]
    assert records(run)[: len(before)] == before


def test_a_time_limit_judges_what_there_is_and_more_time_ends_the_same_run(tmp_path):
    whole, _ = go(tmp_path / "whole")
    short, _ = go(tmp_path / "cut", max_seconds=0.0)
    assert short["stopped"] == "max_seconds"
    assert not short["complete"]
    assert short["test"]["masked"]["hr@5"] >= 0
    finished, _ = go(tmp_path / "cut")
    same(tmp_path / "whole", tmp_path / "cut", whole, finished)
    cached, said = go(tmp_path / "cut")
    assert cached == finished
    assert "complete" in said[-1]
    go(tmp_path / "lost", max_seconds=0.0)
    shutil.rmtree(tmp_path / "lost" / "checkpoints")
    again, said = go(tmp_path / "lost")
    assert any("has no checkpoint that can be read: it begins anew" in sentence for sentence in said)
    assert again["test"] == whole["test"]


def test_evaluate_repeats_the_judgement_from_the_bundle_alone(tmp_path):
    result, _ = go(tmp_path / "a", epochs=1)
    again = evaluate(str(tmp_path / "a"), say=lambda sentence: None)
    assert again["test"] == result["test"]
    with pytest.raises(Mistake, match=r"nowhere does not exist; give the directory of a finished run"):
        evaluate(str(tmp_path / "nowhere"))


SAMPLED = "ndcg@10[uni20,seed1]"


def test_a_result_says_how_far_its_numbers_can_be_trusted_and_ranks_of_both_splits_are_kept(tmp_path):
    result, _ = go(tmp_path / "a", epochs=1, eval=Evaluation(metrics=("hr@5", "ndcg@10", SAMPLED)))
    test, counts = result["test"], result["protocol"]["counts"]
    low, high = test["intervals"]["hr@5"]
    assert low < test["masked"]["hr@5"] < high
    assert test["slices"]["new"]["count"] == counts["test_targets"], "the generator repeats nothing here"
    assert set(test["ties"]["optimistic"]) == {"hr@5", "ndcg@10"}
    assert SAMPLED not in test["masked"]
    assert test["sampled"][SAMPLED] > test["masked"]["ndcg@10"], "fewer candidates are easier"
    with np.load(tmp_path / "a" / "candidates.npz", allow_pickle=False) as file:
        assert file["uni20,seed1"].shape == (counts["test_targets"], 20)
        assert not (file["uni20,seed1"] == file["target"][:, None]).any()
    ranks, masks = load(tmp_path / "a" / "ranks-valid.npz")
    assert len(ranks.target) == counts["valid_targets"] == len(masks["new"])
    valid = measure(("ndcg@10",), ranks.greater_masked, ranks.equal_masked)
    assert valid["ndcg@10"] == result["valid"]["masked"]["ndcg@10"]


def test_evaluate_measures_more_and_exports_the_ranks(tmp_path):
    import polars as pl

    result, _ = go(tmp_path / "a", epochs=1)
    more = ("map@5", SAMPLED)
    again = evaluate(str(tmp_path / "a"), metrics=more, parquet=str(tmp_path / "r.parquet"), say=lambda sentence: None)
    for name, value in result["test"]["masked"].items():
        assert again["test"]["masked"][name] == value
    for part in (again["test"], again["baselines"]["markov"], again["ceiling"]):
        assert part["masked"]["map@5"] > 0
    assert set(again["test"]["sampled"]) == {SAMPLED}
    frame = pl.read_parquet(tmp_path / "r.parquet")
    assert measure(("map@5",), frame["greater_masked"].to_numpy(), frame["equal_masked"].to_numpy()) == {
        "map@5": again["test"]["masked"]["map@5"]
    }
    with pytest.raises(Mistake, match="did you mean"):
        evaluate(str(tmp_path / "a"), metrics=("ndgc@5",))
    for place in (tmp_path, tmp_path / "none" / "r.parquet"):
        with pytest.raises(Mistake, match="give --parquet a file in a folder that exists"):
            evaluate(str(tmp_path / "a"), parquet=str(place), say=pytest.fail)
    assert (tmp_path / "a" / "candidates.npz").exists()
    kept, _ = load(tmp_path / "a" / "ranks-valid.npz")
    (tmp_path / "a" / "ranks-valid.npz").unlink()
    assert evaluate(str(tmp_path / "a"), say=lambda sentence: None)["test"] == result["test"]
    assert not (tmp_path / "a" / "candidates.npz").exists(), "nothing in the result is about them any more"
    for before, after in zip(kept[:9], load(tmp_path / "a" / "ranks-valid.npz")[0][:9], strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_collapsed_model_is_named_in_the_result_and_below_the_table(tmp_path, capsys):
    go(tmp_path / "a", epochs=1)
    weights = tmp_path / "a" / "bundle" / "weights.npz"
    np.savez(weights, **{name: np.zeros_like(value) for name, value in arrays(tmp_path / "a").items()})
    result = evaluate(str(tmp_path / "a"), say=lambda sentence: None)
    assert "collapsed" in result["warnings"][0]
    ties, value = result["test"]["ties"], result["test"]["masked"]["hr@5"]
    assert ties["pessimistic"]["hr@5"] == 0 < value < 0.5
    assert ties["optimistic"]["hr@5"] == 1, "what a careless evaluation would report"
    assert json.loads((tmp_path / "a" / "result.json").read_text())["warnings"] == result["warnings"]
    print_result(result, as_json=False, run="a", slices=True)
    printed = " ".join(capsys.readouterr().out.split())
    assert "a collapsed model" in printed
    assert "Ties: 100.0% of the targets" in printed
    assert "history 6-20" in printed


def test_a_result_from_before_all_this_can_be_printed(tmp_path, capsys):
    result, _ = go(tmp_path / "a", epochs=1)
    test = {reading: values for reading, values in result["test"].items() if reading in ("masked", "unmasked")}
    for name in ("gini@10", "tail@10", "novelty@10"):
        del test["masked"][name]
    model = {name: value for name, value in result["model"].items() if name != "needs"}
    print_result(result | {"test": test, "model": model}, as_json=False, run="a")
    printed = capsys.readouterr().out
    assert "of the catalogue is recommended" in printed
    assert 'Next: jaxrec recommend --run a --history "ITEM,ITEM" --k 10\n' in printed


def test_another_configuration_in_an_old_folder_is_refused_with_the_difference(tmp_path):
    go(tmp_path / "a", epochs=1)
    with pytest.raises(Mistake, match=r"model\.width: 8 -> 4"):
        go(tmp_path / "a", epochs=1, model=Model(width=4, dropout=0.3))
    fresh, _ = go(tmp_path / "a", epochs=1, model=Model(width=4, dropout=0.3), fresh=True)
    assert fresh["complete"]


def test_patience_stops_and_the_best_epoch_is_the_one_that_is_tested(tmp_path):
    config = replace(TINY, optimizer=Optimizer(lr=0.5), stop=Stopping(patience=1), epochs=30)
    result, _ = go(tmp_path / "a", config)
    assert result["stopped"] == "patience"
    assert result["complete"]
    valid = [row["valid"]["ndcg@10"] for row in records(tmp_path / "a") if "valid" in row]
    assert result["valid"]["epoch"] == int(np.argmax(valid)) + 1 == result["epochs"] - 1
    assert result["valid"]["masked"]["ndcg@10"] == max(valid)


def test_what_nothing_reads_is_reported(tmp_path):
    said: list[str] = []
    config = replace(TINY, run=str(tmp_path / "a"), epochs=1, optimizer=Optimizer(name="adam", weight_decay=0.1))
    explicit = ["optimizer.name", "optimizer.weight_decay", "model.width", "stop.patience", "eval.every", "tensorboard"]
    result = train(config, explicit=explicit, say=said.append)
    assert result["ignored"] == ["optimizer.weight_decay"]
    assert "note: optimizer.weight_decay was set, but nothing in this configuration reads it" in said


def test_a_number_that_breaks_stops_the_run_naming_step_rows_and_array(tmp_path):
    with pytest.raises(Mistake, match=r"step \d+ is not finite: the first bad array is .*, with rows of user"):
        go(tmp_path / "a", replace(TINY, optimizer=Optimizer(lr=1e30, clip=0.0), epochs=9))


def test_a_cell_that_wants_what_the_data_lacks_is_refused_in_one_sentence(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from jaxrec.cells import GRU\n\n\nclass Weather(GRU):\n    wants = ('x', 'context')\n", encoding="utf-8"
    )
    with pytest.raises(Mistake, match="Weather wants the context of every event"):
        go(tmp_path / "a", model=Model(width=8, cell=f"{file}:Weather"))


def test_signals_are_exceptions_for_python(tmp_path, monkeypatch):
    pause = fitting.Fitting.pause

    def interrupted(self, state, clock):
        self.signal.requested = "SIGTERM"
        return pause(self, state, clock)

    monkeypatch.setattr(fitting.Fitting, "pause", interrupted)
    with pytest.raises(Stopped, match="SIGTERM: saved after step"):
        go(tmp_path / "a")


SLIM = """
import sys
for name in ("polars", "tyro", "tensorflow_datasets", "tensorboardX", "importlib_resources"):
    sys.modules[name] = None  # importing it now fails; rich is flax's own
from jaxrec.runs.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_prepared_data_trains_from_a_configuration_alone_without_the_conveniences(tmp_path):
    from jaxrec.config import to_dict
    from jaxrec.data.prepare import prepare
    from jaxrec.data.prepared import save

    save(prepare(TINY, lambda sentence: None), tmp_path / "data")
    config = to_dict(replace(TINY, data=str(tmp_path / "data"), run=str(tmp_path / "run"), epochs=1))
    (tmp_path / "config.json").write_text(json.dumps(config))
    command = [sys.executable, "-c", SLIM, str(tmp_path / "config.json")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["complete"]
    assert result["ceiling"]["masked"]["ndcg@10"] > 0, "the card remembers the generator"
    config["model"]["widht"] = 8
    (tmp_path / "config.json").write_text(json.dumps(config))
    wrong = subprocess.run(command, check=False, capture_output=True, text=True, timeout=240)
    assert wrong.returncode == 2
    assert "model.width" in wrong.stderr


def test_what_can_be_refused_is_refused_before_anything_is_written(tmp_path):
    for changes, words in (
        ({"eval": Evaluation(metrics=("ndcg@10", "hitrate@10"))}, "hitrate@10"),
        ({"eval": Evaluation(metrics=("ndcg@10", "hr@10[uni5]"))}, r"hr@10\[uni100,seed1\]"),
        ({"stop": Stopping(metric="mrr@7")}, "not measured"),
        ({"model": Model(cell=str(tmp_path / "nope.py") + ":X")}, "cannot be read"),
        ({"model": Model(cell="gruu")}, "did you mean"),
        ({"devices": 99}, "devices=99"),
        ({"model": Model(user=True), "sequence": "session"}, "needs users"),
    ):
        with pytest.raises(Mistake, match=words):
            go(tmp_path / "run", **changes)
        assert not (tmp_path / "run").exists()


def test_fresh_is_a_wish_of_the_moment_and_is_not_written_down(tmp_path):
    said: list[str] = []
    command = ["jaxrec", "train", "--fresh", "--model.cell", "gru(hidden=8)"]
    train(replace(TINY, run=str(tmp_path / "a"), epochs=1, fresh=True), command=command, say=said.append)
    assert json.loads((tmp_path / "a" / "config.json").read_text())["fresh"] is False
    assert (tmp_path / "a" / "command.txt").read_text() == "jaxrec train --model.cell 'gru(hidden=8)'\n"


def test_after_a_number_broke_the_checkpoint_agrees_with_itself(tmp_path):
    config = replace(TINY, optimizer=Optimizer(lr=1e30, clip=0.0), epochs=9)
    for _ in range(2):  # the second attempt goes on from the first's checkpoint and meets the same step
        with pytest.raises(Mistake, match="is not finite") as stopped:
            go(tmp_path / "a", config)
    checkpoints = Checkpoints(tmp_path / "a" / "checkpoints")
    assert checkpoints.latest() == int(str(stopped.value).split()[1]) - 1


def test_people_without_training_pairs_have_no_vector_of_their_own(tmp_path):
    go(tmp_path / "a", epochs=1, model=Model(width=8, user=True), split="time", boundaries=("0.3", "0.6"))
    users = next(value for name, value in arrays(tmp_path / "a").items() if "user" in name)
    norms = np.abs(users).max(axis=1)
    assert norms[0] == 0
    assert (norms == 0).sum() > 1
    assert (norms > 0).sum() > 1
