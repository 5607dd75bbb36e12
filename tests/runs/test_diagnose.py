"""A run that looks at itself, real rows to measure on, and the records of a cell or a run."""

import itertools
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from jaxrec.config import Call, Mistake
from jaxrec.data.demo import Demo
from jaxrec.data.prepare import prepare_cached
from jaxrec.runs import sampling
from jaxrec.runs.diagnose import diagnose, parsed
from jaxrec.runs.folder import cache
from jaxrec.runs.options import Batch, Config, Diagnose, Evaluation, Model, Stopping
from jaxrec.runs.run import train
from jaxrec.runs.samples import drive, eligible, recall, shuffled
from jaxrec.sweeps import verdicts
from jaxrec.sweeps.options import Sweep
from jaxrec.sweeps.sweep import sweep
from jaxrec.training import source

DEMO = Demo(users=40, items=60, events=10, genres=4, lag=2)
REST = {
    "demo": DEMO, "batch": Batch(size=4, length=8), "stop": Stopping(patience=0),
    "eval": Evaluation(metrics=("ndcg@10",)),
}  # fmt: skip
CONFIG = Config(**REST, model=Model(width=6, cell=Call("mgu")), epochs=2)
COMMON = {"kind", "subject", "cell", "family", "run", "step", "phase", "seed"}


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXREC_CACHE", str(tmp_path_factory.getbasetemp() / "diagnose-cache"))
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run that looks at itself every five steps, and the same that does not."""
    folder = tmp_path_factory.mktemp("runs")
    for name, rest in (("blind", {}), ("seeing", {"diagnose": True, "diagnose_every": 5})):
        train(replace(CONFIG, run=str(folder / name), **rest), say=quiet)
    return folder


def quiet(sentence):
    pass


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def data():
    prepared = prepare_cached(CONFIG, cache(), say=quiet)
    return prepared, source.load(prepared, user=False)


def test_looking_changes_neither_the_run_nor_what_it_is(runs):
    blind, seeing = (json.loads((runs / name / "result.json").read_text()) for name in ("blind", "seeing"))
    assert seeing["run_id"] == blind["run_id"]
    assert seeing["test"] == blind["test"]
    with np.load(runs / "blind/bundle/weights.npz") as one, np.load(runs / "seeing/bundle/weights.npz") as other:
        assert all(np.array_equal(one[name], other[name]) for name in one)
    assert not (runs / "blind/diagnostics.jsonl").exists()


def test_it_looks_before_the_first_step_after_so_many_and_at_the_end(runs):
    found = lines(runs / "seeing/diagnostics.jsonl")
    steps = [sample["step"] for sample in found]
    last = json.loads((runs / "seeing/result.json").read_text())["steps"]
    assert steps[0] == 0
    assert steps[-1] == last
    assert (np.diff(steps) > 0).all()
    assert all(step // 5 > before // 5 for before, step in itertools.pairwise(steps[:-1]))
    assert {record["kind"] for record in found[0]["records"]} >= {"gradient", "gates", "information", "clipping"}


def test_how_far_the_gradient_reaches_stands_in_the_result_and_a_sweep_can_seek_it(runs, tmp_path):
    blind, seeing = (json.loads((runs / name / "result.json").read_text()) for name in ("blind", "seeing"))
    last = lines(runs / "seeing/diagnostics.jsonl")[-1]["records"]
    told = next(record for record in last if record["kind"] == "gradient")["horizons"]["one_percent"]
    assert seeing["gradient"]["horizon"] == (told["beyond"] if told["value"] is None else told["value"])
    sought = [{"name": "gradient_horizon"}, {"name": "seconds"}]
    assert verdicts.row(seeing, sought)["objectives"]["gradient_horizon"] == seeing["gradient"]["horizon"]
    assert "gradient" not in blind
    assert verdicts.row(blind, sought)["objectives"]["gradient_horizon"] is None
    for space in ({}, {"diagnose": "false"}):
        options = Sweep(out=str(tmp_path / "sweep"), objectives=("gradient_horizon",), trials=1, workers=1)
        with pytest.raises(Mistake, match="look at themselves; add --diagnose"):
            sweep(options, space | {"model.cell": "gru|lru"}, command=["test"], say=quiet)
    assert not (tmp_path / "sweep").exists()


def test_a_run_that_was_cut_goes_on_with_the_samples_that_it_has(tmp_path, runs):
    config = replace(CONFIG, run=str(tmp_path / "cut"), diagnose=True, diagnose_every=5)
    train(replace(config, max_seconds=1e-6), say=quiet)
    train(config, say=quiet)
    steps = [sample["step"] for sample in lines(tmp_path / "cut/diagnostics.jsonl")]
    assert sorted(set(steps)) == steps
    assert steps[0] == 0
    assert steps[-1] == json.loads((runs / "seeing/result.json").read_text())["steps"]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    out = tmp_path_factory.mktemp("atlas")
    options = Diagnose(**REST, model=Model(width=6, cell=Call("mgu")), out=str(out), lengths="6,30", epochs=1)
    return out, options, diagnose(options, say=quiet)


def test_a_cell_is_measured_untrained_while_it_trains_and_after(fresh):
    out, _, found = fresh
    assert lines(out / "records.jsonl") == found
    assert all(record.keys() >= COMMON for record in found)
    assert {record["subject"] for record in found} == {"mgu"}
    assert {record["family"] for record in found} == {"gated"}
    counts = Counter((record["kind"], record["phase"]) for record in found)
    assert counts["gradient", "start"] == counts["gradient", "end"] == 2
    assert counts["gradient", "during"] >= 2
    for kind in ("matrix", "gates", "weights", "information", "shuffle"):
        assert counts[kind, "start"] == counts[kind, "end"] == 1
    assert counts["training", "end"] == counts["trace", "end"] == 1


def test_records_join_the_training_on_the_runs_id(fresh):
    out, _, found = fresh
    [file] = out.glob("runs/mgu-*/result.json")
    result = json.loads(file.read_text())
    assert {record["run"] for record in found if record["phase"] != "start"} == {result["run_id"]}
    assert {record["run"] for record in found if record["phase"] == "start"} == {None}
    outcome = next(record for record in found if record["kind"] == "training")
    assert outcome["value"] == result["test"][result["headline"]]["ndcg@10"]
    assert outcome["low"] <= outcome["value"] <= outcome["high"]


def test_lengths_beyond_every_history_run_over_histories_end_to_end(fresh):
    _, _, found = fresh
    inputs = {record["length"]: record["inputs"] for record in found if record["kind"] == "gradient"}
    assert inputs[6] == "histories"
    assert inputs[30] == "histories end to end"


def test_a_name_is_replaced_and_others_stay(fresh, runs, tmp_path):
    _, _, found = fresh
    others = [record | {"subject": "other"} for record in found[:3]]
    old = [record | {"subject": f"mgu ({runs.name}/seeing)", "kind": "old"} for record in found[:2]]
    (tmp_path / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in others + old))
    both = diagnose(Diagnose(out=str(tmp_path), run=str(runs / "seeing"), lengths="6"), say=quiet)
    assert both[:3] == others
    assert {record["subject"] for record in both[3:]} == {f"mgu ({runs.name}/seeing)"}
    assert "old" not in {record["kind"] for record in both}
    assert Counter(record["phase"] for record in both[3:]).keys() == {"during", "end"}


@pytest.mark.parametrize("lengths", ["", "1", "20,x", "20,-3", "2.5"])
def test_lengths_that_are_none_are_refused(lengths):
    with pytest.raises(Mistake, match="whole numbers from 2 on"):
        parsed(lengths)


def test_what_cannot_be_measured_is_refused_in_a_sentence(runs, tmp_path):
    options = Diagnose(out=str(tmp_path), run=str(runs / "seeing"))
    with pytest.raises(Mistake, match=r"--model.width says nothing beside --run"):
        diagnose(options, explicit=["model.width"], say=quiet)
    with pytest.raises(Mistake, match="does not exist"):
        diagnose(replace(options, run=str(tmp_path / "none")), say=quiet)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(Mistake, match="is not the configuration of a run"):
        diagnose(replace(options, run=str(tmp_path)), say=quiet)
    with pytest.raises(Mistake, match="cannot be made a directory"):
        diagnose(replace(options, out=str(tmp_path / "config.json")), say=quiet)
    with pytest.raises(Mistake, match=r"more than the [0-9]+ events"):
        diagnose(replace(options, lengths="5000"), say=quiet)


def test_what_is_seen_of_clipping_is_what_the_training_does(tmp_path):
    """The batches, their dropout and their masks are those of the first steps: norms are those of the records."""
    config = replace(CONFIG, epochs=1, run=str(tmp_path / "run"), diagnose=True, diagnose_every=1000)
    train(config, say=quiet)
    [first, *_] = lines(tmp_path / "run/diagnostics.jsonl")
    seen = next(record for record in first["records"] if record["kind"] == "clipping")
    told = lines(tmp_path / "run/metrics.jsonl")[0]["grad_norm"]
    assert seen["norms"][0] * 0.9 < told < seen["norms"][-1] * 1.1
    assert seen["share"] in (0, 0.25, 0.5, 0.75, 1)


def test_a_damaged_file_of_records_is_refused_before_anything_is_measured(tmp_path):
    (tmp_path / "records.jsonl").write_text('{"kind": "gates", "subject": "gru"}\n{"subj')
    with pytest.raises(Mistake, match=r"records.jsonl:2 is not a record; drop the line"):
        diagnose(Diagnose(out=str(tmp_path)), say=quiet)


def test_rows_end_before_a_target_that_training_knows():
    prepared, device = data()
    items = np.asarray(prepared.items)
    _, history = eligible(prepared)
    for sample in (drive(prepared, device, 5, 20), recall(prepared, device, 12, 20)):
        assert np.array_equal(np.asarray(sample.batch.target)[:, -1], items[sample.ends])
        assert (items[sample.ends] <= prepared.known).all()
        for row, (end, own) in enumerate(zip(sample.ends, sample.own, strict=True)):
            assert np.array_equal(np.asarray(sample.batch.item)[row, -own:], items[end - own : end])
            begin = prepared.offsets[prepared.sequence_of(np.array([end]))[0]]
            assert end - own >= begin
    people = recall(prepared, device, 12, 20)
    starts = np.asarray(people.batch.reset)
    assert np.array_equal(starts.argmax(1), 12 - people.own)
    assert (starts.sum(1) == 1).all()
    assert len(np.unique(history)) > 1


def test_shuffled_rows_hold_the_same_items_and_the_same_target():
    prepared, device = data()
    sample = recall(prepared, device, 12, 20)
    other = shuffled(sample)
    assert np.array_equal(other.target, sample.batch.target)
    one, two = np.asarray(sample.batch.item), np.asarray(other.item)
    assert (one != two).any()
    for row, own in enumerate(sample.own):
        assert np.array_equal(one[row, :-own], two[row, :-own])
        assert np.array_equal(np.sort(one[row, -own:]), np.sort(two[row, -own:]))


@settings(max_examples=60, deadline=None)
@given(st.floats(1e-3, 5.0), st.floats(1e-3, 2.0), st.integers(1, 400), st.floats(1.0, 60.0))
def test_looks_after_the_first_never_take_more_than_a_twentieth_of_the_training(cost, step, steps, compiling):
    now, took = [100.0], []

    class Watched(sampling.Sampler):
        def look(self, state):
            took.append(cost if took else compiling)
            now[0] += took[-1]
            return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling.time, "perf_counter", lambda: now[0])
        sampler = Watched(Path(), None, None, None, None, 0, 0, None)
        sampler.lines = lambda line: None
        for number in range(steps + 1):
            if sampler.due(number):
                sampler(lambda: None, number, 0)
            now[0] += step
        sampler(lambda: None, steps, 0)
    trained, looks = step * (steps + 1), took[2:]  # the second look is the measure of the first, compiled
    assert sum(looks) <= max(sampling.SHARE * trained, cost) * (1 + 1e-9), "the last look is always taken"
    affordable = sampling.SHARE * trained / cost
    assert len(looks) >= min(affordable / 2 - 2, steps / 2 - 1), "and none is spared that can be afforded"
