"""How many histories does `jaxrec score` recommend for in a second of CPU?

Claim     Ten items each for histories of 1 to 50 events: thousands of histories a CPU-second from a catalogue of two
          thousand items, and memory that does not grow with the number of histories.
Command   python experiments/bench_score.py --histories 50000 200000 --items 2000
          python experiments/bench_score.py --histories 20000 --items 100000
Time      about two CPU-minutes.
Expect    One row a case in experiments/results/bench_score.jsonl: histories_per_cpu_second (reading, writing and
          compiling included, loading the model left out) and peak_gb of the process.

The model is a GRU of width 64 with random weights, the histories are random: neither changes what is computed.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from jaxrec.bench.timing import append_row
from jaxrec.data.demo import Demo
from jaxrec.data.options import Preparation
from jaxrec.data.prepare import prepare
from jaxrec.runs import build, bundle
from jaxrec.runs.machine import card as machine
from jaxrec.runs.options import Config, Model, Score

ROWS = Path(__file__).parent / "results" / "bench_score.jsonl"
LONGEST = 50
CHUNK = 10_000


def save_model(folder: Path, items: int) -> None:
    """A bundle of an untrained model for a catalogue of that size."""
    demo = Demo(users=400, items=items, events=20)
    data = prepare(Preparation(demo=demo), lambda _: None)
    config = Config(demo=demo, model=Model(width=64))
    bundle.save(folder, build.model(config.model, build.offered(data), seed=1), data, config)


def write_histories(path: Path, number: int, names: list[str]) -> None:
    """Lines of JSON, a chunk at a time."""
    rng = np.random.default_rng(3)
    with open(path, "w", encoding="utf-8") as file:
        for begin in range(0, number, CHUNK):
            lengths = rng.integers(1, LONGEST + 1, min(CHUNK, number - begin))
            chosen = [rng.integers(0, len(names), length) for length in lengths]
            file.writelines(json.dumps([names[item] for item in one]) + "\n" for one in chosen)


def measure(run: str, data: str, out: str) -> None:
    """In a process of its own: score, and print what was found and the peak of memory."""
    from jaxrec.serving.scoring import score

    found = score(Score(run=run, data=data, out=out), lambda _: None)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(json.dumps(found | {"peak_gb": peak}))


def row(folder: Path, run: Path, items: int, histories: int) -> dict[str, Any]:
    data, out = folder / f"{histories}.jsonl", folder / f"out-{items}-{histories}"
    write_histories(data, histories, bundle.load(run).item_ids.strings)
    command = [sys.executable, __file__, "--measure", str(run), str(data), str(out)]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return {
        "items": items,
        "k": Score.k,
        "longest": LONGEST,
        **found,
        "histories_per_cpu_second": found["histories"] / found["cpu_seconds"],
        "file_gb": data.stat().st_size / 1e9,
        "parquet_gb": sum(file.stat().st_size for file in out.glob("*.parquet")) / 1e9,
        "machine": machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--histories", nargs="+", type=int, default=[50_000, 200_000])
    parser.add_argument("--items", nargs="+", type=int, default=[2_000])
    parser.add_argument("--measure", nargs=3, metavar=("RUN", "DATA", "OUT"), help="score in this process; used above")
    options = parser.parse_args()
    if options.measure:
        measure(*options.measure)
        return
    with tempfile.TemporaryDirectory() as temporary:
        for items in options.items:
            run = Path(temporary) / f"model-{items}"
            save_model(run, items)
            for histories in options.histories:
                found = row(Path(temporary), run, items, histories)
                append_row(ROWS, found)
                rate, peak = found["histories_per_cpu_second"], found["peak_gb"]
                print(f"{items:,} items, {histories:,} histories: {rate:,.0f} a CPU-second, peak {peak:.2f} GB")


if __name__ == "__main__":
    main()
