"""What a log of events looks like in numbers: lengths, popularity, repeats, time and ties; plain, ready for JSON.

Every function takes arrays of a log in canonical order (`logs.ordered`): `sequence` and `item` are codes from 0,
`time` is int64 microseconds, ascending inside a sequence.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxrec.data.card import tie_shares
from jaxrec.data.clocks import span
from jaxrec.data.splits import moment

if TYPE_CHECKING:
    import polars as pl

SHARES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
BUCKETS = 60  # of time at most, in the smallest unit that allows it
SECOND, MINUTE, HOUR, DAY = 1_000_000, 60_000_000, 3_600_000_000, 86_400_000_000
RESOLUTIONS = (("days", DAY), ("hours", HOUR), ("minutes", MINUTE), ("seconds", SECOND), ("milliseconds", 1000))
POINTS = 60  # of a popularity curve


def lengths(offsets: np.ndarray) -> dict[str, Any]:
    """Quantiles of the events of a sequence, their mean, a histogram over powers of two, and who is short."""
    events = np.diff(offsets)
    found = np.quantile(events, SHARES, method="lower")
    powers = np.bincount(np.frexp(events.astype(np.float64))[1] - 1)  # of floor(log2)
    return {
        "quantiles": {f"{share:g}": int(value) for share, value in zip(SHARES, found, strict=True)},
        "mean": float(events.mean()),
        "one": int((events == 1).sum()),
        "under_three": int((events < 3).sum()),
        "histogram": [
            {"from": 2**n, "to": 2 ** (n + 1) - 1, "sequences": int(count)} for n, count in enumerate(powers)
        ],
    }


def popularity(item: np.ndarray) -> dict[str, Any]:
    """How unevenly events are spread over items: Gini (0 = evenly), shares of the top, and the curve by rank.

    The top 1 % of n items are the ceil(n / 100) with most events. `curve`: at each rank the item's events and the share
    of all events that go to it and to the items before it.
    """
    counts = np.bincount(item)
    counts = np.sort(counts[counts > 0])
    n, total = len(counts), int(counts.sum())
    gini = float(2 * (np.arange(1, n + 1) * counts).sum() / (n * total) - (n + 1) / n)
    top = counts[::-1]
    share = np.cumsum(top) / total
    places = np.unique(np.geomspace(1, n, POINTS).round().astype(np.int64))
    return {
        "gini": gini,
        "top_1_share": float(share[-(-n // 100) - 1]),
        "top_10_share": float(share[-(-n // 10) - 1]),
        "half": int(np.searchsorted(share, 0.5) + 1),  # items that together have half of the events
        "once": int((counts == 1).sum()),
        "most": int(top[0]),
        "quantiles": {
            f"{q:g}": int(v) for q, v in zip(SHARES, np.quantile(counts, SHARES, method="lower"), strict=True)
        },
        "curve": {
            "rank": places.tolist(), "events": top[places - 1].tolist(), "share": share[places - 1].tolist(),
        },
    }  # fmt: skip


def repeats(sequence: np.ndarray, item: np.ndarray, time: np.ndarray | None) -> dict[str, Any]:
    """Shares of the events whose item occurred earlier in their sequence, and directly before; and rows given twice.

    `duplicates` counts events with sequence, item and time of an earlier one; None without times, where a second time
    cannot be told from a second row.
    """
    again = repeated(sequence, item)
    direct = np.append(False, (np.diff(item) == 0) & (np.diff(sequence) == 0))
    return {
        "share": float(again.mean()),
        "direct_share": float(direct.mean()),
        "sequences_share": float(len(np.unique(sequence[again])) / len(np.unique(sequence))),
        "duplicates": None if time is None else duplicates(sequence, item, time),
    }


def repeated(sequence: np.ndarray, item: np.ndarray) -> np.ndarray:
    """bool (events,): whether an earlier event of the sequence has the same item."""
    order = np.lexsort((item, sequence))  # stable: events of one pair stay in their order
    same = (np.diff(item[order]) == 0) & (np.diff(sequence[order]) == 0)
    again = np.zeros(len(item), bool)
    again[order[1:][same]] = True
    return again


def duplicates(sequence: np.ndarray, item: np.ndarray, time: np.ndarray) -> int:
    """Events with sequence, item and time of an earlier one."""
    order = np.lexsort((time, item, sequence))
    keys = (sequence[order], item[order], time[order])
    return int(np.all([np.diff(key) == 0 for key in keys], axis=0).sum())


def times(time: np.ndarray, offsets: np.ndarray) -> dict[str, Any]:
    """Span, resolution, events in each bucket of time, and the gaps between neighbours of a sequence in seconds."""
    inside = np.ones(len(time), bool)
    inside[offsets[:-1]] = False
    gaps = np.diff(time, prepend=time[:1])[inside] / SECOND
    quantiles = np.quantile(gaps, SHARES) if len(gaps) else np.full(len(SHARES), np.nan)
    return {
        "first": moment(int(time.min())),
        "last": moment(int(time.max())),
        "span": span(time),
        "resolution": next((name for name, unit in RESOLUTIONS if not (time % unit).any()), "microseconds"),
        "buckets": buckets(time),
        "gap_seconds": {f"{q:g}": float(v) for q, v in zip(SHARES, quantiles, strict=True)} if len(gaps) else None,
    }


def buckets(time: np.ndarray) -> dict[str, Any]:
    """Events in every hour, day, week (from Monday), month or year: the smallest of them with few enough buckets."""
    place = {
        "hour": lambda t: t // HOUR,
        "day": lambda t: t // DAY,
        "week": lambda t: (t // DAY + 3) // 7,  # 1970-01-01 was a Thursday
        "month": lambda t: t.astype("datetime64[us]").astype("datetime64[M]").astype(np.int64),
        "year": lambda t: t.astype("datetime64[us]").astype("datetime64[Y]").astype(np.int64),
    }
    start = {
        "hour": lambda n: str(np.datetime64(int(n), "h")),
        "day": lambda n: str(np.datetime64(int(n), "D")),
        "week": lambda n: str(np.datetime64(int(n) * 7 - 3, "D")),
        "month": lambda n: str(np.datetime64(int(n), "M")),
        "year": lambda n: str(np.datetime64(int(n), "Y")),
    }
    ends = np.array([time.min(), time.max()])
    unit = next((name for name, of in place.items() if np.diff(of(ends))[0] < BUCKETS), "year")
    number = place[unit](time)
    first, last = int(number.min()), int(number.max())
    if last - first < 10 * BUCKETS:
        shown = np.arange(first, last + 1)
        counts = np.bincount(number - first)
    else:  # times that are no times, millennia apart: only the years that occur
        shown, counts = np.unique(number, return_counts=True)
        shown, counts = shown[:BUCKETS], counts[:BUCKETS]
    return {"unit": unit, "start": [start[unit](n) for n in shown], "events": counts.tolist()}


def ties(
    sequence: np.ndarray, item: np.ndarray, time: np.ndarray | None, offsets: np.ndarray, names: "pl.Series"
) -> dict[str, Any]:
    """Shares of tied events and tied last events, and in how many tied neighbours the item id ascends.

    About half ascend where the order means something or is random; nearly all where the file was sorted by item.
    """
    found = {name: value for name, value in tie_shares(offsets, time).items() if name != "policy"}
    if time is None:
        return found | {"pairs": 0, "ascending_share": None}
    pair = np.flatnonzero((np.diff(time) == 0) & (np.diff(sequence) == 0) & (np.diff(item) != 0))
    rank = order_of(names)
    ascending = rank[item[pair + 1]] > rank[item[pair]]
    return found | {"pairs": len(pair), "ascending_share": float(ascending.mean()) if len(pair) else None}


def order_of(names: "pl.Series") -> np.ndarray:
    """The place of each id when ids are sorted: as numbers where all are, else as text."""
    import polars as pl

    numbers = names.cast(pl.Int64, strict=False)
    return (names if numbers.null_count() else numbers).rank("dense").to_numpy()
