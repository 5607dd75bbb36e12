"""Does Spark prepare the same bytes as one process, on real logs and under every filter and split that it does?

Claim     `jaxrec prepare --on spark` writes the arrays of `jaxrec prepare` byte for byte, with the same fingerprint and
          card, on MovieLens 100K (one gzipped table) and 30Music (Parquet, sessions inside users), however the files
          are cut into pieces. On logs of this size Spark is the slower way by far: it is for logs that do not fit.
Command   python experiments/spark_equal.py --data ../shared/data       (pip install 'jaxrec[spark]', Java 17 or later)
Time      about five minutes on two idle cores, most of it in Spark.
Expect    One row a case in experiments/results/spark_equal.jsonl, `equal` true in each.

`equal` says that every .npy file has the same SHA-256 in both folders and that the cards differ in `leak_check` alone,
which counts less where the raw events are not in this process. `raw` says whether what `--onto` needs is among the
files: beside users, Spark does not keep the ids of sessions, and then none of it.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from jaxrec.bench.timing import append_row
from jaxrec.data.options import Preparation
from jaxrec.data.prepare import prepare
from jaxrec.data.prepared import CARD, Prepared, manifest, save
from jaxrec.data.spark_session import session
from jaxrec.runs.machine import card as machine

ROWS = Path(__file__).parent / "results" / "spark_equal.jsonl"
SETS = {"ml-100k": "ml-100k/ml-100k.inter.gz", "30music": "30music/sessions.parquet"}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("ml-100k", {}),
    ("ml-100k", {"split": "time", "k_core": 10}),
    ("ml-100k", {"split": "last-n", "last": 3, "session_gap": 30.0, "deduplicate": "exact", "k_core": 2}),
    ("30music", {}),
    ("30music", {"sequence": "session", "collapse_repeats": True, "min_item_events": 5, "split": "time"}),
    ("30music", {"deduplicate": "first", "k_core": 5, "filter_scope": "train"}),
]
PIECES = "1000000"  # bytes of a file that Spark reads at once, so that there are several
PARTITIONS = "8"


def quiet(_: str) -> None:
    pass


def written(prepared: Prepared, folder: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """SHA-256 of every array, and the card without what only raw events tell."""
    save(prepared, folder)
    hashes = {name: entry["sha256"] for name, entry in manifest(folder).items() if name != CARD}
    card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    return hashes, {name: value for name, value in card.items() if name != "leak_check"}


def row(spark: Any, name: str, options: dict[str, Any], data: Path) -> dict[str, Any]:
    from jaxrec.data.spark import prepare as on_spark

    chosen = Preparation(data=str(data / SETS[name]), **options)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        here = written(prepare(chosen, quiet), Path(folder) / "here")
        between = time.perf_counter()
        there = written(on_spark(spark, chosen, quiet), Path(folder) / "spark")
        ended = time.perf_counter()
    raw = any(file.startswith("raw.") for file in there[0])
    here = ({file: value for file, value in here[0].items() if raw or not file.startswith("raw.")}, here[1])
    return {
        "data": name,
        "options": options,
        "equal": here == there,
        "arrays": len(here[0]),
        "raw": raw,
        "fingerprint": here[1]["fingerprint"],
        "fingerprint_on_spark": there[1]["fingerprint"],
        "events": here[1]["counts"]["events"],
        "seconds_here": between - begun,
        "seconds_on_spark": ended - between,
        "spark": spark.version,
        "machine": machine(devices=False),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    options = parser.parse_args()
    spark = session(None)
    spark.conf.set("spark.sql.files.maxPartitionBytes", PIECES)
    spark.conf.set("spark.sql.shuffle.partitions", PARTITIONS)
    for name, asked in CASES:
        found = row(spark, name, asked, options.data)
        append_row(ROWS, found)
        took = f"{found['seconds_here']:.1f} s here, {found['seconds_on_spark']:.1f} s on Spark"
        print(f"{name} {asked}: equal {found['equal']}, {took}", flush=True)


if __name__ == "__main__":
    main()
