"""A Spark session for jaxrec's jobs: on this machine, on a named master, or the one that spark-submit began."""

import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from jaxrec.config import Mistake
from jaxrec.data.options import Prepare
from jaxrec.data.prepared import Prepared

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.maxPlanStringLength": "10000",  # plans are long, and nobody reads them
    "spark.sql.execution.arrow.maxRecordsPerBatch": str(1 << 16),  # rows that travel to Python, or to the driver
}
QUIET = {"spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false"}  # where nobody set up a cluster


def session(master: str | None) -> "SparkSession":
    """The session that is there, else one on `master`; none is spark-submit's, else every core of this machine."""
    submitted = "PYSPARK_GATEWAY_PORT" in os.environ
    if not submitted:
        need_java()
        master = master or "local[*]"
    try:
        from pyspark.sql import SparkSession
    except ModuleNotFoundError as error:
        if error.name != "pyspark":
            raise
        raise Mistake("--on spark needs pyspark: pip install 'jaxrec[spark]'") from error
    builder = SparkSession.builder.appName("jaxrec")
    if master is not None:
        builder = builder.master(master)
    if (master or "").startswith("local"):
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    for name, value in (SETTINGS if submitted else SETTINGS | QUIET).items():
        builder = builder.config(name, value)
    found = builder.getOrCreate()
    found.sparkContext.setLogLevel("ERROR")
    return found


def need_java() -> None:
    """Mistake where Spark would find no Java; it looks in JAVA_HOME, else on the PATH."""
    home = os.environ.get("JAVA_HOME")
    if home and not Path(home, "bin", "java").exists():
        raise Mistake(f"JAVA_HOME = {home} holds no bin/java; set it to a Java of version 17 or later, or unset it")
    if not home and shutil.which("java") is None:
        raise Mistake("Spark needs Java 17 or later, and there is none; install one, or set JAVA_HOME to where it is")


def preparing(options: Prepare) -> Callable[..., Prepared]:
    """How Spark prepares; its session begins here, before any work."""
    if options.onto is not None:
        raise Mistake("--onto is not done on Spark; leave --on spark out, or prepare all files together")
    began = session(options.spark_master)
    from jaxrec.data.spark import prepare

    return partial(prepare, began)
