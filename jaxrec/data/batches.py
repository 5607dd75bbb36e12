"""Training rows as index ranges: which events are read, in which row, and where a new piece begins.

A training pair is an input event `e` and its target `e + 1`, both in the training part of one sequence. A plan stores
only `e`: items, times and targets are looked up when a row is used, so an event is never copied. A plan costs 5 bytes
a slot (4 for the index, 1 for the reset), hence about 5 bytes a training event when packed; while it is being built
it needs `bytes_while_made`. `data.mixed` makes plans a window of the data at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from jaxrec.config import Mistake

if TYPE_CHECKING:
    from jaxrec.data.prepared import Prepared

Numbers = NDArray[np.int64]


class Rows(Protocol):
    """The rows of one epoch, whatever the layout: batches of `size` are rows `0:size`, `size:2 * size`, ..."""

    @property
    def rows(self) -> int: ...

    @property
    def slots(self) -> int:
        """Events that the rows have room for."""

    @property
    def inputs(self) -> int:
        """Events that are in them."""

    def part(self, begin: int, end: int) -> Plan:
        """Rows `begin` to `end`, written out."""


class Plan(NamedTuple):
    """The rows of one epoch.

    index: (rows, length), the absolute event number of each input; -1 is padding, always at the end of a row. int32,
    or int64 where there are more events than that can number.
    reset: bool (rows, length), True where a new piece begins and the recurrent state must start afresh.
    """

    index: NDArray[Any]  # type: ignore[assignment]  # hides tuple.index, which nobody needs of a plan
    reset: NDArray[np.bool_]

    @property
    def rows(self) -> int:
        return len(self.index)

    @property
    def slots(self) -> int:
        return self.index.size

    @property
    def inputs(self) -> int:
        return int(np.count_nonzero(self.index >= 0))

    def part(self, begin: int, end: int) -> Plan:
        return Plan(self.index[begin:end], self.reset[begin:end])


class Pieces(NamedTuple):
    """Contiguous runs of input events, none longer than a row."""

    start: Numbers
    size: Numbers


class Layout(NamedTuple):
    """Where pieces go: ``place`` gives (row, column) of each, ``rows`` how many rows that makes, from the sizes."""

    place: Callable[[Numbers, int, np.random.Generator], tuple[Numbers, Numbers]]
    rows: Callable[[Numbers, int], int]

    def plan(self, pieces: Pieces, length: int, rng: np.random.Generator) -> Plan:
        """The pieces in their places, and the rows in a random order."""
        return _lay(pieces, *self.place(pieces.size, length, rng), length, rng)


def packed(prepared: Prepared, length: int, *, seed: int, epoch: int) -> Plan:
    """Several pieces share a row, so that almost no slot is padding. Rows come in a random order.

    Every training pair occurs exactly once. A sequence with more than `length` pairs is cut, at places that move from
    epoch to epoch; a shorter one stays whole. The result depends only on the data, `length`, `seed` and `epoch`.
    Raises Mistake when `length` is below 1.
    """
    rng = generator(seed, epoch)
    return LAYOUTS["packed"].plan(cut(*training_pairs(prepared, length), length, rng), length, rng)


def windows(prepared: Prepared, length: int, *, seed: int, epoch: int) -> Plan:
    """One piece a row, padded on the right: the classical layout. Same pieces, pairs and errors as `packed`."""
    rng = generator(seed, epoch)
    return LAYOUTS["windows"].plan(cut(*training_pairs(prepared, length), length, rng), length, rng)


def bytes_while_made(prepared: Prepared, length: int, layout: str) -> tuple[int, int]:
    """Events of an epoch, and about how many bytes its plan takes while it is made: what it holds, 24 an event for the
    places they go to, and 40 a piece for deciding them.
    """
    _, pairs = training_pairs(prepared, length)
    events, pieces = int(pairs.sum()), int((-(-pairs // length)).sum())
    slots = events if layout == "packed" else pieces * length
    return events, (numbering(int(prepared.offsets[-1])).itemsize + 1) * slots + 24 * events + 40 * pieces


def waste(plan: Rows) -> float:
    """The share of slots that are padding (0 for a plan without rows)."""
    return 1 - plan.inputs / plan.slots if plan.slots else 0.0


def generator(seed: int, epoch: int, *more: int) -> np.random.Generator:
    """What decides an epoch, or a part of it (numbered from 1: a zero at the end is no number to a seed)."""
    if seed < 0 or epoch < 0:
        raise Mistake(f"seed {seed} and epoch {epoch} must not be negative; use whole numbers from 0")
    return np.random.default_rng([seed, epoch, *more])


def training_pairs(
    prepared: Prepared, length: int, sequences: slice | Numbers = slice(None)
) -> tuple[Numbers, Numbers]:
    """First event and number of training pairs of every sequence, or of some; Mistake for a `length` without a plan."""
    if length < 1:
        raise Mistake(f"length {length} leaves no room for an event; use 1 or more")
    begin = np.asarray(prepared.offsets[:-1][sequences], np.int64)
    return begin, np.maximum(np.asarray(prepared.train_end[sequences], np.int64) - begin - 1, 0)


def cut(begin: Numbers, pairs: Numbers, length: int, rng: np.random.Generator) -> Pieces:
    """Cut every sequence's inputs into pieces of at most `length`; where the first cut falls is drawn uniformly."""
    first = np.where(pairs > length, rng.integers(1, length + 1, len(pairs)), length)
    count = np.where(pairs > 0, 1 - (first - pairs) // length, 0)
    sequence = np.repeat(np.arange(len(pairs)), count)
    nth = within(count)
    left = np.where(nth == 0, 0, first[sequence] + (nth - 1) * length)
    right = np.minimum(first[sequence] + nth * length, pairs[sequence])
    return Pieces(begin[sequence] + left, right - left)


def _best_fit(size: Numbers, length: int, rng: np.random.Generator) -> tuple[Numbers, Numbers]:
    """Best-fit decreasing, a whole size at a time: (row, column) of every piece.

    Pieces of one size are interchangeable, and so are rows with equally much space left: at most `length`^2 / 2 array
    operations replace a search per piece. Pieces of one size come in random order, so neighbours in a row are chance.
    """
    order = rng.permutation(len(size))
    order = order[np.argsort(-size[order], kind="stable")]
    longer = np.searchsorted(-size[order], -np.arange(length + 1))  # how many pieces are longer than 0, 1, 2, ...
    row, column, rows = np.empty_like(size), np.empty_like(size), 0
    space = [np.empty(0, np.int64)] * (length + 1)  # the rows begun so far, by the space they have left
    for piece in range(length, 0, -1):
        todo = order[longer[piece] : longer[piece - 1]]
        for left in range(piece, length + 1):
            if not len(todo):
                break
            fits = left // piece
            need = -(-len(todo) // fits)
            if left == length:
                taken, rows = np.arange(rows, rows + need), rows + need
            else:
                taken, space[left] = space[left][:need], space[left][need:]
            if not len(taken):
                continue
            now, todo = todo[: fits * len(taken)], todo[fits * len(taken) :]
            slot = np.arange(len(now))
            row[now], column[now] = taken[slot // fits], length - left + slot % fits * piece
            for group, held in ((taken[:-1], fits), (taken[-1:], len(now) - fits * (len(taken) - 1))):
                if len(group):
                    space[left - held * piece] = np.concatenate((space[left - held * piece], group))
    return row, column


def _rows_of_best_fit(size: Numbers, length: int) -> int:
    """How many rows `_best_fit` makes: its loop with numbers of rows in place of rows."""
    rows, space = 0, [0] * (length + 1)
    counts = np.bincount(size, minlength=length + 1).tolist()
    for piece in range(length, 0, -1):
        todo = counts[piece]
        for left in range(piece, length + 1):
            if not todo:
                break
            fits = left // piece
            taken = -(-todo // fits)
            if left == length:
                rows += taken
            else:
                taken = min(taken, space[left])
                space[left] -= taken
            if not taken:
                continue
            now = min(todo, fits * taken)
            todo -= now
            space[left - fits * piece] += taken - 1
            space[left - (now - fits * (taken - 1)) * piece] += 1
    return rows


def _apart(size: Numbers, length: int, rng: np.random.Generator) -> tuple[Numbers, Numbers]:
    """A row for every piece."""
    row = np.arange(len(size))
    return row, np.zeros_like(row)


LAYOUTS = {
    "packed": Layout(_best_fit, _rows_of_best_fit), "windows": Layout(_apart, lambda size, length: len(size)),
}  # fmt: skip


def _lay(pieces: Pieces, row: Numbers, column: Numbers, length: int, rng: np.random.Generator) -> Plan:
    """Write the pieces into their places, after shuffling the rows."""
    rows = int(np.max(row)) + 1 if len(row) else 0
    at = rng.permutation(rows)[row] * length + column
    index = np.full(rows * length, -1, numbering(int(np.max(pieces.start + pieces.size, initial=0))))
    reset = np.zeros(rows * length, bool)
    step = within(pieces.size)
    index[np.repeat(at, pieces.size) + step] = np.repeat(pieces.start, pieces.size) + step
    reset[at] = True
    return Plan(index.reshape(rows, length), reset.reshape(rows, length))


def numbering(highest: int) -> Any:
    """The type of event numbers up to ``highest``."""
    return np.dtype(np.int32 if highest <= np.iinfo(np.int32).max else np.int64)


def within(count: Numbers) -> Numbers:
    """0, 1, ..., count[0] - 1, 0, 1, ..., count[1] - 1, ..."""
    return np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
