"""What kind of file it is, decided by looking at its content."""

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from jaxrec.config import Mistake
from jaxrec.data.columns import demanded, guess, plain
from jaxrec.data.options import Preparation
from jaxrec.data.sources import Source

ATOMIC = re.compile(r"[^\t:]+:(token|token_seq|float|float_seq)")
SEPARATORS = {"\t": "TSV", ",": "CSV", ";": "CSV with semicolons", "|": "CSV with bars", " ": "table with blanks"}
CELL = csv.field_size_limit()  # characters of a line that are enough to see its fields
PAIRED = 0.9  # share of lines with two words above which a line of another width is an error
RUNS = 0.2  # share of neighbouring lines with the same first word that makes a two-word file `user item`


@dataclass(frozen=True)
class Format:
    """kind: "parquet", "table" (header and separator), "pairs" (a line is `user item`) or "sessions" (a line each)."""

    kind: str
    words: str
    because: str
    separator: str | None = None
    header: tuple[str, ...] = ()


def look(source: Source, options: Preparation) -> Format:
    """Decide the format from the first bytes and a sample of lines; Mistake when it is none that can be read."""
    if source.parquet:
        return Format("parquet", "Parquet", "it begins with PAR1")
    if source.path.suffix.lower() == ".parquet":
        raise Mistake(f"{source.path} is not a Parquet file (it does not begin with PAR1); write it again or rename it")
    zipped = ", gzip" if source.zipped else ""
    found = atomic(source) or table(source, options)
    if found is None:
        refuse_other_text(source, options)
        found = plain_text(source)
    return replace(found, words=found.words + zipped)


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
    told = set(map(plain, demanded(options).values()))
    fitting = []
    for separator, words in SEPARATORS.items():
        header = split_line(source.sample[0], separator)
        named = guess(header)
        by_name = "item" in named and len(named) > 1
        if len(header) > 1 and (by_name or told & set(map(plain, header))):
            fitting.append((len(header), Format("table", words, "the first line names columns", separator, header)))
    return max(fitting, key=lambda pair: pair[0])[1] if fitting else None


def split_line(line: str, separator: str) -> tuple[str, ...]:
    return tuple(next(csv.reader([line.replace("\r", " ")[:CELL]], delimiter=separator), []))


def refuse_other_text(source: Source, options: Preparation) -> None:
    """Text that is neither a table with known columns nor plain words: say what is missing."""
    first = source.sample[0]
    if first.lstrip()[:1] in ("{", "[", "<"):
        raise Mistake(f"{source.path} looks like JSON or a web page; write it as CSV or Parquet with user, item, time")
    if "::" in first:
        raise Mistake(f"{source.path}:1 separates fields by '::'; write it with tabs under a header user, item, time")
    for separator in ("\t", ",", ";", "|"):
        widths = {len(split_line(line, separator)) for line in source.sample[:1000]}
        if len(widths) == 1 and (width := widths.pop()) > 1 and not (separator == "\t" and width == 2):
            refuse_table(source, split_line(first, separator))
    if told := demanded(options):
        role, name = next(iter(told.items()))
        raise Mistake(f"{source.path}:1 names no columns, so none is {name!r}; add a header or drop --{role}-column")


def refuse_table(source: Source, header: Sequence[str]) -> None:
    names = ", ".join(map(repr, header))
    if any(re.fullmatch(r"[-+.\d]+", name.strip()) for name in header):
        raise Mistake(f"{source.path}:1 is no header ({names}); put one on top, such as user, item, timestamp")
    raise Mistake(
        f"{source.path} has no columns known to be item and user or session; its columns are {names}; "
        "name them with --item-column and --user-column"
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
