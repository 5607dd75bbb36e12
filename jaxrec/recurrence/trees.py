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


def is_complex(leaf: Any) -> bool:
    return bool(jnp.issubdtype(jnp.result_type(leaf), jnp.complexfloating))


def double(tree: Any) -> Any:
    """Real leaves in float64, complex ones in complex128; meaningful only where 64-bit types are enabled."""

    def widened(leaf: Any) -> Any:
        if is_complex(leaf):
            return jnp.asarray(leaf, jnp.complex128)
        return jnp.asarray(leaf, jnp.float64) if is_real(leaf) else leaf

    return jax.tree.map(widened, tree)


def widened(tree: Any) -> Any:
    """Leaves of half precision in float32: a recurrence adds small to large for thousands of steps."""
    halves = (jnp.bfloat16, jnp.float16)
    if not any(jnp.result_type(leaf) in halves for leaf in jax.tree.leaves(tree)):
        return tree
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32) if leaf.dtype in halves else leaf, tree)


def real_leaves(tree: Any) -> tuple[list[str], list[Array], Callable[[Sequence[Array]], Any]]:
    """Names and values of the real leaves, a complex one as its two parts, and a function that puts others there."""
    flat, structure = jax.tree_util.tree_flatten_with_path(tree)
    parts = [part for place, (path, leaf) in enumerate(flat) for part in real_parts(place, place_name(path), leaf)]

    def rebuild(leaves: Sequence[Array]) -> Any:
        full: dict[int, list[Any]] = {}
        for (place, *_), leaf in zip(parts, leaves, strict=True):
            full.setdefault(place, []).append(leaf)
        given = [leaf if place not in full else whole(full[place]) for place, (_, leaf) in enumerate(flat)]
        return jax.tree.unflatten(structure, given)

    return [name for _, name, _ in parts], [leaf for _, _, leaf in parts], rebuild


def real_parts(place: int, name: str, leaf: Any) -> list[tuple[int, str, Array]]:
    if is_complex(leaf):
        return [(place, f"{name}.real", leaf.real), (place, f"{name}.imag", leaf.imag)]
    return [(place, name, leaf)] if is_real(leaf) else []


def whole(parts: Sequence[Array]) -> Array:
    return jax.lax.complex(*parts) if len(parts) == 2 else parts[0]


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
    """A leaf as float64, a complex one as its two parts, random keys by their bits."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    values = np.asarray(leaf)
    return np.stack([values.real, values.imag]) if is_complex(leaf) else values.astype(np.float64)


def piece(tree: Any, begin: int | None, end: int | None) -> Any:
    """Events or outputs ``begin`` to ``end`` in time."""
    return jax.tree.map(lambda leaf: leaf[:, begin:end], tree)


def rows(tree: Any, which: Any) -> Any:
    """Rows of a batch."""
    return jax.tree.map(lambda leaf: leaf[which], tree)


def joined(*trees: Any) -> Any:
    """Pieces put together in time."""
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1), *trees)
