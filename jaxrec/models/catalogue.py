"""Scores against the whole catalogue, a chunk of items at a time: counts for ranks and top-k lists."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrec.losses.shards import Shard
from jaxrec.models.recommender import Recommender

BUDGET = 2**22  # scores held at once (floats): 16 MB


class Counts(NamedTuple):
    """How many candidates score above a target and how many score exactly the same, the target itself left out;
    ``(n,)`` each.

    ``*_masked``: with the items of the history left out as well. ``top`` is ``(n, k)`` item numbers, best first, of the
    list a person would see (history left out when ``seen`` was given), or None when not asked for.
    """

    greater: Array
    equal: Array
    greater_masked: Array
    equal_masked: Array
    top: Array | None = None


def chunk_length(rows: int, candidates: int, budget: int) -> int:
    """Items to score at once for ``rows`` vectors within a budget of scores."""
    return min(candidates, max(1, budget // max(rows, 1)))


class Chunk(NamedTuple):
    """Items to score at once: ``vectors (length, width)``, ``bias (length,)``, the number of the first, and that of the
    first that no chunk before had.
    """

    vectors: Array
    bias: Array
    first: Array
    fresh: Array

    def scores(self, hidden: Array) -> Array:
        """``(n, length)``."""
        return hidden @ self.vectors.T + self.bias[None, :]


class Catalogue(NamedTuple):
    """Rows of a table as they lie: ``vectors (rows, width)``, ``bias (rows,)``, the number of row 0, and the rows
    ``begin`` to ``end`` that are cut into chunks of ``length``.
    """

    vectors: Array
    bias: Array
    first: Array | int
    begin: int
    end: int
    length: int

    @property
    def begins(self) -> Array:
        return jnp.arange(self.begin, self.end, self.length)

    def chunk(self, begin: Array) -> Chunk:
        """The chunk from row ``begin``. The last one begins earlier, with rows that score ``-inf`` this time: to fill
        it up would copy the table.
        """
        start = jnp.minimum(begin, self.end - self.length)
        vectors, bias = (jax.lax.dynamic_slice_in_dim(part, start, self.length) for part in (self.vectors, self.bias))
        fresh = start + jnp.arange(self.length) >= begin
        return Chunk(vectors, jnp.where(fresh, bias, -jnp.inf), self.first + start, self.first + begin)


def cut_of(model: Recommender) -> Shard | None:
    """How the table lies in pieces that hidden vectors are compared with; None where it is whole."""
    return dict(model.cuts).get("output" if "output" in model.tables else "item")


def chunks(model: Recommender, candidates: int, rows: int, budget: int) -> Catalogue:
    """Items ``1..candidates``, of a model in pieces those that lie here, in chunks that ``rows`` vectors have at most
    ``budget`` scores with.
    """
    vectors, shard = model.output, cut_of(model)
    bias = model.tables.get("bias", jnp.zeros(len(vectors)))
    first: Array | int = 0
    begin, end = 1, candidates + 1
    if shard is not None:
        first, begin, end = shard.first(vectors), 0, len(vectors)
        ids = first + jnp.arange(len(vectors))
        bias = jnp.where((ids > 0) & (ids <= candidates), bias, -jnp.inf)
    return Catalogue(vectors, bias, first, begin, end, chunk_length(rows, end - begin, budget))


def hide(scores: Array, first: Array, seen: Array) -> Array:
    """``scores (n, length)`` of the chunk that starts at item ``first``, with items ``seen (n, s)`` (0 = none) at
    ``-inf``.
    """
    place = seen - first
    place = jnp.where((seen > 0) & (place >= 0), place, scores.shape[1])
    return scores.at[jnp.arange(scores.shape[0])[:, None], place].set(-jnp.inf, mode="drop")


def counts(
    model: Recommender,
    hidden: Array,
    target: Array,
    seen: Array | None,
    *,
    candidates: int,
    k: int = 0,
    budget: int = BUDGET,
) -> Counts:
    """Rank every target among items ``1..candidates`` by counting.

    ``hidden (n, width)``, ``target (n,)`` item numbers, ``seen (n, s)`` items of each history (0 = none; the target
    may be among them and stays a candidate for its own row) or None. A target's own score comes out of the same
    matrix product as its competitors' and its column is excluded by number: a score recomputed as a dot product
    differs in the last bit and would count the target as its own better.
    """
    catalogue, shard = chunks(model, candidates, hidden.shape[0], budget), cut_of(model)
    length = catalogue.length
    rivals = None if seen is None else jnp.where(seen == target[:, None], 0, seen)
    score = scores_of(model, catalogue, hidden, target[:, None])[:, 0]

    def compare(scores: Array, part: Chunk) -> tuple[Array, Array]:
        ids = part.first + jnp.arange(length)
        real = (ids >= part.fresh) & (ids > 0) & (ids <= candidates)
        other = (ids[None, :] != target[:, None]) & real[None, :]
        # not `scores > score`: beside a score that is not a number everything is better, and no run looks perfect
        above = jnp.sum(other & ~(scores <= score[:, None]), axis=1)
        # -inf marks what is hidden: it is nobody's equal
        same = jnp.sum(other & (scores == score[:, None]) & (scores > -jnp.inf), axis=1)
        return above, same

    def add(total: tuple, begin: Array) -> tuple[tuple, None]:
        part = catalogue.chunk(begin)
        scores = part.scores(hidden)
        found = compare(scores, part)
        shown = scores if rivals is None else hide(scores, part.first, rivals)
        masked = found if rivals is None else compare(shown, part)
        best = total[4]
        if k:
            best = merge(best, scores if seen is None else hide(scores, part.first, seen), part.first)
        return (*(a + b for a, b in zip(total[:4], (*found, *masked), strict=True)), best), None

    zero = jnp.zeros(hidden.shape[0], jnp.int32)
    found, _ = jax.lax.scan(add, (zero, zero, zero, zero, empty(hidden, k)), catalogue.begins)
    if shard is not None:
        above, same, above_masked, same_masked, best = found
        totals = jax.tree.map(shard.total, (above, same, above_masked, same_masked))
        found = (*totals, best_of_all(best, shard))
    broken = jnp.isnan(score)
    worst = (candidates, 0, candidates, 0)  # one more is greater than there are others: no honest place
    above, same, above_masked, same_masked = (jnp.where(broken, *pair) for pair in zip(worst, found[:4], strict=True))
    return Counts(above, same, above_masked, same_masked, found[4][1] if k else None)


def scores_of(model: Recommender, catalogue: Catalogue, hidden: Array, items: Array) -> Array:
    """``(n, s)`` scores of ``items (n, s)``, picked from the same matrix products that rank the whole catalogue; 0 and
    items outside it score ``-inf``.
    """
    length = catalogue.length

    def pick(found: Array, begin: Array) -> tuple[Array, None]:
        part = catalogue.chunk(begin)
        place = items - part.first
        inside = (place >= 0) & (place < length) & (items >= part.fresh)
        score = jnp.take_along_axis(part.scores(hidden), jnp.clip(place, 0, length - 1), axis=1)
        return jnp.where(inside, score, found), None

    found = jax.lax.scan(pick, jnp.full(items.shape, -jnp.inf, hidden.dtype), catalogue.begins)[0]
    if (shard := cut_of(model)) is None:
        return found
    here = shard.places(model.output, items) < len(model.output)  # one piece has it, or none
    return jnp.where(shard.total(here.astype(int)) > 0, shard.total(jnp.where(here, found, 0)), -jnp.inf)


def among(
    model: Recommender, hidden: Array, target: Array, drawn: Array, *, candidates: int, budget: int = BUDGET
) -> tuple[Array, Array]:
    """How many of the items ``drawn (n, s)`` (0 = none) score above each target ``(n,)``, and exactly like it."""
    catalogue = chunks(model, candidates, hidden.shape[0], budget)
    score = scores_of(model, catalogue, hidden, target[:, None])
    rivals, other = scores_of(model, catalogue, hidden, drawn), (drawn > 0) & (drawn != target[:, None])
    return jnp.sum(other & ~(rivals <= score), axis=1), jnp.sum(other & (rivals == score), axis=1)


def top_k(
    model: Recommender, hidden: Array, seen: Array | None, *, candidates: int, k: int, budget: int = BUDGET
) -> tuple[Array, Array]:
    """``(scores, item numbers)``, each ``(n, k)``, best first; ``seen (n, s)`` items are left out (0 = none).

    Where fewer than ``k`` items are left, the rest has score ``-inf`` and number 0.
    """
    catalogue, shard = chunks(model, candidates, hidden.shape[0], budget), cut_of(model)

    def add(best: tuple, begin: Array) -> tuple[tuple, None]:
        part = catalogue.chunk(begin)
        scores = part.scores(hidden)
        return merge(best, scores if seen is None else hide(scores, part.first, seen), part.first), None

    best, _ = jax.lax.scan(add, empty(hidden, k), catalogue.begins)
    return best if shard is None else best_of_all(best, shard)


def best_of_all(best: tuple[Array, Array], shard: Shard) -> tuple[Array, Array]:
    """The best of what every piece has found; among equal scores the earlier piece's, whose numbers are smaller."""
    values, numbers = (jnp.moveaxis(jax.lax.all_gather(part, shard.axis), 0, 1).reshape(len(part), -1) for part in best)
    values, place = jax.lax.top_k(values, best[0].shape[1])
    return values, jnp.take_along_axis(numbers, place, axis=1)


def empty(hidden: Array, k: int) -> tuple[Array, Array]:
    shape = (hidden.shape[0], k)
    return jnp.full(shape, -jnp.inf, hidden.dtype), jnp.zeros(shape, jnp.int32)


def merge(best: tuple[Array, Array], scores: Array, first: Array) -> tuple[Array, Array]:
    """The best of ``best`` and of one more chunk; equal scores go to the smaller item number (the more familiar
    item).
    """
    top, place = jax.lax.top_k(scores, min(best[0].shape[1], scores.shape[1]))
    ids = jnp.where(top > -jnp.inf, place + first, 0).astype(jnp.int32)
    values = jnp.concatenate([best[0], top], axis=1)
    numbers = jnp.concatenate([best[1], ids], axis=1)
    values, place = jax.lax.top_k(values, best[0].shape[1])
    return values, jnp.take_along_axis(numbers, place, axis=1)
