"""Does telling the system which pages come next help where events on disk are not in memory yet?

Claim     Slabs whose events are read from a cold disk come no faster for `posix_fadvise(WILLNEED)` of their pages than
          for another reader, so there is no such call in `training.feed`.
Command   python experiments/cold_reads.py --millions 200
Time      Ten minutes on two cores, and 2.5 GB on the disk.
Expect    A row for each order in experiments/results/cold_reads.jsonl: for each way the seconds of a slab (32 batches
          of 16 x 200, two arrays), the ratio to one reader's (median and range over rounds), bytes that were read from
          the disk and major page faults a slab. `all`: all is shuffled; `over`: five million events together.

Before every measurement the pages of the files are dropped (`POSIX_FADV_DONTNEED`), the files are mapped anew, and the
slabs are other ones of the epoch. Nothing trains: what is measured is how fast slabs could come at most. The disk of a
virtual machine may be remembered by its host, which makes it faster than a disk of one's own.
"""

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from bench_input import generated

from jaxrec.bench.timing import Times, append_row, ratio
from jaxrec.data.batches import Rows, packed
from jaxrec.data.mixed import Mixed
from jaxrec.data.prepared import Prepared, load
from jaxrec.runs.machine import card
from jaxrec.training.feed import Feed, Mapped
from jaxrec.training.source import Source

ROWS = Path(__file__).parent / "results" / "cold_reads.jsonl"
SIZE, LENGTH, STEPS, SLABS, PAGE = 16, 200, 32, 24, 12  # the last as a power of two
COUNTS = ("bytes", "faults")


@dataclass(frozen=True)
class Hinted(Mapped):
    """Events whose pages are asked for, all of a slab's at once, before they are read."""

    def gathered(self, index: np.ndarray) -> tuple[Source, np.ndarray]:
        events = index[index >= 0].astype(np.int64)
        for values in (self.prepared.items, self.prepared.gaps):
            will_need(values, events)
        return super().gathered(index)


def will_need(values: Any, events: np.ndarray) -> None:
    """Tell the system which pages of a mapped array hold these entries and the next ones."""
    ends = [(values.offset + (events + more) * values.itemsize) >> PAGE for more in (0, 1)]
    pages = np.unique(np.concatenate(ends))
    cuts = np.flatnonzero(np.diff(pages) > 1) + 1
    begins, stops = pages[np.append(0, cuts)], pages[np.append(cuts - 1, len(pages) - 1)] + 1
    file = os.open(values.filename, os.O_RDONLY)
    try:
        for begin, size in zip((begins << PAGE).tolist(), ((stops - begins) << PAGE).tolist(), strict=True):
            os.posix_fadvise(file, begin, size, os.POSIX_FADV_WILLNEED)
    finally:
        os.close(file)


WAYS: dict[str, tuple[Callable[..., Mapped], int]] = {
    f"{readers} reader{'s' * (readers > 1)}{', hinted' * hinted}": (Hinted if hinted else Mapped, readers)
    for readers in (1, 2, 4, 8)
    for hinted in (False, True)
}


def forget(folder: Path) -> None:
    """Drop the pages of its files from memory; they must not be mapped."""
    for path in folder.glob("*.npy"):
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def used() -> dict[str, int]:
    """Bytes that this process had read from a disk, and page faults that waited for one."""
    read = next(line for line in Path("/proc/self/io").read_text().splitlines() if line.startswith("read_bytes"))
    return {"bytes": int(read.split()[1]), "faults": resource.getrusage(resource.RUSAGE_SELF).ru_majflt}


def read(folder: Path, plan: Rows, begin: int, way: tuple[Callable[..., Mapped], int]) -> tuple[float, dict[str, int]]:
    """Seconds of so many slabs of a plan from a batch on, from a cold disk, and what they used."""
    plan.part(begin * SIZE, (begin + SLABS * STEPS) * SIZE)  # made before the clock runs
    forget(folder)
    kind, readers = way
    feed = Feed(kind(load(folder), False), readers)
    before, began = used(), time.perf_counter()
    slabs = feed.slabs(plan, size=SIZE, steps=STEPS, begin=begin, lay=lambda *parts: parts)
    for _ in zip(range(SLABS), slabs, strict=False):
        pass
    seconds = time.perf_counter() - began
    slabs.close()
    return seconds / SLABS, {name: count - before[name] for name, count in used().items()}


def measure(folder: Path, plan: Rows, rounds: int) -> dict[str, Any]:
    """Every way, in turns."""
    names = list(WAYS)
    seen: dict[str, list[float]] = {name: [] for name in names}
    counts: dict[str, list[dict[str, int]]] = {name: [] for name in names}
    for number in range(rounds):
        begin = (number * SLABS * STEPS) % (plan.rows // SIZE - SLABS * STEPS) // STEPS * STEPS
        for name in names[number % len(names) :] + names[: number % len(names)]:
            seconds, count = read(folder, plan, begin, WAYS[name])
            seen[name].append(seconds)
            counts[name].append(count)
    times = {name: Times(tuple(found), tuple(found), SLABS) for name, found in seen.items()}
    return {
        name: {"slab_seconds": times[name].seconds, **ratio(times, name, names[0])}
        | {f"{what}_a_slab": statistics.median(count[what] for count in counts[name]) / SLABS for what in COUNTS}
        for name in names
    }


def orders(prepared: Prepared) -> dict[str, Rows]:
    over = Mixed(prepared, LENGTH, "packed", over=5_000_000, seed=0, epoch=0)
    return {"over": over, "all": packed(prepared, LENGTH, seed=0, epoch=0)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=int, default=200, help="of generated events")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        plans = orders(generated(Path(temporary), options.millions))
        for order, plan in plans.items():
            ways = measure(Path(temporary) / "prepared", plan, options.rounds)
            row = {"order": order, "events": plan.inputs, "rounds": options.rounds, "slabs": SLABS, "ways": ways}
            append_row(ROWS, row | {"machine": card()})
            for name, found in ways.items():
                print(
                    f"{order}, {name}: {1000 * found['slab_seconds']:.0f} ms, "
                    f"{found['ratio']:.2f} ({found['ratio_low']:.2f} to {found['ratio_high']:.2f}) of one reader's"
                )


if __name__ == "__main__":
    main()
