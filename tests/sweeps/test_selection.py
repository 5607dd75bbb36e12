"""The winner, the front and what mattered, against float64 oracles and planted truths."""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import stats

from jaxrec.config import Mistake
from jaxrec.sweeps.importance import importances
from jaxrec.sweeps.search import searcher
from jaxrec.sweeps.selection import Winner, candidates, front, knee, optimism, spread, undominated, winner
from jaxrec.sweeps.space import parse


def row(number: int, point: dict[str, Any], valid: float | None, seed: int = 0, **rest: Any) -> dict[str, Any]:
    found = {} if valid is None else {"ndcg@10": valid}
    test = {"ndcg@10": valid / 2} if valid is not None else {}
    given = {"number": number, "state": "done", "point": point, "seed": seed, "same_as": None}
    return given | {"valid": found, "test": test, "objectives": found} | rest


def rows_of(values: np.ndarray) -> list[dict[str, Any]]:
    """Rows of configurations (n, seeds)."""
    places = np.ndindex(values.shape)
    return [row(k, {"model.width": int(i)}, float(values[i, s]), int(s)) for k, (i, s) in enumerate(places)]


def won(rows: Sequence[dict[str, Any]], **options: Any) -> Winner:
    found = winner(rows, "ndcg@10", **options)
    assert found is not None
    return found


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8), st.sampled_from([0.9, 0.95]))
def test_a_mean_has_students_interval(values: list[float], level: float):
    found = spread(values, level=level)
    assert found.mean == pytest.approx(math.fsum(values) / len(values), abs=1e-9)
    assert found.error == pytest.approx(stats.sem(values), abs=1e-9)
    if found.error:
        wanted = stats.t.interval(level, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
        np.testing.assert_allclose((found.low, found.high), wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_alike_is_what_scipys_tests_leave(direction: Any, paired: bool, seeds: int):
    draw = np.random.default_rng(seeds)
    values = (
        0.1 * draw.standard_normal((12, 1)) + 0.03 * draw.standard_normal((12, seeds)) + draw.standard_normal(seeds)
    )
    found = won(rows_of(values), direction=direction, paired=paired)
    side = "greater" if direction == "maximize" else "less"
    best = int(np.argmax(values.mean(axis=1)) if direction == "maximize" else np.argmin(values.mean(axis=1)))
    test = (
        stats.ttest_rel
        if paired
        else lambda a, b, alternative: stats.ttest_ind(a, b, equal_var=False, alternative=alternative)
    )
    p = [test(values[best], values[k], alternative=side).pvalue for k in range(12)]
    assert found.best.point == {"model.width": best}
    assert {entry.point["model.width"] for entry in found.alike} == {
        k for k in range(12) if k == best or p[k] > 0.05 / 11
    }
    assert 1 <= len(found.alike) <= 12
    assert ("the paired t-test" in found.said) == paired or len(found.alike) == found.among == 1


def test_the_truly_best_is_among_those_alike_as_often_as_promised():
    draw, hits, kept = np.random.default_rng(0), 0, 0
    truth = np.array([0.5, 0.49, 0.48, 0.3, 0.2, 0.1])
    for _ in range(300):
        found = won(rows_of(truth[:, None] + 0.02 * draw.standard_normal((6, 4))))
        hits += any(entry.point == {"model.width": 0} for entry in found.alike)
        kept += len(found.alike)
    assert hits >= 0.95 * 300
    assert kept < 3.5 * 300  # and those that are far away are not


def test_validation_selects_and_test_is_reported():
    rows = [row(0, {"a": 1}, 0.5, test={"ndcg@10": 0.1}), row(1, {"a": 2}, 0.4, test={"ndcg@10": 0.9})]
    found = won(rows)
    assert found.best.point == {"a": 1}
    assert found.best.test is not None
    assert found.best.test.mean == 0.1
    assert "the number to report is its test ndcg@10, 0.1000" in found.said


def test_one_seed_says_nothing_about_noise():
    found = won(rows_of(np.array([[0.5], [0.1], [0.3]])))
    assert [entry.point["model.width"] for entry in found.alike] == [0, 2, 1]
    assert (found.optimism, found.best.valid.error) == (None, None)
    assert "with one seed each nothing can be said about noise, so repeat the best ones with --seeds" in found.said


def test_repeats_that_do_not_differ():
    found = won(rows_of(np.array([[0.5, 0.5], [0.4, 0.4], [0.5, 0.5]])))
    assert [entry.point["model.width"] for entry in found.alike] == [0, 2]
    assert found.optimism == 0


def test_who_was_repeated_less_does_not_compete():
    rows = [*rows_of(np.array([[0.5, 0.51], [0.4, 0.41]])), row(9, {"model.width": 9}, 0.9)]
    found = won(rows)
    assert (found.best.point, found.among) == ({"model.width": 0}, 2)
    rows += [row(10, {"model.width": 0}, 0.5, 2)]  # one that has even more repeats is not alone for it
    assert (won(rows).best.numbers, won(rows).among) == ((0, 1, 10), 2)


def test_what_ended_otherwise_is_counted_and_the_same_trial_counts_once():
    rows = [
        row(0, {"a": 1}, 0.5),
        row(1, {"a": 1}, None, 1, state="diverged"),
        row(2, {"a": 1}, 0.5, same_as=0),
        row(3, {"a": 1}, None, 2, state="running"),
        row(4, {"a": 2}, math.nan),
        row(5, {"a": 3}, None, state="pruned"),
    ]
    [found] = candidates(rows, "ndcg@10")
    assert (found.numbers, found.seeds, found.lost) == ((0,), (0,), 1)
    assert "1 repeat of it ended without a result" in won(rows).said
    assert winner([], "ndcg@10") is None
    assert winner(rows, "hr@10") is None


@pytest.mark.parametrize("failing", [0.0, 0.3, 0.7])
@pytest.mark.parametrize(("width", "configurations"), [(0.0, 50), (0.5, 50), (1.0, 20), (20.0, 20)])
def test_optimism_is_how_much_too_good_the_selected_number_is(width: float, configurations: int, failing: float):
    draw, told, true = np.random.default_rng(1), [], []
    for _ in range(100):
        truth = width * draw.standard_normal(configurations) - 50 * (draw.random(configurations) < failing)
        values = truth[:, None] + draw.standard_normal((configurations, 3))
        best = int(values.mean(axis=1).argmax())
        true.append(values[best].mean() - truth[best])
        told.append(optimism(values.tolist()))
    error = np.std(true) / np.sqrt(len(true))
    assert np.mean(told) < np.mean(true) + 3 * error
    assert np.mean(told) > (0.95 if failing == 0 else 0.65) * np.mean(true) - 3 * error
    assert optimism((-values).tolist(), -1.0) == pytest.approx(told[-1])


COSTS = st.lists(st.tuples(*[st.integers(0, 6)] * 3), min_size=1, max_size=30)


@given(COSTS)
def test_the_front_is_what_nobody_dominates(costs: list[tuple[int, ...]]):
    beats = lambda a, b: all(x <= y for x, y in zip(a, b, strict=True)) and a != b  # noqa: E731
    wanted = [k for k, cost in enumerate(costs) if not any(beats(other, cost) for other in costs)]
    assert undominated(np.array(costs, float)) == wanted


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=20))
def test_the_knee_is_farthest_below_the_chord(points: list[tuple[float, float]]):
    costs = np.array(points)[undominated(np.array(points))]
    costs = costs[np.argsort(costs[:, 0])]
    ends = costs.max(axis=0) - costs.min(axis=0)
    if len(costs) < 3 or ends.min() < 1e-6:
        return
    scaled = (costs - costs.min(axis=0)) / ends
    first, last = scaled[0], scaled[-1]
    along = (last - first) / np.linalg.norm(last - first)
    distance = [along[1] * (x - first[0]) - along[0] * (y - first[1]) for x, y in scaled]  # positive below the chord
    found = knee(costs)
    if found is None:
        assert max(distance) < 1e-6
    else:
        assert distance[found] == pytest.approx(max(distance), abs=1e-9)


def test_a_front_of_several_objectives():
    place = lambda number, ndcg, seconds, **rest: row(  # noqa: E731
        number, {"a": number}, ndcg, objectives={"ndcg@10": ndcg, "seconds": seconds}, **rest
    )
    rows = [place(0, 0.9, 100), place(1, 0.85, 20), place(2, 0.5, 10), place(3, 0.4, 50), place(4, 0.99, math.nan),
            place(5, 0.95, 1, state="failed"), place(6, 0.85, 20)]  # fmt: skip
    found = front(rows, [("ndcg@10", "maximize"), ("seconds", "minimize")])
    assert [entry.point["a"] for entry in found.placed] == [0, 1, 6, 2]
    assert found.knee is not None
    assert found.placed[found.knee].point == {"a": 1}
    assert front([], [("ndcg@10", "maximize")]).placed == ()
    repeated = [row(k, {"a": 1}, value, k) for k, value in enumerate((0.2, 0.4))]
    assert front(repeated, [("ndcg@10", "maximize")]).placed[0].values == (pytest.approx(0.3),)
    assert front(repeated, [("ndcg@10", "maximize")]).knee is None


SPACE = parse(
    {
        "optimizer.lr": "log(1e-4, 1)",
        "model.cell": "gru|lstm(forget_bias={0|1})|lru",
        "model.width": "32|64|128",
        "model.dropout": "uniform(0, 0.5)",
    }
)


def planted(count: int, seed: int, noise: float = 0.2) -> list[dict[str, Any]]:
    asked, draw = searcher("random", SPACE, seed=seed, directions=["maximize"]), np.random.default_rng(seed)
    found = []
    for number in range(count):
        proposal = asked.propose(number, [])
        assert proposal is not None
        point = proposal.point
        value = -((math.log10(point["optimizer.lr"]) + 2) ** 2) - (point["model.cell"] == "lru")
        lost = point["optimizer.lr"] > 0.5
        found.append(
            row(
                number,
                point,
                None if lost else value + noise * draw.standard_normal(),
                state="diverged" if lost else "done",
            )
        )
    return found


def test_importance_finds_what_was_planted():
    found = importances(planted(200, 0), SPACE, "ndcg@10")
    assert [entry.option for entry in found][:2] == ["optimizer.lr", "model.cell"]
    assert {entry.option for entry in found} == {dimension.name for dimension in SPACE.dimensions}
    assert sum(entry.importance for entry in found) == pytest.approx(1)
    assert all(0 <= entry.low <= entry.importance <= entry.high <= 1 for entry in found)
    shares = {option: (share, low) for option, share, low, _ in found}
    assert shares["optimizer.lr"][1] > 0.5
    assert shares["model.width"][0] < 0.1
    assert shares["model.width"][1] == shares["model.dropout"][1] == 0
    assert importances(planted(200, 0), SPACE, "ndcg@10") == found
    mirrored = [entry | {"valid": {k: -v for k, v in entry["valid"].items()}} for entry in planted(200, 0)]
    assert importances(mirrored, SPACE, "ndcg@10", direction="minimize") == found


def test_importance_is_surer_of_more_trials():
    few, many = ({e[0]: e[3] - e[2] for e in importances(planted(n, 1), SPACE, "ndcg@10")} for n in (40, 400))
    assert many["optimizer.lr"] < few["optimizer.lr"]


def test_importance_of_too_little_is_nothing():
    assert importances(planted(5, 0), SPACE, "ndcg@10") == []
    assert importances(planted(50, 0), SPACE, "hr@10") == []
    same = [entry | {"valid": {"ndcg@10": 0.5}, "state": "done"} for entry in planted(30, 0)]
    assert importances(same, SPACE, "ndcg@10") == []
    assert importances([], parse({"epochs": 3}), "ndcg@10") == []


def test_importance_without_optuna_says_what_is_missing(monkeypatch: pytest.MonkeyPatch):
    import sys

    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(Mistake, match=r'pip install "jaxrec\[sweep\]"'):
        importances([], SPACE, "ndcg@10")


def test_rows_may_come_from_json():
    rows = json.loads(json.dumps(planted(60, 3)))
    assert importances(rows, SPACE, "ndcg@10", rounds=5) == importances(planted(60, 3), SPACE, "ndcg@10", rounds=5)
    assert won(rows) == won(planted(60, 3))
