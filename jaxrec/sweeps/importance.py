"""Which options mattered: how differently the best trials chose from all of them."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxrec.sweeps.search import Direction, Past
from jaxrec.sweeps.space import Point, Space
from jaxrec.sweeps.study import optuna_or_mistake, quiet, rebuilt

FEWEST = 10  # configurations below which nothing is said
MOST = 1000  # configurations that are looked at, drawn from more
TOP = 5  # configurations at least that count as the best
BLIND = 2  # shuffles for every half
LOST = ("pruned", "diverged", "out_of_memory")  # worse than what was finished


class Importance(NamedTuple):
    """An option's share of what can be explained, beyond chance, with its interval."""

    option: str
    importance: float
    low: float
    high: float


def importances(
    rows: Sequence[Mapping[str, Any]], space: Space, metric: str, *, direction: Direction = "maximize",
    rounds: int = 40, level: float = 0.9, seed: int = 0,
) -> list[Importance]:  # fmt: skip
    """Every dimension of a sweep's rows by its importance for the best tenth of `valid` numbers; [] of too few rows.

    PED-ANOVA (Watanabe et al. 2023) as Optuna computes it: with a searcher that looks back it compares with what was
    tried, not with the space. From each option's value its mean over shuffled results is taken, so that one without
    effect has about 0. Intervals are from random halves of the configurations, whose means vary as those of the whole
    sample would (Shao and Wu 1989). `Mistake` without Optuna.
    """
    optuna_or_mistake("importances")
    draw = np.random.default_rng(seed)
    points, costs = _configurations(rows, metric, direction, draw)
    count = len(points)
    if count < FEWEST or not space.dimensions or np.ptp(costs) == 0:
        return []
    with quiet():
        weigh = _weighing(points, space)
        every = np.arange(count)
        chance = np.mean([weigh(every, draw.permutation(costs)) for _ in range(rounds)], axis=0)
        found, halves = _shares(weigh(every, costs) - chance), []
        for _ in range(rounds):
            half = draw.permutation(count)[: count // 2]
            blind = np.mean([weigh(half, draw.permutation(costs)) for _ in range(BLIND)], axis=0)
            halves.append(_shares(weigh(half, costs) - blind))
    return _ranked(space, found, np.array(halves), level)


def _ranked(space: Space, found: np.ndarray, halves: np.ndarray, level: float) -> list[Importance]:
    low, high = np.quantile(halves - halves.mean(axis=0), [(1 - level) / 2, (1 + level) / 2], axis=0)
    ends = np.clip(found + low, 0, found), np.clip(found + high, found, 1)
    names = [dimension.name for dimension in space.dimensions]
    listed = [Importance(name, float(f), float(a), float(b)) for name, f, a, b in zip(names, found, *ends, strict=True)]
    return sorted(listed, key=lambda entry: -entry.importance)


def _configurations(
    rows: Sequence[Mapping[str, Any]], metric: str, direction: Direction, draw: np.random.Generator
) -> tuple[list[Point], np.ndarray]:
    """Points, and the mean cost over their repeats; one that was lost costs more than all that were finished."""
    sign = -1.0 if direction == "maximize" else 1.0
    groups: dict[str, list[float]] = {}
    for row in rows:
        value = (row.get("valid") or {}).get(metric, math.nan)
        done = row["state"] == "done" and value is not None and math.isfinite(value)
        if row.get("same_as") is None and (done or row["state"] in LOST):
            cost = sign * float(value) if done else math.inf
            groups.setdefault(json.dumps(row["point"], sort_keys=True), []).append(cost)
    names = list(groups)
    if len(names) > MOST:
        names = [names[k] for k in sorted(draw.permutation(len(names))[:MOST])]
    costs = np.array([np.mean(groups[name]) for name in names], np.float64)
    finished = costs[np.isfinite(costs)]
    worst = finished.max() + np.ptp(finished) + 1.0 if len(finished) else 0.0
    return [json.loads(name) for name in names], np.where(np.isfinite(costs), costs, worst)


def _weighing(points: Sequence[Point], space: Space) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """The importance of every dimension as a function of which points are looked at, and of the costs of all."""
    import optuna

    past = [Past(k, point, "done", (0.0,)) for k, point in enumerate(points)]
    study = rebuilt(space, past, ["minimize"], optuna.samplers.RandomSampler(seed=0))
    trials = study.get_trials(deepcopy=False)

    def weigh(which: np.ndarray, costs: np.ndarray) -> np.ndarray:
        share = min(max(0.1, TOP / len(which)), 0.5)
        judge = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=share)
        some: Any = _Some([trials[k] for k in which], study.directions)
        found = judge.evaluate(some, target=lambda trial: float(costs[trial.number]))
        return np.array([found.get(dimension.name, 0.0) for dimension in space.dimensions])

    return weigh


class _Some:
    """Some trials of a study, without a copy of any: all that PED-ANOVA asks of one."""

    def __init__(self, trials: Sequence[Any], directions: Sequence[Any]):
        self.trials, self.directions = list(trials), directions

    def get_trials(self, deepcopy: bool = True, states: Any = None) -> list[Any]:
        return self.trials

    def _is_multi_objective(self) -> bool:
        return False


def _shares(raw: np.ndarray) -> np.ndarray:
    positive = np.maximum(raw, 0.0)
    return positive / positive.sum() if positive.sum() > 0 else positive
