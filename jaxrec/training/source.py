"""Training data on the device: flat arrays once, and index plans that turn into batches inside the compiled step."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrec.config import Mistake
from jaxrec.data.batches import Rows
from jaxrec.data.context import Context
from jaxrec.data.prepared import Prepared
from jaxrec.losses.negatives import Popularity
from jaxrec.models.recommender import Batch


class Events(Protocol):
    """Whatever batches are read from, on a device or not."""

    @property
    def known(self) -> Popularity | None: ...

    def batch(self, index: Any, reset: Any) -> Batch: ...


class Source(NamedTuple):
    """Flat event arrays ``(events,)`` on the device; a leaf is None when the data has none or the model reads none.

    ``counts (1 + items,)`` are training events of each item, for losses that draw by them; ``known`` is what a loss
    made of them, once for all steps: see `informed`.
    """

    items: Array
    gaps: Array | None = None
    starts: Array | None = None
    owners: Array | None = None
    context: Context | None = None
    counts: Array | None = None
    known: Popularity | None = None

    def batch(self, index: Array, reset: Array) -> Batch:
        """Inputs at event numbers ``index (batch, time)`` (-1 = padding), each with the next event as its target."""
        mask = index >= 0
        here, after = jnp.maximum(index, 0), jnp.maximum(index, 0) + 1

        def take(values: Array, where: Array) -> Array:
            real = mask.reshape(*mask.shape, *[1] * (values.ndim - 1))
            return jnp.where(real, values[where], jnp.zeros((), values.dtype))

        def maybe(values: Any) -> Any:
            return jax.tree.map(lambda leaf: take(leaf, here), values)

        return Batch(
            item=take(self.items, here), target=take(self.items, after), mask=mask, reset=reset,
            gap=maybe(self.gaps), start=maybe(self.starts), user=maybe(self.owners),
            context=maybe(self.context),
        )  # fmt: skip


class Bare(NamedTuple):
    """A source without events, where every slab brings a batch itself in place of numbers; the rest as in `Source`."""

    counts: Array | None = None
    known: Popularity | None = None

    def batch(self, events: Batch, reset: Array) -> Batch:
        return events._replace(reset=reset)


AnySource = Source | Bare
Own = tuple[AnySource, Any, Any]  # a source, and a plan that says what of it is read


def load(prepared: Prepared, *, user: bool) -> Source:
    """Put what training reads on the device: 4 bytes an event for items, and as much for gaps, users, each feature.

    Mistake where that are more events than a device can number.
    """
    if (events := len(prepared.items)) > np.iinfo(np.int32).max:
        raise Mistake(
            f"{events:,} events are more than an int32 of a device can number; leave them on disk: --events-on disk"
        )
    owners = None
    if user:
        owners = jnp.asarray(np.repeat(prepared.users, np.diff(prepared.offsets)).astype(np.int32))
    return Source(
        items=jnp.asarray(np.asarray(prepared.items, np.int32)),
        gaps=None if prepared.gaps is None else jnp.asarray(np.asarray(prepared.gaps)),
        starts=None if prepared.starts is None else jnp.asarray(np.asarray(prepared.starts)),
        owners=owners,
        context=jax.tree.map(jnp.asarray, prepared.context),
        counts=jnp.asarray(np.asarray(prepared.popularity, np.float32)),
    )


@dataclass(frozen=True)
class Slab:
    """Up to ``steps`` batches as index plans ``(steps, batch, time)``: the first ``count`` are real, the last is the
    epoch's ``end``th, and ``last`` where there are no more. ``own`` are its events on the device, with where each slot
    has them there (or the slots themselves), where they travel with the slab: see `training.feed`.
    """

    index: np.ndarray
    reset: np.ndarray
    count: int
    end: int
    last: bool
    own: Own | None = None

    def read(self, source: AnySource) -> Own:
        """What `run_steps` reads: all events or its own, and the plan there."""
        if self.own is None:
            return source, self.index, self.reset
        own, index, reset = self.own
        return own._replace(counts=source.counts, known=source.known), index, reset


Slabs = Generator[Slab, None, None]


def slabs(plan: Rows, *, size: int, steps: int, begin: int) -> Slabs:
    """Cut a plan into slabs of ``steps`` batches of ``size`` rows, from batch ``begin`` on; slabs start at multiples
    of ``steps``.

    A slab always has the same shape, so that one compiled program runs any number of steps; the last batch is filled up
    with padding rows.
    """
    for first, end in spans(plan, size=size, steps=steps, begin=begin):
        yield slab(plan, first, end, size=size, steps=steps)


def spans(plan: Rows, *, size: int, steps: int, begin: int) -> Iterator[tuple[int, int]]:
    """The first batch of every slab, and the one after its last."""
    total = batches(plan, size)
    while begin < total:
        end = min(total, (begin // steps + 1) * steps)
        yield begin, end
        begin = end


def slab(plan: Rows, begin: int, end: int, *, size: int, steps: int) -> Slab:
    """Batches ``begin`` to ``end``."""
    part = plan.part(begin * size, min(end * size, plan.rows))
    index = np.full((steps * size, part.index.shape[1]), -1, part.index.dtype)
    reset = np.zeros(index.shape, bool)
    index[: part.rows], reset[: part.rows] = part
    shape = (steps, size, -1)
    return Slab(index.reshape(shape), reset.reshape(shape), end - begin, end, end == batches(plan, size))


def batches(plan: Rows, size: int) -> int:
    """Batches of ``size`` rows in a plan."""
    return -(-plan.rows // size)


def example(source: Source) -> Batch:
    """One position of one row, to look at shapes with."""
    return jax.tree.map(lambda leaf: leaf[:1, :1], source.batch(jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), bool)))
