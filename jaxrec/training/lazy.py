"""Row-sparse updates: a step changes the rows that it reads, and costs as much as these, whatever the table's size."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxrec.models.tables import Rows
from jaxrec.training.optimisers import Hyper, Optimiser


@dataclass(frozen=True)
class LazyUpdate:
    """Only rows that a step gathered are updated, and so is only their part of the optimiser's state.

    The lazy Adam and sparse Adagrad of the field: a row's moments stand still while no step reads it, and decay, bias
    correction and momentum act when one does. For Adagrad without momentum this is the dense update, since a gradient
    of zero changes nothing there. A table that came whole (full softmax) is updated whole.
    """

    def init(self, tables: dict[str, Array], optimiser: Optimiser, hyper: Hyper) -> Any:
        return {name: optimiser.transform(hyper, 0).init(table) for name, table in tables.items()}

    def __call__(
        self, tables: dict[str, Array], state: Any, rows: dict[str, Rows], grads: dict[str, Array],
        transform: optax.GradientTransformation, finite: Array,
    ) -> tuple[dict[str, Array], Any]:  # fmt: skip
        found = {
            name: update(table, state[name], rows[name], grads[name], transform, finite)
            for name, table in tables.items()
        }
        return {name: table for name, (table, _) in found.items()}, {name: after for name, (_, after) in found.items()}


def update(
    table: Array, state: Any, rows: Rows, grads: Array, transform: optax.GradientTransformation, finite: Array
) -> tuple[Array, Any]:
    """One table and its optimiser state; no branch, so that both stay where they are in memory."""
    ids = jnp.arange(table.shape[0]) if rows.ids is None else rows.ids
    if rows.ids is not None and rows.shard is not None:
        ids = rows.shard.places(table, ids)
    where = jnp.where(finite if rows.hit is None else rows.hit & finite, ids, table.shape[0])  # the others go nowhere

    def part(leaf: Array) -> Array:
        return leaf[jnp.minimum(ids, len(leaf) - 1)] if leaf.shape == table.shape else leaf

    def back(leaf: Array, new: Array) -> Array:
        if leaf.shape != table.shape:
            return jnp.where(finite, new, leaf)
        return leaf.at[where].set(new, mode="drop")

    updates, after = transform.update(grads, jax.tree.map(part, state), rows.values)
    return back(table, optax.apply_updates(rows.values, updates)), jax.tree.map(back, state, after)
