"""JSON: an object a line, or a list of objects; Amazon's review files among them."""

import json
from collections.abc import Callable, Iterator
from itertools import chain, islice, tee
from typing import TYPE_CHECKING, Any

from jaxrec.config import Mistake
from jaxrec.data.columns import choose
from jaxrec.data.events import Events
from jaxrec.data.exact import stacked
from jaxrec.data.formats import Format
from jaxrec.data.frames import announce, from_frame
from jaxrec.data.options import Preparation
from jaxrec.data.rows import Bad, Rows
from jaxrec.data.sources import Source, not_utf8

if TYPE_CHECKING:
    import polars as pl

Say = Callable[[str], None]
Objects = Iterator[tuple[str, Any]]  # where each value stands (":12" or ": entry 12") and the value
# Numbers stay text, so that ids of any size and times of any precision are as written; NaN is a missing value.
DECODER = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=lambda _: None)


def read_json(source: Source, form: Format, options: Preparation, say: Say) -> Events:
    """JSON lines or a list of objects, one event each; numbers are read as they are written."""
    bad = Bad(str(source.path), options.on_bad_row == "skip")
    found, header = lines(source, bad), form.header
    if form.kind == "json list":
        found, first = tee(entries(source))
        objects = (value for _, value in islice(first, 1000) if isinstance(value, dict))
        header = tuple(dict.fromkeys(chain.from_iterable(objects)))
    choice = choose(header, options, str(source.path))
    announce(source.path, form, choice, say)
    names = {place: choice.header[place] for place in choice.places()}
    frame, where = table(found, names, bad)
    return from_frame(form, choice, frame, Rows(bad, frame.height, lambda row: where[row]), options, say)


def lines(source: Source, bad: Bad) -> Objects:
    """The value on each line that is not blank; lines that are no JSON go to `bad`."""
    with source.guarded(), source.text() as file:
        for number, text in enumerate(file, start=1):
            if not text.strip():
                continue
            where = f":{number}"
            if not_utf8(text):
                bad.row(where, "another encoding", "the text is not UTF-8; save the file as UTF-8")
                continue
            try:
                yield where, DECODER.decode(text)
            except (ValueError, RecursionError) as error:
                hint = " (JSON puts texts in double quotes)" if text.lstrip().startswith("{'") else ""
                bad.row(where, "broken JSON", f"this is no JSON object: {reason(error)}{hint}")


def entries(source: Source) -> Objects:
    """The values of a list that is the whole file."""
    with source.guarded(), source.text() as file:
        text = file.read()
    if not_utf8(text):
        line = next(number for number, part in enumerate(text.split("\n"), start=1) if not_utf8(part))
        raise Mistake(f"{source.path}:{line}: the text is not UTF-8; save the file as UTF-8")
    try:
        values = DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise Mistake(
            f"{source.path}:{error.lineno}: the list is no JSON: {error.msg}; mend it or write it again"
        ) from None
    except (ValueError, RecursionError) as error:
        raise Mistake(f"{source.path}: the list is no JSON: {reason(error)}; write an object a line") from None
    yield from ((f": entry {number}", value) for number, value in enumerate(values, start=1))


def reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.colno}"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)


def table(found: Objects, names: dict[int, str], bad: Bad) -> "tuple[pl.DataFrame, list[str]]":
    """The wanted keys of every object as text, and where each row stands."""
    places: list[str] = []

    def rows() -> Iterator[list[str | None]]:
        for where, value in found:
            try:
                row = [as_text(value, name) for name in names.values()]
            except ValueError as error:
                bad.row(where, "another shape", str(error))
                continue
            places.append(where)
            yield row

    return stacked(rows(), names), places


def as_text(value: Any, name: str) -> str | None:
    """What stands under a key, as text; ValueError where it is no text, number or truth value."""
    if not isinstance(value, dict):
        raise ValueError("there is a value that is no object; write one object {...} an event")
    inner = value.get(name)
    if isinstance(inner, dict | list):
        raise ValueError(f"{name!r} holds {'an object' if isinstance(inner, dict) else 'a list'}, not a single value")
    if isinstance(inner, bool):
        return "true" if inner else "false"
    return None if inner is None else str(inner)
