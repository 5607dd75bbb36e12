"""Why a step was not finite: the first array that is not a number, in the order in which a step computes them."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec.data.prepared import Prepared
from jaxrec.losses.loss import with_hyper
from jaxrec.losses.negatives import Popularity
from jaxrec.models.network import NONE
from jaxrec.models.recommender import Batch
from jaxrec.models.tables import whole
from jaxrec.recurrence import unroll
from jaxrec.training.loop import NotFinite
from jaxrec.training.optimisers import Hyper
from jaxrec.training.source import Events
from jaxrec.training.step import State, Step, row_keys


def explain(step: Step, bad: NotFinite, source: Events, hyper: Hyper, prepared: Prepared) -> str:
    """The step, the rows and the first array that is not finite: a sentence that its reader ends."""
    batch = source.batch(bad.index, jnp.asarray(bad.reset))
    name, rows = first_bad(step, bad.state, batch, hyper, source.known)
    people = users(prepared, bad.index[rows])
    return f"step {int(bad.state.step) + 1} is not finite: the first bad array is {name}, with rows of {people}"


def first_bad(
    step: Step, state: State, batch: Batch, hyper: Hyper, known: Popularity | None = None
) -> tuple[str, np.ndarray]:
    """Name of the first array that is not finite and the batch rows in which it is not (all rows where it has none)."""
    every = np.arange(batch.item.shape[0])
    for name, value, by_row in stages(step, state, batch, hyper, known):
        fine = np.isfinite(np.asarray(value, np.float32))
        if not fine.all():
            return name, every[~fine.reshape(len(every), -1).all(axis=1)] if by_row else every
    return "the global gradient norm (every gradient is finite, their squares are not)", every


def stages(
    step: Step, state: State, batch: Batch, hyper: Hyper, known: Popularity | None
) -> Iterator[tuple[str, Any, bool]]:
    """``(name, array, whether its first axis is the batch)`` of everything a step computes, in order."""
    for path, leaf in named((state.tables, state.network), ("table", "parameter")):
        yield path, leaf, False
    batch = batch._replace(keys=row_keys(state, batch.item.shape[0], None))
    for path, leaf in named((state.carry,), ("the state kept from the step before",)):
        yield path, leaf, True
    yield from layers(state, batch)
    rows, loss, per_row = whole(state.tables), with_hyper(step.loss, hyper), []
    drawn = step.draw(loss, state, batch, None, known)
    positions = jax.tree.map(lambda leaf: leaf.reshape(len(batch.item), -1, *leaf.shape[1:]), drawn.apart())
    for row in range(len(batch.item)):
        part, carry = jax.tree.map(lambda leaf, row=row: leaf[row : row + 1], (batch, state.carry))
        own = jax.tree.map(lambda leaf, row=row: leaf[row], positions).joined(drawn)
        per_row.append(step.total(state.network, rows, part, hyper, carry, loss, own)[0])
    yield "the loss", np.asarray(per_row), True
    _, _, _, grads, _ = step.gradients(state, batch, hyper, None, known)
    for path, leaf in named((grads["rows"], grads["network"]), ("the gradient of table", "the gradient of parameter")):
        yield path, leaf, False


def layers(state: State, batch: Batch) -> Iterator[tuple[str, Any, bool]]:
    """The item vectors and each layer's output, without dropout."""
    events = state.model.events(batch)
    yield "the item vectors", events.x, True
    kept = [None] * len(state.network.blocks) if state.carry is None else state.carry
    for number, (block, before) in enumerate(zip(state.network.blocks, kept, strict=True)):
        inner = events.x if block.norm is None else block.norm(events.x)
        _, y = unroll(block.cell, events._replace(x=inner), state=before, reset=batch.reset)
        yield f"the output of cell {number} ({type(block.cell).__name__})", y, True
        _, x = block(events, before, batch.reset, NONE, None, state.network.backend)
        yield f"the output of block {number}", x, True
        events = events._replace(x=x)


def named(trees: tuple[Any, ...], kinds: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for kind, tree in zip(kinds, trees, strict=True):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            yield f"{kind} {jax.tree_util.keystr(path)}", leaf


def users(prepared: Prepared, index: np.ndarray, most: int = 3) -> str:
    """Raw ids of the users whose events a plan's rows hold, a few of them."""
    events = np.unique(index[index >= 0])
    found = np.unique(np.asarray(prepared.users)[prepared.sequence_of(events)])
    some = ", ".join(map(repr, prepared.user_ids.decode(found[:most])))
    return f"user {some}" + (f" and {len(found) - most} more" if len(found) > most else "")
