"""Rows of one epoch a window at a time, for data whose plan, or whose pages, memory does not hold all at once.

The data are cut into blocks of neighbouring sequences. A window is `BLOCKS` of them, drawn from everywhere, whose
sequences become rows as they would alone. What is read at one time are a window's blocks, and a plan costs its 5 bytes
an event (40 for a moment) for the events of three windows only: that which is read, the one before and the one after.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from jaxrec.config import Mistake
from jaxrec.data.batches import LAYOUTS, Numbers, Pieces, Plan, cut, generator, training_pairs
from jaxrec.data.prepared import ranges

if TYPE_CHECKING:
    from jaxrec.data.prepared import Prepared

BLOCKS = 64  # of a window: the more, the more unlike its neighbours is what meets in a batch
KEPT = 3  # windows


class Mixed:
    """The rows of one epoch (`batches.Rows`), about ``over`` events of them shuffled together.

    Every training pair occurs exactly once. The result depends only on the data, the arguments, and nothing that was
    asked before. A sequence is in the block in which it begins, whole. Raises Mistake as `batches.packed` does, and
    when ``over`` is below 1.
    """

    def __init__(self, prepared: Prepared, length: int, layout: str, *, over: int, seed: int, epoch: int):
        if over < 1:
            raise Mistake(f"over = {over} leaves no event to shuffle; use 1 or more")
        self.prepared, self.length, self.layout = prepared, length, LAYOUTS[layout]
        self.seed, self.epoch = seed, epoch
        self.edges = block_edges(prepared.offsets, -(-over // BLOCKS))
        order = generator(seed, epoch).permutation(len(self.edges) - 1)
        count = -(-len(order) // BLOCKS)
        self.windows = [np.sort(blocks) for blocks in np.array_split(order, count)] if count else []
        counts = [self.count(number) for number in range(count)]
        self.ends = np.cumsum([0, *(rows for rows, _ in counts)])
        self.inputs = sum(inputs for _, inputs in counts)
        self.made: dict[int, Future[Plan]] = {}
        self.lock = threading.Lock()

    @property
    def rows(self) -> int:
        return int(self.ends[-1])

    @property
    def slots(self) -> int:
        return self.rows * self.length

    def pieces(self, number: int) -> tuple[Pieces, np.random.Generator]:
        """The pieces of a window, and what goes on deciding where they go."""
        rng = generator(self.seed, self.epoch, 1 + number)
        blocks = self.windows[number]
        sequences = ranges(self.edges[blocks], self.edges[blocks + 1])
        return cut(*training_pairs(self.prepared, self.length, sequences), self.length, rng), rng

    def count(self, number: int) -> tuple[int, int]:
        """Rows and inputs of a window."""
        size = self.pieces(number)[0].size
        return self.layout.rows(size, self.length), int(size.sum())

    def plan(self, number: int) -> Plan:
        """The rows of a window."""
        pieces, rng = self.pieces(number)
        return self.layout.plan(pieces, self.length, rng)

    def part(self, begin: int, end: int) -> Plan:
        """Rows `begin` to `end`, written out; several threads may ask."""
        first = int(np.searchsorted(self.ends, begin, side="right")) - 1
        last = int(np.searchsorted(self.ends, end, side="left"))
        parts = [
            self.window(number).part(max(begin - start, 0), end - start)
            for number, start in enumerate(self.ends[first:last].tolist(), start=first)
        ]
        empty = Plan(np.empty((0, self.length), np.int32), np.empty((0, self.length), bool))
        return Plan(*map(np.concatenate, zip(*parts, strict=True))) if parts else empty

    def window(self, number: int) -> Plan:
        """The plan of a window, made ahead where the one before was read; the next one is begun."""
        with self.lock:
            for wanted in (number, number + 1):
                if wanted not in self.made and wanted < len(self.windows):
                    self.made[wanted] = begun(self.plan, wanted)
            found = self.made[number]
            while len(self.made) > KEPT:
                del self.made[min(self.made)]
        return found.result()


def begun(make: Callable[[int], Plan], number: int) -> Future[Plan]:
    """A plan under way, in a thread that ends with it."""
    thread = ThreadPoolExecutor(1, "jaxrec-window")
    try:
        return thread.submit(make, number)
    finally:
        thread.shutdown(wait=False)


def block_edges(offsets: Numbers, events: int) -> Numbers:
    """The first sequence of each block of about so many events, and their number: of offsets only few are looked at."""
    starts = np.arange(0, int(offsets[-1]), events, dtype=np.int64)
    return np.append(np.searchsorted(offsets[:-1], starts), len(offsets) - 1).astype(np.int64)
