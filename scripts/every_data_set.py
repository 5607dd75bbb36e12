"""Send every real data set through inspect, train, evaluate and report, as a stranger would.

Claim     Each of them goes through without a flag that a stranger would not guess: the file, and the test file where
          there is one.
Command   python scripts/every_data_set.py --data ../shared/data          some of them: --only ml-100k diginetica
Time      About ten CPU-minutes: one epoch, or a minute, of a GRU of width 16; the numbers mean nothing.
Expect    Exit status 0 of every verb; one row a data set in experiments/results/every_data_set.jsonl.

The data sets are named in README.md; none of them is part of this repository.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from leak_check import FILES

from jaxrec.bench.timing import append_row
from jaxrec.runs.machine import card

ROWS = Path(__file__).resolve().parents[1] / "experiments" / "results" / "every_data_set.jsonl"
SHORT = ["--epochs", "1", "--max-seconds", "60", "--model.width", "16", "--eval.users", "500"]


def verbs(files: list[str], folder: Path) -> dict[str, list[str]]:
    given = [*(["--test", files[1]] if len(files) > 1 else [])]
    run = str(folder / "run")
    return {
        "inspect": ["inspect", files[0], *given, "--html", str(folder / "inspect.html")],
        "train": ["train", "--data", files[0], *given, *SHORT, "--run", run],
        "evaluate": ["evaluate", "--run", run, "--slices"],
        "report": ["report", run],
    }


def go(arguments: list[str]) -> dict[str, Any]:
    """Exit status, CPU-seconds and, where it failed, the last line it said."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    call = "import sys; from jaxrec.cli import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", call, *arguments], check=False, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found: dict[str, Any] = {
        "status": done.returncode,
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
    }
    return found if done.returncode == 0 else found | {"said": (done.stderr.splitlines() or [""])[-1]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument("--only", nargs="+", choices=FILES, default=list(FILES))
    options = parser.parse_args()
    failed = 0
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder:
            files = [str(options.data / file) for file in FILES[name]]
            row: dict[str, Any] = {"data": name, "files": list(FILES[name])}
            for verb, arguments in verbs(files, Path(folder)).items():
                row[verb] = go(arguments)
                print(f"{name:20} {verb:10} {row[verb]}", flush=True)
                failed += row[verb]["status"] != 0
        append_row(ROWS, row | {"machine": card(devices=False)})
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
