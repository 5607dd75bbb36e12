"""Training on events that stay on the host, mapped from disk: every slab travels with its own, gathered ahead; of many
processes each gathers those of its rows.
"""

import mmap
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec.config import Mistake
from jaxrec.data.batches import Rows
from jaxrec.data.prepared import Prepared
from jaxrec.losses.negatives import Popularity
from jaxrec.models.recommender import Batch
from jaxrec.parallel import team
from jaxrec.training.source import Bare, Own, Slab, Slabs, Source, slab, spans

PAGE = mmap.PAGESIZE
Lay = Callable[..., Own]  # a slab's events and plan, put where the step wants them


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

    def slots(self, index: np.ndarray) -> Batch:
        """As `Source.batch`, on the host and without ``reset``; of padding nothing is read."""
        mask = index >= 0
        here = index[mask].astype(np.int64)
        if self.beyond:
            for values in (self.prepared.items, *jax.tree.leaves(self.sides())):
                ask_for(values, here)

        def laid(found: np.ndarray) -> np.ndarray:
            slots = np.zeros((*mask.shape, *found.shape[1:]), found.dtype)
            slots[mask] = found
            return slots

        items, after = (taken(self.prepared.items, where).astype(np.int32) for where in (here, here + 1))
        gaps, starts, context = jax.tree.map(lambda values: laid(taken(values, here)), self.sides())
        owners = laid(self.owners(here).astype(np.int32)) if self.user else None
        return Batch(laid(items), laid(after), mask, None, gaps, starts, owners, context)  # type: ignore[arg-type]

    def sides(self) -> tuple[Any, ...]:
        """What is kept of every event beside its item."""
        return self.prepared.gaps, self.prepared.starts, self.prepared.context

    def owners(self, events: np.ndarray) -> np.ndarray:
        return taken(self.prepared.users, self.prepared.sequence_of(events))

    def batch(self, index: Any, reset: Any) -> Batch:
        """As `Source.batch`, on the device."""
        found: Batch = jax.tree.map(jnp.asarray, self.slots(np.asarray(index)))
        return found._replace(reset=jnp.asarray(reset))

    def own(self, index: np.ndarray, reset: np.ndarray) -> Own:
        """A slab's events and plan: as a source of two events a slot, input and target, which a step reads as it would
        read all events, hence the same bits. Of many processes none has all of that: there it is the slots themselves.
        """
        found = self.slots(index)
        if team.size() > 1:
            return Bare(), found, reset
        sides = found.gap, found.start, found.user, found.context
        items: Any = np.stack([found.item, found.target], axis=-1).reshape(-1)  # type: ignore[list-item]
        place = 2 * np.arange(index.size, dtype=np.int32).reshape(index.shape)
        local = np.where(index >= 0, place, np.int32(-1))
        return Source(items, *jax.tree.map(partial(paired, axes=index.ndim), sides)), local, reset

    def bare(self) -> Bare:
        """What slabs share, on the device."""
        return Bare(jnp.asarray(np.asarray(self.prepared.popularity, np.float32)))


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
        index, reset = team.part(found.index, axis=1), team.part(found.reset, axis=1)
        return replace(found, own=lay(*self.data.own(index, reset)))


def ask_for(values: np.ndarray, events: np.ndarray) -> None:
    """Have the system read the pages of a mapped file that hold these entries and the next, all of them at once: one
    that is missing when it is read is waited for alone, and read with up to megabytes around it.
    """
    if not isinstance(values, np.memmap) or not len(events) or not hasattr(os, "posix_fadvise"):
        return
    mapped: Any = values
    ends = [(mapped.offset + (events + more) * mapped.strides[0]) // PAGE for more in (0, 1)]
    pages = np.unique(np.concatenate(ends))
    cuts = np.flatnonzero(np.diff(pages) > 1) + 1
    begins, stops = pages[np.append(0, cuts)], pages[np.append(cuts - 1, -1)] + 1
    try:
        file = os.open(mapped.filename, os.O_RDONLY)
    except OSError:  # what is mapped may lie there no more
        return
    try:
        for begin, size in zip((begins * PAGE).tolist(), ((stops - begins) * PAGE).tolist(), strict=True):
            os.posix_fadvise(file, begin, size, os.POSIX_FADV_WILLNEED)
    finally:
        os.close(file)


def paired(found: np.ndarray, axes: int) -> np.ndarray:
    """Entries of the first ``axes`` in one row, each with a zero after it, which nothing reads."""
    entries = found.reshape(-1, *found.shape[axes:])
    pairs = np.zeros((2 * len(entries), *entries.shape[1:]), found.dtype)
    pairs[::2] = entries
    return pairs


def taken(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """``values[where]`` while other threads work; Mistake where there is no such entry, though others say so."""
    try:
        return np.take(np.asarray(values), where, axis=0)
    except IndexError as error:
        raise Mistake(f"the prepared data is damaged: {error}; prepare the data again") from error
