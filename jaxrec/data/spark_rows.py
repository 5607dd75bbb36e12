"""Files of events as a Spark frame whose rows know their place in the files, and ids as numbers in that order.

Ties keep the order of the file, so a row needs its place. Spark packs pieces of files into partitions by size and
promises no order between them. But each row tells its file and where in it its piece begins, and within a piece
`monotonically_increasing_id` ascends: pieces are counted once, and a row's place is that of its piece plus its own.

An id is coded as the place of the first row that has it: unique, and in order of first appearance without a sort.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlparse

import numpy as np
from pyspark.sql import Column, DataFrame, SparkSession, functions as sql

from jaxrec.config import Mistake
from jaxrec.data import clocks
from jaxrec.data.clocks import LARGEST, UNITS, WORDS
from jaxrec.data.coding import Irregular
from jaxrec.data.columns import Choice
from jaxrec.data.formats import Format
from jaxrec.data.options import Preparation
from jaxrec.data.sources import Source
from jaxrec.data.streaming import scaled, unit_between

WHOLE = "^-?[0-9]{1,18}$"
REMEDY = "mend it, or prepare without --on spark, whose reader takes more"
INTEGERS = ("tinyint", "smallint", "int", "bigint")
MOMENTS = ("date", "timestamp", "timestamp_ntz")


@dataclass(frozen=True, eq=False)
class Rows:
    """Events in no order. `frame` has row, person and item as text, and where they are there session (text) and time
    (as written); it is kept by Spark.
    """

    frame: DataFrame
    count: int
    low: int | None
    high: int | None
    dates: bool

    def unit(self, options: Preparation) -> tuple[str, int, int]:
        """(words, factor, divisor) of the times, as told or by their size."""
        assert self.low is not None
        assert self.high is not None
        if options.time_unit in WORDS and not self.dates:
            words = WORDS[options.time_unit]
            factor, divisor = (UNITS[words][1], 1) if words in UNITS else (1, 1000)
            if max(abs(self.low), abs(self.high)) * factor >= LARGEST:
                raise Mistake(f"times reach {self.high}, which is beyond any date in {words}; mend --time-unit")
            return words, factor, divisor
        if options.time_unit != "auto":
            kind = "dates" if self.dates else "whole numbers"
            raise Mistake(f"the times are {kind}, not as --time-unit {options.time_unit} says; drop it")
        try:
            return unit_between(self.low, self.high, self.dates)
        except Irregular as reason:
            raise Mistake(f"--on spark cannot tell the unit, because {reason}; name it with --time-unit") from None

    def when(self, unit: tuple[str, int, int]) -> tuple[str, str]:
        """Unit and span of the times, in words."""
        return unit[0], clocks.span(scaled(np.array([self.low, self.high]), unit))


def read(session: SparkSession, parts: Sequence[Source], form: Format, choice: Choice) -> Rows:
    """All rows of files that are alike. Mistake names the first row that breaks a rule."""
    places = {name: choice.position[name] for name in ("user", "session", "item", "time") if name in choice.position}
    if "user" not in places:
        places["user"] = places.pop("session")
    named = {{"user": "person"}.get(role, role): place for role, place in places.items()}
    if form.kind == "parquet":
        frame, dates = of_parquet(session, parts, named, choice)
    else:
        frame, dates = of_text(session, parts, form, named), False
    frame = frame.persist()
    time = sql.col("time") if "time" in named else sql.lit(None).cast("long")
    found = frame.agg(
        sql.count("*"), sql.min(time), sql.max(time), sql.min(sql.when(sql.col("wrong").isNotNull(), bad_row()))
    ).first()
    assert found is not None
    count, low, high, bad = found
    if bad is not None:
        path = parts[bad["file"]].path
        where = f": row {bad['number'] + 1}" if form.kind == "parquet" else f":{bad['number'] + 1}"
        raise Mistake(f"{path}{where}: {bad['wrong']}; {REMEDY}")
    if not count:
        raise Mistake(f"{parts[0].path} holds no events; give a file with events")
    return Rows(frame.drop("file", "number", "wrong"), count, low, high, dates)


def bad_row() -> Column:
    return sql.struct("row", "file", "number", "wrong")


def of_text(session: SparkSession, parts: Sequence[Source], form: Format, named: dict[str, int]) -> DataFrame:
    """The wanted fields of a table as text; whole numbers of time."""
    skipped = [part.blank_first + 1 if form.guessed is None else 0 for part in parts]
    text, _ = in_file_order(text_of(session, parts), {"text": sql.col("value")}, parts, skipped)
    bare = sql.regexp_replace(sql.col("text"), "\r$", "")
    bare = sql.when(sql.col("number") == 0, sql.regexp_replace(bare, "^\ufeff", "")).otherwise(bare)
    text = text.withColumn("text", bare).filter(sql.trim("text") != "")
    cells = sql.split("text", re.escape(form.separator or ","), -1)
    text = text.withColumn("cells", cells)
    for name, place in named.items():
        text = text.withColumn(name, sql.get("cells", sql.lit(place)))
    width = len(form.header)
    fields = sql.concat(sql.size("cells").cast("string"), sql.lit(f" fields, and the first line has {width}"))
    wrong = sql.coalesce(
        sql.when(~sql.is_valid_utf8("text"), "the text is not UTF-8"),
        sql.when(sql.col("text").rlike('["\r]'), "it holds a quote or a carriage return, which Spark does not read"),
        sql.when(sql.size("cells") != width, fields),
        *missing(named),
    )
    return with_times(text.withColumn("wrong", wrong), named)


def text_of(session: SparkSession, parts: Sequence[Source]) -> DataFrame:
    """The lines of text files, as `value`."""
    for part in parts:
        if part.zipped != (part.path.suffix.lower() == ".gz"):
            raise Mistake(f"{part.path}: Spark knows gzip by the ending .gz alone; rename the file")
    return session.read.option("lineSep", "\n").text([str(part.path.absolute()) for part in parts])


def of_parquet(
    session: SparkSession, parts: Sequence[Source], named: dict[str, int], choice: Choice
) -> tuple[DataFrame, bool]:
    """The wanted columns of Parquet files, and whether their times are dates."""
    table = session.read.parquet(*(str(part.path.absolute()) for part in parts))
    types, wanted = dict(table.dtypes), {}
    dates = "time" in named and types[choice.header[named["time"]]] in MOMENTS
    for name, place in named.items():
        column, kind = choice.header[place], types[choice.header[place]]
        if kind not in ("string", *INTEGERS, *(MOMENTS if name == "time" else ())):
            raise Mistake(f"{parts[0].path}: column {column!r} holds {kind}; {REMEDY}")
        value = sql.col("`" + column.replace("`", "``") + "`")
        wanted[name] = sql.unix_micros(value.cast("timestamp")) if kind in MOMENTS else value.cast("string")
    frame, _ = in_file_order(table, wanted, parts, [0] * len(parts))
    return with_times(frame.withColumn("wrong", sql.coalesce(*missing(named))), named), dates


def missing(named: dict[str, int]) -> list[Column]:
    """A sentence for each id that is not there."""
    ids = [name for name in named if name != "time"]
    told = [sql.when(sql.coalesce(sql.col(name), sql.lit("")) == "", f"there is no {name} here") for name in ids]
    return told + [sql.when(sql.col(name).contains("\0"), f"the {name} holds a zero byte") for name in ids]


def with_times(frame: DataFrame, named: dict[str, int]) -> DataFrame:
    """The columns that are needed, with times as whole numbers; a time that is none is a wrong row."""
    kept = ["row", "file", "number", *(name for name in named if name != "time")]
    if "time" not in named:
        return frame.select(*kept, "wrong")
    text = sql.trim(sql.coalesce(sql.col("time").cast("string"), sql.lit("")))
    sentence = sql.concat(sql.lit('timestamp "'), text, sql.lit('" is no whole number'))
    wrong = sql.coalesce(sql.col("wrong"), sql.when(~text.rlike(WHOLE), sentence))
    time = sql.when(text.rlike(WHOLE), text).cast("long")
    return frame.select(*kept, time.alias("time"), wrong.alias("wrong"))


def in_file_order(
    table: DataFrame, wanted: dict[str, Column], parts: Sequence[Source], skipped: Sequence[int]
) -> tuple[DataFrame, list[int]]:
    """The wanted columns with `row` (place among all rows), `file` (of `parts`) and `number` (place in the file), but
    for the first rows of each file that are `skipped`; and how many rows each file has.
    """
    piece = {"path": sql.col("_metadata.file_path"), "begin": sql.col("_metadata.file_block_start")}
    own = {"id": sql.monotonically_increasing_id()}
    marked = table.select(*(column.alias(name) for name, column in (wanted | piece | own).items()))
    pieces = marked.groupBy("path", "begin").agg(sql.count("*").alias("rows"), sql.min("id").alias("first")).collect()
    order = {str(part.path.absolute()): number for number, part in enumerate(parts)}
    found = sorted((order[local(piece["path"])], piece["begin"], piece) for piece in pieces)
    table_of: list[tuple[Any, ...]] = []
    counts, row = [0] * len(parts), 0
    for file, begin, one in found:
        table_of.append((one["path"], begin, file, row - one["first"], row - counts[file], skipped[file]))
        counts[file], row = counts[file] + one["rows"], row + one["rows"]
    schema = "path string, begin long, file int, shift long, start long, skipped long"
    known = table.sparkSession.createDataFrame(table_of, schema)
    joined = marked.join(sql.broadcast(known), ["path", "begin"]).withColumn("row", sql.col("id") + sql.col("shift"))
    numbered = joined.withColumn("number", sql.col("row") - sql.col("start"))
    kept = numbered.filter(sql.col("number") >= sql.col("skipped"))
    return kept.select(*wanted, "file", "row", "number"), counts


def local(uri: str) -> str:
    """The path in the name that Spark gives a file."""
    return unquote(urlparse(uri).path)


def coded(frame: DataFrame, column: str) -> tuple[DataFrame, DataFrame]:
    """The frame with codes in place of a column's texts, and the table of code and text."""
    names = frame.groupBy(column).agg(sql.min("row").alias("code"))
    with_code = frame.join(names, column).drop(column).withColumnRenamed("code", column)
    return with_code, names.withColumnRenamed(column, "text")


def microseconds(unit: tuple[str, int, int]) -> Column:
    """Times as written -> microseconds."""
    _, factor, divisor = unit
    return floored(sql.col("time"), divisor) if divisor > 1 else sql.col("time") * factor


def floored(column: Column, by: int) -> Column:
    """A whole number divided and rounded down; Spark's own division rounds towards zero."""
    return sql.call_function("div", column - sql.pmod(column, sql.lit(by)), sql.lit(by))
