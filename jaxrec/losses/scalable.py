"""Cross-entropy over hard items found by random projections, for catalogues too large for a full softmax."""

import math
from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxrec.config import Within
from jaxrec.losses.fused import items_of, product, wide_type
from jaxrec.losses.loss import Loss, Positions, given, weighted
from jaxrec.losses.negatives import NOTHING, Drawn, Popularity

SCORES = 2**22  # of directions and items, the most that are held at one time


@dataclass(frozen=True)
class SCE(Loss):
    """Scalable cross-entropy (Mezentsev et al. 2024, https://arxiv.org/abs/2409.18721).

    Random directions, mixtures of the positions' own hidden vectors, each collect a bucket of the positions and of the
    items that lie furthest along them. A position in a bucket is told from the bucket's items, those that are hard for
    it with good chance; one in several buckets counts in that where its loss is greatest, and one in none not at all:
    the others weigh so much more. The whole table is read, positions x items scores are never held. Buckets hold the
    positions of one micro-batch on one device.
    """

    buckets: int | None = None
    """random directions; none takes twice the square root of the positions"""
    positions: int | None = None
    """positions in a bucket; none takes twice the square root of the positions"""
    items: int = 256
    """items in a bucket"""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, kind in (("buckets", int | None), ("positions", int | None), ("items", int)):
            self.check(name, Annotated[kind, Within(1)])

    def draw(self, known: Popularity | None, positions: Positions) -> Drawn:
        return super().draw(known, positions)._replace(key=positions.key)

    def __call__(
        self, hidden: Array, rows: Array, bias: Array | None, targets: Array, weight: Array, drawn: Drawn = NOTHING
    ) -> Array:
        assert drawn.key is not None, "buckets are drawn; pass what `draw` returned"
        bias = given(bias, rows)
        count = len(hidden)
        usual = max(1, round(2 * math.sqrt(count)))
        real = weight > 0
        weight = weighted(weight, drawn)
        along = lax.stop_gradient(hidden * real[:, None].astype(hidden.dtype))
        mix = jax.random.normal(drawn.key, (self.buckets or usual, count), hidden.dtype)
        directions = mix @ along
        some = min(count, self.positions or usual)
        _, who = lax.top_k(jnp.where(real[None], product(directions, along.T), -jnp.inf), some)
        _, what = hardest(directions, lax.stop_gradient(rows), self.items)
        return self.of_buckets(hidden, rows, bias, targets, weight, real, who, what)

    def of_buckets(
        self, hidden: Array, rows: Array, bias: Array, targets: Array, weight: Array, real: Array, who: Array,
        what: Array,
    ) -> Array:  # fmt: skip
        """The loss given the positions ``who (buckets, p)`` and the items ``what (buckets, m)`` of each bucket."""
        own = jnp.sum(hidden.astype(wide_type(hidden)) * rows[targets], axis=1)
        own = (own + bias[targets]) / self.temperature

        def one(_: None, bucket: tuple[Array, Array]) -> tuple[None, Array]:
            positions, items = bucket
            scores = (product(hidden[positions], rows[items].T) + bias[items][None]) / self.temperature
            scores = jnp.where(items[None] == targets[positions][:, None], -jnp.inf, scores)
            everything = jnp.concatenate([scores, own[positions][:, None]], axis=1)
            return None, jax.nn.logsumexp(everything, axis=1) - own[positions]

        _, losses = lax.scan(jax.checkpoint(one), None, (who, what))
        chosen = greatest(lax.stop_gradient(losses), who, len(hidden)) & real[who]
        times = jnp.zeros(len(hidden), jnp.int32).at[who].add(chosen)
        covered = jnp.sum(jnp.where(times > 0, weight, 0))
        share = (weight / jnp.maximum(times, 1))[who]
        total = jnp.sum(jnp.where(chosen, share * losses, 0))
        return total * jnp.sum(weight) / jnp.where(covered > 0, covered, 1)


def hardest(directions: Array, rows: Array, count: int, most: int = SCORES) -> tuple[Array, Array]:
    """Scores and places of the ``count`` rows furthest along each direction, or of all, padding (row 0) never; of equal
    ones the first. The table is read once, by blocks of so many rows that ``most`` numbers hold scores or rows.
    """
    count, size = min(count, len(rows) - 1), max(1, most // max(directions.shape))
    apart = jnp.zeros(len(rows), wide_type(rows)).at[0].set(-jnp.inf)
    if size >= len(rows):
        return tuple(lax.top_k(product(directions, rows.T) + apart[None], count))  # type: ignore[return-value]

    def one(best: tuple[Array, Array], block: Array) -> tuple[tuple[Array, Array], None]:
        start, part, apart_here = items_of(rows, apart, block, size)
        scores, places = lax.top_k(product(directions, part.T) + apart_here[None], min(count, size))
        scores, places = (jnp.concatenate(both, axis=1) for both in zip(best, (scores, start + places), strict=True))
        scores, kept = lax.top_k(scores, count)
        return (scores, jnp.take_along_axis(places, kept, axis=1)), None

    shape = len(directions), count
    nothing = jnp.full(shape, -jnp.inf, wide_type(directions)), jnp.zeros(shape, jnp.int32)
    return lax.scan(one, nothing, jnp.arange(-(-len(rows) // size), dtype=jnp.int32))[0]


def greatest(losses: Array, who: Array, positions: int) -> Array:
    """Where in ``losses (buckets, p)`` a position's greatest stands; several places where they are equal."""
    most = jnp.full(positions, -jnp.inf, losses.dtype).at[who].max(losses)
    return losses >= most[who]
