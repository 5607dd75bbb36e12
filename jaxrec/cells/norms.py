"""Vectors brought to a length, as the cells with a matrix state do with keys and outputs."""

import jax.numpy as jnp
from jax import Array, lax


def unit(vectors: Array, eps: float = 1e-6) -> Array:
    """Each vector along the last axis divided by its length; next to 0 it keeps a slope."""
    return vectors * lax.rsqrt((vectors**2).sum(-1, keepdims=True) + eps)


def root_mean_square(vectors: Array, eps: float = 1e-5) -> Array:
    """Each vector along the last axis divided by the root of its mean square (Zhang and Sennrich 2019)."""
    return vectors * lax.rsqrt((vectors**2).mean(-1, keepdims=True) + eps)


def standardised(vectors: Array, eps: float = 1e-5) -> Array:
    """Each vector along the last axis with mean 0 and variance 1 (Ba et al. 2016)."""
    centred = vectors - vectors.mean(-1, keepdims=True)
    return centred * lax.rsqrt((centred**2).mean(-1, keepdims=True) + eps)


def inverse_softplus(values: Array) -> Array:
    """Where softplus takes these values."""
    return values + jnp.log(-jnp.expm1(-values))
