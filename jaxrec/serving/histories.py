"""Histories as people write them: on the command line, in a file, on standard input."""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxrec.config import Mistake, did_you_mean
from jaxrec.runs.options import Recommend
from jaxrec.serving.contexts import Given

KEYS = ("history", "times", "user", "contexts", "starts")  # of a history written as a JSON object


class Histories(NamedTuple):
    """Item ids of each history and, where any was given, what else `Served.recommend` takes of each."""

    items: list[list[str]]
    times: list[list[float]] | None = None
    users: list[str | None] | None = None
    contexts: list[list[Given] | None] | None = None
    starts: list[list[bool] | None] | None = None

    def aside(self) -> dict[str, Any]:
        """All but the items, under the names that `Served.recommend` has for them."""
        return {name: value for name, value in self._asdict().items() if name != "items"}


class One(NamedTuple):
    """A history as it was written; None for what was not."""

    items: list[str]
    times: list[float] | None = None
    user: str | None = None
    contexts: list[Given] | None = None
    starts: list[bool] | None = None


def asked(options: Recommend) -> Histories:
    """The histories of the command line, with what other options say of the one in ``--history``."""
    if options.history is None:
        given = {"times": options.times, "user": options.user, "context": options.context or None}
        for name in (name for name, value in given.items() if value is not None):
            raise Mistake(
                f"--{name} says something of --history, which is not given; in a file or on standard input write a "
                'history with all that belongs to it as JSON, as in {"history": ["a", "b"], "times": [0, 60]}'
            )
        return histories(None, options.histories)
    if options.histories is not None:
        raise Mistake("--history and --histories are both given; keep one")
    one = events(options.history)
    more: dict[str, Any] = {"user": options.user}
    if options.times is not None:
        more["times"] = [second(word) for word in listed(options.times)]
    if options.context:
        more["contexts"] = contexts(options.context, len(one.items))
    for name, value in more.items():
        if value is not None and getattr(one, name) is not None:
            raise Mistake(f"the {name} of --history are given twice; keep those inside it or the option")
    return together([one._replace(**{name: value for name, value in more.items() if value is not None})])


def contexts(words: Sequence[str], count: int) -> list[Given]:
    """``rating=4,,5 device=tv,tv,web`` as one mapping an event."""
    found: list[dict[str, Any]] = [{} for _ in range(count)]
    for word in words:
        name, equals, values = word.partition("=")
        several = listed(values)
        if not equals:
            raise Mistake(f"--context {word!r} has no =; write NAME=VALUE,VALUE with a value an event")
        if len(several) != count:
            raise Mistake(
                f"--context {word!r} has {len(several)} values for {count} events; give one an event, nothing between "
                "two commas where there is none"
            )
        for one, value in zip(found, several, strict=True):
            one[name] = None if value == "" else value
    return list(found)


def listed(text: str) -> list[Any]:
    """Values between commas, or a JSON list where they hold commas; an empty text is an empty list."""
    if text.lstrip().startswith("["):
        try:
            return list(json.loads(text))
        except ValueError:
            pass  # a value may begin with a bracket too
    return [value.strip() for value in text.split(",")] if text.strip() else []


def second(word: Any) -> float:
    """A time in seconds."""
    try:
        found = float(word)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise Mistake(f"time {word!r} is not a number of seconds; write --times as in 1700000000,1700000060")
    return found


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


def together(read: Sequence[One]) -> Histories:
    """Times for all histories or for none; an empty one has all the times it needs."""
    timed = any(one.times for one in read)
    for place, one in enumerate(read, start=1):
        if timed and one.items and one.times is None:
            raise Mistake(f"history {place} has no times and others have; write all as [[item, seconds], ...]")
    users = [one.user for one in read]
    contexts = [one.contexts if one.items else [] for one in read]
    starts = [one.starts for one in read]
    return Histories(
        [one.items for one in read],
        [one.times or [] for one in read] if timed else None,
        users if any(users) else None,
        contexts if any(contexts) else None,
        starts if any(starts) else None,
    )


def events(line: str) -> One:
    """What a line says: a JSON object with `KEYS`, a JSON list of ids or of ``[id, seconds]``, or words between commas,
    or words between blanks where there is no comma.
    """
    if line.lstrip().startswith(("[", "{")):
        try:
            read = json.loads(line)
        except ValueError:
            pass  # an id may begin with a bracket too
        else:
            return entries(read) if isinstance(read, list) else full(read)
    return One([item.strip() for item in line.split(",") if item.strip()] if "," in line else line.split())


def full(read: dict[str, Any]) -> One:
    """A JSON object as a history."""
    for name in read:
        if name not in KEYS:
            known = ", ".join(KEYS)
            raise Mistake(f"a history has no {name!r} (it has {known}){did_you_mean(name, KEYS)}")
    for name in ("history", "times", "contexts", "starts"):
        if not isinstance(read.get(name, []), list):
            raise Mistake(f"{name} of a history is {json.dumps(read[name])}; give a list with one entry an event")
    one = entries(read.get("history", []))
    times = [second(time) for time in read["times"]] if "times" in read else one.times
    for name, several in {"times": times, "contexts": read.get("contexts"), "starts": read.get("starts")}.items():
        if several is not None and len(several) != len(one.items):
            raise Mistake(f"{len(one.items)} events have {len(several)} {name}; give one an event")
    user = None if read.get("user") is None else str(read["user"])
    return One(one.items, times, user, read.get("contexts"), read.get("starts"))


def entries(read: list[Any]) -> One:
    """A JSON list as ids and times."""
    if not any(isinstance(entry, list) for entry in read):
        return One([str(entry) for entry in read])
    for entry in read:
        pair = isinstance(entry, list) and len(entry) == 2
        if not pair or type(entry[1]) not in (int, float) or not math.isfinite(entry[1]):
            raise Mistake(f"{json.dumps(entry)} is not an item and its time; write each event as [item, seconds]")
    return One([str(item) for item, _ in read], [float(time) for _, time in read])
