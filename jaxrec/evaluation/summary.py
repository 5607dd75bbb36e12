"""From ranks to the numbers of a result: masked and unmasked, expectation over ties, lists as a whole."""

from typing import Any

import numpy as np

from jaxrec.data.prepared import Prepared
from jaxrec.evaluation.ranks import Ranks
from jaxrec.metrics import coverage, evaluate, mean_popularity, parse


def headline(prepared: Prepared) -> str:
    """Which of the two readings leads: "masked" for user histories, "unmasked" where nothing is masked."""
    return "unmasked" if prepared.card["mask_seen"] == "none" else "masked"


def summarise(prepared: Prepared, ranks: Any, metrics: tuple[str, ...]) -> dict[str, Any]:
    """``{"unmasked": {metric: value}, "masked": {...} or None}``; the headline reading also describes the lists.

    ``ranks`` has the fields ``greater equal greater_masked equal_masked`` and may have ``top (n, k)``.
    """
    found: dict[str, Any] = {
        "unmasked": evaluate(metrics, ranks.greater, ranks.equal, candidates=prepared.candidates),
        "masked": None,
    }
    if headline(prepared) == "masked":
        found["masked"] = evaluate(metrics, ranks.greater_masked, ranks.equal_masked, candidates=prepared.candidates)
    top = getattr(ranks, "top", None)
    if top is not None and top.any():
        k = top.shape[1]
        found[headline(prepared)] |= {
            f"coverage@{k}": coverage(top, prepared.candidates),
            f"popularity@{k}": mean_popularity(top, prepared.popularity),
        }
    return found


def list_length(metrics: tuple[str, ...]) -> int:
    """Length of the lists to describe: the largest cut-off asked for, 10 without any."""
    return max([k for _, k in map(parse, metrics) if k is not None] or [10])


def collapsed(ranks: Ranks) -> str | None:
    """One sentence when a model scores so many items alike that a tie order, not the model, makes the list; else
    None.
    """
    share = float(np.mean(ranks.equal > 0.5 * ranks.candidates)) if len(ranks.equal) else 0.0
    if share < 0.5:
        return None
    return f"{share:.0%} of the targets tie with over half of the catalogue: a collapsed model; lower the learning rate"
