"""Session-parallel lanes: sequences run side by side in the order of their start, and the state goes on.

Row `i` of every batch is lane `i`. A lane reads its sequence event by event, from batch to batch, and begins the next
sequence that nobody has begun when its own ends (Hidasi et al. 2016, section 3.1, https://arxiv.org/abs/1511.06939).
What a lane reads does not depend on `length`, which only says how many of its events make one training step.
"""

from __future__ import annotations

from heapq import heapreplace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxrec.config import Mistake
from jaxrec.data.batches import Plan, numbering, training_pairs, within

if TYPE_CHECKING:
    from jaxrec.data.prepared import Prepared


class Lanes(NamedTuple):
    """The rows of one epoch, kept as one entry a sequence (17 bytes or so) and written out a part at a time.

    start: int32 (sequences,), the absolute event number of each sequence's first input (int64 where that is more than
    an int32). pairs: int32, its inputs.
    lane: int32, where it runs. at: int64, slots of that lane before it: never decreasing, since a sequence begins in
    the lane that is free first. Rows are counted step by step: row `s * width + i` is lane `i` in training step `s`.
    """

    start: NDArray[Any]
    pairs: NDArray[np.int32]
    lane: NDArray[np.int32]
    at: NDArray[np.int64]
    width: int
    length: int

    @property
    def rows(self) -> int:
        """All lanes go on until the last one has ended: an epoch leaves out no event."""
        longest = int(np.max(self.at + self.pairs, initial=0))
        return -(-longest // self.length) * self.width

    @property
    def slots(self) -> int:
        return self.rows * self.length

    @property
    def inputs(self) -> int:
        return int(self.pairs.sum(dtype=np.int64))

    @property
    def longest(self) -> int:
        """Inputs of the longest sequence."""
        return int(np.max(self.pairs, initial=0))

    def part(self, begin: int, end: int) -> Plan:
        """Rows `begin` to `end`, which must be whole training steps; -1 where a lane has run out of sequences.

        There every slot is a reset too: a state that nobody reads must not grow, event after event, until it overflows.
        """
        if begin % self.width or end % self.width:
            raise ValueError(f"rows {begin} to {end} are no whole steps of {self.width} lanes; ask for multiples")
        steps = (end - begin) // self.width
        left, right = begin // self.width * self.length, end // self.width * self.length
        index = np.full((self.width, right - left), -1, self.start.dtype)
        over, begun = np.searchsorted(self.at, [left - self.longest, right - 1], side="right")
        start, pairs, lane, at = (leaf[over:begun] for leaf in (self.start, self.pairs, self.lane, self.at))
        low = np.maximum(at, left)
        count = np.maximum(np.minimum(at + pairs, right) - low, 0)
        step = within(count)
        index[np.repeat(lane, count), np.repeat(low - left, count) + step] = np.repeat(start + low - at, count) + step
        reset = index < 0
        first = at >= left
        reset[lane[first], at[first] - left] = True
        lane_first = (self.width, steps, self.length)
        index = index.reshape(lane_first).swapaxes(0, 1).reshape(-1, self.length)
        return Plan(index, reset.reshape(lane_first).swapaxes(0, 1).reshape(-1, self.length))


def lanes(prepared: Prepared, length: int, *, width: int) -> Lanes:
    """`width` lanes over all training pairs, `length` events of each a training step; every pair exactly once.

    Sequences begin in the order of the prepared data, which is that of their first events' times, never shuffled:
    every epoch is the same. Of lanes that end together the first takes the next sequence. When no sequence is left,
    lanes leave one by one (padding to the end of the epoch), and every lane begins the next epoch with a reset.
    Raises Mistake when `length` or `width` is below 1.
    """
    if width < 1:
        raise Mistake(f"{width} lanes can hold no sequence; use 1 or more")
    begin, pairs = training_pairs(prepared, length)
    begin, pairs = begin[pairs > 0], pairs[pairs > 0]
    free = list(range(width))  # a heap of `slots taken * width + lane`: the first lane to be free, ties by number
    taken = np.array([heapreplace(free, free[0] + slots) for slots in (pairs * width).tolist()], np.int64)
    inputs, lane = pairs.astype(np.int32), (taken % width).astype(np.int32)
    start = begin.astype(numbering(int(np.max(begin + pairs, initial=0))))
    return Lanes(start, inputs, lane, taken // width, width, length)
