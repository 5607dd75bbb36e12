"""The numbers that a sweep's page draws from, as columns: no key twice, six digits, null for what is not there."""

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from jaxrec.reports.sweep_findings import Sweep, lane, moment
from jaxrec.reports.sweep_options import Option
from jaxrec.reports.sweep_rows import STATES, Row, epochs, number, reached, readings, seconds
from jaxrec.reports.sweep_table import Column

LINES = 1500  # drawn at most, of those out of focus; half as many in focus
FOCUS = 0.1  # share of the configurations that stands out at first
LANES = 64
ENDS = (*STATES, "stopped")  # states of an attempt


def data(sweep: Sweep, table: Sequence[Column]) -> dict[str, Any]:
    """Everything the script needs."""
    place = {row["number"]: at for at, one in enumerate(sweep.ranked) for row in one.rows}
    finished = sum(one.placed for one in sweep.ranked)
    return {
        "objective": {"name": sweep.first.name, "unit": sweep.first.unit, "sign": sweep.first.sign},
        "states": list(ENDS),
        "trials": trials(sweep.rows, sweep.first.name, place),
        "curves": curves(sweep.rows, sweep.first.name),
        "focus": math.ceil(finished * FOCUS),
        "ranked": compact(one.mean for one in sweep.ranked),
        "options": [option(one) for one in sweep.options],
        "points": [compact(one.coordinate(c.point[one.name]) if one.name in c.point else None for c in sweep.ranked)
                   for one in sweep.options],
        "fronts": fronts(sweep),
        "lanes": lanes(sweep.rows),
        "lanesShown": LANES,
        "lines": LINES,
        "table": [{"kind": one.kind, "cells": one.cells, "keys": None if one.keys is None else compact(one.keys),
                   "more": one.more} for one in table],
    }  # fmt: skip


def compact(values: Iterable[float | None]) -> list[float | int | None]:
    return [_compact(value) for value in values]


def _compact(value: float | None) -> float | int | None:
    if value is None or not math.isfinite(value):
        return None
    return int(value) if float(value).is_integer() else float(f"{value:.6g}")


def trials(rows: Sequence[Row], name: str, place: dict[int, int]) -> dict[str, list[Any]]:
    """A trial at each place: number, state, what it reached, epochs, seconds, place of its configuration."""
    known = {state: at for at, state in enumerate(STATES)}
    return {
        "number": [row["number"] for row in rows],
        "state": [known.get(row["state"], len(STATES) - 1) for row in rows],
        "value": compact(reached(row, name) for row in rows),
        "epochs": compact(epochs(row) for row in rows),
        "seconds": compact(round(seconds(row), 1) for row in rows),
        "config": [place[row["number"]] for row in rows],
    }


def curves(rows: Sequence[Row], name: str) -> dict[str, list[Any]]:
    """Readings of all trials one after the other, and how many are of each."""
    found = [list(readings(row, name)) for row in rows]
    return {
        "count": [len(some) for some in found],
        "epoch": compact(at for some in found for at, _ in some),
        "value": compact(value for some in found for _, value in some),
    }


def option(one: Option) -> dict[str, Any]:
    told: dict[str, Any] = {"name": one.name, "label": one.label}
    if one.categories is not None:
        return told | {"categories": list(one.categories)}
    return told | {"low": one.low, "high": one.high, "log": one.log}


def fronts(sweep: Sweep) -> dict[str, Any]:
    """Means of every objective by configuration, and who is on the front."""
    values = {one.name: compact(c.objective(one.name) for c in sweep.ranked) for one in sweep.sought[1:]}
    return {
        "values": list(values.values()),
        "names": [one.unit for one in sweep.sought[1:]],
        "signs": [one.sign for one in sweep.sought[1:]],
        "members": list(sweep.front.members),
        "knee": sweep.front.knee,
    }


def lanes(rows: Sequence[Row]) -> dict[str, Any]:
    """Attempts with a start and an end, in seconds since the first start, by worker."""
    held = [(row, one, moment(one.get("start"))) for row in rows for one in row.get("attempts") or ()]
    began = [(row, one, at) for row, one, at in held if at is not None]
    zero = min((at for *_, at in began), default=0.0)
    last = max((moment(one.get("end")) or at for _, one, at in began), default=0.0)
    names = sorted({lane(one) for _, one, _ in began})
    at_name = {name: place for place, name in enumerate(names)}
    known = {state: at for at, state in enumerate(ENDS)}
    ends = [moment(one.get("end")) for _, one, _ in began]
    return {
        "names": names,
        "lane": [at_name[lane(one)] for _, one, _ in began],
        "start": compact(at - zero for *_, at in began),
        "end": compact((last if end is None else end) - zero for end in ends),
        "compile": compact(number(one.get("compile_seconds")) or 0 for _, one, _ in began),
        "state": [known.get(str(one.get("state")), known["failed"]) for _, one, _ in began],
        "trial": [row["number"] for row, *_ in began],
        "said": [str(one.get("state")) for _, one, _ in began],
    }


def script_text(value: Any) -> str:
    """JSON that can stand inside a script element: nothing in it ends the element or opens a comment."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
