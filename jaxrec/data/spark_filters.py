"""What a preparation decides about its events, on Spark frames: `protocol` and `logs` are the specification.

A log is a frame of numbers: `row`, `item`, `person`, `sequence`, `time` (microseconds; 0 where there is none) and,
inside the sequence of a user, `visit` (its session). Ids are coded as places of first rows, so that comparing codes is
comparing first appearances. Steps that are counted are kept by Spark, because each is read more than once.
"""

from collections.abc import Callable

import numpy as np
from pyspark.sql import Column, DataFrame, Window, functions as sql

from jaxrec.data import splits
from jaxrec.data.buckets import BINS, by_counting
from jaxrec.data.logs import refuse_gap, sequence_kind
from jaxrec.data.options import Preparation
from jaxrec.data.protocol import Steps, add_step

IN_SEQUENCE = ("time", "row")


def with_sequences(log: DataFrame, has_user: bool, timed: bool, options: Preparation) -> tuple[DataFrame, str]:
    """The log with what its sequences are, and that in a word: "user" or "session"."""
    has_session = "session" in log.columns
    if options.session_gap:
        refuse_gap(options, has_user, timed)
    kind = sequence_kind(options.sequence, has_user, has_session or not has_user, bool(options.session_gap))
    if options.session_gap:
        log = first_row_of(visits(log, round(options.session_gap * 60e6)), "person", "visit")
    elif has_session:
        log = first_row_of(log.withColumnRenamed("session", "visit"), "person", "visit")
    log = log.drop("session")
    if kind == "user" or "visit" not in log.columns:
        return log.withColumn("sequence", sql.col("person")), kind
    return log.withColumnRenamed("visit", "sequence"), kind


def visits(log: DataFrame, gap: int) -> DataFrame:
    """The log with the number of each event's visit of its person: one begins after a pause of more than `gap`."""
    past = Window.partitionBy("person").orderBy(*IN_SEQUENCE)
    pause = sql.col("time") - sql.lag("time").over(past)
    return log.withColumn("pause", sql.coalesce((pause > gap).cast("int"), sql.lit(0))).withColumn(
        "visit", sql.sum("pause").over(past)
    )


def first_row_of(log: DataFrame, *keys: str) -> DataFrame:
    """The log whose last key became the first row of its group; the log's own columns only."""
    code = log.groupBy(*keys).agg(sql.min("row").alias("code"))
    return log.join(code, list(keys)).drop(keys[-1], "pause").withColumnRenamed("code", keys[-1])


def sizes(log: DataFrame) -> dict[str, int]:
    """How many events, sequences and items there are."""
    counted = sql.count("*"), sql.count_distinct("sequence"), sql.count_distinct("item")
    found = log.agg(*counted).first()
    assert found is not None
    return dict(zip(("events", "sequences", "items"), found, strict=True))


class Filtering:
    """A log while filters take events away; `size` is what is left of it, `steps` what each filter took."""

    def __init__(self, log: DataFrame, size: dict[str, int] | None, steps: Steps):
        self.log, self.steps = log, steps
        self.size = sizes(log) if size is None else size

    def step(self, name: str, fewer: DataFrame) -> bool:
        """Go on with fewer events; whether any went."""
        kept, before = fewer.localCheckpoint(), self.size  # plans of plans would outgrow the driver
        self.log, self.size = kept, sizes(kept)
        add_step(name, before, self.size, self.steps)
        return self.size["events"] < before["events"]

    def without_repeats(self, options: Preparation) -> None:
        if options.deduplicate != "none":
            self.step("deduplicate", one_of_each(self.log, options.deduplicate))
        if options.collapse_repeats:
            self.step("collapse_repeats", collapsed(self.log))

    def counted(self, options: Preparation) -> None:
        """Minimum counts once, then the k-core and repeats until neither changes anything."""
        users, items = options.min_user_events, options.min_item_events
        if max(users, items) > 0:
            self.step("minimum_counts", frequent(self.log, users, items))
        while True:
            if options.k_core:
                self.step("k_core", core(self.log, options.k_core))
            if not options.collapse_repeats or not self.step("collapse_repeats", collapsed(self.log)):
                return


def one_of_each(log: DataFrame, which: str) -> DataFrame:
    """The first or last event of a person and an item in time, or (exact) one of those of one time."""
    begun = log.withColumn("start", sql.min("time").over(Window.partitionBy("sequence")))
    keys = ("person", "item", "time") if which == "exact" else ("person", "item")
    order = [sql.col(name) for name in ("time", "start", "sequence", "row")]
    order = [column.desc() for column in order] if which == "last" else order
    place = sql.row_number().over(Window.partitionBy(*keys).orderBy(*order))
    return begun.withColumn("place", place).filter("place = 1").drop("place", "start")


def collapsed(log: DataFrame) -> DataFrame:
    """The log without the events whose item is that of the event before, in a sequence."""
    before = sql.lag("item").over(Window.partitionBy("sequence").orderBy(*IN_SEQUENCE))
    return log.withColumn("before", before).filter("before is null or before != item").drop("before")


def frequent(log: DataFrame, users: int, items: int) -> DataFrame:
    """The events whose sequence and whose item have enough events, both counted on what is given."""
    fewer = log
    for column, least in (("sequence", users), ("item", items)):
        enough = log.groupBy(column).agg(sql.count("*").alias("events")).filter(sql.col("events") >= least)
        fewer = fewer.join(enough.select(column), column, "left_semi")
    return fewer


def core(log: DataFrame, k: int) -> DataFrame:
    """The events that stay when users and items with fewer than k are dropped until none is left to drop."""
    events = log.count()
    while True:
        fewer = frequent(log, k, k).localCheckpoint()  # else every round would do all rounds before it again
        left = fewer.count()
        if left == events:
            return fewer
        log, events = fewer, left


def divided(log: DataFrame, options: Preparation, kind: str, places: tuple[int, int] | None) -> DataFrame:
    """The log with `part`: 0 training, 1 validation, 2 test."""
    if places is not None:
        first, second = places
        return log.withColumn("part", (sql.col("time") >= first).cast("int") + (sql.col("time") >= second).cast("int"))
    n = options.last if kind == "last-n" else 1
    inside = Window.partitionBy("sequence")
    left = sql.row_number().over(inside.orderBy(sql.col("time").desc(), sql.col("row").desc()))  # 1 is the last event
    long = sql.count("*").over(inside) > 2 * n
    part: Column = (long & (left <= 2 * n)).cast("int") + (long & (left <= n)).cast("int")
    return log.withColumn("part", part)


def training_counted(log: DataFrame, options: Preparation, steps: Steps) -> DataFrame:
    """The log, divided already, without the training events that the counts of training alone take away."""
    training = Filtering(log.filter("part = 0"), None, steps)
    training.counted(options)
    return training.log.unionByName(log.filter("part > 0"))


def time_boundaries(log: DataFrame, events: int, options: Preparation) -> tuple[int, int]:
    """Where a split by time cuts, in microseconds: shares of the events are found by counting, not by sorting."""
    ends = log.agg(sql.min("time"), sql.max("time")).first()
    assert ends is not None
    ranked: Callable[[int], int] = lambda rank: by_counting(histogram(log), rank, *ends)  # noqa: E731
    first, second = (splits.place(text, events, ranked) for text in options.boundaries)
    return splits.apart(options.boundaries, (first, second))


def histogram(log: DataFrame) -> Callable[[int, int, int], np.ndarray]:
    """How many events lie in each of `BINS` bins of time."""

    def counted(low: int, high: int, width: int) -> np.ndarray:
        place = sql.call_function("div", sql.col("time") - low, sql.lit(width)).alias("bin")
        bins = np.zeros(BINS, np.int64)
        for number, count in log.filter(sql.col("time").between(low, high)).groupBy(place).count().collect():
            bins[number] = count
        return bins

    return counted
