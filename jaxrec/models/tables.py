"""Tables: one row an item or a user, apart from everything dense so that they can be sparse, sharded or huge."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class Rows(NamedTuple):
    """Rows of one table, as the model sees them.

    ``values`` is ``(rows, width)``; ``ids`` are the sorted numbers of the table's rows that were gathered, or None
    when ``values`` is the whole table in order. Differentiating with respect to ``values`` gives one gradient a row,
    duplicates already summed. ``hit (rows,)`` says which of them the step reads in this table, None for all: a bias
    that shares its places with item vectors is not read where an item only goes in.
    """

    values: Array
    ids: Array | None = None
    hit: Array | None = None

    def take(self, numbers: Array) -> Array:
        """Values of table rows ``numbers`` (any shape), each of which must be among the gathered ones."""
        return self.values[self.locate(numbers)]

    def locate(self, numbers: Array) -> Array:
        """Where table rows ``numbers`` lie in ``values``."""
        return numbers if self.ids is None else jnp.searchsorted(self.ids, numbers)


def whole(tables: dict[str, Array]) -> dict[str, Rows]:
    """Every row of every table."""
    return {name: Rows(table) for name, table in tables.items()}


def gather(tables: dict[str, Array], touched: dict[str, Array | None]) -> dict[str, Rows]:
    """Each table's touched rows, once each; a table with ``None`` (or not named) comes whole.

    ``touched[name]`` is ``(n,)`` row numbers in any order, repeated or not; the result has ``n`` sorted places of which
    the last ones repeat row 0 (the padding row) when numbers were repeated.
    """
    rows = {}
    for name, table in tables.items():
        numbers = touched.get(name)
        if numbers is None:
            rows[name] = Rows(table)
        else:
            # padding the unique list with "one past the end" keeps it sorted; those places read zeros and are dropped
            # on the way back
            ids = jnp.unique(numbers, size=numbers.size, fill_value=table.shape[0])
            rows[name] = Rows(table.at[ids].get(mode="fill", fill_value=0), ids)
    return rows


def scatter(table: Array, ids: Array | None, grads: Array) -> Array:
    """Row gradients as one dense gradient shaped like ``table``; rows not in ``ids`` are zero."""
    return grads if ids is None else jnp.zeros_like(table).at[ids].add(grads, mode="drop")


def table(key: Array, rows: int, width: int, scale: float) -> Array:
    """A fresh table ``(rows + 1, width)``, normal with standard deviation ``scale``; row 0 (padding, unknown) is
    zero.
    """
    return (scale * jax.random.normal(key, (rows + 1, width))).at[0].set(0.0)
