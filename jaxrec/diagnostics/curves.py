"""From norms of gradients to curves over lag: what is kept of them, and how far back they reach.

A curve is ``log10 (examples, lags)``, lag 0 first: -inf where a gradient is exactly zero, NaN where a row has no such
lag. What is said of many examples is said of their median, which a zero does not break and an outlier does not move.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxrec.diagnostics import records
from jaxrec.diagnostics.records import Record, number

Curve = NDArray[np.float64]
DIGITS = 6

FADED = 0.01  # "vanishing" where less than this share of the gradient is left at the longest lag
GROWN = 10.0  # "exploding" where it is more than so many times that of lag 0 at any lag
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
LEVELS = {"e_fold": 1 / np.e, "half_life": 0.5, "one_percent": 0.01}
ROUNDS = 1000  # of the bootstrap
EVERY = 24  # lags that are all kept; longer ones are kept evenly in their logarithm
POINTS = 96


def by_lag(log10: Curve, at: int, own: NDArray[np.int64]) -> Curve:
    """Norms ``(examples, time)`` of the gradient of step ``at`` as a curve, NaN beyond the ``own (examples,)`` events
    of a row's last piece.
    """
    curve = log10[:, at::-1].copy()
    curve[np.arange(curve.shape[1]) >= own[:, None]] = np.nan
    return curve


def kept_lags(count: int) -> NDArray[np.int64]:
    """Which of ``count`` lags a record keeps: the first ones, then about as many for each factor, and the last."""
    if count <= POINTS:
        return np.arange(count)
    spread = np.geomspace(EVERY, count - 1, POINTS - EVERY)
    return np.unique(np.concatenate([np.arange(EVERY), spread.round().astype(np.int64)]))


def described(curve: Curve) -> Record:
    """What is kept of a curve: mean, quantiles, zeros and what is not a number at some lags; every example of the
    first eight; how far it reaches.
    """
    lags = kept_lags(curve.shape[1])
    chosen = curve[:, lags]
    there = ~np.isnan(chosen)
    return {
        "examples": len(curve), "lags": lags.tolist(), "counts": there.sum(0).tolist(),
        "log10_mean": plain(mean_log10(chosen)),
        "log10_quantiles": {str(share): plain(row) for share, row in zip(QUANTILES, quantiles(chosen), strict=True)},
        "zeros": plain(share_of(np.isneginf(chosen), there)), "log10_each": [plain(row) for row in chosen[:8]],
        "label": label(median(curve)), "thresholds": {"vanishing": FADED, "exploding": GROWN},
        "horizons": horizons(curve),
    }  # fmt: skip


def label(curve: Curve) -> str:
    """`vanishing`, `in band` or `exploding`, of a median curve ``(lags,)``: by `GROWN` anywhere, else by `FADED` at the
    longest lag. `zero` where there is no gradient at lag 0.
    """
    curve = curve[~np.isnan(curve)]
    if not len(curve) or np.isneginf(curve[0]):
        return "zero"
    if (curve - curve[0]).max() > np.log10(GROWN):
        return "exploding"
    return "vanishing" if curve[-1] - curve[0] < np.log10(FADED) else "in band"


def horizons(curve: Curve, *, seed: int = 0) -> Record:
    """How far back the gradient reaches, in events, each with a 95 % bootstrap interval over examples.

    ``e_fold``, ``half_life`` and ``one_percent``: the lag from which on the median stays below that share of lag 0,
    between two lags by interpolation of the logarithm. ``area``: the sum of the shares of all lags. ``lyapunov``: the
    events in which the gradient changes by a factor e, from the slope over the longer lags; negative where it grows.
    A value of None with ``beyond`` is longer than that.
    """
    noise = np.random.default_rng(seed)
    draws = noise.integers(len(curve), size=(ROUNDS, len(curve)))
    relative = curve - curve[:, :1]
    boots = [median(relative[rows]) for rows in draws[: ROUNDS if len(curve) > 1 else 0]]
    whole = median(relative)
    measures: dict[str, Callable[[Curve], float]] = {
        **{name: lambda one, level=level: reach(one, level) for name, level in LEVELS.items()},  # type: ignore[misc]
        "area": area, "lyapunov": lyapunov,
    }  # fmt: skip
    last = int(np.count_nonzero(~np.isnan(whole))) - 1
    return {name: interval(measure(whole), [measure(one) for one in boots], last) for name, measure in measures.items()}


def interval(value: float, boots: list[float], last: int) -> Record:
    """A value with its interval; what is infinite lies ``beyond`` the last lag."""
    sound = np.array([one for one in boots if not np.isnan(one)])
    low, high = np.quantile(sound, (0.025, 0.975), method="inverted_cdf") if len(sound) else (np.nan, np.nan)
    found: Record = {"value": finite(value), "low": finite(low), "high": finite(high)}
    return found | ({"beyond": last} if np.isinf(value) else {})


def reach(curve: Curve, level: float) -> float:
    """The lag from which on a relative curve ``(lags,)`` stays below ``level``; infinite where it never does."""
    curve = curve[~np.isnan(curve)]
    above = np.flatnonzero(curve >= np.log10(level))
    if not len(curve) or not len(above):
        return 0.0
    here = int(above[-1])
    if here == len(curve) - 1:
        return np.inf
    before, after = curve[here], curve[here + 1]
    return here + (1.0 if np.isneginf(after) else float((before - np.log10(level)) / (before - after)))


def area(curve: Curve) -> float:
    """The sum over lags of the share of the gradient that is left."""
    return float(np.power(10.0, np.minimum(curve[~np.isnan(curve)], 300)).sum())


def lyapunov(curve: Curve) -> float:
    """Events for a factor e, by least squares over the last three quarters of the lags that have a gradient."""
    lags = np.flatnonzero(np.isfinite(curve))
    lags = lags[lags >= lags.max(initial=0) / 4]
    if len(lags) < 2:
        return float("nan")
    slope = float(np.polyfit(lags, curve[lags] * np.log(10), 1)[0])
    return -1 / slope if slope else np.inf


def median(curve: Curve) -> Curve:
    """The median over examples ``(lags,)``; NaN where no example has the lag."""
    return quantiles(curve, (0.5,))[0]


def quantiles(curve: Curve, shares: tuple[float, ...] = QUANTILES) -> Curve:
    """``(shares, lags)``, each a value that an example has (the lower one), so that zeros stay zeros."""
    ordered = np.sort(curve, axis=0)  # NaN last
    count = (~np.isnan(curve)).sum(0)
    places = np.floor(np.multiply.outer(shares, np.maximum(count - 1, 0))).astype(np.int64)
    found = np.take_along_axis(ordered, places, axis=0)
    return np.where(count > 0, found, np.nan)


def mean_log10(curve: Curve) -> Curve:
    """The logarithm of the mean of the norms, over the examples that have the lag."""
    there = ~np.isnan(curve)
    largest = np.max(np.where(there, curve, -np.inf), axis=0, initial=-np.inf)
    base = np.where(np.isfinite(largest), largest, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        total = np.where(there, np.power(10.0, np.where(there, curve, base) - base), 0).sum(0)
        return base + np.log10(total / there.sum(0))


def share_of(hit: NDArray[np.bool_], there: NDArray[np.bool_]) -> Curve:
    with np.errstate(invalid="ignore"):
        return (hit & there).sum(0) / there.sum(0)


def finite(value: float) -> float | None:
    """A number for a record, to six digits."""
    return number(value, DIGITS)


def plain(values: Any) -> Any:
    """Numbers for a record, to six digits: a page holds many curves."""
    return records.plain(values, DIGITS)
