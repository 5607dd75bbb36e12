"""A spooled log -> the prepared arrays on disk, a bucket of whole sequences at a time.

Every sequence has its place in the result as soon as all rows were counted, so rows go straight to the bucket that
holds their place; each bucket is then put in order in memory. What is held at once is one bucket and a few numbers a
sequence and an item. Results equal those of `logs.ordered`, `splits` and `assemble`, which are the specification.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from jaxrec.data import splits
from jaxrec.data.assemble import gaps
from jaxrec.data.card import tied_events
from jaxrec.data.streaming import Spool, scaled

ROWS = 1 << 20  # rows of a bucket (more where one sequence is longer) and of a piece that is read
BINS = 1 << 16
COLUMNS: dict[str, np.dtype] = {"person": np.dtype(np.int32), "item": np.dtype(np.int32), "time": np.dtype(np.int64)}


class Ordered(NamedTuple):
    """Arrays of the result; those with one entry an event are .npy files in the folder."""

    offsets: np.ndarray
    ends: splits.Ends
    persons: np.ndarray  # code of each sequence's person
    item_codes: np.ndarray  # code of item number i at i - 1
    known: int
    popularity: np.ndarray
    ties: dict[str, Any]
    strangers: np.ndarray  # codes of the events that have no number, in order


Cut = Callable[[np.ndarray, np.ndarray | None], splits.Ends]


@dataclass(eq=False)
class Numbers:
    """Item numbers given as training events are met in order; the rest follows by first appearance in the rest."""

    number: np.ndarray  # int32 (codes,): 0 = not met in training
    count: np.ndarray  # int64 (codes,): training events
    rest: np.ndarray  # int64 (codes,): first event outside training
    known: int = 0

    @classmethod
    def of(cls, size: int) -> "Numbers":
        return cls(np.zeros(size, np.int32), np.zeros(size, np.int64), np.full(size, np.iinfo(np.int64).max))

    def meet(self, codes: np.ndarray, training: np.ndarray, begin: int) -> None:
        """The next events, in order; `begin` is the index of the first."""
        learnt = codes[training]
        self.count += np.bincount(learnt, minlength=len(self.count))
        fresh, place = np.unique(learnt[self.number[learnt] == 0], return_index=True)
        fresh = fresh[np.argsort(place)]
        self.number[fresh] = np.arange(self.known + 1, self.known + 1 + len(fresh))
        self.known += len(fresh)
        others = np.flatnonzero(~training)
        others = others[self.rest[codes[others]] == np.iinfo(np.int64).max]
        later, place = np.unique(codes[others], return_index=True)
        self.rest[later] = begin + others[place]

    def finish(self, whole_catalogue: bool) -> np.ndarray:
        """Codes of items 1, 2, ...; those outside training come after the known ones, or stay 0."""
        strangers = np.flatnonzero((self.number == 0) & (self.rest < np.iinfo(np.int64).max))
        strangers = strangers[np.argsort(self.rest[strangers], kind="stable")] if whole_catalogue else strangers[:0]
        self.number[strangers] = np.arange(self.known + 1, self.known + 1 + len(strangers))
        met = np.flatnonzero(self.number)
        return met[np.argsort(self.number[met])]


def pieces(path: Path, dtype: np.dtype, rows: int = ROWS) -> Iterator[np.ndarray]:
    """The values of a file without a header, a piece at a time."""
    with open(path, "rb") as file:
        while len(values := np.fromfile(file, dtype, rows)):
            yield values


def in_order(spool: Spool, cut: Cut, whole_catalogue: bool) -> Ordered:
    """Write items.npy, times.npy, gaps.npy and, where times are finer than milliseconds, below.npy; `cut(offsets,
    times)` tells where the sequences of a bucket part.
    """
    unit, names = spool.unit(), list(COLUMNS)[: 3 if spool.timed else 2]
    persons = np.arange(len(spool.count))
    if spool.timed:
        persons = np.argsort(scaled(spool.first, unit), kind="stable")
    offsets = np.append(0, np.cumsum(spool.count[persons]))
    bucket = offsets[:-1] // ROWS  # of each sequence: where it begins
    starts = np.flatnonzero(np.diff(bucket, prepend=-1))  # first sequence of each bucket
    spread(spool, names, persons, starts, offsets)
    ends = [np.zeros(len(persons), np.int64) for _ in range(2)]
    numbers, tied, last = Numbers.of(len(spool.item)), 0, 0
    with Writer(spool.folder, spool.rows, spool.timed, unit) as writer:
        for begin, stop in zip(starts, np.append(starts[1:], len(persons)), strict=True):
            inner = offsets[begin : stop + 1] - offsets[begin]
            item, time = bucket_of(spool, offsets[begin], inner, unit)
            for whole, part in zip(ends, cut(inner, time), strict=True):
                whole[begin:stop] = part + offsets[begin]
            training = splits.part_of_each(inner, (ends[0][begin:stop] - offsets[begin], inner[1:])) == splits.TRAIN
            numbers.meet(item, training, int(offsets[begin]))
            writer.write(item, time, inner)
            if time is not None:
                ties = tied_events(inner, time)
                tied, last = tied + int(ties.sum()), last + int(ties[inner[1:] - 1].sum())
    codes = numbers.finish(whole_catalogue)
    strangers = renumber(spool.folder, spool.rows, numbers.number)
    shares = (tied / spool.rows, last / len(persons)) if spool.timed else (None, None)
    found = dict(zip(("events_tied_share", "users_tied_last_share"), shares, strict=True))
    popularity = np.append(0, numbers.count[codes])
    return Ordered(offsets, (ends[0], ends[1]), persons, codes, numbers.known, popularity, found, strangers)


def spread(spool: Spool, names: list[str], persons: np.ndarray, starts: np.ndarray, offsets: np.ndarray) -> None:
    """Rewrite each spooled column with the rows of a bucket together, in file order; `person` becomes the place."""
    place = np.empty(len(persons), np.int32)
    place[persons] = np.arange(len(persons), dtype=np.int32)
    bucket = np.empty(len(persons), np.uint16 if len(starts) < 1 << 16 else np.int64)
    bucket[persons] = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(persons))))
    sources = [pieces(spool.folder / name, COLUMNS[name]) for name in names]
    targets = [open(spool.folder / f"{name}.spread", "wb") for name in names]  # noqa: SIM115  # closed below
    cursor = offsets[starts].copy()
    try:
        for columns in zip(*sources, strict=True):
            of_row = bucket[columns[0]]
            order = np.argsort(of_row, kind="stable")
            ends = np.cumsum(np.bincount(of_row, minlength=len(starts)))
            for target, values, name in zip(targets, columns, names, strict=True):
                moved = (place[values] if name == "person" else values)[order]
                for number in np.flatnonzero(np.diff(ends, prepend=0)).tolist():
                    target.seek(int(cursor[number]) * values.itemsize)
                    moved[ends[number - 1] if number else 0 : ends[number]].tofile(target)
            cursor += np.diff(ends, prepend=0)
    finally:
        for target in targets:
            target.close()
    for name in names:
        (spool.folder / name).unlink()


def bucket_of(
    spool: Spool, begin: int, inner: np.ndarray, unit: tuple[str, int, int]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Items and microseconds of one bucket, in canonical order."""

    def column(name: str) -> np.ndarray:
        size = COLUMNS[name].itemsize
        return np.fromfile(spool.folder / f"{name}.spread", COLUMNS[name], inner[-1], offset=int(begin) * size)

    place, item = column("person"), column("item")
    if not spool.timed:
        return item[np.argsort(place, kind="stable")], None
    time = scaled(column("time"), unit)
    order = in_place_and_time(place, time)
    return item[order], time[order]


def in_place_and_time(place: np.ndarray, time: np.ndarray) -> np.ndarray:
    """The order by place, then time, then row: one sort of a number made of all three where 63 bits hold it."""
    fields = [place.astype(np.int64) - int(place.min()), time - time.min()]
    # seconds held in microseconds need no more bits than seconds
    step = np.gcd.reduce(fields[1]) or 1  # type: ignore[call-overload, unused-ignore]
    fields[1] //= step
    bits = [int(fields[1].max()).bit_length(), len(place).bit_length()]
    if int(fields[0].max()).bit_length() + sum(bits) > 63:
        return np.lexsort((time, place))
    key = ((fields[0] << bits[0] | fields[1]) << bits[1]) | np.arange(len(place))
    key.sort()
    return key & ((1 << bits[1]) - 1)


class Writer:
    """The columns of the result, appended bucket by bucket."""

    def __init__(self, folder: Path, rows: int, timed: bool, unit: tuple[str, int, int]):
        names = {"codes": np.int32} | ({"times": np.int64, "gaps": np.float32} if timed else {})
        names |= {"below": np.int16} if timed and unit[1] % 1000 else {}
        self._below, self._fine = folder / "below.npy", False
        self._files = {name: open(folder / f"{name}.npy", "wb") for name in names}  # noqa: SIM115
        for name, dtype in names.items():
            if name != "codes":
                header(self._files[name], np.dtype(dtype), rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()
        if not self._fine:
            self._below.unlink(missing_ok=True)

    def write(self, item: np.ndarray, time: np.ndarray | None, inner: np.ndarray) -> None:
        item.tofile(self._files["codes"])
        if time is None:
            return
        milliseconds = time // 1000
        milliseconds.tofile(self._files["times"])
        gaps(milliseconds, inner).tofile(self._files["gaps"])
        if "below" in self._files:
            below = (time % 1000).astype(np.int16)
            self._fine = self._fine or bool(below.any())
            below.tofile(self._files["below"])


def header(file: Any, dtype: np.dtype, rows: int) -> None:
    """What stands before the values in an .npy file."""
    told = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (rows,)}
    np.lib.format.write_array_header_1_0(file, told)


def renumber(folder: Path, rows: int, number: np.ndarray) -> np.ndarray:
    """items.npy from the codes; returns those codes, event by event, that have no number."""
    strangers = [np.zeros(0, np.int32)]
    with open(folder / "items.npy", "wb") as file:
        header(file, np.dtype(np.int32), rows)
        for codes in pieces(folder / "codes.npy", np.dtype(np.int32)):
            found = number[codes]
            found.tofile(file)
            strangers.append(codes[found == 0])
    for left in [folder / "codes.npy", *folder.glob("*.spread")]:
        left.unlink()
    return np.concatenate(strangers)


def at_rank(path: Path, rank: int, low: int, high: int) -> int:
    """The value that stands at `rank` (from 0) of an int64 file when it is sorted."""

    def counted(low: int, high: int, width: int) -> np.ndarray:
        bins = np.zeros(BINS, np.int64)
        for values in pieces(path, np.dtype(np.int64)):
            inside = values[(values >= low) & (values <= high)]
            # a range of more than half of what 64 bits hold overflows unless the difference is read as unsigned
            above = (inside - np.int64(low)).view(np.uint64)
            bins += np.bincount((above // np.uint64(width)).astype(np.int64), minlength=BINS)
        return bins

    return by_counting(counted, rank, low, high)


def by_counting(counted: Callable[[int, int, int], np.ndarray], rank: int, low: int, high: int) -> int:
    """The value at `rank` in order, between `low` and `high`, by counting in ever finer bins.

    `counted(low, high, width)` is how many values from `low` to `high` lie in each of `BINS` bins of that width.
    """
    while low < high:
        width = -(-(high - low + 1) // BINS)
        bins = counted(low, high, width)
        before = np.cumsum(bins)
        chosen = int(np.searchsorted(before, rank, side="right"))
        rank -= int(before[chosen] - bins[chosen])
        low, high = low + chosen * width, min(low + (chosen + 1) * width - 1, high)
    return low
