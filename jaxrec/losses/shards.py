"""A table that devices share out, row by row: which of its rows lie here, and sums over all pieces."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

PIECES = "model"  # the mesh axis that tables are cut over


class Shard(NamedTuple):
    """How a table of ``rows`` rows, the first of them padding, is cut over the mesh axis ``axis``; None: it is whole.

    Every device holds equally many rows; those that fill up the last piece are no rows of the table. Inside
    `jax.shard_map` with ``check_vma=False``, what is computed from a sum over pieces is the same on all their devices.
    """

    rows: int
    axis: str | None = None

    def first(self, piece: Array) -> Array | int:
        """The number of the first row of this device's ``piece (r, ...)``."""
        return 0 if self.axis is None else lax.axis_index(self.axis) * len(piece)

    def places(self, piece: Array, ids: Array) -> Array:
        """Where rows ``ids`` lie in ``piece``, and ``len(piece)`` where they lie elsewhere."""
        if self.axis is None:
            return ids
        here = ids - self.first(piece)
        return jnp.where((here >= 0) & (here < len(piece)), here, len(piece))

    def own(self, piece: Array, ids: Array) -> Array:
        """Rows ``ids`` of the table as far as they lie here, zeros for the others: all pieces' sum to the rows."""
        if self.axis is None:
            return piece[ids]
        return piece.at[self.places(piece, ids)].get(mode="fill", fill_value=0)

    def take(self, piece: Array, ids: Array) -> Array:
        """Rows ``ids`` of the table. Differentiable: every piece gets the gradient of its own rows."""
        return piece[ids] if self.axis is None else summed(self.axis, self.own(piece, ids))

    def real(self, piece: Array) -> Array:
        """``(r,)``: which rows of ``piece`` are rows of the table, and not padding."""
        here = jnp.arange(len(piece)) + self.first(piece)
        return (here > 0) & (here < self.rows)

    def total(self, part: Array) -> Array:
        """The sum over all pieces."""
        return part if self.axis is None else lax.psum(part, self.axis)

    def most(self, part: Array) -> Array:
        """The maximum over all pieces."""
        return part if self.axis is None else lax.pmax(part, self.axis)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def summed(axis: str, part: Array) -> Array:
    """The sum over pieces of what all their devices use alike. Its gradient is the same on each and goes to each once:
    the transposed sum that JAX would take adds it up as often as there are pieces.
    """
    return lax.psum(part, axis)


summed.defvjp(lambda axis, part: (lax.psum(part, axis), None), lambda axis, _, cotangent: (cotangent,))
