"""A file of events -> columns of text ids and times, whatever the format. polars parses; broken files are Mistakes."""

from collections.abc import Callable

from jaxrec.data.clocks import span
from jaxrec.data.events import Events
from jaxrec.data.folders import Folder, locate, together
from jaxrec.data.formats import look
from jaxrec.data.json_lines import read_json
from jaxrec.data.lines import read_pairs, read_sessions
from jaxrec.data.news import read_news
from jaxrec.data.options import Preparation
from jaxrec.data.parquet import read_parquet
from jaxrec.data.sources import Source
from jaxrec.data.tables import read_table
from jaxrec.data.tfds import PREFIX, TfdsSource, read_tfds, tfds_source

Say = Callable[[str], None]


def located(text: str, options: Preparation) -> Source | Folder:
    """What an option for data names: a TFDS data set, or files. Mistake when there are none."""
    return tfds_source(text, options) if text.startswith(PREFIX) else locate(text)


def read(source: Source | Folder, options: Preparation, say: Say, prefix: str = "") -> Events:
    """Read one file, or all of a folder. What was decided is said before the expensive part.

    Mistake names file, line, rule and remedy. Sessions that are lines of a text have no id: theirs is `prefix` and the
    line's number among those not blank.
    """
    if isinstance(source, Folder):
        parts = [(part, read(part, options, say, f"{prefix}{part.path.name}:")) for part in source.parts]
        events = together(parts)
    else:
        events = by_format(source, options, say, prefix)
    people = events.user
    if people is not None and bool((people == people[0]).all()):
        say(
            f"note: {source.path} has one user only, {people[0]!r}; is it the right column? --user-column names another"
        )
    dates = f", time in {events.unit}: {span(events.time)}" if events.time is not None else ", no time: file order"
    say(f"{source.path}: {len(events.item):,} events{dates}")
    return events


def by_format(source: Source, options: Preparation, say: Say, prefix: str) -> Events:
    if isinstance(source, TfdsSource):
        return read_tfds(source, options, say)
    form = look(source, options)
    if form.kind == "parquet":
        return read_parquet(source, form, options, say)
    if form.kind == "table":
        return read_table(source, form, options, say)
    if form.kind in ("json", "json list"):
        return read_json(source, form, options, say)
    if form.kind == "news":
        return read_news(source, form, options, say)
    say(f"{source.path}: {form.words} ({form.because})")
    if form.kind == "pairs":
        return read_pairs(source, form, options, say)
    return read_sessions(source, form, options, say, prefix)
