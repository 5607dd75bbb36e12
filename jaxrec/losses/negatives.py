"""Items that a target is told from: how they are drawn, on the device and inside the compiled step.

An item is drawn with probability proportional to ``count^alpha`` by inverting a cumulative sum in two levels: first a
block of about ``sqrt(items)`` items, then an item of it. A flat sum in float32 cannot tell ten million items apart; two
levels can, to about 1e-3 of a probability where counts are even (a rare item in a block with a very frequent one is off
by more: 13 % at worst among a million items that fall off as Zipf's law, ``alpha`` 1). They cost a few small searches a
draw however large the catalogue is, and take ``alpha`` as a traced number.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class Popularity(NamedTuple):
    """What drawing needs to know of the catalogue, computed once for a run.

    ``counts (1 + i,)`` training events of each item (row 0, padding, has none), ``events ()`` all of them together;
    ``alpha ()``; ``inside (blocks, size)`` sums of ``count^alpha`` up to and with each item within its block; ``blocks
    (blocks,)`` the same of whole blocks. ``propensity ()`` is the power of a count that weights divide by, and ``mean
    ()`` of ``count^-propensity`` over the events.
    """

    counts: Array
    events: Array
    alpha: Array
    inside: Array
    blocks: Array
    propensity: Array
    mean: Array

    @property
    def items(self) -> int:
        return self.counts.shape[0] - 1

    def log_drawn(self, ids: Array) -> Array:
        """Log of the probability that one draw gives each of ``ids``."""
        return self.alpha * log_counts(self.counts[ids]) - jnp.log(self.blocks[-1])

    def log_seen(self, ids: Array) -> Array:
        """Log of the share of the training events that each of ``ids`` has."""
        return log_counts(self.counts[ids]) - jnp.log(self.events)

    def weights(self, ids: Array) -> Array:
        """Inverse-propensity weights: ``count^-propensity``, scaled so that their mean over the training events is 1
        (self-normalised), with the power of the popularity as the propensity of being seen.

        Yang et al. 2018, https://doi.org/10.1145/3240323.3240355; Schnabel et al. 2016,
        https://arxiv.org/abs/1602.05352.
        """
        return jnp.exp(-self.propensity * log_counts(self.counts[ids])) / self.mean


def popularity(counts: Array, alpha: Array | float, propensity: Array | float = 0.0) -> Popularity:
    """``counts (1 + i,)``; entry 0 is padding and never drawn. ``alpha`` 0 draws uniformly, 1 by popularity."""
    counts = counts.astype(jnp.result_type(float)).at[0].set(0)
    alpha, propensity = jnp.asarray(alpha, counts.dtype), jnp.asarray(propensity, counts.dtype)
    # hidden from the compiler, which would add up powers of 0 itself: half a minute for a million items
    power = jax.lax.optimization_barrier(alpha)
    chances = (counts**power).at[0].set(0)  # 0^0 is 1: a uniform draw knows items that training never saw
    size = 1 << max(1, (len(counts) - 1).bit_length() // 2)
    inside = running(jnp.pad(chances, (0, -len(counts) % size)).reshape(-1, size))
    events = jnp.sum(counts)
    mean = jnp.sum(counts * jnp.exp(-propensity * log_counts(counts))) / events
    return Popularity(counts, events, alpha, inside, running(inside[:, -1]), propensity, mean)


def running(chances: Array) -> Array:
    """Sums of ``chances`` up to and with each along the last axis, which never fall and never rise where a chance is 0.

    A parallel sum rounds its entries one by one, so that it may do both: what has no chance would be drawn.
    """
    axis = chances.ndim - 1
    return jax.lax.cummax(jnp.where(chances > 0, jnp.cumsum(chances, axis=axis), 0), axis=axis)


def log_counts(counts: Array) -> Array:
    """Logarithm of counts, of an item without any as if it had one."""
    return jnp.log(jnp.maximum(counts, 1))


def draw(key: Array, known: Popularity, shape: tuple[int, ...]) -> Array:
    """Item numbers ``shape`` from 1, with replacement."""
    # a number that rounds up to the whole sum would fall behind the last item
    below = 1 - 2**-22
    where, within = jax.random.uniform(key, (2, *shape), known.inside.dtype) * below
    block = jnp.searchsorted(known.blocks, where * known.blocks[-1], side="right")
    size = known.inside.shape[1]
    wanted = within * known.inside[block, size - 1]

    def halve(step: int, low: Array) -> Array:
        """The first place whose sum exceeds what is wanted lies at ``low`` or within the ``size >> step`` after it."""
        half = size >> (step + 1)
        return jnp.where(known.inside[block, low + half - 1] > wanted, low, low + half)

    low = jnp.zeros(shape, block.dtype)
    for step in range(size.bit_length() - 1):
        low = halve(step, low)
    return (block * size + low).astype(jnp.int32)


class Candidates(NamedTuple):
    """Items to score positions against: ``ids``, whether each ``real`` one counts, and what log-Q correction takes off
    its score (``log_q``, zero without one). Leaves are ``(k,)``, the same for every position, or ``(n, k)``.
    """

    ids: Array
    real: Array
    log_q: Array


class Drawn(NamedTuple):
    """What one step drew for its positions; a leaf is None where a loss needs none.

    ``shared`` candidates serve all positions; ``own (n, k)`` belong to each. ``column (n,)`` is where a position's
    target stands among the shared ones, ``log_q (n,)`` what correction takes off the target's score, ``weight (n,)``
    of a position. ``rate ()`` is how often each item is drawn on average; ``key`` is for a loss that draws by
    itself.
    """

    shared: Candidates | None = None
    own: Candidates | None = None
    column: Array | None = None
    log_q: Array | None = None
    weight: Array | None = None
    rate: Array | None = None
    key: Array | None = None

    def common(self) -> "Drawn":
        """Only what serves all positions."""
        return Drawn(shared=self.shared, rate=self.rate, key=self.key)

    def apart(self) -> "Drawn":
        """Only what belongs to positions: leaves ``(n, ...)``."""
        return self._replace(shared=None, rate=None, key=None)

    def joined(self, common: "Drawn") -> "Drawn":
        """What belongs to positions, beside what serves all."""
        return self._replace(shared=common.shared, rate=common.rate, key=common.key)

    def piece(self, number: Array, size: int) -> "Drawn":
        """The ``number``th piece of ``size`` positions."""
        cut = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, number * size, size), self.apart())
        return cut.joined(self)  # type: ignore[no-any-return]

    def located(self, locate: Callable[[Array], Array]) -> "Drawn":
        """The same with ids as places among gathered rows."""

        def one(part: Candidates | None) -> Candidates | None:
            return None if part is None else part._replace(ids=locate(part.ids))

        return self._replace(shared=one(self.shared), own=one(self.own))


NOTHING = Drawn()
