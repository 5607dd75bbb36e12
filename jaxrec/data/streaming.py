"""Files larger than memory should hold: read in batches, ids coded as they come, columns spooled to disk.

This is a faster way to the same bytes, for the plain case alone: a table or Parquet, in one file or several that are
alike, a user (or a session), an item, perhaps whole-number times, no filter. Whatever is not plain (a quote, a missing
id, a time that is no whole number) raises `Irregular`, and the reader in memory, which is the specification, reads the
files or names the line.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxrec.config import field_types, value_at
from jaxrec.data import clocks
from jaxrec.data.clocks import EARLY, MODERN, UNITS
from jaxrec.data.coding import Coder, Irregular, whole_numbers
from jaxrec.data.columns import Choice, choose
from jaxrec.data.formats import Format, look
from jaxrec.data.frames import announce
from jaxrec.data.options import Preparation, split_kind
from jaxrec.data.parquet import Probe, check_ends
from jaxrec.data.sources import Source

if TYPE_CHECKING:
    import polars as pl

Say = Callable[[str], None]
LARGE = {"table": 256 << 20, "parquet": 64 << 20}  # bytes of all files from which they are streamed
BLOCK = 16 << 20  # bytes of text parsed at once
ROWS = 1 << 20  # rows of a Parquet file read at once
# Options that may have any value; every other must be at its default, or the file is read in memory.
FREE = {
    *("data", "test", "valid", "held_out", "verify", "demo", "sequence"),
    *("user_column", "item_column", "time_column", "session_column"),
    *("split", "last", "boundaries", "catalogue", "unknown_targets", "mask_seen", "filter_scope", "ties_seed"),
}


def plain(options: Preparation, files: Sequence[Source]) -> bool:
    """Whether options and files are of the kind that is streamed, and the files together large; the first tells."""
    if split_kind(options) == "given" or not simple(options):
        return False
    form = look(files[0], options)
    return form.guessed is None and size_of(files) >= LARGE.get(form.kind, np.inf)


def size_of(files: Sequence[Source]) -> int:
    return sum(source.path.stat().st_size for source in files)


def simple(options: Preparation) -> bool:
    """Whether no option asks for more than is done on the way to the disk."""
    default = Preparation()
    return all(value_at(options, n) == value_at(default, n) for n in field_types(type(default)) if n not in FREE)


@dataclass
class Span:
    """The earliest and the latest time of a file, as written."""

    low: int = np.iinfo(np.int64).max
    high: int = np.iinfo(np.int64).min
    dates: bool = False

    def meet(self, times: np.ndarray) -> None:
        self.low, self.high = min(self.low, int(times.min())), max(self.high, int(times.max()))


@dataclass(eq=False)
class Spool:
    """One log on disk in file order: `person` and `item` int32 codes, `time` int64 as written, one file a column."""

    folder: Path
    form: Format  # of the first file
    choice: Choice
    person: Coder = field(default_factory=Coder)
    item: Coder = field(default_factory=Coder)
    rows: int = 0
    count: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # events of each person
    first: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # the earliest time of each
    spans: list[Span] = field(default_factory=list)  # of each file
    told: tuple[str, int, int] | None = None  # the unit, where it is known already

    @property
    def kind(self) -> str:
        """What a sequence is."""
        return "user" if "user" in self.choice.position else "session"

    @property
    def timed(self) -> bool:
        return "time" in self.choice.position

    @property
    def low(self) -> int:
        return min(span.low for span in self.spans)

    @property
    def high(self) -> int:
        return max(span.high for span in self.spans)

    def add(self, batch: "pl.DataFrame") -> None:
        """Code a batch of the last file and append it to the columns."""
        person, item = self.person.codes(batch["person"]), self.item.codes(batch["item"])
        self.count = grown(self.count, len(self.person), 0)
        self.count += np.bincount(person, minlength=len(self.count))
        columns = {"person": person, "item": item}
        if self.timed:
            columns["time"] = times = self.times(batch["time"])
            self.spans[-1].meet(times)
            self.first = grown(self.first, len(self.person), np.iinfo(np.int64).max)
            np.minimum.at(self.first, person, times)
        for name, values in columns.items():
            with open(self.folder / name, "ab") as file:
                values.tofile(file)
        self.rows += len(person)

    def times(self, column: "pl.Series") -> np.ndarray:
        import polars as pl

        if column.dtype == pl.Date or isinstance(column.dtype, pl.Datetime):
            self.spans[-1].dates = True
            column = column.cast(pl.Datetime("us")).cast(pl.Int64)
        elif column.dtype == pl.String:
            column = column.str.strip_chars()
        elif not column.dtype.is_integer():
            raise Irregular(f"its times are of type {column.dtype}")
        found = whole_numbers(column)
        if found is None:
            raise Irregular("its times are not all whole numbers")
        return found

    def unit(self) -> tuple[str, int, int]:
        """(words, factor, divisor) of the times of all files; Irregular where they differ."""
        if self.told is not None:
            return self.told
        first, *others = (unit_between(span.low, span.high, span.dates) for span in self.spans)
        if any(other != first for other in others):
            raise Irregular("its files have times of different units")
        return first

    def when(self, span: Span | None = None) -> tuple[str, str] | None:
        """Unit and span of the times of one file, or of all, in words; None without times."""
        if not self.timed:
            return None
        low, high = (self.low, self.high) if span is None else (span.low, span.high)
        unit = self.unit()
        return unit[0], clocks.span(scaled(np.array([low, high]), unit))


def scaled(values: np.ndarray, unit: tuple[str, int, int]) -> np.ndarray:
    """Times as written -> microseconds."""
    _, factor, divisor = unit
    return values * factor // divisor if divisor > 1 else values * factor


def unit_between(low: int, high: int, dates: bool = False) -> tuple[str, int, int]:
    """(words, factor, divisor) of times from the earliest to the latest, as `clocks` tells them; Irregular where it
    asks the middle one.
    """
    if dates:
        words, factor, divisor = "dates", 1, 1
    elif (words := unit_of(low)) != unit_of(high):
        raise Irregular("its times differ so much in size that the middle one decides")
    else:
        factor, divisor = (UNITS[words][1], 1) if words in UNITS else (1, 1000)
    low, high = (time * factor // divisor for time in (low, high))
    if (low < EARLY or high >= MODERN[1]) and high >= MODERN[0] and low < MODERN[1]:
        raise Irregular("some of its times lie far from the others")
    return words, factor, divisor


def unit_of(time: int) -> str:
    return next((words for words, (limit, _) in UNITS.items() if abs(time) < limit), "nanoseconds")


def grown(array: np.ndarray, size: int, value: int) -> np.ndarray:
    """The array with `size` entries, new ones `value`."""
    return np.concatenate([array, np.full(size - len(array), value, array.dtype)])


def opened(source: Source, options: Preparation) -> tuple[Format, Choice]:
    """Format and columns of a file; Irregular where it is not of the kind that is streamed."""
    form = look(Source(source.path), options)  # one of its own, because it keeps a sample
    if form.guessed is not None or form.kind not in LARGE:
        raise Irregular("it has a file that is no table with a header")
    return form, chosen(source, form, options)


def read_into(spool: Spool, files: Sequence[Source], options: Preparation, say: Say) -> None:
    """Read the files, of which the spool was given the first's columns, and say what the readers in memory say;
    Irregular where one is not plain, or not like the first.
    """
    if {"user", "session"} <= spool.choice.position.keys() or options.sequence not in ("auto", spool.kind):
        raise Irregular("it has users and sessions")
    for source in files:
        form, choice = (spool.form, spool.choice) if source is files[0] else opened(source, options)
        announce(source.path, form, choice, say)
        if (form.words, choice.names()) != (spool.form.words, spool.choice.names()):
            raise Irregular("its files are not alike")
        before = spool.rows
        spool.spans.append(Span())
        for batch in batches(source, form, choice):
            if batch.height:
                spool.add(batch)
        if spool.rows == before:
            raise Irregular("it has no events")
        say(f"{source.path}: {counted(spool.rows - before, spool.when(spool.spans[-1]))}")


def counted(rows: int, when: tuple[str, str] | None) -> str:
    """A number of events and their times, in words."""
    return f"{rows:,} events, " + ("no time: file order" if when is None else f"time in {': '.join(when)}")


def chosen(source: Source, form: Format, options: Preparation) -> Choice:
    """The columns of the file."""
    header = form.header
    if form.kind == "parquet":
        check_ends(source)
        header = Probe(source).header()
    return choose(header, options, str(source.path))


def batches(source: Source, form: Format, choice: Choice) -> "Iterator[pl.DataFrame]":
    """Frames with the columns person, item and perhaps time, in file order."""
    import polars as pl

    named = {"person": choice.position.get("user", choice.position.get("session"))}
    named |= {role: choice.position[role] for role in ("item", "time") if role in choice.position}
    columns: dict[str, Any] = {role: f"column_{place}" for role, place in named.items()}
    if form.kind == "parquet":
        columns = {role: choice.header[place] for role, place in named.items() if place is not None}
        probe = Probe(source)
        probe.header()
        probe.read(list(columns.values()))
    frames = parquet_frames(source, columns) if form.kind == "parquet" else text_frames(source, form, columns)
    try:
        yield from frames
    except (pl.exceptions.PolarsError, OSError) as error:
        raise Irregular("it is not well formed") from error


def parquet_frames(source: Source, columns: dict[str, str]) -> "Iterator[pl.DataFrame]":
    import polars as pl

    table = pl.scan_parquet(source.path, glob=False).select(**{role: pl.col(name) for role, name in columns.items()})
    rows = table.select(pl.len()).collect().item()
    for begin in range(0, rows, ROWS):
        yield table.slice(begin, ROWS).collect()


def text_frames(source: Source, form: Format, columns: dict[str, str]) -> "Iterator[pl.DataFrame]":
    import polars as pl

    schema = {f"column_{place}": pl.String for place in range(len(form.header))}
    for block in blocks(source):
        if b'"' in block:
            raise Irregular("it has quotes")
        frame = pl.read_csv(block, separator=form.separator or ",", has_header=False, schema=schema, quote_char=None)
        yield frame.select(**{role: pl.col(name) for role, name in columns.items()})


def blocks(source: Source) -> Iterator[bytes]:
    """The text below the header in pieces of whole lines."""
    with source.guarded(), source.open() as file:
        header = next(line for line in file if line.removeprefix(b"\xef\xbb\xbf").strip())
        if b'"' in header:
            raise Irregular("it has quotes")
        rest = b""
        while data := file.read(BLOCK):
            cut = data.rfind(b"\n") + 1
            if not cut:
                rest += data
                continue
            yield rest + data[:cut]
            rest = data[cut:]
        if rest:
            yield rest
