"""Run every test of many devices, many processes and much data in its long form: `python scripts/scale_in_full.py`.

A row a file in experiments/results/scale_in_full.jsonl: how many tests passed, failed and were skipped, why those were,
and the machine. The same tests run in CI in short form. About half an hour on two cores.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET

from jaxrec.bench.timing import append_row
from jaxrec.runs.machine import card

ROOT = Path(__file__).resolve().parents[1]
ROWS = ROOT / "experiments" / "results" / "scale_in_full.jsonl"
FILES = (
    "tests/losses/test_shards.py", "tests/training/test_step.py", "tests/training/test_shards.py",
    "tests/models/test_catalogue.py", "tests/models/test_drawing.py", "tests/training/test_checkpoints.py",
    "tests/parallel/test_team.py", "tests/parallel/test_launch.py", "tests/runs/test_devices.py",
    "tests/runs/test_processes.py", "tests/training/test_feed.py",
    "tests/runs/test_events_on_disk.py", "tests/data/test_growing.py", "tests/data/test_renewing.py",
    "tests/data/test_spark.py", "tests/serving/test_scoring.py",
)  # fmt: skip


def ran(file: str) -> dict[str, object]:
    """The row of a file of tests."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-n", "0", "-q", "--long", f"--junitxml={report}", file]
        subprocess.run(command, cwd=ROOT, check=False)
        cases = list(ET.parse(report).iter("testcase"))
    ends = Counter(next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), "passed")
                   for case in cases)  # fmt: skip
    reasons = sorted({child.get("message", "") for case in cases for child in case.iter("skipped")})
    return {"file": file, **ends, "reasons": reasons, "seconds": time.perf_counter() - began, "machine": card()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", default=FILES, help="of tests; all of them unless some are named")
    failed = 0
    for file in parser.parse_args().files:
        found = ran(file)
        append_row(ROWS, found)
        failed += bool(found.get("failure") or found.get("error"))
        print({name: value for name, value in found.items() if name != "machine"}, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
