"""Preparing on Spark, for logs larger than one machine: the same contents, card and fingerprint as in memory.

Spark reads, filters, sorts and counts (`spark_rows`, `spark_filters`, `spark_arrays`); what comes to the driver are the
finished columns. Tables without quotes and Parquet are read; what this does not do is refused, never done otherwise.
"""

import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as sql

from jaxrec.config import Mistake, field_types, fingerprint, value_at
from jaxrec.data import card as cards, protocol, splits
from jaxrec.data.columns import Choice, choose
from jaxrec.data.folders import Folder, files_of
from jaxrec.data.formats import Format, look
from jaxrec.data.frames import announce
from jaxrec.data.options import Preparation, split_kind
from jaxrec.data.prepare import Sources, concluded, find_sources, identity, ready
from jaxrec.data.prepared import Prepared
from jaxrec.data.scratch import holding
from jaxrec.data.sources import Source
from jaxrec.data.spark_arrays import Names, arrays
from jaxrec.data.spark_filters import Filtering, divided, time_boundaries, training_counted, with_sequences
from jaxrec.data.spark_rows import Rows, coded, microseconds, read
from jaxrec.data.streaming import chosen, counted

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

Say = Callable[[str], None]
# Options that may have any value here; every other must be at its default.
DONE = {
    *("data", "verify", "sequence", "user_column", "item_column", "time_column", "session_column", "time_unit"),
    *("k_core", "min_user_events", "min_item_events", "session_gap", "deduplicate", "collapse_repeats"),
    *("filter_scope", "ties_seed", "split", "last", "boundaries", "held_out"),
    *("catalogue", "unknown_targets", "mask_seen", "demo"),
}


def prepare(
    session: "SparkSession", options: Preparation, say: Say = print, sources: Sources | None = None
) -> Prepared:
    """Prepared data whose large arrays are mapped files in a temporary folder, which goes with it; what the session
    kept in its cache is dropped.

    Mistake where the data or an option is of a kind that Spark does not prepare.
    """
    refuse(options)
    sources = find_sources(options) if sources is None else sources
    (source,) = sources.values()
    try:
        with holding() as scratch:
            prepared, removed = through(source, options, session, scratch.path, say)
    finally:
        session.catalog.clearCache()
    weakref.finalize(prepared, scratch.remove)
    prepared.card["identity"] = fingerprint(identity(options, sources))
    return concluded(prepared, None, removed, options, say)


def refuse(options: Preparation) -> None:
    """Mistake for what is not done on Spark."""
    if options.data == "demo" or options.data.startswith("tfds:") or ready(options):
        raise Mistake(f"--on spark reads files of events, not {options.data}; leave --on spark out")
    default = Preparation()
    for name in field_types(Preparation):
        if name not in DONE and value_at(options, name) != value_at(default, name):
            raise Mistake(f"--{name.replace('_', '-')} is not done on Spark; leave it or --on spark out")
    if split_kind(options) == "given":
        raise Mistake("--split given is not done on Spark; leave it or --on spark out")


def alike(parts: Sequence[Source], options: Preparation) -> tuple[Format, Choice]:
    """Format and columns of the files; Mistake where one differs, or where Spark does not read it."""
    first = read_as(parts[0], options)
    for part in parts[1:]:
        form, choice = read_as(part, options)
        if (form.words, choice.header, choice.position) != (first[0].words, first[1].header, first[1].position):
            raise Mistake(f"{part.path} and {parts[0].path} have other columns; on Spark write all alike")
    return first


def read_as(part: Source, options: Preparation) -> tuple[Format, Choice]:
    form = look(Source(part.path), options)  # one of its own, because it keeps a sample
    if form.kind not in ("table", "parquet"):
        raise Mistake(f"{part.path} is {form.words}, and Spark prepares tables and Parquet; leave --on spark out")
    if form.kind == "parquet":
        return form, chosen(part, form, options)
    return form, choose(form.header, options, str(part.path), form.guessed)


def through(
    source: Source | Folder, options: Preparation, session: "SparkSession", folder: Path, say: Say
) -> tuple[Prepared, dict[str, int]]:
    """Read, filter, divide, number; what was decided is said as the readers say it."""
    parts = files_of(source)
    form, choice = alike(parts, options)
    announce(parts[0].path, form, choice, say)
    rows = read(session, parts, form, choice)
    timed, has_user = "time" in rows.frame.columns, "user" in choice.position
    protocol.refuse(timed, options)
    unit = rows.unit(options) if timed else None
    when = rows.when(unit) if unit else None
    say(f"{source.path}: {counted(rows.count, when)}")
    log, names = numbers(rows, unit)
    log, kind = with_sequences(log, has_user, timed, options)
    log, decided, removed = decide(log.localCheckpoint(), timed, options, say)
    whole = cards.catalogue(options, decided["split"]["name"]) == "all"
    kept = not has_user or "session" not in choice.position or bool(options.session_gap)
    made = arrays(log, timed, names, whole, kept, folder)
    decided["ties"] = {"policy": "file order"} | made.pop("ties")
    told = cards.source(source, form, choice, rows.count, when)
    card = cards.begun(options, source.name, kind, told, decided, made["offsets"])
    return Prepared(card=card, **made), removed


def numbers(rows: Rows, unit: tuple[str, int, int] | None) -> "tuple[DataFrame, Names]":
    """The log with codes for ids and microseconds for times, and what the codes stand for."""
    log, people = coded(rows.frame, "person")
    log, items = coded(log, "item")
    return log.withColumn("time", sql.lit(0).cast("long") if unit is None else microseconds(unit)), Names(items, people)


def decide(
    log: "DataFrame", timed: bool, options: Preparation, say: Say
) -> "tuple[DataFrame, dict[str, Any], dict[str, int]]":
    """(log with parts, what the card says of it, what the filters removed), in the order of `protocol.decide`."""
    steps: protocol.Steps = {}
    filtering = Filtering(log, None, steps)
    before = filtering.size
    filtering.without_repeats(options)
    counting, scope = protocol.counting(options), options.filter_scope
    if counting and scope == "all":
        filtering.counted(options)
    protocol.refuse_too_few(before, filtering.size)
    kind, places = split_kind(options), None
    if kind == "time":
        if not timed:
            raise Mistake("--split time needs times, and the data has none; name the column with --time-column NAME")
        places = time_boundaries(filtering.log, filtering.size["events"], options)
    log = divided(filtering.log, options, kind, places)
    if counting and scope == "train":
        filtering = Filtering(training_counted(log.localCheckpoint(), options, steps), None, {})
        log = filtering.log
    removed = protocol.refuse_too_few(before, filtering.size)
    protocol.announce(options, steps, removed, say)
    decided = {
        "split": split_card(options, kind, places),
        "filters": protocol.filters_card(options, steps),
        "parts_overlap": None,
    }
    return log, decided, removed


def split_card(options: Preparation, kind: str, places: tuple[int, int] | None) -> dict[str, Any]:
    """The card's entry of the split."""
    found: dict[str, Any] = {"name": kind}
    if kind == "last-n":
        found["last"] = options.last
    if places is not None:
        found |= {"boundaries": [splits.moment(place) for place in places], "asked": list(options.boundaries)}
    return found
