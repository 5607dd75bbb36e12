"""Text tables: CSV and its kin with or without a header, RecBole's atomic files, MovieLens' `::` files."""

import csv
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from jaxrec.data.columns import Choice, choose
from jaxrec.data.events import Events
from jaxrec.data.exact import faultless, no_events, read_exactly, records
from jaxrec.data.formats import Format
from jaxrec.data.frames import announce, from_frame
from jaxrec.data.options import Preparation
from jaxrec.data.rows import Bad, Rows
from jaxrec.data.sources import Source

if TYPE_CHECKING:
    import polars as pl

Say = Callable[[str], None]


def read_table(source: Source, form: Format, options: Preparation, say: Say) -> Events:
    """Fields between separators, under a header or by position; every line has as many as the first.

    polars parses. Where it stops, or where a line may be too short, the file is read again record by record, which
    finds the line of a fault, or reads what polars would not (a quote inside a field without quotes).
    """
    choice = choose(form.header, options, str(source.path), form.guessed)
    announce(source.path, form, choice, say)
    bad = Bad(str(source.path), options.on_bad_row == "skip")
    frame, where = parse(source, form, choice, bad)
    begun = form.guessed is None
    if (lines := source.lines) > frame.height + begun + bad.skipped.total():
        note_line_breaks(source, form, lines, say)
    if frame.height == 0 and not bad.skipped:
        raise no_events(source)
    return from_frame(form, choice, frame, Rows(bad, frame.height, where), options, say)


def parse(source: Source, form: Format, choice: Choice, bad: Bad) -> "tuple[pl.DataFrame, Callable[[int], str]]":
    """The chosen columns as text, and what names the place of a row in an error."""
    frame = quickly(source, form, choice) if len(form.separator or "") == 1 else None
    blank = np.zeros(0, bool) if frame is None else blanks(frame)
    # a row of which nothing is there is a blank line, or one with other fields only: those are faults
    if frame is None or (blank.any() and sum(1 for _ in records(source, form)) != np.count_nonzero(~blank)):
        frame, lines = read_exactly(source, form, choice.places(), bad)
        return frame, lambda row: f":{lines[row]}"
    rows = np.flatnonzero(~blank)
    separator, header = form.separator or ",", form.guessed is None
    where = lambda row: f":{source.line_of_row(int(rows[row]), separator, header)}"  # noqa: E731
    return (frame.filter(~blank) if blank.any() else frame), where


def quickly(source: Source, form: Format, choice: Choice) -> "pl.DataFrame | None":
    """The chosen columns by polars; None where the file has to be read record by record."""
    import polars as pl

    try:
        everything = pl.scan_csv(
            source.whole(),
            separator=form.separator or ",",
            has_header=form.guessed is None,
            infer_schema=False,
            skip_lines=source.blank_first,
            with_column_names=labels,
            glob=False,
        )
        wanted = everything.select(pl.col(f"column_{place}") for place in choice.places())
        # Counting the other columns makes polars look at them too: a line with too many fields is then an error.
        frame, counts = pl.collect_all([wanted, everything.select(pl.all().count())], engine="streaming")
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError):
        return None
    last = f"column_{len(form.header) - 1}"
    complete = last in counts.columns and counts[last][0] == frame.height
    # polars fills up lines that are too short; without a missing value in the last column there is none
    return frame if counts.width == len(form.header) and (complete or faultless(source, form)) else None


def note_line_breaks(source: Source, form: Format, lines: int, say: Say) -> None:
    """Say where the first field with a line break begins: a stray quote swallows lines without breaking any rule."""
    whole = ((line, fields) for line, fields in records(source, form) if not isinstance(fields, csv.Error))
    found = (line for line, fields in whole if any("\n" in field for field in fields))
    if (line := next(found, None)) is not None:
        say(f"{source.path}:{line}: a field with line breaks begins here, the first of them; is a quote left open?")


def labels(names: list[str]) -> list[str]:
    """Names by position: the header's may be repeated."""
    return [f"column_{place}" for place in range(len(names))]


def blanks(frame: "pl.DataFrame") -> np.ndarray:
    """bool (rows,): those that hold nothing: polars reads a blank line as nulls, or as blanks and nulls."""
    import polars as pl

    if not any(frame[name].null_count() for name in frame.columns if name != "column_0"):
        return np.zeros(frame.height, bool)
    nothing = pl.all().is_null() | (pl.all().str.strip_chars() == "")
    return frame.select(pl.all_horizontal(nothing)).to_series().to_numpy()
