"""What does it cost to read a slab's events from disk, where memory holds the files, not yet, or never?

Claim     Where memory cannot hold the files, slabs come 4 to 16 times as fast when the system is told which pages they
          need (`training.feed.ask_for`), because it otherwise reads megabytes around every page that is missing. Where
          memory holds them it costs time, so only files larger than the free memory are read so.
Command   python experiments/cold_reads.py --millions 200
Time      Five minutes on two cores, and 2.5 GB on the disk.
Expect    A row for each order in experiments/results/cold_reads.jsonl, `all` (everything is shuffled) and `over` (five
          million events together): for each case, told or not, the seconds of a slab (32 batches of 16 x 200, two
          arrays), the ratio to not told (median and range over rounds), bytes that were read from the disk, major page
          faults and CPU-seconds a slab; and how much the system reads ahead.

Cases: `warm`, all that is read is in memory; `first`, nothing is, and what was read stays; `never`, nothing is before
every slab, as where the files are far larger than memory. Pages are dropped with `POSIX_FADV_DONTNEED`, and the files
mapped anew. The host of a virtual machine may remember its disk, which is then faster than a disk of one's own.
"""

import argparse
import os
import resource
import statistics
import tempfile
import time
from itertools import islice, product
from pathlib import Path
from typing import Any

from bench_input import generated

from jaxrec.bench.timing import Times, append_row, ratio
from jaxrec.data.batches import Rows, packed
from jaxrec.data.mixed import Mixed
from jaxrec.data.prepared import load
from jaxrec.runs.machine import card
from jaxrec.training.feed import Feed, Mapped
from jaxrec.training.source import spans

ROWS = Path(__file__).parent / "results" / "cold_reads.jsonl"
SIZE, LENGTH, STEPS, SLABS = 16, 200, 32, 12
CASES = ("warm", "first", "never")
WAYS = {"not told": False, "told": True}
COUNTS = ("cpu_seconds", "bytes", "faults")


def forget(folder: Path) -> None:
    """Drop the pages of its files from memory; they must not be mapped."""
    for path in folder.glob("*.npy"):
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def used() -> list[float]:
    """CPU-seconds of this process, bytes that it had read from a disk, and page faults that waited for one."""
    read = next(line for line in Path("/proc/self/io").read_text().splitlines() if line.startswith("read_bytes"))
    return [time.process_time(), int(read.split()[1]), resource.getrusage(resource.RUSAGE_SELF).ru_majflt]


def read(folder: Path, plan: Rows, first: int, beyond: bool, case: str) -> tuple[float, list[float]]:
    """Seconds a slab of those from one on, and what each used."""
    begin = first * STEPS
    plan.part(begin * SIZE, (begin + SLABS * STEPS) * SIZE)  # made before the clock runs
    seconds, total = 0.0, [0.0] * len(COUNTS)
    for number, batches in enumerate(islice(spans(plan, size=SIZE, steps=STEPS, begin=begin), SLABS)):
        if case == "never" or (case == "first" and not number):
            forget(folder)
        feed = Feed(Mapped(load(folder), False, beyond=beyond))
        before, began = used(), time.perf_counter()
        feed.slab(plan, *batches, SIZE, STEPS, lambda *parts: parts)
        seconds += time.perf_counter() - began
        total = [count + now - then for count, now, then in zip(total, used(), before, strict=True)]
    return seconds / SLABS, [count / SLABS for count in total]


def measure(folder: Path, plan: Rows, case: str, rounds: int) -> dict[str, Any]:
    """Both ways, in turns, on other slabs of the epoch in every round."""
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    counts: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    for number in range(rounds):
        if case == "warm":
            read(folder, plan, number * SLABS, False, case)
        for way in list(WAYS)[:: 1 if number % 2 else -1]:
            found, count = read(folder, plan, number * SLABS, WAYS[way], case)
            seconds[way].append(found)
            counts[way].append(count)
    times = {way: Times(tuple(found), tuple(found), SLABS) for way, found in seconds.items()}
    return {
        way: {"slab_seconds": times[way].seconds, **ratio(times, way, "not told")}
        | {
            f"{name}_a_slab": statistics.median(found)
            for name, found in zip(COUNTS, zip(*counts[way], strict=True), strict=True)
        }
        for way in WAYS
    }


def ahead(folder: Path) -> int | None:
    """KiB that the system reads ahead on the disk of a folder, where it says so."""
    device = folder.stat().st_dev
    told = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    return int(told.read_text()) if told.exists() else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=int, default=200, help="of generated events")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "prepared"
        prepared = generated(Path(temporary), options.millions)
        shape = {"seed": 0, "epoch": 0}
        plans = {
            "over": Mixed(prepared, LENGTH, "packed", over=5_000_000, **shape),
            "all": packed(prepared, LENGTH, **shape),
        }
        about = {"rounds": options.rounds, "slabs": SLABS, "read_ahead_kib": ahead(folder), "machine": card()}
        found: dict[str, dict[str, Any]] = {order: {} for order in plans}
        for (order, plan), case in product(plans.items(), CASES):
            found[order][case] = measure(folder, plan, case, options.rounds)
            for way, told in found[order][case].items():
                print(f"{order}, {case}, {way}: " + ", ".join(f"{name} {value:.4g}" for name, value in told.items()))
        for order, plan in plans.items():
            append_row(ROWS, {"order": order, "events": plan.inputs, "cases": found[order], **about})


if __name__ == "__main__":
    main()
