"""The `jaxrec train` command of a trial, from its resolved configuration."""

import shlex
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from jaxrec.config import to_dict
from jaxrec.reports.sweep_rows import Row
from jaxrec.reports.tables import flat
from jaxrec.runs.options import Config

PLACES = ("run", "fresh", "config")  # where a trial lay is not what it was


@cache
def defaults() -> dict[str, Any]:
    return dict(flat(to_dict(Config())))


def flags(row: Row) -> list[str]:
    """The options of a trial that are not the defaults, a text each, quoted for a shell."""
    given = dict(flat(row["config"])) if row.get("config") else {**(row.get("point") or {}), "seed": row.get("seed", 0)}
    usual = defaults()
    told = ((name, value) for name, value in given.items() if name not in PLACES)
    return [shlex.join(_words(name, value)) for name, value in told if name not in usual or usual[name] != value]


def _words(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, bool):
        before, dot, last = name.rpartition(".")
        yield f"--{name}" if value else f"--{before}{dot}no-{last}"
        return
    yield f"--{name}"
    values = value if isinstance(value, list | tuple) else [value]
    yield from ("none" if one is None else str(one) for one in values or [None])


def command(row: Row) -> str:
    """The command that trains a trial again, in a folder of its own."""
    return " ".join(["jaxrec train", *flags(row)])


def commands(rows: Sequence[Row]) -> tuple[str, list[str]]:
    """The part that every trial's command begins with, and the rest of each."""
    every = [flags(row) for row in rows]
    shared = set.intersection(*map(set, every)) if every else set()
    start = " ".join(["jaxrec train", *(flag for flag in every[0] if flag in shared)]) if every else "jaxrec train"
    return start, [" ".join(flag for flag in some if flag not in shared) for some in every]
