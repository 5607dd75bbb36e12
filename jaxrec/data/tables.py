"""Tables with named columns: CSV and its kin, RecBole's atomic files, Parquet."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxrec.config import Mistake
from jaxrec.data.clocks import first, microseconds
from jaxrec.data.columns import Choice, choose
from jaxrec.data.events import Events
from jaxrec.data.formats import Format
from jaxrec.data.options import Preparation
from jaxrec.data.sources import Source, not_utf8

if TYPE_CHECKING:
    import polars as pl

Say = Callable[[str], None]


def read_table(source: Source, form: Format, options: Preparation, say: Say) -> Events:
    """A header and a separator; every line must have at most as many fields as the header."""
    import polars as pl

    choice = choose(form.header, options, str(source.path))
    announce(source, form, choice, say)
    try:
        everything = pl.scan_csv(
            source.whole(),
            separator=form.separator or ",",
            infer_schema=False,
            skip_lines=source.blank_first,
            with_column_names=labels,
            glob=False,
        )
        wanted = everything.select(**{role: pl.col(f"column_{place}") for role, place in choice.position.items()})
        # Counting the other columns makes polars look at them too: a line with too many fields is then an error.
        frame, _ = pl.collect_all([wanted, everything.select(pl.all().count())], engine="streaming")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise malformed(source, form, str(error)) from error
    return from_frame(source, form, choice, frame)


def labels(names: list[str]) -> list[str]:
    """Names by position: the header's may be repeated."""
    return [f"column_{place}" for place in range(len(names))]


def announce(source: Source, form: Format, choice: Choice, say: Say) -> None:
    chosen = ", ".join(f"{role} = {name!r}" for role, name in choice.names().items())
    unused = ", ".join(map(repr, choice.unused()[:8]))
    say(f"{source.path}: {form.words}; {chosen} (by {choice.because})" + (f"; not used: {unused}" if unused else ""))


def header_only(source: Source) -> Mistake:
    return Mistake(f"{source.path} has a header and no events; add one event a line")


def malformed(source: Source, form: Format, reason: str) -> Mistake:
    """Find the line that polars could not parse."""
    width, line = len(form.header), 1
    for line, fields in source.records(form.separator or ","):
        if len(fields) > width:
            return Mistake(
                f"{source.path}:{line}: there are {len(fields)} fields, the header has {width}; "
                f"quote fields that contain {form.separator!r} or fix the line"
            )
        if not_utf8("".join(fields)):
            return Mistake(f"{source.path}:{line}: the text is not UTF-8; save the file as UTF-8")
    return Mistake(
        f"{source.path} is not a well-formed table ({reason.splitlines()[0]}); "
        f'look for a quote (") that is not closed, perhaps on line {line}'
    )


def read_parquet(source: Source, form: Format, options: Preparation, say: Say) -> Events:
    """A Parquet table; ids may be text, whole numbers or categories, times numbers, dates or text."""
    import polars as pl

    try:
        table = pl.scan_parquet(source.path, glob=False)
        choice = choose(tuple(table.collect_schema().names()), options, str(source.path))
        announce(source, form, choice, say)
        frame = table.select(**{role: pl.col(name) for role, name in choice.names().items()}).collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise Mistake(f"{source.path} is a damaged or cut Parquet file ({reason}); fetch or write it again") from error
    return from_frame(source, form, choice, frame)


def from_frame(source: Source, form: Format, choice: Choice, frame: "pl.DataFrame") -> Events:
    """Check and convert the chosen columns; errors name the line of a text, the row of a Parquet file."""
    rows = None if form.separator is None else kept_rows(source, form.separator, frame)

    def fail(row: int, sentence: str) -> Mistake:
        row = row if rows is None else int(rows[row])
        where = f" row {row + 1}" if form.separator is None else source.line_of_row(row, form.separator)
        return Mistake(f"{source.path}:{where}: {sentence}")

    frame = frame if rows is None else frame[rows]
    if frame.height == 0:
        raise header_only(source)
    names = choice.names()
    columns: dict[str, Any] = {
        role: as_text(frame[role], names[role], fail) for role in ("user", "item", "session") if role in names
    }
    unit = None
    if "time" in names:
        columns["time"], unit = microseconds(frame["time"], fail)
    return Events(
        **columns, format=form.words, columns=names, because=f"{form.because}; columns by {choice.because}", unit=unit
    )


def kept_rows(source: Source, separator: str, frame: "pl.DataFrame") -> np.ndarray | None:
    """Row numbers without blank lines, which polars reads as rows of nulls; None when there are none."""
    import polars as pl

    empty = frame.select(pl.all_horizontal(pl.all().is_null())).to_series().to_numpy()
    if not empty.any():
        return None
    rows = set(np.flatnonzero(empty).tolist())
    for number, (line, fields) in enumerate(source.records(separator), start=-1):
        if number in rows and any(fields):
            raise Mistake(f"{source.path}:{line}: there is no item and no user here; fill them in or drop the line")
    return np.flatnonzero(~empty)


def as_text(column: "pl.Series", name: str, fail: Callable[[int, str], Mistake]) -> "pl.Series":
    """Ids as text: whole numbers without a fraction, everything else as written. Mistake on the first missing one."""
    import polars as pl

    if column.dtype.is_nested() or column.dtype == pl.Binary:
        raise fail(0, f"column {name!r} holds {column.dtype}, not ids; write one id a row as text or a whole number")
    missing = column.is_null()
    if column.dtype.is_float():
        missing = missing | column.is_nan()
        broken = (column != column.round()) & ~missing
        if broken.any():
            row = first(broken)
            raise fail(row, f"{name} {column[row]} is not a whole number; write ids as text or whole numbers")
        column = column.fill_nan(None).cast(pl.Int64)
    text = column.cast(pl.String)
    missing = missing | (text == "").fill_null(True)
    if missing.any():
        count = int(missing.sum())
        others = f" (nor on {count - 1:,} other lines)" if count > 1 else ""
        raise fail(first(missing), f"there is no {name} here{others}; fill it in or drop the line")
    return text
