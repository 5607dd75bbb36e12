"""Metrics among sampled candidates: ``ndcg@10[uni100,seed1]``. They do not compare with a full ranking, nor do they
order models as it does (Krichene and Rendle, KDD 2020); they exist to stand beside old papers, and only on request.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxrec.config import Mistake
from jaxrec.metrics.ranking import parse

KINDS = {"uni": "uniform", "pop": "by training popularity"}
TRIES = 4  # rounds of drawing with rejection before the rest is drawn from what is left
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Sample:
    """``size`` candidates beside each target, drawn without replacement: uniformly ("uni") or by popularity ("pop")."""

    kind: str
    size: int
    seed: int

    def __str__(self) -> str:
        return f"{self.kind}{self.size},seed{self.seed}"


def split_name(name: str) -> tuple[str, Sample | None]:
    """``"ndcg@10[uni100,seed1]"`` -> ``("ndcg@10", Sample("uni", 100, 1))``; a name without brackets has no sample."""
    base, bracket, inside = name.partition("[")
    if not bracket:
        return name, None
    match = re.fullmatch(r"\s*(uni|pop)([1-9][0-9]*)\s*,\s*seed([0-9]+)\s*\]\s*", inside)
    if not match:
        raise Mistake(
            f"{name!r} does not say how candidates are sampled; write uni or pop, their number and a seed, as in "
            f"{base.strip()}[uni100,seed1]"
        )
    parse(base)
    return base.strip(), Sample(match[1], int(match[2]), int(match[3]))


def ranked(names: Iterable[str]) -> tuple[str, ...]:
    """The names that rank against every candidate."""
    return tuple(name for name in names if split_name(name)[1] is None)


def samples(names: Iterable[str]) -> dict[Sample, dict[str, str]]:
    """For each sample that is asked for, its metrics: ``{name as given: name without the sample}``."""
    found: dict[Sample, dict[str, str]] = {}
    for name in names:
        base, sample = split_name(name)
        if sample is not None:
            found.setdefault(sample, {})[name] = base
    return found


def draw(
    weights: NDArray[np.float64], row: Numbers, barred: Numbers, rows: int, size: int, rng: np.random.Generator
) -> NDArray[np.int32]:
    """``(rows, size)`` item numbers, each row without replacement, with chances proportional to ``weights``
    (items + 1,).

    ``(row, barred)`` lists the items that a row must not get. Where fewer than ``size`` items are left, the row ends
    with 0. Successive sampling: rejection first, and the places still empty then from what is left of the row.
    """
    items = len(weights)
    chances = np.cumsum(weights, dtype=np.float64)
    keys = np.unique(row * items + barred)
    found = np.zeros((rows, size), np.int32)
    filled = np.zeros(rows, np.int64)
    for _ in range(TRIES):
        open_ = np.flatnonzero(filled < size)
        if not len(open_) or chances[-1] <= 0:
            break
        more = np.searchsorted(chances, rng.random((len(open_), 2 * size)) * chances[-1], side="right")
        keys = _take(found, filled, open_, np.minimum(more, items - 1), keys, items)
    for one in np.flatnonzero(filled < size):
        left = weights.copy()
        left[keys[np.searchsorted(keys, one * items) : np.searchsorted(keys, (one + 1) * items)] - one * items] = 0
        able = np.flatnonzero(left)
        order = np.argsort(rng.exponential(size=len(able)) / left[able])[: size - filled[one]]
        found[one, filled[one] : filled[one] + len(order)] = able[order]
    return found


def _take(found: Any, filled: Numbers, rows: Numbers, drawn: Numbers, keys: Numbers, items: int) -> Numbers:
    """Put the drawn items that are neither barred nor drawn before into the first empty places of their rows."""
    key = (rows[:, None] * items + drawn).ravel()
    _, first = np.unique(key, return_index=True)
    fresh = np.zeros(len(key), bool)
    fresh[first] = True
    fresh &= ~np.isin(key, keys)
    place = np.cumsum(fresh.reshape(drawn.shape), axis=1) - 1 + filled[rows][:, None]
    good = fresh.reshape(drawn.shape) & (place < found.shape[1])
    at = np.broadcast_to(rows[:, None], drawn.shape)[good]
    found[at, place[good]] = drawn[good]
    filled[rows] += good.sum(axis=1)
    return np.union1d(keys, key[good.ravel()])
