"""Metrics of one target per position, from two counts: candidates scored greater, and others scored equal.

With g candidates greater and e equal, the target's rank (0 is first) is one of g, g + 1, ..., g + e, and the scores do
not say which. ``ties`` chooses: ``"expected"`` is the mean over every order of the tied candidates (McSherry and
Najork, ECIR 2008), in closed form; ``"optimistic"`` puts the target first among them and ``"pessimistic"`` last. A
model that scores everything alike gets a perfect optimistic value, so expected is the default.

A metric is a gain for each rank, cut off at ``k``; ``k=None`` means no cutoff. A sure miss is a target with more
candidates above it than ``k``. Every metric takes ``greater`` and ``equal`` (n,) and returns (n,) float64.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxrec.config import Mistake, did_you_mean
from jaxrec.metrics.lists import LISTS

Ties = Literal["expected", "optimistic", "pessimistic"]
Values = NDArray[np.float64]
Metric = Callable[..., Values]


def hr(greater: ArrayLike, equal: ArrayLike, k: int | None, ties: Ties = "expected") -> Values:
    """Hit rate: the chance that the target is among the first k. Session papers call hr@20 "P@20" or "Recall@20"."""
    return _expected(np.ones_like, greater, equal, k, ties)


def recall(greater: ArrayLike, equal: ArrayLike, k: int | None, ties: Ties = "expected") -> Values:
    """Share of the relevant items among the first k: with one target the same number as ``hr``."""
    return hr(greater, equal, k, ties)


def ndcg(greater: ArrayLike, equal: ArrayLike, k: int | None, ties: Ties = "expected") -> Values:
    """1 / log2(rank + 2) within the first k, rank counted from 0: with one target the ideal is 1."""
    return _expected(lambda rank: 1 / np.log2(rank + 2), greater, equal, k, ties)


def mrr(greater: ArrayLike, equal: ArrayLike, k: int | None, ties: Ties = "expected") -> Values:
    """1 / (rank + 1) within the first k, rank counted from 0."""
    return _expected(lambda rank: 1 / (rank + 1), greater, equal, k, ties)


def precision(greater: ArrayLike, equal: ArrayLike, k: int | None, ties: Ties = "expected") -> Values:
    """Share of the first k places that hold the target: ``hr / k``, so it needs a cutoff. Session papers call hr@20
    "P@20", which is not this.
    """
    if k is None:
        raise Mistake(
            "precision needs a cutoff: without one it is the same for every model; write it as in precision@10"
        )
    return hr(greater, equal, k, ties) / k


def average_precision(greater: ArrayLike, equal: ArrayLike, k: int | None, ties: Ties = "expected") -> Values:
    """Mean of the precision at the places of the relevant items: with one target the same number as ``mrr``."""
    return mrr(greater, equal, k, ties)


METRICS: dict[str, Metric] = {
    "hr": hr, "recall": recall, "precision": precision, "ndcg": ndcg, "mrr": mrr, "map": average_precision,
}  # fmt: skip


def parse(name: str) -> tuple[Metric, int | None]:
    """``"ndcg@10"`` -> ``(ndcg, 10)`` and ``"mrr"`` -> ``(mrr, None)``; capitals do not matter."""
    match = re.fullmatch(r"\s*([^@\s]*)\s*(?:@\s*(.*?))?\s*", name)
    word, cutoff = (match[1].casefold(), match[2]) if match else (name, None)
    if word in LISTS:
        raise Mistake(f"{name!r} describes lists as a whole, and every result has it; name ranking metrics only")
    if word not in METRICS:
        hint = did_you_mean(word, METRICS) or f"; choose from {', '.join(METRICS)}"
        raise Mistake(f"{name!r} is not a metric{hint}, with @k behind it")
    if cutoff is not None and not re.fullmatch(r"0*[1-9][0-9]*", cutoff):
        raise Mistake(
            f"{name!r} has the cutoff {cutoff!r}, which is not a whole number from 1; write it as in {word}@10"
        )
    if word == "precision" and cutoff is None:
        raise Mistake(f"{name!r} has no cutoff, and without one it says nothing; write it as in precision@10")
    return METRICS[word], None if cutoff is None else int(cutoff)


def evaluate(
    names: Iterable[str],
    greater: ArrayLike,
    equal: ArrayLike,
    ties: Ties = "expected",
    candidates: int | None = None,
) -> dict[str, float]:
    """Mean of each named metric over the targets: ``{"hr@10": 0.23, ...}``, under the names as given.

    With ``candidates``, a target that has as many above it is a sure miss and gains nothing at any cutoff.
    """
    if np.size(greater) == 0:
        raise Mistake("there are no targets to average over; choose a split that has some")
    return {name: float(np.mean(gains(name, greater, equal, ties, candidates))) for name in names}


def gains(
    name: str, greater: ArrayLike, equal: ArrayLike, ties: Ties = "expected", candidates: int | None = None
) -> Values:
    """The named metric of every target (n,), whose mean `evaluate` is."""
    metric, k = parse(name)
    found = metric(greater, equal, k, ties)
    return found if candidates is None else found * (np.asarray(greater) < candidates)


def _expected(
    gain: Callable[[Values], Values], greater: ArrayLike, equal: ArrayLike, k: int | None, ties: Ties
) -> Values:
    """Mean of the gains of the ranks the target may have; ranks from ``k`` on gain 0."""
    first, last = _ranks(greater, equal, ties)
    if k is not None and k < 1:
        raise Mistake(f"k = {k} is not a cutoff; give a whole number from 1, or None for none")
    cutoff = int(np.max(last, initial=-1)) + 1 if k is None else k
    # a cutoff may be far beyond every rank, and most ranks beyond a small cutoff: the table needs only where both meet
    length = min(cutoff, int(np.max(last, initial=-1)) + 1)
    gains = gain(np.arange(length, dtype=np.float64))
    start, stop = np.minimum(first, length), np.minimum(last + 1, length)
    before = np.concatenate([[0.0], np.cumsum(gains)])
    mean = (before[stop] - before[start]) / (last - first + 1)
    single = np.concatenate([gains, [0.0]])[start]  # exact where nothing is tied, which a difference of sums is not
    return np.where(first == last, single, mean)


def _ranks(greater: ArrayLike, equal: ArrayLike, ties: Ties) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    g, e = _counts(greater, "greater"), _counts(equal, "equal")
    if g.shape != e.shape:
        raise ValueError(f"greater has shape {g.shape} and equal {e.shape}; count both for the same targets")
    if ties == "expected":
        return g, g + e
    if ties == "optimistic":
        return g, g
    if ties == "pessimistic":
        return g + e, g + e
    raise Mistake(f"ties = {ties!r} is not one of expected, optimistic, pessimistic")


def _counts(values: ArrayLike, name: str) -> NDArray[Any]:
    counts = np.asarray(values)
    if counts.ndim != 1 or (counts.size and counts.dtype.kind not in "iu"):
        raise ValueError(f"{name} is {counts.dtype} of shape {counts.shape}; give one whole number for each target")
    if counts.size and counts.min() < 0:
        raise ValueError(f"{name} contains {counts.min()}; a count is never negative")
    return counts.astype(np.int64)
