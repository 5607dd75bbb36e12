"""Spark prepares the bytes that the readers in memory do, however files are cut into partitions; else it refuses."""

import gzip
import os
import sys
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from same_data import same, same_arrays

from jaxrec.config import Mistake
from jaxrec.data import spark_session
from jaxrec.data.options import Preparation
from jaxrec.data.prepare import prepare
from jaxrec.data.prepared import save
from jaxrec.data.renewing import prepare_into

COLUMNS = ("session", "user", "item", "time")
EVERYTHING = {"deduplicate": "first", "collapse_repeats": True, "min_item_events": 2, "k_core": 2}
SHORT = [
    {"split": "last-n", "last": 2, "sequence": "session", **EVERYTHING},
    {"split": "time", "boundaries": ("0.5", "0.75"), "deduplicate": "exact", "k_core": 3, "filter_scope": "train"},
]
LONG = [
    {"split": "time", "session_gap": 2.0, "deduplicate": "last", "collapse_repeats": True, "k_core": 2},
    {"session_gap": 2.0, "sequence": "user", "min_user_events": 4, "unknown_targets": "drop", "catalogue": "train"},
    {"split": "last-n", "filter_scope": "train", "collapse_repeats": True, "k_core": 3, "sequence": "session"},
    {"split": "time", "boundaries": ("1970-01-12T13:50:00", "0.9"), "catalogue": "all"},
    {"deduplicate": "last", "k_core": 2},
    {"deduplicate": "exact", "sequence": "session", "min_item_events": 3, "mask_seen": "history"},
]


@pytest.fixture(scope="module")
def spark(tmp_path_factory):
    """Spark in this process, begun for short work: no optimising compiler, pieces of files of a few hundred bytes."""
    pytest.importorskip("pyspark")
    try:
        spark_session.need_java()
    except Mistake as missing:
        pytest.skip(str(missing))
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # else whatever python3 the PATH has
    folder = tmp_path_factory.mktemp("spark")
    quick = {
        "spark.driver.extraJavaOptions": f"-XX:TieredStopAtLevel=1 -Dderby.system.home={folder}",
        "spark.sql.adaptive.enabled": "false",
        "spark.sql.shuffle.partitions": "3",
        "spark.sql.files.maxPartitionBytes": "700",
        "spark.sql.files.openCostInBytes": "0",
        "spark.sql.warehouse.dir": str(folder),
        "spark.driver.host": "127.0.0.1",
    }
    builder = SparkSession.builder
    for name, value in quick.items():
        builder = builder.config(name, value)
    builder.master("local[2]").config(map=spark_session.QUIET).getOrCreate()
    session = spark_session.session("local[2]")
    yield session
    session.stop()


def log(seed, rows=150):
    """Rows of session, user, item, time: few of each, so that ties, repeats and duplicates abound; a user's sessions
    overlap, and the same session number occurs under several users.
    """
    rng = np.random.default_rng(seed)
    user, session = rng.integers(0, 9, rows), rng.integers(0, 4, rows)
    item = (15 * rng.random(rows) ** 2).astype(int)
    time = 1_000_000 + (rng.integers(0, 40, rows) + 5 * session) // 2 * 50
    columns = zip(session, user, item, time, strict=True)
    return [(f"s{s}", f"u{u}" if u % 3 else f"00{u}", f"é{i}", t) for s, u, i, t in columns]


def write(path, rows, columns=COLUMNS, separator=","):
    kept = [[str(row[COLUMNS.index(name)]) for name in columns] for row in rows]
    text = "\n".join(separator.join(row) for row in [list(columns), *kept]) + "\n"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def alike(spark, data, **options):
    from jaxrec.data.spark import prepare as on_spark

    chosen, heard, said = Preparation(data=str(data), **options), [], []
    one, other = prepare(chosen, heard.append), on_spark(spark, chosen, said.append)
    if one.raw.session is not None:  # beside users: not kept on Spark
        assert other.raw is None
        one = replace(one, raw=None)
    same(one, other)
    return other, heard, said


@pytest.mark.parametrize(("seed", "options"), list(enumerate(SHORT)))
def test_a_directory_of_tables_comes_out_the_same(spark, tmp_path, seed, options):
    """The last part is the largest: Spark reads it first. Training does not know the last item."""
    rows = [*log(seed), ("s1", "u1", "late", 2_000_000)]
    for part, (begin, end) in enumerate([(0, 40), (40, 41), (41, len(rows))]):
        write(tmp_path / f"part-{part}.csv", rows[begin:end], COLUMNS[seed:])
    assert spark.read.text(str(tmp_path)).rdd.getNumPartitions() > 3
    made, heard, said = alike(spark, tmp_path, **options)
    assert (made.raw is None) == (seed == 0)
    assert seed == 0 or "late" in made.raw.outside_ids.strings
    assert [line for line in heard if "part-" not in line] == [line for line in said if "part-" not in line]


def test_parquet_with_sessions_inside_users_comes_out_the_same(spark, tmp_path):
    import polars as pl

    rows = log(7)
    frame = pl.DataFrame(rows, schema=COLUMNS, orient="row").with_columns(pl.from_epoch("time", time_unit="s"))
    for part in range(3):
        frame[part * 50 : part * 50 + 50].write_parquet(tmp_path / f"{part} é.parquet", row_group_size=20)
    made, *_ = alike(spark, tmp_path)
    assert made.starts is not None
    assert 0 < made.starts.mean() < 1


@pytest.mark.long
@pytest.mark.parametrize(
    ("seed", "options", "ending"),
    [(10 + s, o, e) for (s, o), e in product(enumerate(LONG + SHORT), (".csv", ".tsv.gz"))],
)
def test_every_option_comes_out_the_same(spark, tmp_path, seed, options, ending):
    for part in range(4):
        separator = "," if ending == ".csv" else "\t"
        write(tmp_path / f"{part}{ending}", log(10 * seed + part, 10 + 60 * part), separator=separator)
    alike(spark, tmp_path, **options)


@pytest.mark.long
@pytest.mark.parametrize("split", ["leave-one-out", "time"])
def test_a_later_file_is_added_to_what_spark_prepared(spark, tmp_path, split):
    """Microseconds, and items outside the catalogue, are kept for it."""
    from jaxrec.data.spark import prepare as on_spark

    rows = [(*row[:3], 10**15 + 1001 * row[3]) for row in log(8)]
    rows[99] = ("s1", "u1", "late", 10**15 + 10**10)
    for number, part in enumerate((rows[:100], rows[100:])):
        write(tmp_path / "all" / f"{number}.csv", part, COLUMNS[1:])
    early, late = (str(tmp_path / "all" / f"{number}.csv") for number in range(2))
    before = on_spark(spark, Preparation(data=early, split=split), lambda _: None)
    assert before.raw.below is not None
    assert (before.raw.outside is not None) == (split == "time")
    save(before, tmp_path / "before")
    heard = lambda _: None  # noqa: E731
    grown = prepare_into(Preparation(data=late), tmp_path / "grown", heard, onto=str(tmp_path / "before"))
    same_arrays(prepare(Preparation(data=str(tmp_path / "all"), split=split), heard), grown)


@pytest.mark.long
@pytest.mark.parametrize("columns", [("user", "item"), ("session", "item"), ("session", "item", "time")])
def test_logs_without_times_and_sessions_come_out_the_same(spark, tmp_path, columns):
    write(tmp_path / "log.csv", log(3), columns)
    alike(spark, tmp_path / "log.csv", deduplicate="first", k_core=2)


@pytest.mark.long
@pytest.mark.parametrize("adaptive", ["true", "false"])
@pytest.mark.parametrize("partitions", [1, 50])
def test_neither_partitions_nor_adaptive_plans_change_anything(spark, tmp_path, monkeypatch, adaptive, partitions):
    settings = {"spark.sql.adaptive.enabled": adaptive, "spark.sql.shuffle.partitions": str(partitions)}
    before = {name: spark.conf.get(name) for name in settings}
    write(tmp_path / "log.csv", log(5, 400))
    try:
        for name, value in settings.items():
            spark.conf.set(name, value)
        alike(spark, tmp_path / "log.csv", collapse_repeats=True, k_core=3)
    finally:
        for name, value in before.items():
            spark.conf.set(name, value)


LINES = [f"u{n % 3},i{n % 5},{n}" for n in range(60)]
REFUSED = [
    ('"u1",i2,40', "log.csv:22: it holds a quote"),
    ("u1,i2,2024-01-31", 'log.csv:22: timestamp "2024-01-31" is no whole number'),
    ("u1,,40", "log.csv:22: there is no item here"),
    ("u1,i1", "log.csv:22: 2 fields, and the first line has 3"),
]


@pytest.mark.parametrize(("line", "sentence"), REFUSED[3:])
def test_a_bad_row_is_named(spark, tmp_path, line, sentence):
    from jaxrec.data.spark import prepare as on_spark

    path = tmp_path / "log.csv"
    path.write_text("\n".join(["user,item,time", *LINES[:20], line, *LINES[20:], "u1"]) + "\n")
    with pytest.raises(Mistake, match=sentence):
        on_spark(spark, Preparation(data=str(path)), lambda _: None)


@pytest.mark.long
@pytest.mark.parametrize(("line", "sentence"), REFUSED)
def test_every_kind_of_bad_row_is_named(spark, tmp_path, line, sentence):
    test_a_bad_row_is_named(spark, tmp_path, line, sentence)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"data": "demo"}, "reads files of events, not demo"),
        ({"ties": "shuffle"}, "--ties is not done on Spark"),
        ({"features": ("@hour",)}, "--features is not done on Spark"),
        ({"test": "log.csv"}, "--test is not done on Spark"),
        ({"split": "given"}, "--split given is not done on Spark"),
        ({"min_rating": 3.0}, "--min-rating is not done on Spark"),
    ],
)
def test_what_is_not_done_is_refused_in_a_sentence(tmp_path, options, sentence):
    pytest.importorskip("pyspark")
    from jaxrec.data.spark import refuse

    with pytest.raises(Mistake, match=sentence):
        refuse(Preparation(**{"data": str(tmp_path / "log.csv")} | options))


def test_a_machine_without_java_is_told_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(Mistake, match="Spark needs Java 17"):
        spark_session.need_java()
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(Mistake, match="holds no bin/java"):
        spark_session.need_java()
