"""Plain text of words and blanks: `user item` lines, and one session a line."""

from typing import TYPE_CHECKING

import numpy as np

from jaxrec.config import Mistake
from jaxrec.data.clocks import first
from jaxrec.data.events import Events
from jaxrec.data.formats import Format
from jaxrec.data.sources import Source, not_utf8

if TYPE_CHECKING:
    import polars as pl

LINE_ONLY = "\x1f"  # a separator that occurs in no text: the whole line is one field


def lines_of(source: Source) -> "pl.Series":
    """The lines of a plain text, blanks at both ends and repeated blanks removed; blank lines are empty text."""
    import polars as pl

    try:
        frame = pl.read_csv(
            source.whole(),
            separator=LINE_ONLY,
            has_header=False,
            quote_char=None,
            schema={"line": pl.String},
            glob=False,
        )
    except (pl.exceptions.PolarsError, OSError) as error:
        with source.text() as file:
            line = next((number for number, text in enumerate(file, start=1) if not_utf8(text)), None)
        if line is not None:
            raise Mistake(f"{source.path}:{line}: the text is not UTF-8; save the file as UTF-8") from error
        raise Mistake(f"{source.path} is not plain text ({str(error).splitlines()[0]}); check the file") from error
    text = pl.col("line").fill_null("").str.strip_chars(" \t\r").str.replace_all(r"[ \t]+", " ")
    return frame.select(text).to_series()


def read_pairs(source: Source, form: Format) -> Events:
    """A line is `user item`; a user's lines are oldest first."""
    lines = lines_of(source)
    blanks = lines.str.count_matches(" ", literal=True)
    wrong = (lines != "") & (blanks != 1)
    if wrong.any():
        row = first(wrong)
        rule = "the first lines say that a line is `user item`, so fix this one"
        raise Mistake(f"{source.path}:{row + 1}: {lines[row][:60]!r} is not two words; {rule}")
    words = lines.filter(lines != "").str.split_exact(" ", 1).struct.unnest()
    user, item = words.get_columns()
    columns = {"user": "first word", "item": "second word"}
    return Events(item, user, format=form.words, columns=columns, because=form.because)


def read_sessions(source: Source, form: Format, prefix: str) -> Events:
    """A line is a session, its items oldest first."""
    import polars as pl

    lines = lines_of(source)
    words = lines.filter(lines != "").str.split(" ")
    names = pl.Series([f"{prefix}{number}" for number in range(1, len(words) + 1)])
    session = names.gather(np.repeat(np.arange(len(words)), words.list.len().to_numpy()))
    columns = {"session": "line", "item": "words"}
    return Events(words.explode(), session=session, format=form.words, columns=columns, because=form.because)
