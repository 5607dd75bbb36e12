"""Histories as people write them: on the command line, in a file, on standard input."""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxrec.config import Mistake


class Histories(NamedTuple):
    """Item ids of each history and, where they were written, the seconds at which its events happened."""

    items: list[list[str]]
    times: list[list[float]] | None


def histories(history: str | None, file: str | None) -> Histories:
    """One history, else every line of a file, else every line of standard input."""
    if history is not None:
        lines = [history]
    elif file is not None:
        try:
            lines = Path(file).read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise Mistake(f"{file}: cannot be read ({error.strerror}); give a file of histories") from None
    else:
        lines = sys.stdin.read().splitlines()
    return together([events(line) for line in lines])


def together(read: Sequence[tuple[list[str], list[float] | None]]) -> Histories:
    """Times for all histories or for none; an empty one has all the times it needs."""
    timed = any(times for _, times in read)
    for place, (items, times) in enumerate(read, start=1):
        if timed and items and times is None:
            raise Mistake(f"history {place} has no times and others have; write all as [[item, seconds], ...]")
    return Histories([items for items, _ in read], [times or [] for _, times in read] if timed else None)


def events(line: str) -> tuple[list[str], list[float] | None]:
    """The ids on a line, and their times: a JSON list of ids or of ``[id, seconds]``, or words between commas, or words
    between blanks where there is no comma.
    """
    if line.lstrip().startswith("["):
        try:
            return entries(json.loads(line))
        except ValueError as error:
            if isinstance(error, Mistake):
                raise
            # an id may begin with a bracket too
    return [item.strip() for item in line.split(",") if item.strip()] if "," in line else line.split(), None


def entries(read: list[Any]) -> tuple[list[str], list[float] | None]:
    """A JSON list as ids and times."""
    if not any(isinstance(entry, list) for entry in read):
        return [str(entry) for entry in read], None
    for entry in read:
        pair = isinstance(entry, list) and len(entry) == 2
        if not pair or type(entry[1]) not in (int, float) or not math.isfinite(entry[1]):
            raise Mistake(f"{json.dumps(entry)} is not an item and its time; write each event as [item, seconds]")
    return [str(item) for item, _ in read], [float(time) for _, time in read]
