"""Kinds of targets, so that a metric can be read for each: short or long histories, popular or rare items, and so on.

Never imports jax: pages and comparisons read slices from a run folder.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxrec.data.prepared import Prepared, ranges

Mask = NDArray[np.bool_]
LENGTHS = (1, 6, 21, 51, 201)  # first history length of each slice
DECILES = 10
BUDGET = 2**20  # events looked at together: about 50 MB


def slices(prepared: Prepared, ranks: Any) -> dict[str, Mask]:
    """Name -> which targets (n,) belong to it; ``ranks`` has ``example``, ``position`` and ``target`` (n,).

    - ``history 1-5`` ... ``history 201+``: events before the target in its sequence.
    - ``popularity decile 1`` (the most popular) ... ``10``: tenths of the items that occur in training, by training
      count; items with the same count are in the same tenth, so a tenth may be empty. ``never in training`` for the
      rest.
    - ``repeat``, ``new``: whether the target is an item of its own history. An item outside the vocabulary is new.
    - ``tied time``, ``untied time``: whether another event of the sequence has the target's time, so that the order of
      the file decided which of them is the target. Absent where the data has no times.

    Each of the four families divides all targets; a slice may be empty.
    """
    event = events_of(prepared, ranks)
    again = repeated(prepared, event)
    found = by_length(np.asarray(ranks.position)) | by_popularity(prepared, np.asarray(ranks.target))
    found |= {"repeat": again, "new": ~again}
    if prepared.times is not None:
        tied = tied_time(prepared, event)
        found |= {"tied time": tied, "untied time": ~tied}
    return found


def events_of(prepared: Prepared, ranks: Any) -> NDArray[np.int64]:
    """The absolute event index of each target (n,), ascending."""
    return np.asarray(prepared.offsets)[ranks.example] + ranks.position


def by_length(position: NDArray[np.int64]) -> dict[str, Mask]:
    """Slices by events before the target."""
    ends = [*(first - 1 for first in LENGTHS[1:]), None]
    names = [f"history {first}-{end}" if end else f"history {first}+" for first, end in zip(LENGTHS, ends, strict=True)]
    place = np.searchsorted(LENGTHS, position, side="right") - 1
    return {name: place == number for number, name in enumerate(names)}


def by_popularity(prepared: Prepared, target: NDArray[np.int64]) -> dict[str, Mask]:
    """Slices by the target's training count among those of all items of the training part."""
    counts = np.asarray(prepared.popularity)
    trained = np.sort(counts[1 : prepared.known + 1])
    known = (target > 0) & (target <= prepared.known)
    own = counts[np.where(known, target, 0)]
    above = len(trained) - np.searchsorted(trained, own, side="right")  # items with a larger count
    decile = np.where(known, DECILES * above // max(len(trained), 1), DECILES)
    found = {f"popularity decile {number + 1}": decile == number for number in range(DECILES)}
    return found | {"never in training": decile == DECILES}


def repeated(prepared: Prepared, event: NDArray[np.int64]) -> Mask:
    """Whether the item of each event (n,), ascending, occurs earlier in its sequence."""
    found = np.zeros(len(event), bool)
    offsets = np.asarray(prepared.offsets)
    sequence = prepared.sequence_of(event)
    distinct, first = np.unique(sequence, return_index=True)
    begin, end = offsets[distinct], event[np.append(first[1:], len(event)) - 1] + 1 if len(event) else offsets[:0]
    total = np.cumsum(end - begin)
    start = 0
    while start < len(distinct):  # whole sequences within the budget, at least one
        spent = total[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(total, spent + BUDGET, side="right")))
        targets = slice(first[start], first[stop] if stop < len(distinct) else len(event))
        found[targets] = _seen_before(prepared, begin[start:stop], end[start:stop], event[targets])
        start = stop
    return found


def _seen_before(
    prepared: Prepared, begin: NDArray[np.int64], end: NDArray[np.int64], event: NDArray[np.int64]
) -> Mask:
    """The same for the events of a few sequences, given by their ranges."""
    events = ranges(begin, end)
    row, item = np.repeat(np.arange(len(begin)), end - begin), np.asarray(prepared.items[events])
    order = np.lexsort((item, row))  # stable: events of one item in one sequence stay in their order
    same = (item[order[1:]] == item[order[:-1]]) & (row[order[1:]] == row[order[:-1]]) & (item[order[1:]] > 0)
    again = np.zeros(len(events), bool)
    again[order[1:][same]] = True
    return again[np.searchsorted(events, event)]


def tied_time(prepared: Prepared, event: NDArray[np.int64]) -> Mask:
    """Whether a neighbour of each event (n,) in its sequence has the same time."""
    times, offsets = np.asarray(prepared.times), np.asarray(prepared.offsets)
    sequence = prepared.sequence_of(event)
    before = (event > offsets[sequence]) & (times[np.maximum(event - 1, 0)] == times[event])
    after = (event + 1 < offsets[sequence + 1]) & (times[np.minimum(event + 1, len(times) - 1)] == times[event])
    return before | after
