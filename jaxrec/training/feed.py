"""Training on events that stay on the host, mapped from disk: every slab travels with its own, gathered ahead."""

import mmap
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrec.config import Mistake
from jaxrec.data.batches import Rows
from jaxrec.data.prepared import Prepared
from jaxrec.losses.negatives import Popularity
from jaxrec.models.recommender import Batch
from jaxrec.training.source import Slab, Slabs, Source, slab, spans

PAGE = mmap.PAGESIZE
Lay = Callable[[Source, Any, Any], tuple[Source, Any, Any]]  # a slab's events and plan, put where the step wants them


@dataclass(frozen=True)
class Mapped:
    """All events where they lie on the host; ``batch`` reads as `Source.batch` does, by numbers of any size.

    Where memory does not hold the files (``beyond``), the pages of what is read are asked for beforehand.
    """

    prepared: Prepared
    user: bool
    known: Popularity | None = None
    beyond: bool = False

    @property
    def events(self) -> int:
        return len(self.prepared.items)

    @property
    def bytes(self) -> int:
        """What all events would take of a device."""
        leaves = [self.prepared.items, *jax.tree.leaves(self.sides())]
        return sum(leaf.nbytes for leaf in leaves) + 4 * self.events * self.user

    def gathered(self, index: np.ndarray) -> tuple[Source, np.ndarray]:
        """A source of two events a slot of ``index``, input and target, and where each slot has them there.

        Of the target only the item is copied, the rest stays zero: nothing reads it.
        """
        real = index.reshape(-1) >= 0
        here = np.where(real, index.reshape(-1), 0).astype(np.int64)
        if self.beyond:
            for values in (self.prepared.items, *jax.tree.leaves(self.sides())):
                ask_for(values, here[real])
        items = paired(taken(self.prepared.items, here).astype(np.int32))
        items[1::2] = taken(self.prepared.items, here + 1)
        source = jax.tree.map(lambda values: paired(taken(values, here)), self.sides())
        owners = paired(self.owners(here).astype(np.int32)) if self.user else None
        local = np.where(real, 2 * np.arange(len(here), dtype=np.int32), np.int32(-1))
        return source._replace(items=items, owners=owners), local.reshape(index.shape)

    def sides(self) -> Source:
        """What is kept of every event beside its item."""
        some = self.prepared
        return Source(None, gaps=some.gaps, starts=some.starts, context=some.context)  # type: ignore[arg-type]

    def owners(self, events: np.ndarray) -> np.ndarray:
        return taken(self.prepared.users, self.prepared.sequence_of(events))

    def batch(self, index: Any, reset: Any) -> Batch:
        """As `Source.batch`, on the device."""
        source, local = self.gathered(np.asarray(index))
        return jax.tree.map(jnp.asarray, source).batch(jnp.asarray(local), jnp.asarray(reset))  # type: ignore[no-any-return]

    def room(self, slots: int) -> Source:
        """A source of the shapes that so many slots have, and the counts, which every slab shares."""
        source, _ = self.gathered(np.full(1, -1))

        def blank(leaf: np.ndarray) -> Array:
            return jnp.zeros((2 * slots, *leaf.shape[1:]), leaf.dtype)

        counts = jnp.asarray(np.asarray(self.prepared.popularity, np.float32))
        return jax.tree.map(blank, source)._replace(counts=counts)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Feed:
    """Slabs with their events on the devices: ``readers`` threads work on the next ones while one trains.

    Which slab comes when, and what is in it, does not depend on ``readers``.
    """

    data: Mapped
    readers: int = 1

    @property
    def ahead(self) -> int:
        """Slabs on the devices beside the one that trains."""
        return self.readers

    def reading(self, known: Popularity | None) -> Mapped:
        """All events, for whoever looks at some of them, with what the loss knows."""
        return replace(self.data, known=known)

    def slabs(self, plan: Rows, *, size: int, steps: int, begin: int, lay: Lay) -> Slabs:
        """As `source.slabs`. What fails in a thread is raised here; no thread is left when this is closed."""
        threads = ThreadPoolExecutor(self.readers, "jaxrec-events")
        waiting: deque[Future[Slab]] = deque()
        try:
            for first, end in spans(plan, size=size, steps=steps, begin=begin):
                waiting.append(threads.submit(self.slab, plan, first, end, size, steps, lay))
                if len(waiting) > self.ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            threads.shutdown(cancel_futures=True)

    def slab(self, plan: Rows, first: int, end: int, size: int, steps: int, lay: Lay) -> Slab:
        found = slab(plan, first, end, size=size, steps=steps)
        source, local = self.data.gathered(found.index)
        return replace(found, own=lay(source, local, found.reset))


def ask_for(values: np.ndarray, events: np.ndarray) -> None:
    """Have the system read the pages of a mapped file that hold these entries and the next, all of them at once: one
    that is missing when it is read is waited for alone, and read with up to megabytes around it.
    """
    if not isinstance(values, np.memmap) or not len(events) or not hasattr(os, "posix_fadvise"):
        return
    mapped: Any = values
    ends = [(mapped.offset + (events + more) * mapped.itemsize) // PAGE for more in (0, 1)]
    pages = np.unique(np.concatenate(ends))
    cuts = np.flatnonzero(np.diff(pages) > 1) + 1
    begins, stops = pages[np.append(0, cuts)], pages[np.append(cuts - 1, -1)] + 1
    file = os.open(mapped.filename, os.O_RDONLY)
    try:
        for begin, size in zip((begins * PAGE).tolist(), ((stops - begins) * PAGE).tolist(), strict=True):
            os.posix_fadvise(file, begin, size, os.POSIX_FADV_WILLNEED)
    finally:
        os.close(file)


def paired(found: np.ndarray) -> np.ndarray:
    """Each entry with a zero after it."""
    pairs = np.zeros((2 * len(found), *found.shape[1:]), found.dtype)
    pairs[::2] = found
    return pairs


def taken(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """``values[where]`` while other threads work; Mistake where there is no such entry, though others say so."""
    try:
        return np.take(np.asarray(values), where, axis=0)
    except IndexError as error:
        raise Mistake(f"the prepared data is damaged: {error}; prepare the data again") from error
