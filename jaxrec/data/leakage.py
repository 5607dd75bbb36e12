"""Proof that nothing after the boundary reached training, from the prepared arrays and the events they were made of.

Each finding names what was looked at: `events` (how many of training are later than those of test), `boundary` (is
it where the split says), `order` (inside a sequence), `vocabulary` (which items are known or offered), `numbering` (by
what they are numbered), `popularity` (training counts), `statistics` (gaps and session starts, which are made of times)
and `filters`. A leak that the split cannot avoid, or that was asked for, is `by_design`; any other is a fault, and
`proven` refuses the data.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jaxrec.config import Mistake
from jaxrec.data import card as cards
from jaxrec.data.filters import first_of_each
from jaxrec.data.logs import Log
from jaxrec.data.prepared import PIECE, Prepared, piece
from jaxrec.data.splits import TEST, TRAIN, part_of_each


class Finding(NamedTuple):
    """One question and its answer; `leaks` counts what should not be there, None where it cannot be counted."""

    check: str
    leaks: int | None
    sentence: str
    by_design: bool = False

    @property
    def fault(self) -> bool:
        return bool(self.leaks) and not self.by_design


@dataclass(frozen=True, eq=False)
class Truth:
    """What the events were before they were numbered: one entry an event, in the canonical order of the arrays."""

    item: list[str]  # distinct raw ids
    code: np.ndarray  # int (events,): index into item
    time: np.ndarray | None = None  # int64 (events,): microseconds
    session: np.ndarray | None = None  # int (events,)
    part: np.ndarray | None = None  # int8 (events,): 0, 1, 2 by the file of each event (split given)

    @classmethod
    def of(cls, log: Log) -> "Truth":
        return cls(log.item_names.to_list(), log.item, log.time, log.session, log.part)


class Block(NamedTuple):
    """Whole sequences, read at once: events `begin` to `end`, with everything that has one entry an event."""

    begin: int
    end: int
    items: np.ndarray
    training: np.ndarray
    test: np.ndarray
    offsets: np.ndarray  # of its sequences, from 0
    times: np.ndarray | None  # microseconds of the truth, else milliseconds of the arrays


def blocks(prepared: Prepared, truth: "Truth | None") -> Iterator[Block]:
    """The data in blocks of some million events (more where one sequence is longer)."""
    number = prepared.offsets[:-1] // PIECE
    firsts = np.flatnonzero(np.diff(number, prepend=-1))
    times = prepared.times if truth is None or truth.time is None else truth.time
    for low, high in zip(firsts, np.append(firsts[1:], len(number)), strict=True):
        offsets = prepared.offsets[low : high + 1]
        begin, end = int(offsets[0]), int(offsets[-1])
        ends = prepared.train_end[low:high], prepared.valid_end[low:high]
        part = part_of_each(offsets, (np.minimum(ends[0], ends[1]), np.minimum(ends[1], offsets[1:])))
        seen = None if times is None else piece(times, begin, end)
        yield Block(begin, end, piece(prepared.items, begin, end), part == TRAIN, part == TEST, offsets - begin, seen)


def proven(prepared: Prepared, truth: "Truth | None") -> dict[str, Any]:
    """For the card: whether nothing leaks, and every finding. Mistake on a leak that the split does not bring."""
    findings = check(prepared, truth)
    if faults := [finding for finding in findings if finding.fault]:
        raise Mistake(f"the prepared data leaks ({faults[0].sentence}); this is a fault of jaxrec: please report it")
    return {
        "clean": not any(finding.leaks or finding.leaks is None for finding in findings),
        "findings": [finding._asdict() for finding in findings],
    }


def check(prepared: Prepared, truth: "Truth | None" = None) -> list[Finding]:
    """Every finding about a split; without `truth` (prepared data that was loaded, or made by way of the disk) times
    are those of the arrays, to the millisecond, and what only the raw events can tell is left out.
    """
    counts = Counts(prepared, truth)
    for block in blocks(prepared, truth):
        counts.add(block)
    found = [events(prepared, truth, counts), boundary(prepared, truth, counts)]
    if counts.later:
        found.append(Finding("order", counts.back, f"{counts.back:,} events are later than the next of their sequence"))
    found += vocabulary(prepared, truth, counts)
    found.append(
        Finding("numbering", counts.misnumbered, f"{counts.misnumbered:,} known items are not numbered by training")
    )
    found.append(popularity(prepared, truth, counts))
    found += statistics(prepared, truth, counts)
    found.append(filters(prepared, counts))
    return found


class Counts:
    """What one pass over the blocks counts."""

    def __init__(self, prepared: Prepared, truth: "Truth | None"):
        size = max(prepared.candidates, prepared.known, len(prepared.popularity) - 1) + 2
        self.prepared, self.truth = prepared, truth
        self.learnt = np.zeros(size, np.int64)  # training events of each number
        self.raw = None if truth is None else np.zeros(len(truth.item), np.int64)  # and of each raw id
        self.later: list[np.ndarray] = []  # times after the boundary, a block each
        self.training = self.foreign = self.strangers = self.back = self.misnumbered = self.gaps = self.times = 0

    def add(self, block: Block) -> None:
        prepared, truth, learnt = self.prepared, self.truth, block.items[block.training]
        fresh, place = np.unique(learnt[self.learnt[learnt] == 0], return_index=True)
        fresh, known = fresh[np.argsort(place)], int(np.count_nonzero(self.learnt))
        self.misnumbered += int(np.count_nonzero(fresh != np.arange(known + 1, known + 1 + len(fresh))))
        self.learnt += np.bincount(learnt, minlength=len(self.learnt))
        self.training += len(learnt)
        self.strangers += int(np.count_nonzero(block.items > prepared.known))
        if truth is not None and self.raw is not None:
            self.raw += np.bincount(truth.code[block.begin : block.end][block.training], minlength=len(self.raw))
            if truth.part is not None:
                self.foreign += int(np.count_nonzero(truth.part[block.begin : block.end][block.training] != TRAIN))
        if block.times is not None:
            by_time = prepared.card["split"]["name"] == "time"
            self.later.append(block.times[~block.training if by_time else block.test])
            self.in_time(block, block.times)

    def in_time(self, block: Block, times: np.ndarray) -> None:
        prepared = self.prepared
        back = np.diff(times) < 0
        back[block.offsets[1:-1] - 1] = False
        if prepared.card["split"]["name"] == "given":  # there the file goes before the time
            part = block.training * 1 - block.test * 1
            back &= np.diff(part) == 0
        self.back += int(np.count_nonzero(back))
        if prepared.times is None:
            return
        milliseconds = piece(prepared.times, block.begin, block.end)
        if times.dtype == milliseconds.dtype and self.truth is not None and self.truth.time is not None:
            self.times += int(np.count_nonzero(times // 1000 != milliseconds))
        if prepared.gaps is not None:
            since = np.diff(milliseconds, prepend=milliseconds[:1])
            since[block.offsets[:-1]] = 0
            kept = piece(prepared.gaps, block.begin, block.end)
            self.gaps += int(np.count_nonzero((since / 1000).astype(np.float32) != kept))


def events(prepared: Prepared, truth: "Truth | None", counts: Counts) -> Finding:
    """Training events at or after the first event that is tested (or validates, for split time)."""
    if not counts.later:
        return Finding("events", None, "without times nobody can say which events are later than others", True)
    later, exact = np.concatenate(counts.later), truth is not None and truth.time is not None
    if not len(later) or not counts.training:
        return Finding("events", 0, "one side of the boundary is empty")
    first, median = later.min(), np.partition(later, len(later) // 2)[len(later) // 2]
    on, after_first, after_median = 0, 0, 0
    for block in blocks(prepared, truth):
        if block.times is not None:
            learnt = block.times[block.training]
            on += int(np.count_nonzero(learnt == first))
            after_first += int(np.count_nonzero(learnt > first))
            after_median += int(np.count_nonzero(learnt > median))
    if prepared.card["split"]["name"] == "time":
        # times of the arrays are cut to milliseconds: events of the boundary's own cannot be told apart
        wrong = after_first + (on if exact else 0)
        return Finding("events", wrong, f"{wrong:,} training events are not before the first event after the boundary")
    return Finding(
        "events",
        after_first,
        f"{after_first / counts.training:.1%} of the training events are later than the earliest test event, "
        f"{after_median / counts.training:.1%} later than the median one",
        by_design=True,
    )


def boundary(prepared: Prepared, truth: "Truth | None", counts: Counts) -> Finding:
    """Sequences (or, of given files, events) that are not split as the card says."""
    split, begin, end = prepared.card["split"], prepared.offsets[:-1], prepared.offsets[1:]
    inside = (begin <= prepared.train_end) & (prepared.train_end <= prepared.valid_end) & (prepared.valid_end <= end)
    wrong = int(np.count_nonzero(~inside))
    if split["name"] in ("leave-one-out", "last-n"):
        n = split.get("last", 1)
        valid, test, long = prepared.valid_end - prepared.train_end, end - prepared.valid_end, end - begin > 2 * n
        held = (valid == n) & (test == n)
        right = held if prepared.card["filters"]["scope"] == "train" else held & long
        wrong += int(np.count_nonzero(~right & ~(~long & (valid == 0) & (test == 0))))
        return Finding("boundary", wrong, f"{wrong:,} sequences do not hold out their last {n} and the {n} before")
    if truth is None and "counts" in prepared.card:  # nothing but the card remembers what was given
        wrong += int(counts.training != prepared.card["counts"]["train_events"])
    if split["name"] == "given" and truth is not None:
        wrong += counts.foreign
        return Finding("boundary", wrong, f"{wrong:,} training events are not of the training file")
    return Finding("boundary", wrong, f"{wrong:,} sequences have their parts out of order")


def vocabulary(prepared: Prepared, truth: "Truth | None", counts: Counts) -> Iterator[Finding]:
    """Items that are known or offered although no training event has them."""
    occurs = counts.learnt > 0
    strangers = int(np.count_nonzero(~occurs[1 : prepared.known + 1])) + int(occurs[0])
    if prepared.card["catalogue"] == "train":
        strangers += max(prepared.candidates, len(prepared.item_ids), len(prepared.popularity) - 1) - prepared.known
        strangers += counts.strangers
        what = "the catalogue is that of training"
    else:
        what = "the catalogue holds all items by request, and marks those that training knows"
    yield Finding("vocabulary", strangers, f"{what}; {strangers:,} items pass for known without a training event")
    if truth is not None and counts.raw is not None:
        names = {truth.item[code] for code in np.flatnonzero(counts.raw)}
        wrong = len(names.symmetric_difference(prepared.item_ids.strings[: prepared.known]))
        yield Finding("vocabulary", wrong, f"{wrong:,} raw ids differ between the known items and the training events")


def popularity(prepared: Prepared, truth: "Truth | None", counts: Counts) -> Finding:
    """Items whose popularity is not their number of training events, counted on the raw ids where they are there."""
    wrong = int(np.count_nonzero(counts.learnt[: len(prepared.popularity)] != prepared.popularity))
    if truth is not None and counts.raw is not None:
        by_name = {truth.item[code]: int(counts.raw[code]) for code in np.flatnonzero(counts.raw)}
        told = zip(prepared.item_ids.strings, prepared.popularity[1:].tolist(), strict=False)
        wrong = max(wrong, sum(by_name.get(name, 0) != count for name, count in told))
    return Finding("popularity", wrong, f"{wrong:,} items have another popularity than their training events")


def statistics(prepared: Prepared, truth: "Truth | None", counts: Counts) -> Iterator[Finding]:
    """Gaps that are not the plain difference to the event before, and session starts that are not causal."""
    if prepared.gaps is not None:
        yield Finding("statistics", counts.gaps, f"{counts.gaps:,} gaps are not the seconds since the event before")
    if counts.later and truth is not None:
        yield Finding("statistics", counts.times, f"{counts.times:,} times are not those of the raw events")
    if prepared.starts is not None:
        expected = prepared.starts.copy() if truth is None or truth.session is None else first_of_each(truth.session)
        expected[prepared.offsets[:-1]] = True
        wrong = int(np.count_nonzero(expected != prepared.starts))
        yield Finding("statistics", wrong, f"{wrong:,} session starts are not where a session is met first")


def filters(prepared: Prepared, counts: Counts) -> Finding:
    """Training events that stay, though training alone does not give their user and item the counts asked for."""
    asked = prepared.card["filters"]
    if not cards.filters_leak(prepared.card["split"], asked):
        return Finding("filters", 0, "no event after the boundary decided which training events stay")
    if asked["deduplicate"] == "last":
        return Finding("filters", None, "training events went because a later event has their user and item", True)
    least, users = (max(asked["k_core"], asked[f"min_{kind}_events"]) for kind in ("item", "user"))
    wrong = 0
    for block in blocks(prepared, None):
        sequence = np.repeat(np.arange(len(block.offsets) - 1), np.diff(block.offsets))[block.training]
        few = np.bincount(sequence, minlength=1)[sequence] < users
        wrong += int(np.count_nonzero(few | (counts.learnt[block.items[block.training]] < least)))
    sentence = f"{wrong:,} training events stay although training alone has too few of their user or item"
    return Finding("filters", wrong, sentence, by_design=True)
