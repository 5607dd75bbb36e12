"""Tables: one row an item or a user, apart from everything dense so that they can be sparse, sharded or huge."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrec.losses.shards import Shard
from jaxrec.models.drawing import Drawing

Shards = Mapping[str, Shard]  # how tables are cut, by their names


class Rows(NamedTuple):
    """Rows of one table, as the model sees them.

    ``values`` is ``(rows, width)``; ``ids`` are the sorted numbers of the table's rows that were gathered, or None
    when ``values`` is the whole table in order. A number that was asked for several times stands there as often, and
    only its first place is ever looked up: differentiating with respect to ``values`` gives that place the whole
    gradient of the row, duplicates summed, and the others zero. ``hit (rows,)`` says which places are a row's first
    and are read in this table (a bias that shares its places with item vectors is not, where an item only goes in).
    Where devices share out the table, ``shard`` says how: ``values`` are then all rows that were gathered, on every
    device, or a device's `piece` of the whole table.
    """

    values: Array
    ids: Array | None = None
    hit: Array | None = None
    shard: Shard | None = None

    @property
    def piece(self) -> bool:
        """Whether ``values`` are some of the rows of a table that came whole."""
        return self.ids is None and self.shard is not None

    def take(self, numbers: Array) -> Array:
        """Values of table rows ``numbers`` (any shape), each of which must be among the gathered ones."""
        if self.ids is None and self.shard is not None:
            return self.shard.take(self.values, numbers)
        return self.values[self.locate(numbers)]

    def locate(self, numbers: Array) -> Array:
        """Where table rows ``numbers`` lie in ``values``."""
        return numbers if self.ids is None else jnp.searchsorted(self.ids, numbers, method="scan_unrolled")


def whole(tables: dict[str, Array], shards: Shards | None = None) -> dict[str, Rows]:
    """Every row of every table."""
    return gather(tables, {}, shards)


def gather(tables: dict[str, Array], touched: dict[str, Array | None], shards: Shards | None = None) -> dict[str, Rows]:
    """Each table's touched rows; a table with ``None`` (or not named) comes whole.

    ``touched[name]`` is ``(n,)`` row numbers in any order, repeated or not; the result has ``n`` sorted places. Of a
    table with an entry in ``shards`` this device has a piece.
    """
    rows = {}
    for name, table in tables.items():
        numbers, shard = touched.get(name), (shards or {}).get(name)
        if numbers is None:
            rows[name] = Rows(table, shard=shard)
        else:
            ids = jnp.sort(numbers)
            first = jnp.concatenate([jnp.ones(1, bool), ids[1:] != ids[:-1]])
            rows[name] = Rows(table[ids] if shard is None else shard.take(table, ids), ids, first, shard)
    return rows


def scatter(table: Array, rows: Rows, grads: Array) -> Array:
    """Row gradients as one dense gradient shaped like ``table``; rows that were not gathered are zero."""
    if rows.ids is None:
        return grads
    places = rows.ids if rows.shard is None else rows.shard.places(table, rows.ids)
    return jnp.zeros_like(table).at[places].add(grads, mode="drop")


def normal(key: Array, rows: int, width: int, scale: float) -> Drawing:
    """A table to be drawn ``(rows + 1, width)``, normal with standard deviation ``scale``; row 0 (padding, unknown) is
    zero.
    """
    return Drawing((rows + 1, width), "normal", jax.random.key_data(key), scale)
