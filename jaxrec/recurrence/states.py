"""States of a batch, and what a loop over time does to them."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxrec.cells import Cell


def time_major(tree: Any) -> Any:
    """Swap the two leading axes of every leaf."""
    return jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), tree)


def restart(state: Any, fresh: Any, start: Array | None) -> Any:
    """``fresh`` where ``start (b,)``, else ``state``."""
    if start is None:
        return state
    return jax.tree.map(lambda new, old: jnp.where(start.reshape(-1, *[1] * (old.ndim - 1)), new, old), fresh, state)


def batched_initial(cell: Cell, batch: int) -> Any:
    """The cell's initial state for each of ``batch`` rows; weak types made strong, or a step would change them."""

    def widen(leaf: Any) -> Array:
        leaf = jnp.asarray(leaf)
        return jnp.broadcast_to(lax.convert_element_type(leaf, leaf.dtype), (batch, *leaf.shape))

    return jax.tree.map(widen, cell.initial_state())


def spread(state: Any, others: Any) -> Any:
    """``state`` marked as differing between devices wherever anything in ``others`` does.

    Inside `shard_map` a loop must not turn a value that all devices share (the initial state) into one that they do
    not.
    """
    axes = frozenset[str]().union(*map(device_axes, jax.tree.leaves(others)), *map(device_axes, jax.tree.leaves(state)))

    def widen(leaf: Any) -> Any:
        missing = tuple(sorted(axes - device_axes(leaf)))
        return lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(widen, state)


def device_axes(leaf: Any) -> frozenset[str]:
    """Names of the mesh axes over which ``leaf`` differs; empty outside `shard_map`."""
    return getattr(getattr(jax.typeof(leaf), "mat", None), "varying", frozenset())
