"""What lists of recommendations look like as a whole, whoever they were made for.

``lists`` (n, k) holds item numbers from 1; 0 marks the places of a list that ran out of candidates.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def coverage(lists: ArrayLike, candidates: int) -> float:
    """Share of the items 1..candidates that occur in at least one list."""
    items = _items(lists, candidates)
    return np.unique(items).size / candidates


def mean_popularity(lists: ArrayLike, popularity: ArrayLike) -> float:
    """Mean training count of the recommended items; ``popularity`` (1 + candidates,) is indexed by item number."""
    counts = np.asarray(popularity)
    items = _items(lists, len(counts) - 1)
    if items.size == 0:
        raise ValueError("the lists recommend nothing, so their mean popularity does not exist; give at least one item")
    return float(counts[items].mean(dtype=np.float64))


def _items(lists: ArrayLike, candidates: int) -> NDArray[np.integer]:
    items = np.asarray(lists)
    if candidates < 1:
        raise ValueError(f"candidates = {candidates}; a catalogue has at least 1 item")
    if items.size and items.dtype.kind not in "iu":
        raise ValueError(f"lists are {items.dtype}; give item numbers")
    if items.size and not (items.min() >= 0 and items.max() <= candidates):
        raise ValueError(f"lists hold items {items.min()} to {items.max()}, outside 0..{candidates}; encode them first")
    return items[items > 0]
