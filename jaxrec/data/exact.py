"""Tables read record by record: slow, but it knows the line of every fault and can leave the line out."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from jaxrec.config import Mistake
from jaxrec.data.formats import Format
from jaxrec.data.rows import Bad
from jaxrec.data.sources import Source, not_utf8

if TYPE_CHECKING:
    import polars as pl

CHUNK = 100_000  # records held as Python objects at a time
Fault = tuple[str, str]  # rule, sentence


def fault(fields: Sequence[str] | csv.Error, form: Format) -> Fault | None:
    """What is wrong with one record that is not blank; None when nothing is."""
    width = len(form.header)
    if isinstance(fields, csv.Error):
        return "broken quotes", f"{fields}; a quote inside a field is written twice"
    if len(fields) != width:
        rule = "too many fields" if len(fields) > width else "too few fields"
        whose = "the header has" if form.guessed is None else "the other lines have"
        hint = f"; quote fields that contain {form.separator!r}" if len(fields) > width else ""
        return rule, f"there are {len(fields)} fields, {whose} {width}{hint}"
    if any(map(not_utf8, fields)):
        return "another encoding", "the text is not UTF-8; save the file as UTF-8"
    return None


def records(source: Source, form: Format) -> Iterator[tuple[int, Sequence[str] | csv.Error]]:
    """Line and fields of the data: without the header and blank lines."""
    assert form.separator is not None
    begun = form.guessed is not None
    for line, fields in source.records(form.separator):
        if isinstance(fields, csv.Error) or len(fields) > 1 or any(map(str.strip, fields)):
            if begun:
                yield line, fields
            begun = True


def faultless(source: Source, form: Format) -> bool:
    """Whether every record has the width of the header, closed quotes and one encoding."""
    return all(fault(fields, form) is None for _, fields in records(source, form))


def stacked(rows: Iterator[list[str | None]], places: Iterable[int]) -> "pl.DataFrame":
    """A frame of text, columns named by position, without ever holding all rows as Python objects."""
    import polars as pl

    schema = {f"column_{place}": pl.String for place in places}
    chunks = [pl.DataFrame(schema=schema)]
    while some := list(islice(rows, CHUNK)):
        chunks.append(pl.DataFrame(some, schema, orient="row"))
    return pl.concat(chunks)


def read_exactly(source: Source, form: Format, places: Sequence[int], bad: Bad) -> "tuple[pl.DataFrame, list[int]]":
    """The columns at `places` as text, empty fields missing, and the line of every row; faults go to `bad`."""
    lines: list[int] = []

    def rows() -> Iterator[list[str | None]]:
        for line, fields in records(source, form):
            if (broken := fault(fields, form)) is not None:
                bad.row(f":{line}", *broken)
                continue
            assert not isinstance(fields, csv.Error)
            lines.append(line)
            yield [fields[place] or None for place in places]

    return stacked(rows(), places), lines


def no_events(source: Source) -> Mistake:
    return Mistake(f"{source.path} has a header and no events; add one event a line")
