"""Small operations on trees of arrays that the laws are written with."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array


def score(outputs: Any) -> Array:
    """A scalar that depends on every real output, each with a weight of its own, and not linearly."""
    leaves = [leaf for leaf in jax.tree.leaves(outputs) if is_real(leaf)]
    return sum(
        (jnp.sin(jnp.arange(leaf.size) + 1.0).reshape(leaf.shape) * (leaf + leaf**2 / 2)).sum() for leaf in leaves
    )


def is_real(leaf: Any) -> bool:
    return bool(jnp.issubdtype(jnp.result_type(leaf), jnp.floating))


def double(tree: Any) -> Any:
    """Real leaves in float64; meaningful only where 64-bit types are enabled."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64) if is_real(leaf) else leaf, tree)


def real_leaves(tree: Any) -> tuple[list[str], list[Array], Callable[[Sequence[Array]], Any]]:
    """Names and values of the real leaves, and a function that puts others in their place."""
    flat, structure = jax.tree_util.tree_flatten_with_path(tree)
    places = [i for i, (_, leaf) in enumerate(flat) if is_real(leaf)]

    def rebuild(leaves: Sequence[Array]) -> Any:
        full = [leaf for _, leaf in flat]
        for place, leaf in zip(places, leaves, strict=True):
            full[place] = leaf
        return jax.tree.unflatten(structure, full)

    return [place_name(flat[i][0]) for i in places], [flat[i][1] for i in places], rebuild


def trained(tree: Any) -> set[str]:
    """Names of the leaves that are an `nnx.Param`."""
    found = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
    return {place_name(path) for path, leaf in found if isinstance(leaf, nnx.Param)}


def place_name(path: Any) -> str:
    """Where a leaf of ``(cell, events, state)`` lives, as ``cell.wr`` or ``state[0]``."""
    first, rest = path[0], path[1:]
    root = ("cell", "events", "state")[first.idx]
    return root + jax.tree_util.keystr(rest).removesuffix(".value")


def difference(found: Any, wanted: Any) -> float:
    """The largest difference between two trees of arrays, relative to a wanted leaf's largest entry where above 1."""
    if not same_structure(found, wanted):
        return float("inf")
    worst = 0.0
    for have, want in zip(map(plain, jax.tree.leaves(found)), map(plain, jax.tree.leaves(wanted)), strict=True):
        if have.shape != want.shape:
            return float("inf")
        if want.size:
            apart = float(np.max(np.abs(have - want))) / max(1.0, float(np.max(np.abs(want))))
            worst = max(worst, apart if np.isfinite(apart) else float("inf"))
    return worst


def same_structure(one: Any, other: Any) -> bool:
    structures: list[object] = [jax.tree.structure(one), jax.tree.structure(other)]
    return structures[0] == structures[1]


def plain(leaf: Any) -> np.ndarray[Any, Any]:
    """A leaf as float64, random keys by their bits."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf).astype(np.float64)


def piece(tree: Any, begin: int | None, end: int | None) -> Any:
    """Events or outputs ``begin`` to ``end`` in time."""
    return jax.tree.map(lambda leaf: leaf[:, begin:end], tree)


def rows(tree: Any, which: Any) -> Any:
    """Rows of a batch."""
    return jax.tree.map(lambda leaf: leaf[which], tree)


def joined(*trees: Any) -> Any:
    """Pieces put together in time."""
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1), *trees)
