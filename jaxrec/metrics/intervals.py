"""How sure a mean over targets is, and whether two models differ: bootstrap intervals and a permutation test.

Targets of one person are not independent, so ``groups`` (n,) resamples whole people. Both methods draw how often
each *distinct* value occurs instead of drawing targets one by one: the same distribution for a fraction of the work,
because a metric cut off at k takes few values.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxrec.config import Mistake

Values = NDArray[np.float64]
BUDGET = 2**20  # numbers drawn at one time: 8 MB


def bootstrap(
    values: ArrayLike, *, groups: ArrayLike | None = None, seed: int = 0, rounds: int = 1000, level: float = 0.95
) -> tuple[float, float]:
    """``(low, high)``: percentile interval of the mean of ``values`` (n,) (Efron 1979).

    With ``groups`` (n,) whole groups are drawn with replacement, and the mean stays one over targets. For two models on
    the same targets give the differences: that is the paired form (Sakai, SIGIR 2006). `Mistake` without values.
    """
    if not 0 < level < 1:
        raise Mistake(f"level = {level} is not a share; give one between 0 and 1, such as 0.95")
    means = _means(_totals(values, groups), np.random.default_rng(seed), _checked(rounds))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def permutation(
    differences: ArrayLike, *, groups: ArrayLike | None = None, seed: int = 0, rounds: int = 10_000
) -> float:
    """Two-sided p-value that the mean of paired ``differences`` (n,) is zero (Fisher 1935; Smucker et al., CIKM 2007).

    Every group's differences change sign together with probability 1/2. The observed order counts as one of the rounds,
    so the smallest value is ``1 / (rounds + 1)``; without any difference it is 1.
    """
    sums = _totals(differences, groups).real
    observed = abs(float(sums.sum()))
    size, times = np.unique(np.abs(sums[sums != 0]), return_counts=True)
    draw, extreme = np.random.default_rng(seed), 0
    for count in _parts(_checked(rounds), len(size)):
        flipped = (2 * draw.binomial(times, 0.5, (count, len(size))) - times) @ size
        extreme += int(np.sum(np.abs(flipped) >= observed * (1 - 1e-12)))  # equal but for the rounding of a sum
    return (1 + extreme) / (1 + rounds)


def holm(p_values: ArrayLike) -> Values:
    """p-values (n,) corrected for being several (Holm 1979): the chance of one false alarm among all of them."""
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p)))), 1.0)
    return corrected


def _totals(values: ArrayLike, groups: ArrayLike | None) -> NDArray[np.complex128]:
    """Of every group the sum of its values, and as imaginary part how many there are."""
    found = np.asarray(values, np.float64)
    if found.ndim != 1 or not found.size:
        raise Mistake(f"values have shape {found.shape}; give one number for each of at least one target")
    if not np.isfinite(found).all():
        raise Mistake(f"{int(np.sum(~np.isfinite(found))):,} of {found.size:,} values are not finite; leave them out")
    if groups is None:
        return found + np.complex128(1j)
    names = np.asarray(groups)
    if names.shape != found.shape:
        raise Mistake(f"groups have shape {names.shape} and values {found.shape}; name the group of every value")
    _, place = np.unique(names, return_inverse=True)
    totals: NDArray[np.complex128] = np.bincount(place, weights=found) + 1j * np.bincount(place)
    return totals


def _means(totals: NDArray[np.complex128], draw: np.random.Generator, rounds: int) -> Values:
    """The mean of ``rounds`` samples with replacement (rounds,)."""
    distinct, times = np.unique(totals, return_counts=True)
    n = len(totals)
    if len(distinct) * 8 < n:
        parts = [draw.multinomial(n, times / n, count) @ distinct for count in _parts(rounds, len(distinct))]
    else:
        parts = [totals[draw.integers(0, n, (count, n))].sum(axis=1) for count in _parts(rounds, n)]
    total = np.concatenate(parts)
    return total.real / total.imag


def _parts(rounds: int, width: int) -> Iterator[int]:
    """``rounds`` cut so that a part of ``width`` numbers a round stays within the budget."""
    step = max(1, BUDGET // max(width, 1))
    for start in range(0, rounds, step):
        yield min(step, rounds - start)


def _checked(rounds: int) -> int:
    if rounds < 1:
        raise Mistake(f"rounds = {rounds} draws nothing; give 1 or more")
    return rounds
