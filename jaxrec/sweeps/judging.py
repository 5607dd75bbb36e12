"""What a sweep's rows say, in plain values for whoever shows them."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxrec.config import Mistake
from jaxrec.sweeps.importance import importances
from jaxrec.sweeps.selection import of_population, winner
from jaxrec.sweeps.space import Space


def judgement(about: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """``judged``, the sentence about the winner by the first objective, and ``importances`` of options with their
    bounds. Empty where the sweep does not say what it sought; no importances without Optuna, or of a space that this
    version cannot read.
    """
    found: dict[str, Any] = {"judged": "", "importances": []}
    if not (about.get("objectives") and about.get("space")):
        return found
    name, direction = about["objectives"][0]["name"], about["objectives"][0]["direction"]
    population = any(map(of_population, rows))  # nothing in it is a repeat
    if not population and (won := winner(rows, name, direction=direction)) is not None:
        found["judged"] = won.said
    with contextlib.suppress(Mistake, KeyError, TypeError):  # Optuna is not there, or another version wrote the space
        shares = importances(rows, Space.of(about["space"]), name, direction=direction)
        found["importances"] = [(one.option, one.importance, one.low, one.high) for one in shares]
    return found
