"""What a model may know of an event beside its item: features as rows of one small table, and standard numbers.

A text or a feature of the calendar has a row of the table for each of its values; a number has one row, which it
multiplies. Mean and spread of a number are those of the training events, wherever they are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxrec.config import Mistake, did_you_mean

if TYPE_CHECKING:
    from jaxrec.data.prepared import Feature, Prepared

ALL = ("all",)
FIRST = {"@hour": 0, "@weekday": 0, "@monthday": 1, "@month": 1}
VALUES = {"@hour": 24, "@weekday": 7, "@monthday": 31, "@month": 12}
MOST = 5.0  # standard deviations: one absurd price must not drown everything else


class Column(NamedTuple):
    """A feature that data offers: of the event itself, of its item, its user or its time."""

    name: str
    of: str  # "event", "item", "user" or "time"
    values: int | None  # how many there are, each a row of the table; None for a number
    mean: float = 0.0
    spread: float = 1.0


class Context(NamedTuple):
    """Chosen features of events, numpy on the host or on the device; leading axes as the events have them."""

    codes: Any  # int32 (..., c): rows of the table, 0 where there is no value or one that training never saw
    numbers: Any  # float32 (..., n): rows 1..n of the table times these; 0, the mean, where there is none


def columns(prepared: Prepared) -> tuple[Column, ...]:
    """Every feature of prepared data that can be context."""
    return tuple(column(prepared, name, feature) for name, feature in prepared.features.items())


def column(prepared: Prepared, name: str, feature: Feature) -> Column:
    if name in VALUES:
        return Column(name, "time", VALUES[name])
    if feature.ids is not None:
        return Column(name, feature.of, len(feature.ids))
    values = by_event(prepared, feature)[trains(prepared)].astype(np.float64)
    values = values[np.isfinite(values)]
    spread = float(values.std()) if len(values) else 0.0
    return Column(name, feature.of, None, float(values.mean()) if len(values) else 0.0, spread or 1.0)


def trains(prepared: Prepared, inputs: bool = False) -> np.ndarray:
    """bool (events,): which ones are of training; with ``inputs`` only those that training reads, not just predicts."""
    end = np.repeat(np.asarray(prepared.train_end), np.diff(prepared.offsets))
    return np.arange(len(prepared.items)) < end - inputs


def by_event(prepared: Prepared, feature: Feature) -> np.ndarray:
    """A feature's value at every event (events,), taken from the item or the user where it is theirs."""
    if feature.of == "item":
        return np.asarray(feature.values)[np.asarray(prepared.items)]
    if feature.of == "user":
        return np.repeat(np.asarray(feature.values)[np.asarray(prepared.users)], np.diff(prepared.offsets))
    return np.asarray(feature.values)


def chosen(offered: Sequence[Column], names: Sequence[str]) -> tuple[Column, ...]:
    """The columns of these names, in this order; ``("all",)`` takes every one. `Mistake` for one that is not there."""
    known = {one.name: one for one in offered}
    if tuple(names) == ALL and "all" not in known:
        names = tuple(known)
        if not names:
            raise Mistake("model.context = all: the data keeps no features; add --features NAME ... (as in @hour)")
    if len(set(names)) < len(names):
        raise Mistake(f"model.context = {' '.join(names)} names a feature twice; name each once")
    for name in names:
        if name not in known:
            have = f"it keeps {', '.join(known)}" if known else "it keeps none"
            hint = did_you_mean(name, known) or f"; add --features {name}"
            raise Mistake(f"model.context: the data has no feature {name!r} ({have}){hint}")
    return tuple(known[name] for name in names)


def rows(picked: Sequence[Column]) -> int:
    """Rows of the table beside its row 0."""
    return sum(1 if one.values is None else one.values for one in picked)


def encoded(picked: Sequence[Column], found: Sequence[np.ndarray]) -> Context:
    """Context of n events from one array ``(n,)`` a column: numbers, NaN for none; codes from 1, 0 for none; or, of the
    calendar, what it says.
    """
    numbers = [standard(one, values) for one, values in zip(picked, found, strict=True) if one.values is None]
    codes, first = [], len(numbers)
    for one, values in zip(picked, found, strict=True):
        if one.values is None:
            continue
        code = values.astype(np.int32) + (1 - FIRST[one.name] if one.of == "time" else 0)
        codes.append(np.where(code > 0, code + np.int32(first), np.int32(0)))
        first += one.values
    return Context(beside(codes, found, np.int32), beside(numbers, found, np.float32))


def standard(one: Column, values: np.ndarray) -> np.ndarray:
    """Standard deviations from the training mean, at most `MOST`; 0 where there is no number."""
    apart = (values.astype(np.float64) - one.mean) / one.spread
    return np.where(np.isfinite(apart), np.clip(apart, -MOST, MOST), 0.0).astype(np.float32)


def beside(parts: Sequence[np.ndarray], found: Sequence[np.ndarray], dtype: Any) -> np.ndarray:
    events = len(found[0]) if found else 0
    return np.stack(parts, axis=1).astype(dtype) if parts else np.zeros((events, 0), dtype)


def attached(prepared: Prepared, picked: Sequence[Column]) -> Prepared:
    """The same data with the context of every event; unchanged where nothing is picked."""
    if not picked:
        return prepared
    found = [by_event(prepared, prepared.features[one.name]) for one in picked]
    return replace(prepared, context=encoded(picked, found))


def trained_rows(prepared: Prepared, table: int) -> np.ndarray:
    """bool (table,): the rows of a table that some input of training uses."""
    assert prepared.context is not None
    used = np.zeros(table, bool)
    used[: 1 + prepared.context.numbers.shape[1]] = True
    used[np.unique(prepared.context.codes[trains(prepared, inputs=True)])] = True
    used[0] = False
    return used
