"""Recommendations for millions of histories by Spark's workers: each loads the model once, and reads parts of the data.

A row of the result is that of `scoring`. Spark writes the folder when it is complete, and has its own way of doing a
task again.
"""

import functools
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyspark.errors import PythonException
from pyspark.sql import DataFrame, SparkSession, functions as sql

from jaxrec.config import Mistake
from jaxrec.data.spark_rows import in_file_order, text_of
from jaxrec.runs.options import Score
from jaxrec.serving import load
from jaxrec.serving.scoring import columns, lists, of_lines, of_rows, sources_of, whole_numbers
from jaxrec.serving.served import Served

if TYPE_CHECKING:
    import pyarrow as pa

Say = Callable[[str], None]


@functools.cache
def loaded(run: str, allow_code: bool) -> Served:
    """The model, once in each worker, which does many tasks."""
    return load(run, allow_code=allow_code)


def score(options: Score, session: SparkSession, say: Say) -> dict[str, Any]:
    """Write the recommendations of every history; how many there are, and the seconds of it all."""
    if Path(options.out).exists():
        raise Mistake(f"{options.out} exists already; choose another --out or remove it")
    begun = time.perf_counter()
    model = load(options.run, allow_code=options.allow_code)  # a mistake here is one sentence, not a worker's trace
    found = scored(histories(session, options.data), model, options)
    try:
        found.write.parquet(str(Path(options.out).absolute()))
    except PythonException as error:  # of a worker; Spark keeps its words alone
        sentence = re.search(r"jaxrec\.\w+\.Mistake: (.*)", str(error))
        raise (Mistake(sentence[1]) if sentence else error) from error
    rows = session.read.parquet(str(Path(options.out).absolute())).count()
    return {"histories": rows, "new": rows, "seconds": time.perf_counter() - begun}


def histories(session: SparkSession, data: str) -> DataFrame:
    """A row for each history: its place in the data as `row`, and `text`, or the columns of a table."""
    sources = sources_of(data)
    if sources[0].parquet:
        table = session.read.parquet(*(str(source.path.absolute()) for source in sources))
        wanted = {name: sql.col(name) for name in columns(table.columns, sources[0].path)}
    else:
        table, wanted = text_of(session, sources), {"text": sql.col("value")}
    frame = in_file_order(table, wanted, sources, [0] * len(sources)).drop("file", "number")
    workers = session.sparkContext.defaultParallelism
    return frame.repartition(workers) if len(sources) < workers and sources[0].zipped else frame


def scored(frame: DataFrame, model: Served, options: Score) -> DataFrame:
    """The frame's histories with their recommendations; it may come from any table that Spark reads."""
    kind = "long" if whole_numbers(model) else "string"
    run, k, seen, allow_code = str(Path(options.run).absolute()), options.k, options.seen(), options.allow_code

    def recommend(batches: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
        import pyarrow as pa

        for batch in batches:
            served = loaded(run, allow_code)
            rows = batch.column("row")
            if "text" in batch.schema.names:
                read = of_lines(batch.column("text").to_pylist(), "line ", rows[0].as_py() + 1)
            else:
                read = of_rows(iter(batch.drop_columns(["row"]).to_pylist()), "the table", rows[0].as_py())
            items, scores = lists(served, read, k, seen)
            users = pa.array([one.user for one in read], pa.string())
            values = pa.array(items, pa.list_(pa.int64() if kind == "long" else pa.string()))
            told = [rows, users, values, pa.array(scores, pa.list_(pa.float64()))]
            yield pa.record_batch(told, names=["row", "user", "items", "scores"])

    return frame.mapInArrow(recommend, f"row long, user string, items array<{kind}>, scores array<double>")
