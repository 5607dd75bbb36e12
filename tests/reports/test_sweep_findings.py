"""What a sweep's page works out: order, intervals, front, knee, alarms, warnings, commands."""

import math
import shlex

import numpy as np
import pytest
from hypothesis import given, strategies as st

from jaxrec.cli import _resolve_train
from jaxrec.config import Mistake, to_dict
from jaxrec.reports.sweep_commands import command, commands
from jaxrec.reports.sweep_findings import alarms, gathered, notes, sentence, warnings
from jaxrec.reports.sweep_options import options, short_names
from jaxrec.reports.sweep_ranking import _undominated, configurations, front, student
from jaxrec.reports.sweep_rows import duration, is_sweep, objectives, read_sweep
from jaxrec.runs.options import Config


def test_a_better_test_number_changes_no_place(synthetic):
    about, rows = synthetic(20)
    before = [one.point for one in gathered(about, rows).ranked]
    for row in rows:
        row["test"] = {"ndcg@10": -row["objectives"].get("ndcg@10", 0)}
    assert [one.point for one in gathered(about, rows).ranked] == before


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=40))
def test_the_front_is_what_nothing_dominates(points):
    gains = np.array(points, float)
    expected = [
        not any((other >= one).all() and (other > one).any() for other in gains) for one in gains
    ]  # fmt: skip
    assert _undominated(gains).tolist() == expected


def planned(values, names=("ndcg@10", "seconds")):
    """Rows with one option and these objectives."""
    return [
        {"number": n, "id": str(n), "state": "done", "point": {"optimizer.lr": 0.001 * (n + 1)}, "seed": 0,
         "same_as": None,
         "objectives": dict(zip(names, some, strict=True)), "readings": [], "attempts": []}
        for n, some in enumerate(values)
    ]  # fmt: skip


def test_the_knee_is_where_the_front_bends():
    about = {"objectives": [{"name": "ndcg@10", "direction": "maximize"}, {"name": "seconds", "direction": "minimize"}]}
    rows = planned([(0.10, 10), (0.19, 12), (0.20, 100), (0.05, 200)])
    sweep = gathered(about, rows)
    assert [sweep.ranked[at].number for at in sweep.front.members] == [2, 1, 0]
    assert sweep.ranked[sweep.front.knee].number == 1
    assert gathered(about, rows[:2]).front.knee is None


def test_choices_that_are_numbers_have_ends_and_words_have_none(synthetic):
    about, rows = synthetic(60, pruned=0, failed=0)
    for row in rows:
        row["objectives"]["ndcg@10"] = 1e-6 * row["number"] - row["point"]["model.width"] / 1e3
    assert [(one.name, end) for one, end in alarms(gathered(about, rows))] == [("model.width", "lower")]


def told(about, rows):
    return " ".join(one for one, _ in warnings(gathered(about, rows)))


def test_warnings_are_given_when_due(synthetic):
    about, rows = synthetic(12, failed=0, pruned=0)
    assert "one seed" in told(about, rows)
    rows[3]["objectives"]["ndcg@10"] = math.nan
    assert "1 trial finished without a finite ndcg@10 and has no place." in told(about, rows)
    rows[4]["code"] = "another"
    assert "2 versions of the code" in told(about, rows)
    for row in rows[5:8]:
        row["state"] = "diverged"
    assert "3 of 12 trials failed" in told(about, rows)
    about, rows = synthetic(12, failed=0, pruned=0, seeds=3)
    assert "seed" not in told(about, rows).replace("the seeds do not tell them apart", "")
    for row in rows:
        row["objectives"]["ndcg@10"] = 0.1 + 0.001 * row["seed"]
    assert "11 other configurations lie within the interval of the best" in told(about, rows)


def test_a_bound_on_which_most_points_sit_is_no_alarm(synthetic):
    about, rows = synthetic(12, pruned=0, failed=0)
    for row in rows:
        row["point"]["model.width"] = 32 if row["number"] else 256
        row["objectives"]["ndcg@10"] = -row["number"] if row["number"] else -100
    assert "model.width" not in {one.name for one, _ in alarms(gathered(about, rows))}


def test_names_are_as_short_as_they_can_be_told_apart():
    assert short_names(["optimizer.lr", "model.width", "loss.width", "lr.width", "lr"]) == {
        "optimizer.lr": "optimizer.lr", "model.width": "model.width", "loss.width": "loss.width",
        "lr.width": "lr.width", "lr": "lr",
    }  # fmt: skip
    assert short_names(["optimizer.lr", "model.cell.gru.bias"]) == {"optimizer.lr": "lr", "model.cell.gru.bias": "bias"}


def test_the_command_of_a_trial_resolves_to_its_configuration(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    wanted = ["--optimizer.lr", "0.0123", "--model.no-tied", "--model.user", "--loss", "sampled_softmax(negatives=64)",
              "--eval.metrics", "hr@5", "ndcg@5", "--stop.metric", "ndcg@5", "--model.cell", "gru(hidden=32)",
              "--seed", "4", "--max-seconds", "none"]  # fmt: skip
    resolved = to_dict(_resolve_train(wanted)[0].section)
    row = {"config": resolved | {"run": "runs/x", "fresh": True}}
    words = shlex.split(command(row))
    assert words[:2] == ["jaxrec", "train"]
    assert to_dict(_resolve_train(words[2:])[0].section) == resolved
    assert "--run" not in words
    start, rest = commands([row, {"config": to_dict(Config(seed=9))}])
    assert start == "jaxrec train"
    assert rest[1] == "--seed 9"


@pytest.mark.parametrize("freedom", [1, 4, 10, 11, 20, 200])
def test_students_t(freedom):
    stats = pytest.importorskip("scipy.stats")
    assert student(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-3)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.44, "0.4 s"), (59.6, "1 min"), (65, "1 min 5 s"), (1985, "33 min"), (7800, "2 h 10 min"), (273_700, "3 d 4 h")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_options_come_from_the_space_also_where_no_trial_has_them(synthetic):
    about, _ = synthetic(1)
    found = {one.name: one for one in options(about, [])}
    assert (found["optimizer.lr"].log, found["optimizer.lr"].high) == (True, 0.01)
    assert found["model.cell"].categories == ("gru", "lstm", "lru", "mingru")
    assert not found["model.dropout"].log


def test_a_lucky_single_seed_has_no_place_among_configurations_with_more(synthetic):
    about, rows = synthetic(10, seeds=3, failed=0, pruned=0)
    rows[1]["state"] = rows[2]["state"] = "pruned"
    rows[0]["objectives"]["ndcg@10"] = 0.9
    ranked = gathered(about, rows).ranked
    assert ranked[-1].values == [0.9]
    assert [one.placed for one in ranked] == [True] * 9 + [False]
    assert "1 configuration with fewer than 3 finished seeds has no place" in " ".join(notes(gathered(about, rows)))


def test_what_a_test_over_the_seeds_said_takes_the_place_of_ours(synthetic):
    about, rows = synthetic(10, seeds=3, failed=0, pruned=0)
    for row in rows:
        row["objectives"]["ndcg@10"] = 0.1 + 0.001 * row["seed"]
    sweep = gathered(about, rows, judged="the best of 10, no other can be the best")
    assert next(notes(sweep)) == "The best of 10, no other can be the best."
    assert "interval of the best" not in " ".join(one for one, _ in warnings(sweep))


def test_a_straight_front_has_no_knee():
    about = {"objectives": [{"name": "ndcg@10", "direction": "maximize"}, {"name": "seconds", "direction": "minimize"}]}
    assert gathered(about, planned([(0.1, 10), (0.2, 20), (0.3, 30)])).front.knee is None
    assert gathered(about, planned([(0.1, 10), (0.11, 20), (0.3, 30)])).front.knee is None


def test_minimising_turns_everything_round():
    about = {"objectives": [{"name": "loss", "direction": "minimize"}]}
    rows = planned([(3.0,), (1.0,), (2.0,)], ("loss",))
    sweep = gathered(about, rows)
    assert [one.mean for one in sweep.ranked] == [1.0, 2.0, 3.0]
    assert sentence(sweep).startswith("The best configuration, lr 0.002, reaches loss 1.0000")
    assert front(configurations(rows, objectives(about, rows)), sweep.sought).members == (0,)


def test_damaged_rows_are_a_mistake_that_names_the_line(tmp_path):
    assert not is_sweep(tmp_path)
    (tmp_path / "trials.jsonl").write_text('{"number": 0, "state": "done"}\n{"number": 1, "sta')
    assert is_sweep(tmp_path)
    with pytest.raises(Mistake, match=r"trials\.jsonl:2 is not JSON"):
        read_sweep(tmp_path)
