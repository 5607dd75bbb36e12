"""Optuna's samplers by ask and tell, in a study that is made anew from the trials so far for every proposal."""

import json
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxrec.config import Mistake, fingerprint
from jaxrec.sweeps.domains import Choices, Domain
from jaxrec.sweeps.search import LISTED, REDRAWS, Direction, Past, Proposal, Searcher, shuffled
from jaxrec.sweeps.space import Point, Space

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

NAME = "sweep"  # of every study: with a name of its own, the brackets of Hyperband would change with the process
LOST = ("diverged", "out_of_memory")  # results of the point, which a sampler learns to stay away from


def study_searcher(name: str, space: Space, seed: int, directions: Sequence[Direction]) -> Searcher:
    """`tpe`, `cmaes` or `nsga2`; `Mistake` where Optuna is missing or would silently draw at random instead."""
    optuna_or_mistake(f"--search {name}")
    if name != "cmaes":
        return Study(space, seed, directions, name)
    try:
        import cmaes  # noqa: F401
    except ImportError:
        raise Mistake('--search cmaes needs cmaes, which is not installed; pip install "jaxrec[sweep]"') from None
    if len(directions) > 1:
        raise Mistake(f"--search cmaes has one objective, not {len(directions)}; keep the first, or use nsga2 or tpe")
    for dimension in space.dimensions:
        if dimension.when or isinstance(dimension.domain, Choices):
            why = "depends on another option" if dimension.when else "is a choice between values"
            raise Mistake(
                f"--search cmaes needs a space of numbers that are always there, and {dimension.name} {why}; use tpe, "
                "or leave it out of the space"
            )
    return Evolution(space, seed, directions)


def optuna_or_mistake(asked: str) -> None:
    """`Mistake` with the command that installs Optuna where it is missing."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise Mistake(f'{asked} needs Optuna, which is not installed; pip install "jaxrec[sweep]"') from None


class Study:
    """TPE or NSGA-II. In a finite space a point that was proposed before is drawn again, until none is left."""

    adaptive = True

    def __init__(self, space: Space, seed: int, directions: Sequence[Direction], name: str):
        self._space, self._seed, self._directions, self._name = space, seed, tuple(directions), name
        self._most = space.size(most=LISTED)

    def propose(self, number: int, past: Sequence[Past]) -> Proposal | None:
        if self._most is None:
            return self._ask(number, past, 0)
        seen = {fingerprint(trial.point) for trial in past}
        if len(seen) >= self._most and self._most < LISTED:
            return None
        for attempt in range(REDRAWS if self._most < LISTED else 4):
            found = self._ask(number, past, attempt)
            if fingerprint(found.point) not in seen:
                return found
        left = shuffled(self._space, seen, np.random.default_rng([self._seed, number]))
        return Proposal(left[0], found.notes) if left else found

    def _ask(self, number: int, past: Sequence[Past], attempt: int) -> Proposal:
        import optuna

        seed = _seed(self._seed, number, attempt)
        tpe = self._name == "tpe"
        sampler = optuna.samplers.TPESampler(seed=seed) if tpe else optuna.samplers.NSGAIISampler(seed=seed)
        with quiet():
            study = rebuilt(self._space, past, self._directions, sampler)
            point, attributes = asked(study, self._space)
        return Proposal(point, {key: value for key, value in attributes.items() if not key.startswith("tpe:")})


class Evolution:
    """CMA-ES. Optuna keeps its state as a pickle among the attributes of trials; here generations are told anew."""

    adaptive = True

    def __init__(self, space: Space, seed: int, directions: Sequence[Direction]):
        self._space, self._seed, self._directions = space, seed, tuple(directions)
        self._margin = any(dimension.domain.count is not None for dimension in space.dimensions)
        self._prefix = "cmawm" if self._margin else "cma"

    def propose(self, number: int, past: Sequence[Past]) -> Proposal | None:
        done = [trial for trial in past if _state(trial) == "COMPLETE"]
        state: dict[str, Any] = {}
        generation = 0
        with quiet():
            while True:
                point, attributes = asked(self._study(number, done, state, generation), self._space)
                state = {key: value for key, value in attributes.items() if key.startswith(f"{self._prefix}:optimizer")}
                if not state:  # there was no whole generation to tell: this point belongs to the one that is open
                    return Proposal(point, attributes)
                generation += 1

    def _study(self, number: int, done: Sequence[Past], state: Mapping[str, Any], generation: int) -> "optuna.Study":
        """The trials of a generation, behind a finished one that holds the state which they are told to."""
        import optuna

        told = [trial for trial in done if trial.notes.get(f"{self._prefix}:generation") == generation]
        holder = [Past(-1, trial.point, "done", trial.values, (), dict(state)) for trial in done[:1]]
        sampler = optuna.samplers.CmaEsSampler(seed=_seed(self._seed, number, 0), with_margin=self._margin)
        return rebuilt(self._space, [*holder, *told], self._directions, sampler)


def asked(study: "optuna.Study", space: Space) -> tuple[Point, dict[str, Any]]:
    """A new point, and the attributes that the sampler gave its trial."""
    trial, point = study.ask(), dict[str, Any]()
    for dimension in space.dimensions:
        if dimension.active(point):
            point[dimension.name] = _suggested(trial, dimension.name, dimension.domain)
    attributes = study.get_trials(deepcopy=False)[-1].system_attrs
    return point, dict(attributes)


def rebuilt(
    space: Space, past: Iterable[Past], directions: Sequence[Direction], sampler: "BaseSampler"
) -> "optuna.Study":
    """A study in memory that holds `past` in the order of its numbers."""
    import optuna

    study = optuna.create_study(directions=list(directions), sampler=sampler, study_name=NAME)
    known = {dimension.name: (dimension.domain, distribution(dimension.domain)) for dimension in space.dimensions}
    study.add_trials([_frozen(trial, known, len(directions)) for trial in sorted(past, key=lambda trial: trial.number)])
    return study


def _frozen(trial: Past, known: Mapping[str, tuple[Domain, "BaseDistribution"]], objectives: int) -> "FrozenTrial":
    from optuna.trial import TrialState, create_trial

    state = _state(trial)
    readings = dict(trial.readings) if objectives == 1 and trial.state not in LOST else {}
    return create_trial(
        state=TrialState[state],
        values=list(trial.values or ()) if state == "COMPLETE" else None,
        params={name: _external(known[name][0], value) for name, value in trial.point.items()},
        distributions={name: known[name][1] for name in trial.point},
        system_attrs=dict(trial.notes),
        intermediate_values=readings,  # with several objectives Optuna takes none
    )


def _state(trial: Past) -> str:
    """A trial's state in Optuna's words. What diverged is pruned without a reading: worse than all that have one."""
    if trial.state == "done":
        return "COMPLETE" if trial.values and all(map(math.isfinite, trial.values)) else "PRUNED"
    if trial.state in ("pruned", *LOST):
        return "PRUNED"
    return "FAIL" if trial.state == "failed" else "RUNNING"


def distribution(found: Domain) -> "BaseDistribution":
    """A domain as Optuna has it; choices are their JSON texts."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(found, Choices):
        return CategoricalDistribution([json.dumps(value) for value in found.values])
    if found.whole:
        return IntDistribution(int(found.low), int(found.high), log=found.log, step=int(found.step or 1))
    return FloatDistribution(found.low, found.high, log=found.log, step=found.step)


def _external(found: Domain, value: Any) -> Any:
    return json.dumps(value) if isinstance(found, Choices) else value


def _suggested(trial: "optuna.Trial", name: str, found: Domain) -> Any:
    if isinstance(found, Choices):
        return json.loads(trial.suggest_categorical(name, [json.dumps(value) for value in found.values]))
    low, high = found.low, found.high
    if found.whole:
        return found.nearest(trial.suggest_int(name, int(low), int(high), log=found.log, step=int(found.step or 1)))
    return found.nearest(trial.suggest_float(name, low, high, log=found.log, step=found.step))


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


@contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's own lines about a study that lives for one question."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(level)
