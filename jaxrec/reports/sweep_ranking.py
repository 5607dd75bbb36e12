"""Configurations of a sweep in order: means over seeds with intervals, the Pareto front and its knee."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from jaxrec.reports.sweep_rows import FAILED, Objective, Row, epochs, reached, seconds, tested, value_of
from jaxrec.sweeps.selection import of_population

# two-sided 95 % quantiles of Student's t for 1 to 10 degrees of freedom
STUDENT = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)


def student(freedom: int) -> float:
    """The 97.5 % quantile of Student's t, to three digits."""
    if freedom <= len(STUDENT):
        return STUDENT[freedom - 1]
    z = 1.959964
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of those that are numbers."""
    held = [value for value in values if value is not None]
    return math.fsum(held) / len(held) if held else None


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """95 % interval of the mean by Student's t; None for fewer than two values."""
    if len(values) < 2:
        return None
    middle = math.fsum(values) / len(values)
    spread = math.sqrt(math.fsum((v - middle) ** 2 for v in values) / (len(values) - 1))
    half = student(len(values) - 1) * spread / math.sqrt(len(values))
    return middle - half, middle + half


@dataclass(frozen=True)
class Configuration:
    """The trials of one point, a seed each."""

    point: Mapping[str, Any]
    rows: tuple[Row, ...]
    objectives: tuple[Objective, ...]
    seeds: int = 1  # finished ones that it takes to have a place

    @property
    def placed(self) -> bool:
        return len(self.values) >= self.seeds

    @cached_property
    def done(self) -> list[Row]:
        """Finished trials with a finite number in the first objective."""
        return [r for r in self.rows if r["state"] == "done" and value_of(r, self.objectives[0].name) is not None]

    @cached_property
    def values(self) -> list[float]:
        """The first objective, a seed each."""
        return [value for row in self.done if (value := value_of(row, self.objectives[0].name)) is not None]

    @cached_property
    def mean(self) -> float | None:
        return mean(self.values)

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        return interval(self.values)

    def objective(self, name: str) -> float | None:
        return mean([value_of(row, name) for row in self.done])

    @cached_property
    def test(self) -> float | None:
        """The first objective's metric on the test targets, mean over the same trials; it never chooses."""
        return mean([tested(row, self.objectives[0].name) for row in self.done])

    @cached_property
    def reached(self) -> float | None:
        """Where nothing has finished: the best of what its trials read last."""
        name, sign = self.objectives[0].name, self.objectives[0].sign
        found = [value for row in self.rows if row["state"] != "done" and (value := reached(row, name)) is not None]
        return max(found, key=lambda value: sign * value, default=None)

    @property
    def number(self) -> int:
        return min(row["number"] for row in self.rows)

    @property
    def epochs(self) -> float | None:
        return mean([epochs(row) for row in self.done or self.rows])

    @property
    def seconds(self) -> float:
        return math.fsum(map(seconds, self.rows))

    @property
    def failed(self) -> bool:
        return any(row["state"] in FAILED for row in self.rows)


def configurations(rows: Sequence[Row], sought: Sequence[Objective]) -> list[Configuration]:
    """One for each point, the best mean first; then those with too few seeds to be held against them, then those
    without a finished trial, by what they reached.
    """
    by_point: dict[str, list[Row]] = {}
    for row in rows:
        alone = [row["number"]] if of_population(row) else []
        by_point.setdefault(json.dumps([row.get("point") or {}, alone], sort_keys=True, default=str), []).append(row)
    found = [Configuration(some[0].get("point") or {}, tuple(some), tuple(sought)) for some in by_point.values()]
    least = repeats([len(one.values) for one in found if one.values])
    found = [replace(one, seeds=least) for one in found]

    def order(one: Configuration) -> tuple[float, ...]:
        sign, last = -sought[0].sign, one.reached
        if one.mean is not None:
            return 0 if one.placed else 1, sign * one.mean, one.number
        return (3, one.number) if last is None else (2, sign * last, one.number)

    return sorted(found, key=order)


def repeats(counts: Sequence[int]) -> int:
    """The largest number of seeds that two configurations have: fewer are more luck, and compete with nobody."""
    ordered = sorted(counts, reverse=True)
    return ordered[min(1, len(ordered) - 1)] if ordered else 1


@dataclass(frozen=True)
class Front:
    """Places in the ranking of the configurations that nothing beats in every objective, and the knee among them."""

    members: tuple[int, ...]
    knee: int | None


def front(ranked: Sequence[Configuration], sought: Sequence[Objective]) -> Front:
    """Configurations that no other one equals or beats everywhere and beats somewhere.

    The knee is the member farthest from the plane through the front's ends, towards the better: every objective is
    scaled to 0..1 over the front and the largest sum wins. Where none lies beyond the plane there is no knee.
    """
    held = [(place, [one.sign * value for one in sought if (value := config.objective(one.name)) is not None])
            for place, config in enumerate(ranked) if config.mean is not None]  # fmt: skip
    held = [(place, gains) for place, gains in held if len(gains) == len(sought)]
    if not held:
        return Front((), None)
    gains = np.array([pair[1] for pair in held])
    alive = np.flatnonzero(_undominated(gains))
    members = sorted(alive, key=lambda at: -gains[at, 0])
    best = gains[members]
    span = np.ptp(best, axis=0)
    knee = None
    if len(members) > 2 and (span > 0).all():
        heights = ((best - best.min(0)) / span).sum(1)
        if heights.max() > len(sought) - 1 + 1e-9:
            knee = held[members[int(heights.argmax())]][0]
    return Front(tuple(held[at][0] for at in members), knee)


def _undominated(gains: np.ndarray) -> np.ndarray:
    """Mask (n,) of the rows of (n, k) that no row equals or exceeds everywhere and exceeds somewhere."""
    left = np.arange(len(gains))
    at = 0
    while at < len(left):
        here = gains[left[at]]
        keep = (gains[left] > here).any(1) | (gains[left] == here).all(1)
        at = int(keep[:at].sum()) + 1
        left = left[keep]
    found = np.zeros(len(gains), bool)
    found[left] = True
    return found
