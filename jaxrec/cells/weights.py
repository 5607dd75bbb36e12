"""Parameters for cells, initialised at their true fan-in."""

import jax
import jax.numpy as jnp
from flax import nnx

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


def positive(**sizes: int) -> None:
    """Raise `Mistake` for a size that is not a whole number above zero."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise Mistake(f"{name}={size!r} is not a size; give a whole number of at least 1")
