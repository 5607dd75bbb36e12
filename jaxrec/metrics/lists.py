"""What lists of recommendations look like as a whole, whoever they were made for.

``lists`` (n, k) holds item numbers from 1; 0 marks the places of a list that ran out of candidates. ``popularity``
(1 + candidates,) holds training counts and ``features`` (1 + candidates, f) a vector an item, both indexed by item
number.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

HEAD = 0.2  # share of the catalogue, the most popular part, that is not the tail
BUDGET = 2**20  # numbers looked at together: 8 MB


def coverage(lists: ArrayLike, candidates: int) -> float:
    """Share of the items 1..candidates that occur in at least one list."""
    items = _items(lists, candidates)
    return np.unique(items).size / candidates


def mean_popularity(lists: ArrayLike, popularity: ArrayLike) -> float:
    """Mean training count of the recommended items."""
    counts = np.asarray(popularity)
    items = _given(lists, len(counts) - 1)
    return float(counts[items].mean(dtype=np.float64))


def gini(lists: ArrayLike, candidates: int) -> float:
    """Gini index of how often each of the items 1..candidates is recommended (Gini 1912): 0 when all are equally
    often, towards 1 when a few get every place.
    """
    often = np.sort(np.bincount(_given(lists, candidates), minlength=candidates + 1)[1:].astype(np.float64))
    place = np.arange(1, candidates + 1)
    return float(np.sum((2 * place - candidates - 1) * often) / (candidates * often.sum()))


def tail_share(lists: ArrayLike, popularity: ArrayLike, head: float = HEAD) -> float:
    """Share of the recommended places that go to the tail: items with at least ``head`` of the catalogue, a fifth,
    more popular than they are (Abdollahpouri et al. 2017). Items of one count stay together.
    """
    counts = np.asarray(popularity)
    items = _given(lists, len(counts) - 1)
    size = len(counts) - 1
    above = size - np.searchsorted(np.sort(counts[1:]), counts[items], side="right")
    return float(np.mean(above >= head * size))


def novelty(lists: ArrayLike, popularity: ArrayLike) -> float:
    """Mean self-information of the recommended items in bits, ``-log2`` of an item's share of the training events
    (Zhou et al. 2010); one is added to every count, so that an item that was never seen is finitely surprising.
    """
    counts = np.asarray(popularity, np.float64)
    items = _given(lists, len(counts) - 1)
    share = (counts[1:] + 1) / (counts[1:].sum() + len(counts) - 1)
    return float(-np.log2(share[items - 1]).mean())


def diversity(lists: ArrayLike, features: ArrayLike) -> float:
    """Intra-list diversity: mean cosine distance of two items of a list (Smyth and McClave 2001), averaged over lists.

    Items without features (a zero vector) and lists with fewer than two others are left out. NaN when no list is left.
    """
    vectors = np.asarray(features, np.float64)
    items = np.asarray(lists)
    _items(items, len(vectors) - 1)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
    there = (length[:, 0] > 0) & (np.arange(len(vectors)) > 0)
    total, counted = 0.0, 0
    step = max(1, BUDGET // max(1, items.shape[1] * vectors.shape[1]))
    for start in range(0, len(items), step):
        part = items[start : start + step]
        size = there[part].sum(axis=1)
        inner = np.sum((unit[part] * there[part][:, :, None]).sum(axis=1) ** 2, axis=1) - size
        enough = size > 1
        total += float(np.sum(1 - inner[enough] / (size * (size - 1))[enough]))
        counted += int(enough.sum())
    return total / counted if counted else float("nan")


LISTS = {
    "coverage": coverage, "popularity": mean_popularity, "gini": gini, "tail": tail_share, "novelty": novelty,
    "diversity": diversity,
}  # fmt: skip


def describe(
    lists: ArrayLike, popularity: ArrayLike, candidates: int, features: ArrayLike | None = None
) -> dict[str, float]:
    """Every number of this module under its name with the length of the lists, ``{"coverage@10": ..., ...}``.

    Diversity only where ``features`` are given and some list has two items with features.
    """
    given: dict[str, tuple] = {
        "coverage": (candidates,), "popularity": (popularity,), "gini": (candidates,), "tail": (popularity,),
        "novelty": (popularity,),
    }  # fmt: skip
    if features is not None:
        given["diversity"] = (features,)
    k = np.asarray(lists).shape[1]
    found = {f"{name}@{k}": LISTS[name](lists, *rest) for name, rest in given.items()}
    return {name: value for name, value in found.items() if np.isfinite(value)}


def _given(lists: ArrayLike, candidates: int) -> NDArray[np.integer]:
    items = _items(lists, candidates)
    if items.size == 0:
        raise ValueError("the lists recommend nothing, so they have no mean; give at least one item")
    return items


def _items(lists: ArrayLike, candidates: int) -> NDArray[np.integer]:
    items = np.asarray(lists)
    if candidates < 1:
        raise ValueError(f"candidates = {candidates}; a catalogue has at least 1 item")
    if items.size and items.dtype.kind not in "iu":
        raise ValueError(f"lists are {items.dtype}; give item numbers")
    if items.size and not (items.min() >= 0 and items.max() <= candidates):
        raise ValueError(f"lists hold items {items.min()} to {items.max()}, outside 0..{candidates}; encode them first")
    return items[items > 0]
