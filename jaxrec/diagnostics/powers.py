"""Arrays with a power of two beside them, so that nothing underflows over ten thousand steps."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

NEVER = -(2**30)  # the exponent of an exact zero: smaller than any that occurs
REACH = 120  # powers of two by which a float32 may be multiplied at once


class Scaled(NamedTuple):
    """``tree * 2 ** exponent``, leaves ``(batch, ...)``, exponents ``(batch,)`` whole numbers: exact however far."""

    tree: Any
    exponent: Array


class Norms(NamedTuple):
    """``mantissa * 2 ** exponent``: Euclidean norms of any shape."""

    mantissa: Array
    exponent: Array

    def log10(self) -> np.ndarray[Any, Any]:
        """Their logarithm in float64 (on the host): -inf of an exact zero, NaN of what is not a number."""
        with np.errstate(divide="ignore"):
            return np.log10(np.asarray(self.mantissa, np.float64)) + np.asarray(self.exponent) * np.log10(2.0)


def times_power(leaf: Array, exponent: Array) -> Array:
    """``leaf (batch, ...) * 2 ** exponent (batch,)``, exact; exponents beyond what the type holds are cut off."""
    real = leaf.real.dtype
    factor = jnp.ldexp(jnp.ones((), real), jnp.clip(exponent, -REACH, REACH))
    return leaf * factor.reshape(-1, *[1] * (leaf.ndim - 1))


def norm(tree: Any, batch: int) -> Array:
    """The Euclidean norm ``(batch,)`` over all leaves ``(batch, ...)``, real and complex; the largest entry is taken
    out first, so that squares do not underflow.
    """
    leaves = [jnp.abs(leaf).reshape(batch, -1) for leaf in jax.tree.leaves(tree)]
    if not leaves:
        return jnp.zeros(batch)
    flat = jnp.concatenate([leaf.astype(jnp.result_type(float)) for leaf in leaves], axis=1)
    largest = flat.max(axis=1, initial=0)
    safe = jnp.where(largest > 0, largest, 1)
    return largest * jnp.sqrt(jnp.square(flat / safe[:, None]).sum(1))


def total(parts: Sequence[Scaled]) -> tuple[Any, Array]:
    """The sum of scaled trees of one structure, and the exponent that goes with it."""
    exponent = jnp.stack([part.exponent for part in parts]).max(0)
    moved = [jax.tree.map(lambda leaf, by=part.exponent - exponent: times_power(leaf, by), part.tree) for part in parts]
    return jax.tree.map(lambda *leaves: sum(leaves[1:], leaves[0]), *moved), exponent


def normalised(tree: Any, exponent: Array) -> tuple[Scaled, Norms]:
    """The same with a norm between a half and one, and its norm as it was."""
    size = norm(tree, len(exponent))
    sound = jnp.isfinite(size) & (size > 0)
    power = jnp.where(sound, jnp.frexp(jnp.where(sound, size, 1))[1], 0)
    found = Norms(size, exponent)
    moved = jax.tree.map(lambda leaf: times_power(leaf, -power), tree)
    return Scaled(moved, jnp.where(size == 0, NEVER, exponent + power)), found
