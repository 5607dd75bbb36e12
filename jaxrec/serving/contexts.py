"""What serving knows of an event beside its item, as a person gives it, in the form that the model was trained on."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxrec.config import Mistake, did_you_mean
from jaxrec.data.clocks import calendar
from jaxrec.data.context import Column, Context, encoded
from jaxrec.data.prepared import Feature
from jaxrec.runs.bundle import Bundle

Given = Mapping[str, Any]  # of one event: feature -> value, None where there is none


def context(
    bundle: Bundle, items: np.ndarray, user: int, times: Sequence[float] | None, given: Sequence[Given] | None
) -> Context | None:
    """The context of one person's events (n,); None for a model without. What items, users and the calendar say is
    looked up, the rest is ``given``, one mapping an event. `Mistake` for anything that is missing or unknown.
    """
    if given is not None:
        check(bundle.columns, given, len(items))
    if not bundle.columns:
        return None
    pairs = zip(bundle.columns, bundle.features, strict=True)
    return encoded(bundle.columns, [values(*pair, items, user, times, given) for pair in pairs])


def values(
    column: Column, feature: Feature, items: np.ndarray, user: int, times: Sequence[float] | None,
    given: Sequence[Given] | None,
) -> np.ndarray:  # fmt: skip
    """One column of the context as `encoded` takes it."""
    if column.of == "item":
        return feature.values[items]
    if column.of == "user":
        return np.repeat(feature.values[user], len(items))
    if column.of == "time":
        if times is None:
            raise Mistake(
                f"this model looks at {column.name}; give the time of every event, in seconds since 1970 (UTC), on the "
                'command line --times "SECONDS,SECONDS"'
            )
        return calendar(column.name, np.round(np.asarray(times, np.float64) * 1e6).astype(np.int64))
    if given is None:
        raise Mistake(
            f"this model looks at {column.name!r} of every event; give contexts, a mapping an event, "
            f"as in {{{column.name!r}: ...}}, with None where there is no value (on the command line "
            f"--context {column.name}=VALUE,VALUE)"
        )
    found = [one[column.name] for one in given]
    if feature.ids is not None:
        return feature.ids.encode("" if value is None else value for value in found)
    return np.array([number(column.name, value) for value in found], np.float32)


def number(name: str, value: Any) -> float:
    try:
        return float("nan") if value is None else float(value)
    except (TypeError, ValueError):
        raise Mistake(
            f"{name} = {value!r} is not a number, and it was one in training; give a number or None"
        ) from None


def check(columns: Sequence[Column], given: Sequence[Given], events: int) -> None:
    """`Mistake` unless there is one mapping an event with exactly the features that are the event's own."""
    own = [column.name for column in columns if column.of == "event"]
    if len(given) != events:
        raise Mistake(f"{events} events have {len(given)} contexts; give one mapping an event")
    for place, one in enumerate(given):
        if not isinstance(one, Mapping):
            raise Mistake(f'context {place} is {one!r}; give a mapping, as in {{"rating": 4}}')
        for name in one:
            if name not in own:
                reads = f"it reads {', '.join(own)}" if own else "it reads none"
                raise Mistake(
                    f"context {place} has {name!r}, which this model does not read ({reads}){did_you_mean(name, own)}"
                )
        for name in own:
            if name not in one:
                raise Mistake(
                    f"context {place} has no {name!r}, which this model looks at; give None where there is none"
                )
