"""How much memory and time does preparation take when the file is larger than memory should hold?

Claim     Preparing 20 and 60 million generated rows (user,item,timestamp with whole-number ids, as CSV and as Parquet)
          peaks at 1.5 GB resident or less, and needs less than one CPU-second a million rows after parsing.
Command   python experiments/prepare_scale.py --rows 20 60 --formats csv parquet
          --keep DIR keeps the generated files there (else a temporary folder, 1.6 GB and as much again for the result)
Time      about two CPU-minutes for 20 million rows of one format, five for 60.
Expect    One row each in experiments/results/prepare_scale.jsonl: peak_gb, cpu_seconds (whole process),
          parse_cpu_seconds (a process that only parses the same file in the same blocks) and
          rows_per_cpu_second_after_parsing.

Rows are a function of their number alone: user and item follow power laws, times rise with noise.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from jaxrec.bench.timing import append_row
from jaxrec.runs.machine import card as machine

ROWS = Path(__file__).parent / "results" / "prepare_scale.jsonl"
CHUNK = 1_000_000
USERS_A_MILLION, ITEMS = 16_000, 200_000
PREPARE = """
import sys
from jaxrec.data.options import Preparation
from jaxrec.data.prepare import prepare
from jaxrec.data.prepared import save
prepared = prepare(Preparation(data=sys.argv[1], split=sys.argv[3]), print)
save(prepared, sys.argv[2])
print("FINGERPRINT", prepared.card["fingerprint"])
"""
PARSE = """
import sys
from pathlib import Path
from jaxrec.data.formats import look
from jaxrec.data.options import Preparation
from jaxrec.data.sources import Source
from jaxrec.data.streaming import batches, chosen
source, options = Source(Path(sys.argv[1])), Preparation(data=sys.argv[1])
form = look(source, options)
print("ROWS", sum(batch.height for batch in batches(source, form, chosen(source, form, options))))
"""


def chunk(number: int, rows: int) -> dict[str, np.ndarray]:
    """Columns of rows `number * CHUNK` to `number * CHUNK + CHUNK - 1` of a log of `rows`."""
    rng = np.random.default_rng([7, number])
    users = max(USERS_A_MILLION * rows // 1_000_000, 2)
    user = (users * rng.random(CHUNK) ** 1.5).astype(np.int64) * 7 + 100_003
    item = (ITEMS * rng.random(CHUNK) ** 2.5).astype(np.int64) + 1
    start = 1_400_000_000 + number * (100_000_000 * CHUNK // rows)
    seconds = start + np.arange(CHUNK) * 100_000_000 // rows + rng.integers(-40_000, 40_000, CHUNK)
    return {"user": user, "item": item, "timestamp": seconds}


def generate(path: Path, millions: int) -> None:
    """Write the CSV chunk by chunk, or the Parquet file from it."""
    import polars as pl

    if path.suffix == ".parquet":
        text = path.with_suffix(".csv")
        if not text.exists():
            generate(text, millions)
        pl.scan_csv(text).sink_parquet(path)
        return
    with open(path, "wb") as file:
        for number in range(millions):
            pl.DataFrame(chunk(number, millions * CHUNK)).write_csv(file, include_header=number == 0)


def measured(code: str, *arguments: str) -> dict[str, Any]:
    """Run a program in a process of its own: peak resident memory, CPU and wall seconds, and what it printed."""
    begun = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    said = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"the child ended with {child.returncode}: {said}")
    return {
        "peak_gb": usage.ru_maxrss * 1024 / 1e9,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "wall_seconds": time.perf_counter() - begun,
        "said": said.splitlines(),
    }


def row(path: Path, millions: int, split: str, folder: Path) -> dict[str, Any]:
    out = folder / f"prepared-{path.name}-{split}"
    whole = measured(PREPARE, str(path), str(out), split)
    parse = measured(PARSE, str(path))
    after = whole["cpu_seconds"] - parse["cpu_seconds"]
    stages = [line.partition(": ")[2] for line in whole["said"] if "CPU-seconds" in line]
    for file in out.iterdir():
        file.unlink()
    out.rmdir()
    return {
        "format": path.suffix[1:],
        "split": split,
        "rows": millions * CHUNK,
        "file_gb": path.stat().st_size / 1e9,
        "peak_gb": whole["peak_gb"],
        "parse_peak_gb": parse["peak_gb"],
        "cpu_seconds": whole["cpu_seconds"],
        "parse_cpu_seconds": parse["cpu_seconds"],
        "rows_per_cpu_second_after_parsing": millions * CHUNK / after,
        "wall_seconds": whole["wall_seconds"],
        "stages": stages,
        "fingerprint": whole["said"][-1].split()[-1],
        "machine": machine(devices=False),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", type=int, default=[20, 60], help="millions of rows")
    parser.add_argument("--formats", nargs="+", choices=["csv", "parquet"], default=["csv", "parquet"])
    parser.add_argument("--split", default="leave-one-out", choices=["leave-one-out", "last-n", "time"])
    parser.add_argument("--keep", type=Path, help="folder of the generated files")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for millions in options.rows:
            for suffix in options.formats:
                path = folder / f"log-{millions}m.{suffix}"
                if not path.exists():
                    generate(path, millions)
                found = row(path, millions, options.split, folder)
                append_row(ROWS, found)
                print(f"{millions} million, {suffix}: peak {found['peak_gb']:.2f} GB")


if __name__ == "__main__":
    main()
