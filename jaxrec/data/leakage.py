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
from jaxrec.data.prepared import Prepared, ranges
from jaxrec.data.splits import TRAIN


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


def proven(prepared: Prepared, truth: Truth) -> dict[str, Any]:
    """For the card: whether nothing leaks, and every finding. Mistake on a leak that the split does not bring."""
    findings = check(prepared, truth)
    if faults := [finding for finding in findings if finding.fault]:
        raise Mistake(f"the prepared data leaks ({faults[0].sentence}); this is a fault of jaxrec: please report it")
    return {
        "clean": not any(finding.leaks or finding.leaks is None for finding in findings),
        "findings": [finding._asdict() for finding in findings],
    }


def check(prepared: Prepared, truth: Truth | None = None) -> list[Finding]:
    """Every finding about a split; without `truth` (prepared data that was loaded) times are those of the arrays,
    to the millisecond, and what only the raw events can tell is left out.
    """
    training = np.zeros(len(prepared.items), bool)
    training[ranges(prepared.offsets[:-1], prepared.train_end)] = True
    times = prepared.times if truth is None else truth.time
    found = [events(prepared, training, times), boundary(prepared, training, truth)]
    if times is not None:
        found.append(order(prepared, times))
    found += vocabulary(prepared, training, truth)
    found.append(numbering(prepared, training))
    found.append(popularity(prepared, training, truth))
    found += statistics(prepared, times, truth)
    found.append(filters(prepared, training))
    return found


def events(prepared: Prepared, training: np.ndarray, times: np.ndarray | None) -> Finding:
    """Training events at or after the first event that is tested (or validates, for split time)."""
    split = prepared.card["split"]["name"]
    if times is None:
        return Finding("events", None, "without times nobody can say which events are later than others", True)
    test = np.zeros(len(times), bool)
    test[ranges(prepared.valid_end, prepared.offsets[1:])] = True
    later, learnt = times[~training if split == "time" else test], times[training]
    if not len(later) or not len(learnt):
        return Finding("events", 0, "one side of the boundary is empty")
    if split == "time":
        # times of the arrays are cut to milliseconds: events of the boundary's own cannot be told apart
        wrong = int(np.count_nonzero(learnt >= later.min() if times is not prepared.times else learnt > later.min()))
        return Finding("events", wrong, f"{wrong:,} training events are not before the first event after the boundary")
    first, median = later.min(), np.partition(later, len(later) // 2)[len(later) // 2]
    after_first, after_median = (int(np.count_nonzero(learnt > moment)) for moment in (first, median))
    return Finding(
        "events",
        after_first,
        f"{share(after_first, learnt)} of the training events are later than the earliest test event, "
        f"{share(after_median, learnt)} later than the median one",
        by_design=True,
    )


def share(count: int, events: np.ndarray) -> str:
    return f"{count / max(len(events), 1):.1%}"


def boundary(prepared: Prepared, training: np.ndarray, truth: Truth | None) -> Finding:
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
    if truth is None:  # nothing but the card remembers what was given
        wrong += int(np.count_nonzero(training) != prepared.card["counts"]["train_events"])
    elif split["name"] == "given" and truth.part is not None:
        wrong += int(np.count_nonzero(truth.part[training] != TRAIN))
        return Finding("boundary", wrong, f"{wrong:,} training events are not of the training file")
    return Finding("boundary", wrong, f"{wrong:,} sequences have their parts out of order")


def order(prepared: Prepared, times: np.ndarray) -> Finding:
    """Events that are later than their successor: a history that would hold its own future."""
    back = np.diff(times) < 0
    back[prepared.offsets[1:-1] - 1] = False
    if prepared.card["split"]["name"] == "given":  # there the file goes before the time
        back[last_of_parts(prepared)] = False
    wrong = int(np.count_nonzero(back))
    return Finding("order", wrong, f"{wrong:,} events are later than the next of their sequence")


def last_of_parts(prepared: Prepared) -> np.ndarray:
    """Indices of the last event before each inner boundary of a sequence."""
    ends = np.concatenate([prepared.train_end, prepared.valid_end])
    return ends[(ends > 0) & (ends < len(prepared.items))] - 1


def vocabulary(prepared: Prepared, training: np.ndarray, truth: Truth | None) -> Iterator[Finding]:
    """Items that are known or offered although no training event has them."""
    occurs = np.zeros(max(prepared.candidates, int(prepared.items.max(initial=0))) + 1, bool)
    occurs[prepared.items[training]] = True
    strangers = int(np.count_nonzero(~occurs[1 : prepared.known + 1])) + int(occurs[0])
    if prepared.card["catalogue"] == "train":
        strangers += max(prepared.candidates, len(prepared.item_ids), len(prepared.popularity) - 1) - prepared.known
        strangers += int(np.count_nonzero(prepared.items > prepared.known))
        what = "the catalogue is that of training"
    else:
        what = "the catalogue holds all items by request, and marks those that training knows"
    yield Finding("vocabulary", strangers, f"{what}; {strangers:,} items pass for known without a training event")
    if truth is not None:
        learnt = np.bincount(truth.code[training], minlength=len(truth.item)) > 0
        names = {truth.item[code] for code in np.flatnonzero(learnt)}
        wrong = len(names.symmetric_difference(prepared.item_ids.strings[: prepared.known]))
        yield Finding("vocabulary", wrong, f"{wrong:,} raw ids differ between the known items and the training events")


def numbering(prepared: Prepared, training: np.ndarray) -> Finding:
    """Known items whose number is not their place by first appearance in training."""
    numbers, place = np.unique(prepared.items[training], return_index=True)
    wrong = int(np.count_nonzero(np.argsort(place) != np.arange(len(place))))
    wrong = wrong if prepared.items[training].all() else max(wrong, 1)
    return Finding("numbering", wrong, f"{wrong:,} of {len(numbers):,} known items are not numbered by training")


def popularity(prepared: Prepared, training: np.ndarray, truth: Truth | None) -> Finding:
    """Items whose popularity is not their number of training events, counted on the raw ids where they are there."""
    if truth is None:
        counted = np.bincount(prepared.items[training], minlength=len(prepared.popularity))
        wrong = int(np.count_nonzero(counted != prepared.popularity)) if len(counted) == len(prepared.popularity) else 1
    else:
        counts = np.bincount(truth.code[training], minlength=len(truth.item))
        by_name = {truth.item[code]: int(counts[code]) for code in np.flatnonzero(counts)}
        told = zip(prepared.item_ids.strings, prepared.popularity[1:].tolist(), strict=False)
        wrong = sum(by_name.get(name, 0) != count for name, count in told) + int(prepared.popularity[0] != 0)
    return Finding("popularity", wrong, f"{wrong:,} items have another popularity than their training events")


def statistics(prepared: Prepared, times: np.ndarray | None, truth: Truth | None) -> Iterator[Finding]:
    """Gaps that are not the plain difference to the event before, and session starts that are not causal."""
    if prepared.gaps is not None and prepared.times is not None:
        since = np.diff(prepared.times, prepend=prepared.times[:1])
        since[prepared.offsets[:-1]] = 0
        wrong = int(np.count_nonzero((since / 1000).astype(np.float32) != prepared.gaps))
        yield Finding("statistics", wrong, f"{wrong:,} gaps are not the seconds since the event before")
    if prepared.times is not None and truth is not None and times is not None:
        wrong = int(np.count_nonzero(times // 1000 != prepared.times))
        yield Finding("statistics", wrong, f"{wrong:,} times are not those of the raw events")
    if prepared.starts is not None:
        expected = prepared.starts.copy() if truth is None or truth.session is None else first_of_each(truth.session)
        expected[prepared.offsets[:-1]] = True
        wrong = int(np.count_nonzero(expected != prepared.starts))
        yield Finding("statistics", wrong, f"{wrong:,} session starts are not where a session is met first")


def filters(prepared: Prepared, training: np.ndarray) -> Finding:
    """Training events that stay, though training alone does not give their user and item the counts asked for."""
    asked = prepared.card["filters"]
    if not cards.filters_leak(prepared.card["split"], asked):
        return Finding("filters", 0, "no event after the boundary decided which training events stay")
    items = prepared.items[training]
    users = np.repeat(np.arange(len(prepared.train_end)), prepared.train_end - prepared.offsets[:-1])
    user_events, item_events = (max(asked["k_core"], asked[f"min_{kind}_events"]) for kind in ("user", "item"))
    enough = (np.bincount(users) >= user_events)[users] & (np.bincount(items) >= item_events)[items]
    wrong = int(np.count_nonzero(~enough))
    sentence = f"{wrong:,} training events stay although training alone has too few of their user or item"
    if asked["deduplicate"] == "last":
        return Finding("filters", None, "training events went because a later event has their user and item", True)
    return Finding("filters", wrong, sentence, by_design=True)
