"""From ranks to the numbers of a result: masked and unmasked, ties, intervals, slices, lists as a whole.

Never imports jax: pages and comparisons read what a run saved.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxrec.data.prepared import Prepared
from jaxrec.evaluation.ranks_file import Masks
from jaxrec.metrics import bootstrap, describe, evaluate, gains, parse
from jaxrec.metrics.ranking import Ties

LEVEL = 0.95


def headline(prepared: Prepared) -> str:
    """Which of the two readings leads: "masked" for user histories, "unmasked" where nothing is masked."""
    return "unmasked" if prepared.card["mask_seen"] == "none" else "masked"


def counts_of(ranks: Any, reading: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """``(greater, equal)`` of one reading."""
    if reading == "masked":
        return ranks.greater_masked, ranks.equal_masked
    return ranks.greater, ranks.equal


def summarise(
    prepared: Prepared, ranks: Any, metrics: tuple[str, ...], features: ArrayLike | None = None
) -> dict[str, Any]:
    """``{"unmasked": {metric: value}, "masked": {...} or None}``; the headline reading also describes the lists.

    ``ranks`` has the fields ``greater equal greater_masked equal_masked`` and may have ``top (n, k)``. ``features``
    (1 + candidates, f) holds a vector an item, where there are some.
    """
    size, reading = prepared.candidates, headline(prepared)
    found: dict[str, Any] = {"unmasked": evaluate(metrics, ranks.greater, ranks.equal, candidates=size), "masked": None}
    if reading == "masked":
        found["masked"] = evaluate(metrics, *counts_of(ranks, reading), candidates=size)
    top = getattr(ranks, "top", None)
    if top is not None and top.any():
        found[reading] |= describe(top, prepared.popularity, size, features)
    return found


def details(prepared: Prepared, ranks: Any, metrics: tuple[str, ...], masks: Masks) -> dict[str, Any]:
    """How far the headline numbers can be trusted, and whom they are about.

    ``ties``: the same metrics with every target first (``optimistic``) and last (``pessimistic``) among its equals, and
    the share of targets that have any. ``intervals``: ``{metric: [low, high]}``, 95 % bootstrap over users.
    ``slices``: ``{slice: {"count": targets, metric: value}}``, those with targets only.
    """
    greater, equal = counts_of(ranks, headline(prepared))
    values = {name: gains(name, greater, equal, candidates=prepared.candidates) for name in metrics}
    return {
        "ties": ties(greater, equal, metrics, prepared.candidates),
        "intervals": {
            "level": LEVEL, "over": "users",
            **{name: list(bootstrap(found, groups=ranks.user, level=LEVEL)) for name, found in values.items()},
        },
        "slices": by_slice(values, masks),
    }  # fmt: skip


def ties(
    greater: NDArray[np.int64], equal: NDArray[np.int64], metrics: Iterable[str], candidates: int
) -> dict[str, Any]:
    """The best and the worst that the order of equal scores could make of each metric."""

    def under(rule: Ties) -> dict[str, float]:
        return evaluate(metrics, greater, equal, rule, candidates)

    share = float(np.mean(equal > 0))
    return {"optimistic": under("optimistic"), "pessimistic": under("pessimistic"), "tied_targets": share}


def by_slice(values: Mapping[str, NDArray[np.float64]], masks: Masks) -> dict[str, dict[str, float]]:
    """The mean of every metric's values (n,) over each slice that has targets, and how many."""
    return {
        slice_: {"count": int(mask.sum())} | {name: float(found[mask].mean()) for name, found in values.items()}
        for slice_, mask in masks.items()
        if mask.any()
    }


def list_length(metrics: tuple[str, ...]) -> int:
    """Length of the lists to describe: the largest cut-off asked for, 10 without any."""
    return max([k for _, k in map(parse, metrics) if k is not None] or [10])


def collapsed(ranks: Any) -> str | None:
    """One sentence when a model scores so many items alike that a tie order, not the model, makes the list; else
    None.
    """
    share = float(np.mean(ranks.equal > 0.5 * ranks.candidates)) if len(ranks.equal) else 0.0
    if share < 0.5:
        return None
    return f"{share:.0%} of the targets tie with over half of the catalogue: a collapsed model; lower the learning rate"
