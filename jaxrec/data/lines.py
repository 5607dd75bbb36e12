"""Plain text of words and blanks: `user item` lines, and one session a line."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from jaxrec.config import Mistake
from jaxrec.data.events import Events
from jaxrec.data.formats import Format
from jaxrec.data.frames import finish
from jaxrec.data.options import Preparation
from jaxrec.data.rows import Bad, Rows
from jaxrec.data.sources import Source, not_utf8

if TYPE_CHECKING:
    import polars as pl

Say = Callable[[str], None]
LINE_ONLY = "\x1f"  # a separator that occurs in no text: the whole line is one field


def lines_of(source: Source, bad: Bad) -> "pl.Series":
    """The lines of a text, without their ends; blank lines are empty text, and so are those that are not UTF-8."""
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
        lines = frame.to_series().fill_null("")
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError):
        lines = pl.Series("line", list(decoded(source, bad)), pl.String)
    return lines.str.strip_chars_end("\r")


def decoded(source: Source, bad: Bad) -> "list[str]":
    found = []
    with source.guarded(), source.text() as file:
        for number, text in enumerate(file, start=1):
            if LINE_ONLY in text:
                raise Mistake(f"{source.path}:{number}: the line holds a unit separator (\\x1f); it is no plain text")
            if broken := not_utf8(text):
                bad.row(f":{number}", "another encoding", "the text is not UTF-8; save the file as UTF-8")
            found.append("" if broken else text.rstrip("\n"))
    return found


def words_of(source: Source, bad: Bad) -> "pl.Series":
    """Lines with one blank between words and none at the ends."""
    return lines_of(source, bad).str.strip_chars(" \t\r").str.replace_all(r"[ \t]+", " ")


def read_pairs(source: Source, form: Format, options: Preparation, say: Say) -> Events:
    """A line is `user item`; a user's lines are oldest first."""
    refuse_columns(source, options, form)
    bad = Bad(str(source.path), options.on_bad_row == "skip")
    lines = words_of(source, bad)
    rows = Rows(bad, len(lines), lambda row: f":{row + 1}")
    blanks = lines.str.count_matches(" ", literal=True)
    wrong = ((lines != "") & (blanks != 1)).to_numpy()
    rule = "is not two words, and the first lines say that a line is `user item`"
    rows.reject(wrong, "another number of words", lambda row: f"{lines[row][:60]!r} {rule}")
    rows.kept &= (lines != "").to_numpy()
    finish(rows, say)
    user, item = lines.filter(rows.kept).str.split_exact(" ", 1).struct.unnest().get_columns()
    columns = {"user": "first word", "item": "second word"}
    return Events(item, user, format=form.words, columns=columns, because=form.because, skipped=dict(bad.skipped))


def read_sessions(source: Source, form: Format, options: Preparation, say: Say, prefix: str) -> Events:
    """A line is a session, its items oldest first."""
    import polars as pl

    refuse_columns(source, options, form)
    bad = Bad(str(source.path), options.on_bad_row == "skip")
    lines = words_of(source, bad)
    if bad.skipped:
        say(bad.summary())
    words = lines.filter(lines != "").str.split(" ")
    if not len(words):
        raise Mistake(f"{source.path}: no event is left; look at what was left out")
    names = pl.Series([f"{prefix}{number}" for number in range(1, len(words) + 1)])
    session = names.gather(np.repeat(np.arange(len(words)), words.list.len().to_numpy()))
    columns = {"session": "line", "item": "words"}
    return Events(
        words.explode(),
        session=session,
        format=form.words,
        columns=columns,
        because=form.because,
        skipped=dict(bad.skipped),
    )


def refuse_columns(source: Source, options: Preparation, form: Format) -> None:
    """Mistake when an option asks for a column of a format that has no others than its own."""
    asked = {
        "--features": options.features,
        "--rating-column": options.rating_column,
        "--min-rating": options.min_rating,
        "--event-column": options.event_column,
        "--event-weights": options.event_weights,
        "--time-unit": options.time_unit if options.time_unit != "auto" else None,
    }
    calendar = form.kind == "news" and all(name.startswith("@") for name in options.features)
    for flag, value in asked.items():
        if value not in (None, ()) and not (flag == "--features" and calendar):
            raise Mistake(f"{source.path} is {form.words}: it has no such column, so {flag} does nothing; drop it")
