"""Who proposes the next point: a grid, draws, or what was found so far.

A proposal depends on the sweep's seed, the trial's number and, where the searcher is adaptive, on the trials so far; on
no state of a process. Whoever asks again for the same trial gets the same point.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np

from jaxrec.config import Mistake, did_you_mean, fingerprint
from jaxrec.sweeps.space import Point, Space

Direction: TypeAlias = Literal["maximize", "minimize"]
SEARCHES = ("grid", "random", "sobol", "tpe", "cmaes", "nsga2", "pbt")
LISTED = 100_000  # points of a finite space that are listed when draws find nothing new
REDRAWS = 64  # draws in a row that may repeat earlier points before the rest is listed


@dataclass(frozen=True)
class Past:
    """A trial as searchers and pruners see it: `values` by objective once it is done, `readings` of the first one."""

    number: int
    point: Point
    state: str
    values: tuple[float, ...] | None = None
    readings: tuple[tuple[int, float], ...] = ()
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Proposal:
    """A point to try, what its searcher wants to see again beside the result, as JSON has it, and options that are the
    searcher's.
    """

    point: Point
    notes: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


class Searcher(Protocol):
    adaptive: bool  # whether `past` matters

    def propose(self, number: int, past: Sequence[Past]) -> Proposal | None:
        """What trial `number` tries; None when the space holds nothing that was not proposed before."""
        ...


def searcher(
    name: str, space: Space, *, seed: int, directions: Sequence[Direction], population: int = 10, epochs: int = 1
) -> Searcher:
    """The searcher of that name, for objectives with these directions; `Mistake` when it cannot search this space.

    pbt has a ``population`` whose generations last ``epochs``.
    """
    if name not in SEARCHES:
        raise Mistake(f"--search {name} is not one of {', '.join(SEARCHES)}{did_you_mean(name, SEARCHES)}")
    if name == "grid":
        return Listed(space.grid())
    if name == "random":
        return Drawn(space, seed, lambda k: np.random.default_rng([seed, k]).random(len(space.dimensions)).tolist())
    if name == "sobol":
        return Drawn(space, seed, sobol(len(space.dimensions), seed))
    if name == "pbt":
        from jaxrec.sweeps.generations import Generations

        return Generations(space, seed, directions, population, epochs)
    from jaxrec.sweeps.study import study_searcher

    return study_searcher(name, space, seed, directions)


class Listed:
    """Points in the order of a list."""

    adaptive = False

    def __init__(self, points: Iterator[Point]):
        self._points, self._seen = points, list[Point]()

    def propose(self, number: int, past: Sequence[Past] = ()) -> Proposal | None:
        while len(self._seen) <= number:
            if (point := next(self._points, None)) is None:
                return None
            self._seen.append(point)
        return Proposal(dict(self._seen[number]))


class Drawn:
    """The points of a sequence in the unit cube; in a finite space only those that are new, until none is left.

    What was drawn before is drawn again rather than looked up in `past`: that makes a point a function of its number.
    """

    adaptive = False

    def __init__(self, space: Space, seed: int, share: Callable[[int], list[float]]):
        self._space, self._seed, self._share = space, seed, share
        self._finite = space.size(most=LISTED) is not None
        self._listed = Listed(self._different())

    def propose(self, number: int, past: Sequence[Past] = ()) -> Proposal | None:
        return self._listed.propose(number) if self._finite else Proposal(self._space.at(self._share(number)))

    def _different(self) -> Iterator[Point]:
        seen: set[str] = set()
        place, repeats = 0, 0
        while repeats < REDRAWS:
            point = self._space.at(self._share(place))
            place, repeats = place + 1, repeats + 1
            if (name := fingerprint(point)) not in seen:
                seen.add(name)
                repeats = 0
                yield point
        yield from shuffled(self._space, seen, np.random.default_rng([self._seed, len(seen)]))


def shuffled(space: Space, seen: set[str], draw: np.random.Generator) -> list[Point]:
    """The points of a finite space that are not among the `seen`, in any order; of a huge one, none."""
    if (space.size(most=LISTED) or LISTED) >= LISTED:
        return []
    left = [point for point in space.points() if fingerprint(point) not in seen]
    return [left[k] for k in draw.permutation(len(left))]


def sobol(dimensions: int, seed: int) -> Callable[[int], list[float]]:
    """The k-th point of a scrambled Sobol sequence (Sobol 1967; Owen 1998)."""
    if dimensions == 0:
        return lambda k: []

    from scipy.stats import qmc

    if dimensions > qmc.Sobol.MAXDIM:
        raise Mistake(f"--search sobol has at most {qmc.Sobol.MAXDIM:,} dimensions, not {dimensions:,}; use random")

    def share(k: int) -> list[float]:
        engine = qmc.Sobol(dimensions, scramble=True, rng=np.random.default_rng(seed))
        found = (engine.fast_forward(k) if k else engine).random(1)[0]  # it cannot go forward by nothing
        return [float(value) for value in found]

    return share
