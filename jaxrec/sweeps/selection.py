"""Which configuration won, and which might as well have: repeats with other seeds are the measure of noise.

Rows are those of the ledger. Validation selects and test is reported: a number that selected is too good, and how much
is estimated.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxrec.sweeps.search import Direction
from jaxrec.sweeps.space import Point

Row = Mapping[str, Any]
ENDED = ("done", "pruned", "diverged", "out_of_memory", "failed")
DRAWS = 2000  # of the sweep as it might have gone, for the bias of having selected


@dataclass(frozen=True)
class Spread:
    """Numbers of repeats, their mean, its standard error and its interval (Student's t), which one repeat has not."""

    values: tuple[float, ...]
    mean: float
    error: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Candidate:
    """A configuration and its repeats, by number of trial and by seed; `lost` repeats ended without a result."""

    point: Point
    numbers: tuple[int, ...]
    seeds: tuple[int, ...]
    valid: Spread
    test: Spread | None
    lost: int


@dataclass(frozen=True)
class Winner:
    """The candidate with the best validation mean, those that cannot be told apart from it, and how much its validation
    number is too good for having been selected.
    """

    best: Candidate
    alike: tuple[Candidate, ...]
    among: int
    optimism: float | None
    said: str


def candidates(rows: Sequence[Row], metric: str, *, level: float = 0.95) -> list[Candidate]:
    """Configurations that have a validation number, in the order of their first trial. A trial that was answered from
    another counts once.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.get("same_as") is None:
            groups.setdefault(which(row), []).append(row)
    found = []
    for group in groups.values():
        done = [row for row in group if row["state"] == "done" and _number(row, "valid", metric) is not None]
        if not done:
            continue
        lost = sum(row["state"] in ENDED for row in group) - len(done)
        numbers, seeds = tuple(row["number"] for row in done), tuple(row["seed"] for row in done)
        valid, test = (_spread(done, split, metric, level) for split in ("valid", "test"))
        if valid is not None:
            found.append(Candidate(dict(done[0]["point"]), numbers, seeds, valid, test, lost))
    return found


def which(row: Row) -> str:
    """What tells configurations apart: the point; of a population, whose members go on from each other, the trial."""
    alone = [row["number"]] if of_population(row) else []
    return json.dumps([row["point"], *alone], sort_keys=True)


def of_population(row: Row) -> bool:
    """Whether a trial is a member of a population: no other trial of its point is a repeat of it."""
    return "member" in (row.get("notes") or {})


def _number(row: Row, part: str, name: str) -> float | None:
    value = (row.get(part) or {}).get(name)
    return float(value) if value is not None and math.isfinite(value) else None


def _spread(rows: Sequence[Row], part: str, metric: str, level: float) -> Spread | None:
    values = [value for row in rows if (value := _number(row, part, metric)) is not None]
    return spread(values, level=level) if values else None


def spread(values: Sequence[float], *, level: float = 0.95) -> Spread:
    """Mean, standard error and interval of the mean of at least one number."""
    from scipy import stats

    mean = float(np.mean(values))
    if len(values) == 1:
        return Spread(tuple(values), mean, None, None, None)
    error = float(np.std(values, ddof=1) / math.sqrt(len(values)))
    wide = float(stats.t.ppf((1 + level) / 2, len(values) - 1)) * error
    return Spread(tuple(values), mean, error, mean - wide, mean + wide)


def winner(
    rows: Sequence[Row], metric: str, *, direction: Direction = "maximize", paired: bool = False, level: float = 0.95
) -> Winner | None:
    """The best configuration by its mean over repeats, and all that cannot be told apart from it; None without any.

    Only configurations with as many repeats as some two of them have compete: fewer repeats are more luck. One is told
    apart when the best is better by Welch's one-sided t-test, or by the paired one over common seeds, at `1 - level`
    shared among all comparisons (Bonferroni); so the truly best one is among `alike` with probability `level` whichever
    was picked (subset selection; Gupta 1965). Pairing pays only where a seed helps or harms all configurations alike.
    """
    found = candidates(rows, metric, level=level)
    least = _repeats([len(entry.numbers) for entry in found])
    found = [entry for entry in found if len(entry.numbers) >= least]
    if not found:
        return None
    sign = 1.0 if direction == "maximize" else -1.0
    best = max(found, key=lambda entry: sign * entry.valid.mean)
    share = (1 - level) / max(len(found) - 1, 1)
    alike = [best] + [
        entry
        for entry in sorted(found, key=lambda entry: -sign * entry.valid.mean)
        if entry is not best and better(best, entry, sign=sign, paired=paired) > share
    ]
    bias = optimism([entry.valid.values for entry in found], sign)
    return Winner(best, tuple(alike), len(found), bias, _said(best, alike, len(found), bias, metric, paired, level))


def _repeats(counts: Sequence[int]) -> int:
    """The largest number of repeats that at least two configurations have."""
    most = [
        sum(count >= least for count in counts) >= min(2, len(counts)) for least in range(1, max(counts, default=0) + 1)
    ]
    return sum(most)


def better(one: Candidate, other: Candidate, *, sign: float = 1.0, paired: bool = False) -> float:
    """One-sided p-value that `one` is no better than `other`; 1 where there is no measure of noise."""
    from scipy import stats

    if paired:
        left, right = (
            dict(zip(one.seeds, one.valid.values, strict=True)),
            dict(zip(other.seeds, other.valid.values, strict=True)),
        )
        gaps = [sign * (left[seed] - right[seed]) for seed in left if seed in right]
        if len(gaps) < 2:
            return 1.0
        gap, squares, freedom = float(np.mean(gaps)), [float(np.var(gaps, ddof=1)) / len(gaps)], len(gaps) - 1.0
    else:
        if one.valid.error is None or other.valid.error is None:
            return 1.0
        gap = sign * (one.valid.mean - other.valid.mean)
        squares = [one.valid.error**2, other.valid.error**2]
        sizes = [len(one.numbers), len(other.numbers)]
        parts = sum(square**2 / (size - 1) for square, size in zip(squares, sizes, strict=True))
        freedom = sum(squares) ** 2 / parts if parts else 1.0
    error = math.sqrt(sum(squares))
    if error <= 1e-12 * abs(gap) or error == 0:
        return 0.0 if gap > 0 else 1.0
    return float(stats.t.sf(gap / error, freedom))


def optimism(groups: Sequence[Sequence[float]], sign: float = 1.0, *, seed: int = 0) -> float | None:
    """How much better than it is the best of several means looks, in expectation; None without repeats.

    The sweep is drawn again and again around the means, with the pooled noise of a repeat. The means are themselves
    spread by noise, which makes too little of luck, by up to the root of two where all configurations are equal; what
    the better half's distances from the median say about that is put right.
    """
    freedom = sum(len(values) - 1 for values in groups)
    if not freedom:
        return None
    pooled = sum(float(np.var(values, ddof=1)) * (len(values) - 1) for values in groups if len(values) > 1) / freedom
    means = sign * np.array([np.mean(values) for values in groups])
    noise = pooled / np.array([len(values) for values in groups])
    better_half = means[means >= np.median(means)] - np.median(means)
    seen = float(np.mean(better_half**2))
    if pooled == 0 or seen == 0:
        return 0.0
    draw, total = np.random.default_rng(seed), 0.0
    for _ in range(DRAWS):
        luck = np.sqrt(noise) * draw.standard_normal(len(groups))
        total += float(luck[np.argmax(means + luck)])
    return max(total, 0.0) / DRAWS * math.sqrt(min(2.0, 1 + float(noise.mean()) / seen))


def _said(
    best: Candidate, alike: Sequence[Candidate], among: int, bias: float | None, metric: str, paired: bool, level: float
) -> str:
    """The whole of it in words."""
    count = len(best.numbers)
    of = f"the best of {among:,} configurations by" if among > 1 else "the only configuration, of"
    said = f"{of} validation {metric} {_pm(best.valid)} over {_many(count, 'seed')}"
    if best.lost:
        said += f" ({_many(best.lost, 'repeat')} of it ended without a result)"
    test = "the paired t-test over common seeds" if paired else "Welch's t-test"
    how = f"({test}, one-sided, {1 - level:.0%} shared among {_many(among - 1, 'comparison')})"
    if best.valid.error is None:
        said += "; with one seed each nothing can be said about noise, so repeat the best ones with --seeds"
    elif len(alike) > 1:
        said += f"; {_many(len(alike) - 1, 'other')} cannot be told apart from it {how}"
    elif among > 1:
        said += f"; no other can be the best {how}"
    if bias is not None and among > 1:
        much = f"about {bias:.2g}" if bias > (best.valid.error or 0.0) / 100 else "hardly"
        said += f"; having been selected, its validation number is {much} too good"
    if best.test is not None:
        said += f"; the number to report is its test {metric}, {_pm(best.test)}"
    return said


def _pm(found: Spread) -> str:
    if found.error is None or found.low is None or found.high is None:
        return f"{found.mean:.4f}"
    return f"{found.mean:.4f} ({found.low:.4f} to {found.high:.4f})"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


@dataclass(frozen=True)
class Placed:
    """A configuration by its objectives, means over repeats."""

    point: Point
    numbers: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Front:
    """Configurations that no other beats in one objective without losing in another, along the first objective from
    its best; `knee` is where giving up a little of one stops buying much of another, or None where there is no bend.
    """

    placed: tuple[Placed, ...]
    knee: int | None


def front(rows: Sequence[Row], objectives: Sequence[tuple[str, Direction]]) -> Front:
    """The Pareto front of finished configurations, and its knee: the point farthest below the plane through the ends of
    all objectives, each scaled to its range on the front (Das 1999).
    """
    placed = _placed(rows, [name for name, _ in objectives])
    signs = np.array([-1.0 if direction == "maximize" else 1.0 for _, direction in objectives])
    costs = np.array([entry.values for entry in placed], np.float64).reshape(len(placed), len(objectives)) * signs
    kept = undominated(costs)
    kept = [kept[k] for k in np.lexsort(costs[kept].T[::-1])] if kept else []
    return Front(tuple(placed[k] for k in kept), knee(costs[kept]) if kept else None)


def _placed(rows: Sequence[Row], names: Sequence[str]) -> list[Placed]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row["state"] == "done" and row.get("same_as") is None:
            groups.setdefault(which(row), []).append(row)
    found = []
    for group in groups.values():
        whole = [row for row in group if all(_number(row, "objectives", name) is not None for name in names)]
        if whole:
            means = tuple(float(np.mean([row["objectives"][name] for row in whole])) for name in names)
            found.append(Placed(dict(whole[0]["point"]), tuple(row["number"] for row in whole), means))
    return found


def undominated(costs: np.ndarray) -> list[int]:
    """Rows of costs (n, m), all to be small, that no other row equals or beats everywhere and beats somewhere."""
    kept: list[int] = []
    for k in np.lexsort(costs.T[::-1]):  # whoever beats a row stands before it
        rivals = costs[kept]
        if not np.any(np.all(rivals <= costs[k], axis=1) & np.any(rivals < costs[k], axis=1)):
            kept.append(int(k))
    return sorted(kept)


def knee(costs: np.ndarray) -> int | None:
    """The row of costs on a front (n, m) farthest below the plane through its ends; None when none is below it."""
    low, high = costs.min(axis=0), costs.max(axis=0)
    if len(costs) < 3 or np.any(low == high):
        return None
    heights = ((costs - low) / (high - low)).sum(axis=1)
    lowest = int(np.argmin(heights))
    return lowest if heights[lowest] < 1 - 1e-9 else None
