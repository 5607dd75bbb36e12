"""How much memory and time does preparation take when the file is larger than memory should hold?

Claim     Preparing 20, 60 and 200 million generated rows (user,item,timestamp with whole-number ids, as CSV and as
          Parquet) peaks below 2 GB resident and needs less than one CPU-second a million rows after parsing; doing it
          again is one pass over the file's bytes; adding a million rows to what was prepared peaks below 2 GB too. The
          same holds where the rows lie in several files, and the result is the same.
Command   python experiments/prepare_scale.py --rows 20 60 200 --formats csv parquet
          python experiments/prepare_scale.py --rows 200 --formats csv parquet --files 10
          --keep DIR keeps the generated files there (else a temporary folder; 200 million rows take 7 GB, 10 GB in
          TMPDIR while they are prepared and 7 GB as the result with what is added to it)
Time      half a CPU-minute for 20 million rows of one format, three CPU-minutes for 200.
Expect    One row each in experiments/results/prepare_scale.jsonl: peak_gb, cpu_seconds (whole process),
          parse_cpu_seconds (a process that only parses the same file in the same blocks),
          rows_per_cpu_second_after_parsing, and of `again` and `grown` peak_gb, cpu_seconds and wall_seconds.

Rows are a function of their number alone: user and item follow power laws, times rise with noise.
"""

import argparse
import os
import shutil
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
USED = ("peak_gb", "cpu_seconds", "wall_seconds")
CHUNK = 1_000_000
USERS_A_MILLION, ITEMS = 16_000, 200_000
PREPARE = """
import sys
from jaxrec.data.options import Preparation
from jaxrec.data.renewing import prepare_into
prepared = prepare_into(Preparation(data=sys.argv[1], split=sys.argv[3]), sys.argv[2], print, *sys.argv[4:])
print("FINGERPRINT", prepared.card["fingerprint"])
"""
PARSE = """
import sys
from jaxrec.data.folders import files_of, locate
from jaxrec.data.options import Preparation
from jaxrec.data.streaming import batches, opened
options = Preparation(data=sys.argv[1])
files = files_of(locate(sys.argv[1]))
print("ROWS", sum(batch.height for file in files for batch in batches(file, *opened(file, options))))
"""
# Asked of the process itself, and of those it started: what wait4 tells begins with the size of the parent.
PEAK = """
import resource
own = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print("PEAK", max(int(own.split()[1]), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
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


def generate(path: Path, millions: int, chunks: range) -> None:
    """Write some chunks of a log of so many as CSV, or the Parquet file from it."""
    import polars as pl

    if path.suffix == ".parquet":
        text = path.with_suffix(".csv")
        if not text.exists():
            generate(text, millions, chunks)
        pl.scan_csv(text).sink_parquet(path)
        return
    with open(path, "wb") as file:
        for number in chunks:
            pl.DataFrame(chunk(number, millions * CHUNK)).write_csv(file, include_header=number == chunks[0])


def generated(folder: Path, millions: int, files: int, suffix: str) -> Path:
    """The log as one file, or as several in a folder of their own."""
    if files == 1:
        if not (path := folder / f"log-{millions}m.{suffix}").exists():
            generate(path, millions, range(millions))
        return path
    if not (parts := folder / f"log-{millions}m-{files}-{suffix}").exists():
        parts.mkdir()
        for number in range(files):
            chunks = range(millions * number // files, millions * (number + 1) // files)
            generate(parts / f"{number:03d}.{suffix}", millions, chunks)
            if suffix == "parquet":
                (parts / f"{number:03d}.csv").unlink()
    return parts


def next_day(folder: Path, millions: int) -> Path:
    """The rows that follow a log, in a file of their own."""
    import polars as pl

    path = folder / f"next-{millions}m.parquet"
    pl.DataFrame(chunk(millions, millions * CHUNK)).write_parquet(path)
    return path


def measured(code: str, *arguments: str) -> dict[str, Any]:
    """Run a program in a process of its own: peak resident memory, CPU and wall seconds, and what it printed."""
    begun = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-c", code + PEAK, *arguments], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    *said, peak = child.stdout.read().splitlines() or [""]
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"the child ended with {child.returncode}: {said}")
    return {
        "peak_gb": int(peak.split()[1]) * 1024 / 1e9,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "wall_seconds": time.perf_counter() - begun,
        "said": said,
    }


def row(path: Path, millions: int, split: str, folder: Path) -> dict[str, Any]:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    out, grown = (folder / f"{what}-{path.name}-{split}" for what in ("prepared", "grown"))
    for left in (out, grown):
        shutil.rmtree(left, ignore_errors=True)
    whole = measured(PREPARE, str(path), str(out), split)
    parse = measured(PARSE, str(path))
    after = whole["cpu_seconds"] - parse["cpu_seconds"]
    stages = [line.partition(": ")[2] for line in whole["said"] if "CPU-seconds" in line]
    again = measured(PREPARE, str(path), str(out), split)
    if "nothing is written" not in again["said"][0]:
        raise SystemExit(f"prepared again it said {again['said'][0]}")
    more = measured(PREPARE, str(next_day(folder, millions)), str(grown), split, str(out))
    for left in (out, grown):
        shutil.rmtree(left)
    return {
        "format": files[0].suffix[1:],
        "files": len(files),
        "split": split,
        "rows": millions * CHUNK,
        "file_gb": sum(file.stat().st_size for file in files) / 1e9,
        "peak_gb": whole["peak_gb"],
        "parse_peak_gb": parse["peak_gb"],
        "cpu_seconds": whole["cpu_seconds"],
        "parse_cpu_seconds": parse["cpu_seconds"],
        "rows_per_cpu_second_after_parsing": millions * CHUNK / after,
        "wall_seconds": whole["wall_seconds"],
        "stages": stages,
        "again": {name: again[name] for name in USED},
        "grown": {"rows": CHUNK} | {name: more[name] for name in USED},
        "fingerprint": whole["said"][-1].split()[-1],
        "machine": machine(devices=False),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", type=int, default=[20, 60], help="millions of rows")
    parser.add_argument("--formats", nargs="+", choices=["csv", "parquet"], default=["csv", "parquet"])
    parser.add_argument("--split", default="leave-one-out", choices=["leave-one-out", "last-n", "time"])
    parser.add_argument("--files", type=int, default=1, help="how many files the rows lie in")
    parser.add_argument("--keep", type=Path, help="folder of the generated files")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for millions in options.rows:
            for suffix in options.formats:
                path = generated(folder, millions, options.files, suffix)
                found = row(path, millions, options.split, folder)
                append_row(ROWS, found)
                print(f"{millions} million, {suffix}: peak {found['peak_gb']:.2f} GB")


if __name__ == "__main__":
    main()
