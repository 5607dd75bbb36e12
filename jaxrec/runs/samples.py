"""Rows of real events to measure a model on: each ends with the event before a target."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxrec.config import Mistake
from jaxrec.data.prepared import Prepared
from jaxrec.models.recommender import Batch
from jaxrec.training.source import Events

Numbers = NDArray[np.int64]


class Sample(NamedTuple):
    """Rows without padding. ``own (rows,)`` are the events of the history that a row ends with; what is before them is
    other people's (``inputs`` says how it is met).
    """

    batch: Batch
    own: Numbers
    ends: Numbers  # the event number of each target
    inputs: str

    @property
    def histories(self) -> bool:
        return self.inputs == "histories"


SPLITS = ("test", "valid")  # whose targets rows end before: the first that has any


def drive(
    prepared: Prepared, source: Events, length: int, rows: int, *, seed: int = 0, splits: Sequence[str] = SPLITS
) -> Sample:
    """``rows`` rows of ``length`` events for gradients: ends of long histories where there are enough, else histories
    laid end to end as if they were one person's: real events, and no length is too long.

    `Mistake` where all the events together are fewer.
    """
    ends, history = eligible(prepared, splits)
    long = ends[history >= length]
    if len(long) >= min(rows, 8):
        chosen = drawn(long, rows, seed)
        return laid(source, chosen, np.full(len(chosen), length), length, reset=False, inputs="histories")
    chosen = drawn(ends[ends >= length], rows, seed)
    if not len(chosen):
        raise Mistake(
            f"length {length} is more than the {len(prepared.items):,} events of the data; give a shorter one"
        )
    return laid(source, chosen, np.full(len(chosen), length), length, reset=False, inputs="histories end to end")


def recall(
    prepared: Prepared, source: Events, length: int, rows: int, *, seed: int = 0, splits: Sequence[str] = SPLITS
) -> Sample:
    """Rows for the worth of the past: the last ``length`` events before a target or as many as there are, from a fresh
    state.
    """
    ends, history = eligible(prepared, splits)
    chosen = drawn(np.arange(len(ends)), rows, seed)
    own = np.minimum(history[chosen], length)
    return laid(source, ends[chosen], own, length, reset=True, inputs="histories")


def shuffled(sample: Sample, *, seed: int = 0) -> Batch:
    """The same rows with the items of every history in another order, context beside them; gaps, starts and the target
    stay where they were.
    """
    noise, (rows, length) = np.random.default_rng(seed), sample.batch.item.shape
    places = np.tile(np.arange(length), (rows, 1))
    for row, own in enumerate(sample.own):
        places[row, length - own :] = noise.permutation(np.arange(length - own, length))
    lines = np.arange(rows)[:, None]
    batch = sample.batch
    context = None
    if batch.context is not None:
        context = type(batch.context)(*(None if leaf is None else leaf[lines, places] for leaf in batch.context))
    return batch._replace(item=batch.item[lines, places], context=context)


def eligible(prepared: Prepared, splits: Sequence[str] = SPLITS) -> tuple[Numbers, Numbers]:
    """Targets that training knows and that have a history, and the lengths of these histories, of the first of the
    splits that has any.
    """
    for split in splits:
        ends = prepared.targets(split, unknown=False)
        if len(ends):
            return ends, ends - np.asarray(prepared.offsets)[prepared.sequence_of(ends)]
    raise Mistake("the data have no target with a history that training knows; split them otherwise")


def drawn(from_: Numbers, count: int, seed: int) -> Numbers:
    """At most ``count`` of them, in order."""
    return np.sort(np.random.default_rng(seed).permutation(from_)[:count])


def laid(source: Events, ends: Numbers, own: Numbers, length: int, *, reset: bool, inputs: str) -> Sample:
    index = np.maximum(ends[:, None] - length + np.arange(length), 0)
    starts = np.zeros(index.shape, bool)
    if reset:
        starts[np.arange(len(own)), length - own] = True
    batch = source.batch(index, jnp.asarray(starts))
    return Sample(batch, own, ends, inputs)
