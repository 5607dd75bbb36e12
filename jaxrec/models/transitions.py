"""What followed what in training, kept sparse: counted once, then looked up for many histories at a time.

Scores of many histories are two arrays: keys ``row * size + item`` of everything that scores above zero, and values.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxrec.data.mixed import block_edges
from jaxrec.data.prepared import Prepared, ranges

Numbers = NDArray[np.int64]
Values = NDArray[np.float64]
BUDGET = 2**20  # transitions and history events expanded at one time, about 100 MB


class Histories(NamedTuple):
    """History i is ``items[begin[i]:end[i]]``; histories may overlap."""

    items: NDArray[Any]
    begin: Numbers
    end: Numbers

    @classmethod
    def before(cls, prepared: Prepared, targets: Numbers) -> "Histories":
        """All earlier events of each target's sequence."""
        return cls(prepared.items, np.asarray(prepared.offsets)[prepared.sequence_of(targets)], targets)

    @classmethod
    def whole(cls, items: NDArray[Any], offsets: Numbers) -> "Histories":
        """``items[offsets[i]:offsets[i + 1]]``."""
        return cls(items, offsets[:-1], offsets[1:])

    def part(self, start: int, stop: int) -> "Histories":
        """Some of the histories with a copy of their own events, each once."""
        begin, end = self.begin[start:stop], self.end[start:stop]
        first, place = np.unique(begin, return_inverse=True)
        last = first.copy()
        np.maximum.at(last, place, end)
        offsets = np.concatenate([[0], np.cumsum(last - first)])
        begun = offsets[:-1][place]
        return Histories(np.asarray(self.items[ranges(first, last)]), begun, begun + end - begin)

    def aged(self, age: int, size: int) -> tuple[Numbers, Numbers]:
        """(row, item) of the event ``age`` before the end (1 is the last), where there is one in the catalogue."""
        row = np.flatnonzero(self.end - age >= self.begin)
        item = self.items[self.end[row] - age].astype(np.int64)
        inside = (item > 0) & (item < size)
        return row[inside], item[inside]

    def distinct(self, size: int) -> tuple[Numbers, Numbers]:
        """(row, item) of the distinct catalogue items of each history, by row, most recently used last."""
        row = np.repeat(np.arange(len(self.end)), self.end - self.begin)
        event = ranges(self.begin, self.end)
        item = self.items[event]
        keep = (self.next_of_same()[event] >= self.end[row]) & (item > 0) & (item < size)
        return row[keep], item[keep].astype(np.int64)

    def next_of_same(self) -> Numbers:
        """For each event the next one of the same item, in whatever sequence, or the number of events if none is."""
        order = np.argsort(self.items, kind="stable")
        same = self.items[order[1:]] == self.items[order[:-1]]
        again = np.full(len(self.items), len(self.items), np.int64)
        again[order[:-1][same]] = order[1:][same]
        return again


@dataclass(frozen=True, eq=False)
class Transitions:
    """Item i was followed by ``follower[start[i]:start[i + 1]]``, ``times`` each; ``size`` is 1 + candidates.

    Counts are whole; once normalised they are shares.
    """

    size: int
    start: Numbers
    follower: Numbers
    times: NDArray[Any]

    @classmethod
    def count(cls, prepared: Prepared) -> "Transitions":
        """Those of the training part, read a piece at a time: memory is for the distinct ones."""
        size = prepared.candidates + 1
        found, times = tallied(pairs(prepared, size))
        return cls(size, np.searchsorted(found, np.arange(size + 1) * size), found % size, times)

    def normalised(self) -> "Transitions":
        """With shares instead of counts: what followed an item adds up to 1."""
        row = np.repeat(np.arange(self.size), np.diff(self.start))
        total = np.bincount(row, weights=self.times, minlength=self.size)
        return Transitions(self.size, self.start, self.follower, self.times / total[row])

    def scores(self, histories: Histories, weights: tuple[float, ...]) -> tuple[Numbers, Values]:
        """Weighted transition counts from the last ``len(weights)`` items; a pair may occur once for each weight."""
        keys, scores = [np.empty(0, np.int64)], [np.empty(0)]
        for age, weight in enumerate(weights, start=1):
            row, item = histories.aged(age, self.size)
            begin, end = self.start[item], self.start[item + 1]
            place = ranges(begin, end)
            keys.append(np.repeat(row, end - begin) * self.size + self.follower[place])
            scores.append(weight * self.times[place])
        return np.concatenate(keys), np.concatenate(scores)

    def parts(self, histories: Histories, ages: int) -> Iterator[tuple[int, int]]:
        """Runs of rows whose expansion stays within the budget; a single row may exceed it."""
        cost = histories.end - histories.begin
        for age in range(1, ages + 1):
            row, item = histories.aged(age, self.size)
            cost[row] += self.start[item + 1] - self.start[item]
        total, first = np.cumsum(cost), 0
        while first < len(cost):
            spent = total[first - 1] if first else 0
            stop = max(first + 1, int(np.searchsorted(total, spent + BUDGET, side="right")))
            yield first, stop
            first = stop


def pairs(prepared: Prepared, size: int) -> Iterator[Numbers]:
    """Keys ``item * size + follower`` of all training pairs, those of about `BUDGET` events at a time."""
    for first, last in pairwise(block_edges(prepared.offsets, BUDGET).tolist()):
        earlier = ranges(prepared.offsets[first:last], prepared.train_end[first:last] - 1)
        yield prepared.items[earlier].astype(np.int64) * size + prepared.items[earlier + 1]


def tallied(parts: Iterable[Numbers]) -> tuple[Numbers, Numbers]:
    """Distinct keys of all parts in order, and how often each occurs."""
    none = np.empty(0, np.int64)
    found, most = [(none, none)], BUDGET
    for part in parts:
        found.append(np.unique(part, return_counts=True))
        if sum(len(keys) for keys, _ in found) > 2 * most:
            found = [summed(*map(np.concatenate, zip(*found, strict=True)))]
            most = max(most, len(found[0][0]))
    return summed(*map(np.concatenate, zip(*found, strict=True)))


def summed(keys: Numbers, scores: NDArray[Any]) -> tuple[Numbers, NDArray[Any]]:
    """Distinct keys in order, and the sum of each one's scores in the order they came."""
    order = np.argsort(keys, kind="stable")  # the keys are a few sorted runs, which this sort merges
    keys, scores = keys[order], scores[order]
    first = np.flatnonzero(np.diff(keys, prepend=-1))
    return keys[first], np.add.reduceat(scores, first) if len(first) else scores


def look_up(keys: Numbers, scores: Values, wanted: Numbers) -> Values:
    """The score of each wanted key, 0 where there is none."""
    place = np.searchsorted(keys, wanted)
    found = np.zeros(len(wanted))
    there = np.flatnonzero(place < len(keys))
    there = there[keys[place[there]] == wanted[there]]
    found[there] = scores[place[there]]
    return found
