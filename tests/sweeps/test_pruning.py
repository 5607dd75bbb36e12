"""Pruners against Optuna's own, asked live in a study of its own."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from jaxrec.config import Mistake
from jaxrec.sweeps.pruning import pruner
from jaxrec.sweeps.search import Direction, Past
from jaxrec.sweeps.study import quiet

optuna = pytest.importorskip("optuna")
EPOCHS = 12


def live(name: str, least: int) -> Any:
    return {
        "halving": lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=least, reduction_factor=3),
        "hyperband": lambda: optuna.pruners.HyperbandPruner(
            min_resource=least, max_resource=EPOCHS, reduction_factor=3
        ),
        "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=least),
    }[name]()


def curves(trials: int, seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    final, noise = draw.random((trials, 1)), 0.1 * draw.standard_normal((trials, EPOCHS))
    return final * (1 - np.exp(-np.arange(1, EPOCHS + 1) / 4)) + noise


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize("name", ["halving", "hyperband", "median"])
@pytest.mark.parametrize(("least", "every", "together"), [(1, 1, 1), (1, 1, 4), (2, 1, 4), (2, 2, 3)])
def test_a_pruner_says_what_optuna_says(name: str, direction: Direction, least: int, every: int, together: int):
    mine = pruner(name, direction=direction, least=least, most=EPOCHS)
    values = curves(40, seed=least + together) * (1 if direction == "maximize" else -1)
    with quiet():
        study = optuna.create_study(direction=direction, pruner=live(name, least), study_name="sweep")
        past, pruned = dict[int, Past](), 0
        for first in range(0, 40, together):
            trials = {k: study.ask() for k in range(first, min(first + together, 40))}
            past |= {k: Past(k, {}, "running") for k in trials}
            for epoch in range(every, EPOCHS + 1, every):
                for k, trial in list(trials.items()):
                    value = float(values[k, epoch - 1])
                    trial.report(value, epoch)
                    past[k] = Past(k, {}, "running", None, (*past[k].readings, (epoch, value)))
                    up = trial.should_prune()
                    assert mine([*past.values()], past[k]) == up
                    if up:
                        study.tell(trials.pop(k), state=optuna.trial.TrialState.PRUNED)
                        past[k] = Past(k, {}, "pruned", None, past[k].readings)
                        pruned += 1
            for k, trial in trials.items():
                study.tell(trial, float(values[k, -1]))
                past[k] = Past(k, {}, "done", (float(values[k, -1]),), past[k].readings)
    assert 5 < pruned < 40


def finished(values: Sequence[float], epochs: Sequence[int] = range(1, 10)) -> list[Past]:
    return [Past(k, {}, "done", (value,), tuple((epoch, value) for epoch in epochs)) for k, value in enumerate(values)]


@pytest.mark.parametrize("name", ["halving", "hyperband", "median"])
def test_no_trial_is_given_up_early_or_alone(name: str):
    judge = pruner(name, least=3, most=27)
    others = finished([0.9] * 6, range(1, 28))
    for number in range(9, 60):
        worst = Past(number, {}, "running", None, ((1, 0.0), (2, 0.0)))
        assert not judge(others, worst)
        assert not judge([], Past(number, {}, "running", None, ((1, 0.0), (9, 0.5))))
    assert any(judge(others, Past(n, {}, "running", None, ((1, 0.0), (27, 0.0)))) for n in range(9, 60))
    assert not pruner("none")(others, worst)


def test_a_reading_that_is_no_number_is_given_up():
    assert pruner("halving")(finished([0.5]), Past(7, {}, "running", None, ((1, float("nan")),)))


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"name": "halvng"}, "did you mean 'halving'"),
        ({"name": "halving", "factor": 1}, "factor = 1 is refused; give a whole number from 2"),
        ({"name": "median", "least": 0}, "least = 0 is refused"),
        ({"name": "hyperband"}, "most = None is refused; give the epochs of a whole training"),
    ],
)
def test_a_pruner_that_cannot_be_is_refused(arguments: dict[str, Any], part: str):
    with pytest.raises(Mistake, match=part):
        pruner(**arguments)
