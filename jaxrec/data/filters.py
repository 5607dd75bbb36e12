"""Which events stay, as masks and indices of events. Users here are sequences where it does not say person."""

from collections.abc import Sequence

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


def repeats(sequence: np.ndarray, item: np.ndarray) -> np.ndarray:
    """bool (events,): whether the event before is of the same sequence and item; sequences are contiguous."""
    again = np.zeros(len(item), bool)
    again[1:] = (sequence[1:] == sequence[:-1]) & (item[1:] == item[:-1])
    return again


def one_of_each(keys: Sequence[np.ndarray], last: bool = False) -> np.ndarray:
    """bool (events,): the first (or last) of the events that are equal in every key, in the order given."""
    stay = np.ones(len(keys[0]), bool)
    if len(stay):
        order = np.lexsort(keys)
        same = np.all([key[order[1:]] == key[order[:-1]] for key in keys], axis=0)
        stay[order[:-1] if last else order[1:]] = ~same
    return stay


def sessions_from_gaps(person: np.ndarray, part: np.ndarray, time: np.ndarray, gap: int) -> np.ndarray:
    """int64 (events,): codes of sessions, from 0 by first appearance; events in any order.

    A person's events, in order of part and time, are cut where the time from one to the next is more than `gap`.
    """
    order = np.lexsort((time, part, person))
    begins = np.ones(len(order), bool)
    begins[1:] = (np.diff(person[order]) != 0) | (np.diff(time[order]) > gap)
    code = np.empty(len(order), np.int64)
    code[order] = np.cumsum(begins) - 1
    return by_first_appearance(code)


def by_first_appearance(codes: np.ndarray) -> np.ndarray:
    """int64 (n,): the same groups, numbered from 0 in the order in which they appear."""
    _, place, code = np.unique(codes, return_index=True, return_inverse=True)
    rank = np.empty(len(place), np.int64)
    rank[np.argsort(place)] = np.arange(len(place))
    return rank[code]


def first_of_each(codes: np.ndarray) -> np.ndarray:
    """bool (n,): whether a code is met for the first time."""
    found = np.zeros(len(codes), bool)
    found[np.unique(codes, return_index=True)[1]] = True
    return found
