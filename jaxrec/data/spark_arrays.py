"""A filtered and divided log on Spark -> the arrays of prepared data, written where Spark's driver runs.

Events are sorted once, in the order of the result; items, sequences and users are numbered from what Spark counts of
that order. The columns come to the driver a partition at a time and are appended to files, so that it holds at most a
partition of events, and a few numbers a sequence and an item, as `buckets` does.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pyspark.sql import DataFrame, Window, functions as sql

from jaxrec.data.buckets import header
from jaxrec.data.prepared import Raw, map_array
from jaxrec.data.spark_filters import IN_SEQUENCE
from jaxrec.data.vocabulary import Vocabulary

TIMES = {"times": np.int64, "gaps": np.float32, "below": np.int16}
LOW = 33  # bits of a row's place inside its partition, in `monotonically_increasing_id`


class Names(NamedTuple):
    """Frames of code and text."""

    item: DataFrame
    person: DataFrame


def indexed(frame: DataFrame) -> DataFrame:
    """A sorted frame with `index`, the place of each row in the whole; kept by Spark."""
    placed = frame.withColumn("id", sql.monotonically_increasing_id()).localCheckpoint()
    number = sql.shiftright("id", LOW).alias("partition")
    begin, shifts = 0, []
    for partition, rows in sorted(map(tuple, placed.groupBy(number).count().collect())):
        shifts.append((partition, begin - (partition << LOW)))
        begin += rows
    table = frame.sparkSession.createDataFrame(shifts, "partition long, shift long")
    shifted = placed.withColumn("partition", number).join(sql.broadcast(table), "partition")
    return shifted.withColumn("index", sql.col("id") + sql.col("shift")).drop("id", "shift", "partition")


def in_order(log: DataFrame) -> DataFrame:
    """The log in canonical order, with `index`, whether an event is `tied` with a neighbour, and where it has visits,
    `begins`: whether it is the first of its visit.
    """
    inside = Window.partitionBy("sequence")
    along = inside.orderBy(*IN_SEQUENCE)
    same = [sql.coalesce(near("time").over(along) == sql.col("time"), sql.lit(False)) for near in (sql.lag, sql.lead)]
    log = log.withColumn("start", sql.min("time").over(inside)).withColumn("tied", same[0] | same[1])
    if "visit" in log.columns:
        place = sql.row_number().over(Window.partitionBy("visit").orderBy(*IN_SEQUENCE))
        log = log.withColumn("begins", place == 1).drop("visit")
    return indexed(log.orderBy("start", "sequence", *IN_SEQUENCE)).drop("start", "row")


def numbered_items(events: DataFrame, names: DataFrame, whole_catalogue: bool) -> DataFrame:
    """Code, text, `number` and training events of every item that can be recommended, in the order of their numbers."""
    training = sql.col("part") == 0
    met = events.groupBy("item").agg(
        sql.min(sql.when(training, sql.col("index"))).alias("learnt"),
        sql.min(sql.when(~training, sql.col("index"))).alias("other"),
        sql.count(sql.when(training, 1)).alias("events"),
    )
    met = met if whole_catalogue else met.filter("learnt is not null")
    order = (sql.asc_nulls_last("learnt"), sql.asc("other"))
    found = indexed(met.join(names, met["item"] == names["code"]).orderBy(*order))
    return found.withColumn("number", (sql.col("index") + 1).cast("int")).drop("code", "index", "learnt", "other")


def by_appearance(events: DataFrame, column: str, names: DataFrame) -> DataFrame:
    """Code, text and `number` (from 1) of what a column holds, in order of first appearance by `index`."""
    met = events.groupBy(column).agg(sql.min("index").alias("begin"))
    found = indexed(met.join(names, met[column] == names["code"]).orderBy("begin"))
    return found.withColumn("number", (sql.col("index") + 1).cast("int")).drop("code", "index", "begin")


def outside(events: DataFrame, items: DataFrame, names: DataFrame) -> tuple[np.ndarray | None, Vocabulary | None]:
    """int32: the items of the events that have no number, in order, as numbers of their raw ids; None without any."""
    strange = events.join(sql.broadcast(items.select("item")), "item", "left_anti").select("item", "index").persist()
    if strange.isEmpty():
        return None, None
    kinds = by_appearance(strange, "item", names)
    found = joined(pieces(strange.join(kinds, "item").orderBy("index"), {"number": "int32"}))
    return found["number"], vocabulary(kinds)


def sequences_of(events: DataFrame) -> DataFrame:
    """A row for each sequence: the `index` where it begins, its events, those of each part, ties, and its person."""
    return events.groupBy("sequence").agg(
        sql.min("index").alias("index"),
        sql.count("*").alias("events"),
        sql.count(sql.when(sql.col("part") == 0, 1)).alias("training"),
        sql.count(sql.when(sql.col("part") == 1, 1)).alias("validation"),
        sql.count(sql.when(sql.col("tied"), 1)).alias("tied"),
        sql.max_by("tied", "index").cast("long").alias("last"),
        sql.first("person").alias("person"),
    )


def pieces(frame: DataFrame, columns: dict[str, str]) -> Iterator[dict[str, np.ndarray]]:
    """Columns of a frame in its order as arrays of these dtypes, at most a partition at a time."""

    def packed(batches: Any) -> Any:
        import pyarrow as pa

        for batch in batches:
            values = [
                column.to_numpy(zero_copy_only=False).astype(dtype).tobytes()
                for column, dtype in zip(batch.columns, columns.values(), strict=True)
            ]
            yield pa.record_batch([pa.array([value], pa.binary()) for value in values], names=list(columns))

    schema = ", ".join(f"{name} binary" for name in columns)
    for row in frame.select(*columns).mapInArrow(packed, schema).toLocalIterator(prefetchPartitions=True):
        yield {name: np.frombuffer(row[name], dtype) for name, dtype in columns.items()}


def vocabulary(frame: DataFrame) -> Vocabulary:
    """The texts of a frame in its order."""
    size = frame.select(sql.encode("text", "UTF-8").alias("blob")).withColumn("length", sql.length("blob"))
    return Vocabulary(*joined_bytes(size))


def joined_bytes(frame: DataFrame) -> tuple[np.ndarray, np.ndarray]:
    blobs, lengths = [], [np.zeros(1, np.int64)]

    def packed(batches: Any) -> Any:
        import pyarrow as pa

        for batch in batches:
            text, length = batch.columns
            blob, sizes = b"".join(text.to_pylist()), length.to_numpy().astype(np.int64).tobytes()
            yield pa.record_batch([pa.array([blob]), pa.array([sizes])], names=["blob", "length"])

    for row in frame.mapInArrow(packed, "blob binary, length binary").toLocalIterator(prefetchPartitions=True):
        blobs.append(bytes(row["blob"]))
        lengths.append(np.frombuffer(row["length"], np.int64))
    return np.frombuffer(b"".join(blobs), np.uint8), np.cumsum(np.concatenate(lengths), dtype=np.int64)


def arrays(
    log: DataFrame, timed: bool, names: Names, whole_catalogue: bool, keep_raw: bool, folder: Path
) -> dict[str, Any]:
    """Everything of `Prepared` but the card, under its names, and the shares of ties; what is long is a mapped file."""
    events = in_order(log)
    items = numbered_items(events, names.item, whole_catalogue)
    sequences = sequences_of(events).persist()
    people = by_appearance(sequences, "person", names.person)
    counted = dict.fromkeys(("sequence", "events", "training", "validation", "tied", "last"), "int64")
    told = sequences.join(people.select("person", "number"), "person").orderBy("index")
    of = joined(pieces(told, counted | {"number": "int32"}))
    offsets = np.append(0, np.cumsum(of["events"]))
    popularity = joined(pieces(items, {"events": "int64"}))["events"]
    numbers = sql.broadcast(items.select("item", "number"))
    write_events(events.join(numbers, "item", "left"), offsets, timed, folder)
    stems = ("items", *(("times", "gaps") if timed else ()), *(("starts",) if "begins" in events.columns else ()))
    shares = (
        (float(of["tied"].sum() / offsets[-1]), float(of["last"].sum() / len(of["last"]))) if timed else (None,) * 2
    )
    return {
        "offsets": offsets,
        "train_end": offsets[:-1] + of["training"],
        "valid_end": offsets[:-1] + of["training"] + of["validation"],
        "users": of["number"],
        "popularity": np.append(0, popularity),
        "item_ids": vocabulary(items),
        "user_ids": vocabulary(people),
        "known": int(np.count_nonzero(popularity)),
        "candidates": len(popularity),
        "raw": raw(events, of["sequence"], None if whole_catalogue else items, names, folder) if keep_raw else None,
        "ties": dict(zip(("events_tied_share", "users_tied_last_share"), shares, strict=True)),
        **{stem: map_array(folder / f"{stem}.npy") for stem in stems},
    }


def raw(events: DataFrame, codes: np.ndarray, items: DataFrame | None, names: Names, folder: Path) -> Raw:
    """What the arrays do not tell of the log; `codes` are its sequences', `items` None where every item is one."""
    fine = folder / "below.npy"
    strange, ids = (None, None) if items is None else outside(events, items, names.item)
    below = map_array(fine) if fine.exists() else None
    return Raw(np.argsort(np.argsort(codes)).astype(np.int32), below, strange, outside_ids=ids)


def joined(found: Iterator[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Pieces of columns, one after the other."""
    kept = list(found)
    return {name: np.concatenate([piece[name] for piece in kept]) for name in kept[0]}


def write_events(events: DataFrame, offsets: np.ndarray, timed: bool, folder: Path) -> None:
    """items.npy and, where they are there, times.npy, gaps.npy, starts.npy and, of times finer than milliseconds,
    below.npy.
    """
    events = events.withColumn("number", sql.coalesce("number", sql.lit(0)))
    columns = {"index": "int64", "number": "int32"} | ({"time": "int64"} if timed else {})
    columns |= {"begins": "bool"} if "begins" in events.columns else {}
    stems: dict[str, Any] = {"items": np.int32} | TIMES if timed else {"items": np.int32}
    stems |= {"starts": np.bool_} if "begins" in columns else {}
    rows, done, before, fine = int(offsets[-1]), 0, np.zeros(1, np.int64), False
    with ExitStack() as stack:
        files = {stem: stack.enter_context(open(folder / f"{stem}.npy", "wb")) for stem in stems}
        for stem, dtype in stems.items():
            header(files[stem], np.dtype(dtype), rows)
        for piece in pieces(events, columns):
            end = done + len(piece["index"])
            if not np.array_equal(piece["index"], np.arange(done, end)):
                raise RuntimeError("events came from Spark in another order than they were numbered in")
            values: dict[str, Any] = {"items": piece["number"], "starts": piece.get("begins")}
            if timed:
                times, below = piece["time"] // 1000, (piece["time"] % 1000).astype(np.int16)
                values |= {"times": times, "gaps": since(times, before, offsets, done), "below": below}
                before, fine = times[-1:], fine or bool(below.any())
            for stem, file in files.items():
                values[stem].tofile(file)
            done = end
    if not fine:
        (folder / "below.npy").unlink(missing_ok=True)


def since(times: np.ndarray, before: np.ndarray, offsets: np.ndarray, begin: int) -> np.ndarray:
    """float32 gaps in seconds of the events from `begin` on, as `assemble.gaps`; `before` is the time before them."""
    found = np.diff(times, prepend=before)
    first, last = np.searchsorted(offsets, [begin, begin + len(times)])
    found[offsets[first:last] - begin] = 0
    return (found / 1000).astype(np.float32)
