"""What kind of file it is, decided by looking at its content."""

import csv
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from jaxrec.config import Mistake
from jaxrec.data.columns import demanded, exact, guess, plain
from jaxrec.data.headless import guess_roles, is_data, is_time, refuse_hidden_header
from jaxrec.data.options import Preparation
from jaxrec.data.sources import Source

ATOMIC = re.compile(r"[^\t:]+:(token|token_seq|float|float_seq)")
SEPARATORS = {"\t": "TSV", ",": "CSV", ";": "CSV with semicolons", "|": "CSV with bars", " ": "table with blanks"}
BEHAVIOR = re.compile(r"[^\t]*\t[^\t]+\t\d{1,2}/\d{1,2}/\d{4} \d{1,2}:\d\d:\d\d [AP]M\t[^\t]*\t[^\t]*$")
CELL = csv.field_size_limit()  # characters of a line that are enough to see its fields
PAIRED = 0.9  # share of lines with two words above which a line of another width is an error
RUNS = 0.2  # share of neighbouring lines with the same first word that makes a two-word file `user item`


@dataclass(frozen=True)
class Format:
    """kind: "parquet", "table" (fields and separator), "json", "json list",
    "news", "pairs" (`user item`), "sessions" (a line each).

    A table without a header has `guessed` roles by position, and a header of "column 1", "column 2", ...
    """

    kind: str
    words: str
    because: str
    separator: str | None = None
    header: tuple[str, ...] = ()
    guessed: dict[str, int] | None = None


def look(source: Source, options: Preparation) -> Format:
    """Decide the format from the first bytes and a sample of lines; Mistake when it is none that can be read."""
    if source.parquet:
        return Format("parquet", "Parquet", "it begins with PAR1")
    if source.path.suffix.lower() == ".parquet":
        raise Mistake(f"{source.path} is not a Parquet file (it does not begin with PAR1); write it again or rename it")
    zipped = ", gzip" if source.zipped else ""
    found = json_text(source) or atomic(source) or table(source, options) or news(source) or headless(source, options)
    if found is None:
        refuse_other_text(source, options)
        found = plain_text(source)
    return replace(found, words=found.words + zipped)


def json_text(source: Source) -> Format | None:
    """Objects, one a line or in a list; the header holds the names of the sampled objects in order of appearance."""
    begins = source.sample[0].lstrip()[:1]
    if begins == "<":
        raise Mistake(
            f"{source.path} looks like a web page; write it as CSV, JSON lines or Parquet with user, item, time"
        )
    if begins == "{":
        if not (names := names_in(source.sample)):
            hint = "JSON puts texts in double quotes, and an object on one line"
            raise Mistake(f"{source.path}:1 begins with {{, but no line is a JSON object ({hint}); write it so")
        return Format("json", "JSON lines", "lines begin with {", header=names)
    if begins == "[" and source.sample[0].lstrip()[1:].lstrip()[:1] in ("", "{"):
        return Format("json list", "JSON list", "it begins with [")
    return None


def names_in(lines: Sequence[str]) -> tuple[str, ...]:
    """The keys of the objects on the first lines; lines that are no objects are the reader's to report."""
    found: dict[str, None] = {}
    for line in lines[:1000]:
        try:
            value = json.loads(line)
        except ValueError:
            continue
        found |= dict.fromkeys(value if isinstance(value, dict) else ())
    return tuple(found)


def atomic(source: Source) -> Format | None:
    """RecBole's atomic file: a tab-separated header of `name:type`."""
    header = split_line(source.sample[0], "\t")
    if all(ATOMIC.fullmatch(name) for name in header):
        if "item_id_list:token_seq" in header:
            raise Mistake(f"{source.path} repeats the history on every row (item_id_list); give one event a row")
        return Format("table", "RecBole atomic file", "the header is name:type", "\t", header)
    return None


def table(source: Source, options: Preparation) -> Format | None:
    """A file whose first line names columns: the separator under which it does, with most columns."""
    told = {plain(name) for name in demanded(options).values() if not name.isdecimal()}  # numbers are positions
    positions = len(told) < len(demanded(options))
    fitting = []
    for separator, words in SEPARATORS.items():
        header = split_line(source.sample[0], separator)
        named = guess(header)
        by_name = ("item" in named and len(named) > 1) or (positions and bool(named) and not is_data(header))
        if len(header) > 1 and (by_name or told & set(map(plain, header))):
            fitting.append((len(header), Format("table", words, "the first line names columns", separator, header)))
    return max(fitting, key=lambda pair: pair[0])[1] if fitting else None


def split_line(line: str, separator: str) -> tuple[str, ...]:
    if len(separator) > 1:
        return tuple(line.split(separator))
    return tuple(next(csv.reader([line.replace("\r", " ")[:CELL]], delimiter=separator), []))


def news(source: Source) -> Format | None:
    """MIND's behaviors.tsv: impression, user, time, history, and what was shown with -1 (clicked) or -0."""
    sample = source.sample[:1000]
    if sum(map(bool, map(BEHAVIOR.match, sample))) >= PAIRED * len(sample):
        because = "five fields, the third like 11/15/2019 8:55:22 AM"
        return Format("news", "news log (MIND behaviors)", because, "\t")
    return None


def headless(source: Source, options: Preparation) -> Format | None:
    """A table whose first line is an event already: the separator with most columns, roles by position or by values."""
    told = demanded(options)
    by_position = bool(told) and all(name.isdecimal() for name in told.values())
    fitting = []
    for separator, words in {"::": "MovieLens table (::)", **SEPARATORS}.items():
        rows = [split_line(line, separator) for line in source.sample[:1000]]
        width, count = Counter(map(len, rows)).most_common(1)[0]
        whole = [row for row in rows if len(row) == width]
        if width < 2 or count < PAIRED * len(rows) or not (by_position or is_data(rows[0])):
            continue
        blank = separator == " " and not by_position and not (width > 2 and any(map(is_time, zip(*whole, strict=True))))
        if not blank and (by_position or separator != "\t" or width > 2):
            fitting.append((width, words, separator, whole))
    if not fitting:
        return None
    width, words, separator, rows = max(fitting, key=lambda entry: entry[0])
    places = {
        role: exact([f"column {n + 1}" for n in range(width)], f"{role}-column", name, str(source.path))
        for role, name in told.items()
    }
    if by_position:
        refuse_hidden_header(rows, str(source.path))
    guess = guess_roles(rows, places, str(source.path))
    because = "the first line is an event, so there is no header" + (
        f"; by their values {guess.words}" if guess.words else ""
    )
    header = tuple(f"column {n + 1}" for n in range(width))
    return Format("table", f"{words} without a header", because, separator, header, guess.position)


def refuse_other_text(source: Source, options: Preparation) -> None:
    """Text that is neither a table with known columns nor plain words: say what is missing."""
    first = source.sample[0]
    for separator in ("\t", ",", ";", "|", "::"):
        widths = {len(split_line(line, separator)) for line in source.sample[:1000]}
        if len(widths) == 1 and (width := widths.pop()) > 1 and not (separator == "\t" and width == 2):
            refuse_table(source, split_line(first, separator))
    if told := demanded(options):
        role, name = next(iter(told.items()))
        raise Mistake(f"{source.path}:1 names no columns, so none is {name!r}; add a header or drop --{role}-column")


def refuse_table(source: Source, header: Sequence[str]) -> None:
    names = ", ".join(map(repr, header))
    raise Mistake(
        f"{source.path} has no columns known to be item and user or session; its columns are {names}; name them with "
        "--item-column and --user-column, or give positions (--user-column 1) where the first line is an event"
    )


def plain_text(source: Source) -> Format:
    """Words and blanks: `user item` when lines have two words and the first comes in runs, else sessions.

    A few lines of another width do not make a `user item` file one of sessions: its reader then names the line.
    """
    words = [[word for word in line.replace("\t", " ").split(" ") if word] for line in source.sample]
    widths = Counter(map(len, words))
    if widths.keys() == {1}:
        raise Mistake(f"{source.path} has one word on every line; a line should be `user item` or a session's items")
    same = sum(one[0] == two[0] for one, two in pairwise(words)) / len(words)
    if widths[2] >= PAIRED * len(words) and same >= RUNS:
        because = "lines have two words and the first comes in runs"
        return Format("pairs", "text, a line is `user item`, oldest first", because)
    because = "lines have different numbers of words"
    if widths.keys() == {2}:
        because = "the first of two words comes in no runs; if it is the user, put the header `user item` on top"
    return Format("sessions", "text, a line is a session, oldest item first", because)
