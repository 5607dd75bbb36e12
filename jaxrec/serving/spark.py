"""Recommendations for millions of histories by Spark's workers: each loads the model once, and writes whole parts.

The folder, its parts and the question are those of `scoring`: a worker gives a part its name when it is complete, so
that the same command after a kill does the parts that are missing, and so does the one without Spark.
"""

import functools
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyspark.errors import PythonException
from pyspark.sql import DataFrame, SparkSession, functions as sql

from jaxrec.config import Mistake
from jaxrec.data.sources import Source
from jaxrec.data.spark_rows import in_file_order, text_of
from jaxrec.runs.options import Score
from jaxrec.serving import load, scoring
from jaxrec.serving.histories import One
from jaxrec.serving.served import Served

if TYPE_CHECKING:
    import pyarrow as pa

Say = Callable[[str], None]
MARK = b"\xef\xbb\xbf"  # that some programs begin a UTF-8 file with


@functools.cache
def loaded(run: str, allow_code: bool) -> Served:
    """The model, once in each worker, which does many parts."""
    return load(run, allow_code=allow_code)


def score(options: Score, session: SparkSession, say: Say) -> dict[str, Any]:
    """Write the parts that are missing; how many histories there are, how many are new, and the seconds of it all."""
    sources, out = scoring.sources_of(options.data), Path(options.out).absolute()
    options = replace(options, run=str(Path(options.run).absolute()), out=str(out))  # workers stand elsewhere
    asked = scoring.question(options, sources)
    scoring.claim(out, asked)
    load(options.run, allow_code=options.allow_code)  # a mistake here is one sentence, not a worker's trace
    begun = time.perf_counter()
    frame, counts = histories(session, sources)
    parts = parts_of(counts, options.part)
    rows = [min(options.part, counts[file] - nth * options.part) for file, nth, _ in parts]
    wanted = [
        part for part, count in zip(parts, rows, strict=True)
        if not scoring.complete(scoring.part_file(out, part[2]), count)
    ]  # fmt: skip
    say(f"{sum(counts):,} histories in {len(parts):,} parts, of which {len(parts) - len(wanted):,} are there")
    new, tally = written(frame, wanted, sources, options) if wanted else (0, scoring.Tally())
    scoring.left_over(out)
    if lost := [number for *_, number in wanted if not scoring.part_file(out, number).exists()]:
        raise Mistake(
            f"{out} lacks part {lost[0]}, which a worker wrote elsewhere; name an --out that all machines share"
        )
    scoring.conclude(out, asked, sum(counts), len(parts))
    if told := tally.told():
        say(told)
    done = {"histories": sum(counts), "parts": len(parts), "new": new, "seconds": time.perf_counter() - begun}
    return done | {"of_new": tally._asdict()}


def histories(session: SparkSession, sources: Sequence[Source]) -> tuple[DataFrame, list[int]]:
    """A row for each history: its place in the data as `row`, its `file` and `number` there, and `text`, or the columns
    of a table; and how many each file has.
    """
    if sources[0].parquet:
        table = session.read.parquet(*(str(source.path.absolute()) for source in sources))
        wanted = {name: sql.col(name) for name in scoring.columns(table.columns, sources[0].path)}
    else:
        table, wanted = text_of(session, sources), {"text": sql.col("value").cast("binary")}
    return in_file_order(table, wanted, sources, [0] * len(sources))


def parts_of(counts: Sequence[int], size: int) -> list[tuple[int, int, int]]:
    """(file, number in the file, number in all) of every part, as `scoring` cuts them."""
    places = [(file, nth) for file, rows in enumerate(counts) for nth in range(-(-rows // size))]
    return [(*place, number) for number, place in enumerate(places)]


def written(
    frame: DataFrame, wanted: Sequence[tuple[int, int, int]], sources: Sequence[Source], options: Score
) -> tuple[int, scoring.Tally]:
    """Write these parts, a task each; how many histories they hold, and what is unknown in them."""
    table = frame.sparkSession.createDataFrame(
        [(*part, task) for task, part in enumerate(wanted)], "file int, nth long, part long, task int"
    )
    nth = sql.call_function("div", sql.col("number"), sql.lit(options.part))
    found = frame.withColumn("nth", nth).join(sql.broadcast(table), ["file", "nth"]).drop("nth")
    tasks = found.repartitionById(len(wanted), sql.col("task")).groupBy("task")
    paths = [str(source.path) for source in sources]

    def write_part(rows: "pa.Table") -> "pa.Table":
        import pyarrow as pa

        rows = rows.sort_by("row")
        first = {name: rows.column(name)[0].as_py() for name in ("row", "file", "number", "part")}
        read = read_of(rows.drop_columns(["task", *first]), paths[first["file"]], first["number"])
        model = loaded(options.run, options.allow_code)
        target = scoring.part_file(Path(options.out), first["part"])
        scoring.write(scoring.recommended(model, read, first["row"], options), target)
        found = {"histories": len(read), **scoring.counted(model, read)._asdict()}
        return pa.table({name: pa.array([value], pa.int64()) for name, value in found.items()})

    try:
        names = ("histories", *scoring.Tally._fields)
        told = tasks.applyInArrow(write_part, ", ".join(f"{name} long" for name in names))
        done = told.agg(*(sql.sum(name) for name in names)).first()
    except PythonException as error:  # of a worker; Spark keeps its words alone
        sentence = re.search(r"jaxrec\.\w+\.Mistake: (.*)", str(error))
        raise (Mistake(sentence[1]) if sentence else error) from error
    assert done is not None
    return int(done[0]), scoring.Tally(*map(int, done[1:]))


def read_of(rows: "pa.Table", path: str, number: int) -> list[One]:
    """The histories of a part, whose first is the `number`th (from 0) of its file; Mistake names the place."""
    if "text" not in rows.column_names:
        return scoring.of_rows(iter(rows.to_pylist()), path, number)
    lines = rows.column("text").to_pylist()
    lines[0] = lines[0] if number else lines[0].removeprefix(MARK)
    return scoring.of_lines([line.decode("utf-8", "surrogateescape") for line in lines], f"{path}:", number + 1)
