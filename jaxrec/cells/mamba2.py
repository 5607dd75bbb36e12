"""Mamba-2: state-space duality."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxrec.cells.cell import Event
from jaxrec.cells.gated_delta_net import slow_decays
from jaxrec.cells.matrix import Rule, divided
from jaxrec.cells.norms import root_mean_square
from jaxrec.cells.short_conv import ShortConvCell
from jaxrec.cells.weights import bias, weight


class Mamba2(ShortConvCell):
    """Mamba-2 (Dao and Gu 2024): ``S' = exp(-dt A) S + dt B x^T``, ``y = C S' + D x``: one decay per head.

    https://arxiv.org/abs/2405.21060, sections 5 and 7 (there the state is h): ``dt = softplus(wdt u + bdt)`` per
    head; ``x``, ``B`` and ``C`` are projections of the input u behind one short causal convolution and SiLU, B and
    C shared by all heads; output ``Wo norm(y * silu(Wz u))``, the norm over all heads. ``hidden`` is the paper's inner
    width, which there is twice the model's; here Wo keeps it.
    Starts as published: ``A`` uniform in [1, 16], ``softplus(bdt)`` log-uniform in [.001, .1], ``D`` 1. State, with
    64 keys by default, ``(heads, key, hidden / heads)``, and the convolution's last inputs; output ``(hidden,)``.
    """

    def __init__(
        self, features: int, hidden: int, *, heads: int = 2, key: int = 64, window: int = 4, rngs: nnx.Rngs
    ):  # fmt: skip
        width = divided("Mamba2", hidden, heads)
        self.sizes(heads, key, width)
        self.features, self.hidden = features, hidden
        self.wz, self.wx = (weight(rngs, features, hidden) for _ in range(2))
        self.wb, self.wc = (weight(rngs, features, key) for _ in range(2))
        self.wdt = weight(rngs, features, heads)
        self.a, self.bdt = slow_decays(rngs, heads)
        self.d, self.scale, self.bias = bias(heads, 1.0), bias(hidden, 1.0), bias(hidden + 2 * key)
        self.out = weight(rngs, hidden, hidden)
        self.convolution(rngs, hidden + 2 * key, window)

    def project(self, event: Event) -> tuple[Array, Array, Array]:
        u = event.x
        channels = jnp.concatenate([u @ self.wx, u @ self.wb, u @ self.wc])
        return channels, jax.nn.softplus(u @ self.wdt + self.bdt), jax.nn.silu(u @ self.wz)

    def rule(self, projected: Any, beside: Array) -> Rule:
        value, key, query = self.split(beside)
        step = projected[1]
        shared = (self.heads, self.key)
        decay = -step * jnp.exp(self.a[...])
        return Rule(jnp.broadcast_to(query, shared), jnp.broadcast_to(key, shared), value, decay, gate=step)

    def output(self, projected: Any, beside: Array, reading: Array) -> Array:
        shown = reading + self.d[...][:, None] * self.split(beside)[0]
        return (root_mean_square(shown.reshape(-1) * projected[2]) * self.scale) @ self.out

    def split(self, beside: Array) -> tuple[Array, Array, Array]:
        """``x (heads, value)``, and B and C ``(1, key)``."""
        channels = jax.nn.silu(self.convolved(beside) + self.bias)
        value, key, query = jnp.split(channels, (self.hidden, self.hidden + self.key))
        return value.reshape(self.heads, -1), key[None], query[None]
