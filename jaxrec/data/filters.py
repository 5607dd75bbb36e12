"""Which events stay: minimum counts in one pass over the raw data, and the k-core. Users here are sequences."""

import numpy as np


def minimum_counts(users: np.ndarray, items: np.ndarray, user_events: int, item_events: int) -> np.ndarray:
    """bool (events,): events whose user and whose item have enough events, both counted once on what is given."""
    return (np.bincount(users) >= user_events)[users] & (np.bincount(items) >= item_events)[items]


def k_core(users: np.ndarray, items: np.ndarray, k: int) -> np.ndarray:
    """bool (events,): the largest set of events in which every user and every item has at least k events.

    Users and items with fewer are dropped together, again and again until none is left to drop. A repeated pair counts
    as often as it is there.
    """
    kept = np.arange(len(items))
    while len(kept):
        enough = minimum_counts(users[kept], items[kept], k, k)
        if enough.all():
            break
        kept = kept[enough]
    stay = np.zeros(len(items), bool)
    stay[kept] = True
    return stay
