"""A file of events -> columns of text ids and times, whatever the format. polars parses; broken files are Mistakes."""

from collections.abc import Callable
from pathlib import Path

from jaxrec.data.clocks import span
from jaxrec.data.events import Events
from jaxrec.data.formats import look
from jaxrec.data.lines import read_pairs, read_sessions
from jaxrec.data.options import Preparation
from jaxrec.data.sources import Source
from jaxrec.data.tables import read_parquet, read_table
from jaxrec.data.tfds import PREFIX, TfdsSource, read_tfds, tfds_source

Say = Callable[[str], None]


def locate(text: str, options: Preparation) -> Source:
    """What an option for data names: a file, or a TFDS data set. Mistake when there is no such file."""
    if text.startswith(PREFIX):
        return tfds_source(text, options)
    return Source(Path(text).expanduser())


def read(source: Source, options: Preparation, say: Say, prefix: str = "") -> Events:
    """Read one file. What was decided is said before the expensive part; Mistake names file, line, rule and remedy.

    Sessions that are lines of a text have no id: theirs is `prefix` and the line's number among those not blank.
    """
    if isinstance(source, TfdsSource):
        events = read_tfds(source, options, say)
    elif (form := look(source, options)).kind == "parquet":
        events = read_parquet(source, form, options, say)
    elif form.kind == "table":
        events = read_table(source, form, options, say)
    else:
        say(f"{source.path}: {form.words} ({form.because})")
        events = read_pairs(source, form) if form.kind == "pairs" else read_sessions(source, form, prefix)
    dates = f", time in {events.unit}: {span(events.time)}" if events.time is not None else ", no time: file order"
    say(f"{source.path}: {len(events.item):,} events{dates}")
    return events
