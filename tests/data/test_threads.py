"""However many threads read a file, the same events come out in the same order, and epochs read them alike."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
ROWS = 60_000
LOOK = """
import hashlib, json, sys
import polars as pl
from jaxrec.data import streaming
from jaxrec.data.batches import packed, windows
from jaxrec.data.lanes import lanes
from jaxrec.data.options import Preparation
from jaxrec.data.prepare import prepare
found = {}
for size in (1 << 40, 0):  # in memory, and by way of the disk where that is done
    streaming.LARGE = {"table": size, "parquet": size}
    for data, options in json.loads(sys.argv[1]):
        prepared = prepare(Preparation(data=data, **options), lambda sentence: None)
        digest = hashlib.sha256()
        for epoch in range(2):
            for plan in (packed, windows):
                rows = plan(prepared, 20, seed=3, epoch=epoch)
                digest.update(rows.part(0, rows.rows).index.tobytes())
        rows = lanes(prepared, 20, width=16)
        digest.update(rows.part(0, rows.rows).index.tobytes())
        found[f"{data} {options} {size}"] = [prepared.card["fingerprint"], digest.hexdigest()]
print(json.dumps([pl.thread_pool_size(), found]))
"""


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """One log with many ties, as formats that are read in pieces."""
    import polars as pl

    place, rng = tmp_path_factory.mktemp("threads"), np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "user": rng.integers(0, 900, ROWS),
            "item": (500 * rng.random(ROWS) ** 2).astype(int),
            "timestamp": 1_500_000_000 + np.sort(rng.integers(0, 3000, ROWS)),
        }
    )
    frame.write_csv(place / "log.csv")
    (place / "log.csv.gz").write_bytes(gzip.compress((place / "log.csv").read_bytes()))
    frame.write_parquet(place / "log.parquet", row_group_size=5000)
    frame.write_ndjson(place / "log.jsonl")
    (place / "parts").mkdir()
    for number in range(3):
        frame[number::3].write_parquet(place / "parts" / f"{number}.parquet", row_group_size=3000)
    return place


def look(logs, threads):
    asked = [[str(logs / name), {}] for name in ("log.csv", "log.csv.gz", "log.parquet", "log.jsonl", "parts")]
    asked += [[str(logs / "log.csv"), {"k_core": 3, "split": "time", "deduplicate": "exact"}]]
    env = os.environ | {"POLARS_MAX_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", LOOK, json.dumps(asked)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    used, found = json.loads(done.stdout)
    assert used == threads
    return found


def test_the_number_of_threads_that_read_changes_nothing(logs):
    one = look(logs, 1)
    assert look(logs, 4) == one
    whole = {tuple(one[key]) for key in one if "parts" not in key and "k_core" not in key}
    assert len(whole) == 1, "one log, whatever it was written as and whichever way it was read"
