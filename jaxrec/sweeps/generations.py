"""Population-based training (Jaderberg et al. 2017, https://arxiv.org/abs/1711.09846): rates that change on the way.

A population trains for as many epochs as the space says; then the worst fifth take weights and optimiser of one of the
best fifth, with numbers a little changed, and everybody trains on. A member of a generation is a trial like any other:
a run that starts from another (`runs.ancestry`), so that it is resumed, repeated, answered and shown as they are.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxrec.config import Mistake
from jaxrec.sweeps.buckets import TRACED
from jaxrec.sweeps.domains import Choices, Domain
from jaxrec.sweeps.ledger import ENDS
from jaxrec.sweeps.search import Direction, Past, Proposal, sobol
from jaxrec.sweeps.space import Point, Space

SHARE = 5  # the best and the worst are a fifth of the population each
ANEW, FACTORS = 0.25, (0.8, 1.25)  # how often a number is drawn anew, and what it is multiplied with elsewhere


class Generations:
    """The members of one generation after the other; `number // population` is a trial's generation."""

    adaptive = True

    def __init__(self, space: Space, seed: int, directions: Sequence[Direction], population: int, epochs: int):
        refuse(space, population)
        self._space, self._seed, self._population, self._epochs = space, seed, population, epochs
        self._sign = 1.0 if directions[0] == "maximize" else -1.0
        self._first = sobol(len(space.dimensions), seed)

    def ready(self, number: int, past: Sequence[Past]) -> bool:
        """Whether everybody of the generation before has ended, so that this trial can be proposed."""
        before = self._before(number, past)
        return number < self._population or (
            len(before) == self._population and all(trial.state in ENDS for trial in before)
        )

    def propose(self, number: int, past: Sequence[Past]) -> Proposal | None:
        """The trial; None where nobody is left to go on from."""
        generation, member = divmod(number, self._population)
        place = {"generation": generation, "member": member}
        options = {"epochs": self._epochs * (generation + 1), "seed": member}
        if not generation:
            return Proposal(self._space.at(self._first(member)), place, options)
        ranked = sorted(
            (trial for trial in self._before(number, past) if trial.state == "done" and trial.values),
            key=lambda trial: (-self._sign * (trial.values or (0.0,))[0], trial.number),
        )
        if not ranked:
            return None
        draw = np.random.default_rng([self._seed, number])
        some = max(1, self._population // SHARE)
        kept = ranked[: self._population - some]
        own = next((trial for trial in kept if trial.number % self._population == member), None)
        if own is not None:
            return Proposal(dict(own.point), place | {"parent": own.number}, options)
        parent = ranked[int(draw.integers(min(some, len(ranked))))]
        return Proposal(self._changed(parent.point, draw), place | {"parent": parent.number}, options)

    def _before(self, number: int, past: Sequence[Past]) -> list[Past]:
        first = (number // self._population - 1) * self._population
        return [trial for trial in past if first <= trial.number < first + self._population]

    def _changed(self, point: Point, draw: np.random.Generator) -> Point:
        return {one.name: changed(one.domain, point[one.name], draw) for one in self._space.dimensions}


def changed(domain: Domain, value: Any, draw: np.random.Generator) -> Any:
    """A value near another: a neighbour among choices, a fifth less or a quarter more of a number; at times any."""
    if draw.random() < ANEW:
        return domain.at(float(draw.random()))
    if isinstance(domain, Choices):
        place = domain.values.index(value) + (1 if draw.random() < 0.5 else -1)
        return domain.values[min(max(place, 0), domain.count - 1)]
    return domain.nearest(value * FACTORS[int(draw.integers(2))])


def refuse(space: Space, population: int) -> None:
    """`Mistake` where members could not take over each other's weights."""
    traced = {f"{section}.{name}" for section, names in TRACED.items() for name in names}
    for dimension in space.dimensions:
        if dimension.name not in traced or dimension.when:
            raise Mistake(
                f"--search pbt changes numbers while a model trains, and {dimension.name} is none that can change; "
                f"give it one value, or sweep {', '.join(sorted(traced))}"
            )
    if not space.dimensions:
        raise Mistake("--search pbt has nothing to change; give a range, as in --optimizer.lr 'log(1e-4, 1e-2)'")
    if population < 2:
        raise Mistake(f"--population {population} has nobody to learn from; give 2 or more")
