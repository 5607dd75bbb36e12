"""The options that a sweep varies: range, scale and categories, from the declared space and from the points tried."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxrec.reports.sweep_rows import Row, number
from jaxrec.reports.tables import shown

EDGE = 0.05  # share of the range that counts as its end
RARE = 0.05  # chance of an alarm by the draw alone
TOLD = 8  # options of a point that are written out
BEST = 5  # configurations that an alarm looks at
WIDE = 100.0  # ratio from which a range that nobody declared gets a log axis


@dataclass(frozen=True)
class Option:
    """One varied option; `categories` are the texts of its choices, None for a range."""

    name: str
    label: str
    categories: tuple[str, ...] | None = None
    low: float = 0.0
    high: float = 1.0
    log: bool = False

    def coordinate(self, value: Any) -> float | None:
        """A value as the axis takes it: itself, or the place among the choices; None where it is not there."""
        if self.categories is None:
            return number(value)
        text = shown(value)
        return float(self.categories.index(text)) if text in self.categories else None

    def bound(self, end: str) -> str:
        """The "lower" or "upper" bound as a text."""
        if self.categories is not None:
            return self.categories[-1 if end == "upper" else 0]
        return shown(self.high if end == "upper" else self.low)

    def ends(self, value: Any) -> str:
        """Whether a value sits on the "lower" or "upper" bound; empty where it does not."""
        at = self.coordinate(value)
        if at is None:
            return ""
        low, high = (self.low, self.high) if self.categories is None else (0.0, len(self.categories) - 1.0)
        if self.log and low > 0 and at > 0:
            low, high, at = math.log(low), math.log(high), math.log(at)
        share = (at - low) / (high - low) if high > low else 0.5
        return "lower" if share <= EDGE else "upper" if share >= 1 - EDGE else ""


def options(about: Row, rows: Sequence[Row]) -> list[Option]:
    """Every option that was declared or tried, in the order of the space."""
    declared = _declared(about.get("space") or {})
    seen: dict[str, list[Any]] = {name: [] for name in declared}
    for row in rows:
        for name, value in (row.get("point") or {}).items():
            seen.setdefault(name, []).append(value)
    labels = short_names(list(seen))
    return [_option(name, labels[name], declared.get(name, {}), values) for name, values in seen.items()]


def _declared(space: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Dimensions by name, as a list of objects with names or as an object."""
    found = space.get("dimensions") or {}
    if isinstance(found, Mapping):
        return {name: one if isinstance(one, Mapping) else {} for name, one in found.items()}
    return {one["name"]: one for one in found if isinstance(one, Mapping) and "name" in one}


def _option(name: str, label: str, told: Mapping[str, Any], values: Sequence[Any]) -> Option:
    low, high = number(told.get("low")), number(told.get("high"))
    choices = told.get("choices") or told.get("values")
    if choices is None and low is None and not all(number(value) is not None for value in values):
        choices = values
    if choices is not None:
        texts = dict.fromkeys(map(shown, [*choices, *values]))
        return Option(name, label, tuple(texts))
    held = [v for v in (low, high, *map(number, values)) if v is not None] or [0.0, 1.0]
    log = bool(told.get("log")) or str(told.get("kind", "")).startswith("log")
    if low is None:
        log = log or (min(held) > 0 and max(held) / min(held) >= WIDE)
    return Option(name, label, None, min(held), max(held), log and min(held) > 0)


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Each dotted name by as few of its last words as tell it from the others."""
    found = {}
    for name in names:
        words = name.split(".")
        ends = [".".join(words[-count:]) for count in range(1, len(words) + 1)]
        alone = (end for end in ends if sum(_ends(other, end) for other in names) == 1)
        found[name] = next(alone, name)
    return found


def _ends(name: str, end: str) -> bool:
    return name == end or name.endswith("." + end)


def point_text(point: Mapping[str, Any], known: Iterable[Option]) -> str:
    """A point in one line, its first options in their order: "lr 0.003, cell gru"."""
    told = [f"{one.label} {shown(point[one.name])}" for one in known if one.name in point]
    more = len(told) - TOLD
    return ", ".join(told) if more <= 1 else ", ".join([*told[:TOLD], f"and {more} more"])


def edge_alarms(points: Sequence[Mapping[str, Any]], known: Iterable[Option]) -> list[tuple[Option, str]]:
    """Options on whose bound the best five points sit that have them; ``points`` are in order, best first."""
    found = []
    for one in known:
        if one.categories is not None and not _ordered(one.categories):
            continue
        ends = [one.ends(point[one.name]) for point in points if one.name in point]
        end = ends[0] if ends else ""
        if end and len(ends) > BEST and set(ends[:BEST]) == {end} and _chance(ends.count(end), len(ends)) < RARE:
            found.append((one, end))
    return found


def _chance(on: int, count: int) -> float:
    """How often the best five sit on a bound, where ``on`` of ``count`` do, if the order were a draw."""
    return math.comb(on, BEST) / math.comb(count, BEST)


def _ordered(categories: Sequence[str]) -> bool:
    """Choices that are three or more ascending (or descending) numbers have ends."""
    try:
        values = [float(text) for text in categories]
    except ValueError:
        return False
    return len(values) > 2 and (values == sorted(values) or values == sorted(values, reverse=True))
