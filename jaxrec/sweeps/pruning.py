"""When a trial is given up: Optuna's pruners, applied to the readings of the trials so far.

With several objectives a pruner sees readings of the first alone. It keeps nothing between questions: what a pruner of
Optuna would have noted at earlier readings follows from these readings.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from jaxrec.config import Mistake, did_you_mean
from jaxrec.sweeps.search import Direction, Past
from jaxrec.sweeps.study import NAME, optuna_or_mistake, quiet

if TYPE_CHECKING:
    import optuna

Pruner: TypeAlias = Callable[[Sequence[Past], Past], bool]
PRUNERS = ("none", "halving", "hyperband", "median")
_RUNG = "completed_rung_{}"  # the attribute in which Optuna 5 keeps the reading that a trial came to a rung with


@functools.lru_cache(maxsize=64)
def pruner(
    name: str, *, direction: Direction = "maximize", least: int = 1, most: int | None = None, factor: int = 3,
    startup: int = 5,
) -> Pruner:  # fmt: skip
    """Whether to give a trial up after its last reading, seen the others; it may be among them.

    No trial is given up before epoch `least`. halving (asynchronous; Li et al. 2020): at epochs `least * factor**k` one
    in `factor` goes on. hyperband (Li et al. 2018): several halvings, each beginning later, up to epoch `most`. median:
    below the median of finished trials at that epoch, once `startup` are finished.
    """
    if name not in PRUNERS:
        raise Mistake(f"--prune {name} is not one of {', '.join(PRUNERS)}{did_you_mean(name, PRUNERS)}")
    for option, value, lowest in (("least", least, 1), ("factor", factor, 2), ("startup", startup, 1)):
        if value < lowest:
            raise Mistake(f"--prune {name}: {option} = {value} is refused; give a whole number from {lowest}")
    if name == "none":
        return lambda past, trial: False
    optuna_or_mistake(f"--prune {name}")
    if name == "median":
        return Median(direction, least, startup)
    if name == "halving":
        return Halving(direction, least, factor)
    if most is None or most < least:
        raise Mistake(f"--prune hyperband: most = {most} is refused; give the epochs of a whole training, from {least}")
    return Hyperband(direction, least, factor, most)


def spared(about: Mapping[str, Any], epochs: int) -> int:
    """Epochs that a training of so many gets before a sweep may give it up."""
    return about.get("prune_after") or max(1, epochs // 4)


class Median:
    """Optuna's MedianPruner."""

    def __init__(self, direction: Direction, least: int, startup: int):
        self.direction, self.least, self.startup = direction, least, startup

    def __call__(self, past: Sequence[Past], trial: Past) -> bool:
        import optuna

        done = [Rival(other, {}) for other in _known(past, trial) if other.state == "done"]
        with quiet():
            judge = optuna.pruners.MedianPruner(n_startup_trials=self.startup, n_warmup_steps=self.least)
            return _judged(judge, self.direction, done, trial, {})


class Halving:
    """Optuna's SuccessiveHalvingPruner. `late` rungs are left out at the beginning."""

    def __init__(self, direction: Direction, least: int, factor: int, late: int = 0):
        self.direction, self.least, self.factor, self.late = direction, least, factor, late

    def __call__(self, past: Sequence[Past], trial: Past) -> bool:
        import optuna

        before = self.rungs(trial.readings[:-1], given_up=False)
        rivals = [Rival(o, self.rungs(o.readings, given_up=o.state == "pruned")) for o in _known(past, trial)]
        rivals = [rival for rival in rivals if len(rival.notes) > len(before)]  # the others are on earlier rungs
        with quiet():
            judge = optuna.pruners.SuccessiveHalvingPruner(
                min_resource=self.least, reduction_factor=self.factor, min_early_stopping_rate=self.late
            )
            return _judged(judge, self.direction, rivals, trial, before)

    def rungs(self, readings: Sequence[tuple[int, float]], *, given_up: bool) -> dict[str, float]:
        """The reading that a trial came to every rung with; one that is given up stays on the first that it failed."""
        found: dict[str, float] = {}
        for place, (epoch, value) in enumerate(readings):
            while epoch >= self.least * self.factor ** (self.late + len(found)):
                found[_RUNG.format(len(found))] = value
                if given_up and place == len(readings) - 1:
                    break
        return found


class Hyperband:
    """Optuna's HyperbandPruner: which of its halvings a trial belongs to follows from its number."""

    def __init__(self, direction: Direction, least: int, factor: int, most: int):
        self.direction, self.least, self.factor, self.most = direction, least, factor, most

    def __call__(self, past: Sequence[Past], trial: Past) -> bool:
        bracket = self._brackets()
        mine = bracket(trial.number)
        same = [other for other in past if bracket(other.number) == mine]
        return Halving(self.direction, self.least, self.factor, late=mine)(same, trial)

    def _brackets(self) -> Callable[[int], int]:
        """The bracket of a trial's number. Optuna shows it to nobody, hence its private names; a test holds them."""
        import optuna

        judge: Any = optuna.pruners.HyperbandPruner(
            min_resource=self.least, max_resource=self.most, reduction_factor=self.factor
        )
        study = SimpleNamespace(study_name=NAME)
        judge._try_initialization(study)
        return lambda number: judge._get_bracket_id(study, SimpleNamespace(number=number))


class Rival(NamedTuple):
    """Another trial, and the attributes that Optuna would have given it."""

    trial: Past
    notes: Mapping[str, float]


def _known(past: Sequence[Past], trial: Past) -> list[Past]:
    """The other trials that say something by their readings."""
    return [other for other in past if other.number != trial.number and other.readings]


def _judged(
    judge: "optuna.pruners.BasePruner", direction: Direction, rivals: Sequence[Rival], trial: Past,
    notes: Mapping[str, float],
) -> bool:  # fmt: skip
    """What a pruner says of a trial in a study of its rivals."""
    import optuna

    study = optuna.create_study(direction=direction, study_name=NAME)
    study.add_trials([_frozen(*rival, done=rival.trial.state == "done") for rival in rivals])
    study.add_trial(_frozen(trial, notes, done=False))
    return bool(judge.prune(study, study.get_trials(deepcopy=False)[-1]))


def _frozen(trial: Past, notes: Mapping[str, float], done: bool) -> "optuna.trial.FrozenTrial":
    from optuna.trial import TrialState, create_trial

    return create_trial(
        state=TrialState.COMPLETE if done else TrialState.RUNNING,
        value=0.0 if done else None,  # no pruner looks at it
        intermediate_values=dict(trial.readings),
        system_attrs=dict(notes),
    )
