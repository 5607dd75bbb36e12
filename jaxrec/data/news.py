"""News logs as in MIND (Wu et al. 2020, aclanthology.org/2020.acl-main.331): what each reader was shown and clicked."""

from collections.abc import Callable
from datetime import datetime

import numpy as np

from jaxrec.config import Mistake
from jaxrec.data.clocks import microseconds
from jaxrec.data.events import Events
from jaxrec.data.formats import Format
from jaxrec.data.frames import as_text, finish, taken
from jaxrec.data.lines import lines_of, refuse_columns
from jaxrec.data.options import Preparation
from jaxrec.data.rows import Bad, Rows
from jaxrec.data.sources import Source

Say = Callable[[str], None]
SHOWN = r"^\S+-[01]( \S+-[01])*$"
EPOCH = datetime(1970, 1, 1)  # of rows that were rejected already
MOMENT = "%m/%d/%Y %I:%M:%S %p"
COLUMNS = {"user": "second field", "item": "impressions ending in -1", "time": "third field"}


def read_news(source: Source, form: Format, options: Preparation, say: Say) -> Events:
    """MIND's behaviors.tsv: every click (-1) is an event at the time of its impression, those of one in their order.

    The history field is no event: its clicks come before the log and have no times.
    """
    import polars as pl

    refuse_columns(source, options, form)
    say(f"{source.path}: {form.words} ({form.because}); clicks are events, the history field (no times) is not used")
    bad = Bad(str(source.path), options.on_bad_row == "skip")
    text = lines_of(source, bad)
    parts = text.str.split("\t")
    rows = Rows(bad, len(text), lambda row: f":{row + 1}")
    rows.kept &= (text.str.strip_chars() != "").to_numpy()
    count = parts.list.len().to_numpy()
    rows.reject(count != 5, "another number of fields", lambda row: f"there are {count[row]} fields, a news log has 5")
    user, time, shown = (parts.list.get(place, null_on_oob=True) for place in (1, 2, 4))
    user = as_text(user, "user", rows)
    shown = shown.str.strip_chars().fill_null("")
    unlabelled = ~shown.str.contains(SHOWN).to_numpy()
    rows.reject(
        unlabelled,
        "impressions without clicks",
        lambda row: f"the impressions {shown[row][:40]!r} do not end in -1 or -0, so clicks are unknown",
    )
    moments = time.str.to_datetime(MOMENT, time_unit="us", strict=False)
    wrong = moments.is_null().to_numpy()
    rows.reject(wrong, "a time of another form", lambda row: f'"{time[row]}" is not a time like 11/15/2019 8:55:22 AM')
    times, _ = microseconds(moments.fill_null(EPOCH), rows)
    clicks = (
        shown.filter(rows.kept).str.extract_all(r"\S+-1(?: |$)").list.eval(pl.element().str.strip_chars().str.head(-2))
    )
    events = np.repeat(np.arange(len(clicks)), clicks.list.len().to_numpy())
    finish(rows, say)
    if not len(events):
        raise Mistake(
            f"{source.path} holds impressions and no click (-1); give the log of a training or validation set"
        )
    return Events(
        clicks.filter(clicks.list.len() > 0).explode(),
        taken(user, rows.kept).gather(events),
        time=times[rows.kept][events],
        format=form.words,
        columns=COLUMNS,
        because=form.because,
        unit="dates",
        skipped=dict(bad.skipped),
    )
