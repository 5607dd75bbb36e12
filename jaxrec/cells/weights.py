"""Parameters for cells, initialised at their true fan-in."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from jaxrec.config import Mistake


def weight(rngs: nnx.Rngs, inputs: int, outputs: int) -> nnx.Param:
    """An ``(inputs, outputs)`` matrix, to be used as ``x @ w``: LeCun normal, variance ``1 / inputs``."""
    positive(inputs=inputs, outputs=outputs)
    return nnx.Param(jax.nn.initializers.lecun_normal()(rngs.params(), (inputs, outputs)))


def orthogonal(rngs: nnx.Rngs, hidden: int) -> nnx.Param:
    """A random orthogonal ``(hidden, hidden)`` matrix (Saxe et al. 2014): no state grows or fades under it."""
    positive(hidden=hidden)
    return nnx.Param(jax.nn.initializers.orthogonal()(rngs.params(), (hidden, hidden)))


def bias(hidden: int, value: float = 0.0) -> nnx.Param:
    """A ``(hidden,)`` vector filled with ``value``."""
    positive(hidden=hidden)
    return nnx.Param(jnp.full((hidden,), value, dtype=float))


def skew(upper: Array, hidden: int) -> Array:
    """The antisymmetric ``(hidden, hidden)`` matrix with ``upper (hidden (hidden - 1) / 2,)`` above its diagonal."""
    half = jnp.zeros((hidden, hidden), upper.dtype).at[np.triu_indices(hidden, 1)].set(upper)
    return half - half.T


def positive(**sizes: int) -> None:
    """Raise `Mistake` for a size that is not a whole number above zero."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise Mistake(f"{name}={size!r} is not a size; give a whole number of at least 1")


def above_zero(**values: float) -> None:
    """Raise `Mistake` for a number that is not finite and above zero."""
    for name, value in values.items():
        if not (value > 0 and np.isfinite(value)):
            raise Mistake(f"{name}={value!r} is not above zero; give a positive number")


def equal_parts(hidden: int, **parts: int) -> None:
    """Raise `Mistake` where ``hidden`` units do not fall into so many equal parts."""
    positive(hidden=hidden, **parts)
    for name, count in parts.items():
        if hidden % count:
            raise Mistake(f"{name}={count} does not divide hidden={hidden}; give a divisor of hidden")


def two_units(hidden: int) -> None:
    """Raise `Mistake` for a single unit, which has no antisymmetric matrix but zero."""
    positive(hidden=hidden)
    if hidden < 2:
        raise Mistake(f"hidden={hidden} leaves nothing to rotate; give at least 2")
