"""The delta rule over a sequence."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxrec.cells.cell import Event
from jaxrec.cells.matrix import Erase, Rule, divided
from jaxrec.cells.norms import root_mean_square, unit
from jaxrec.cells.short_conv import ShortConvCell
from jaxrec.cells.weights import bias, weight


class DeltaNet(ShortConvCell):
    """DeltaNet (Schlag et al. 2021; Yang et al. 2024): ``S' = S (I - b k k^T) + b v k^T``: what a key held is replaced.

    https://arxiv.org/abs/2406.06484, section 2.2, with the layer of section 3.4: ``q``, ``k`` and ``v`` are projections
    behind a short causal convolution and SiLU, ``q`` and ``k`` of length 1, ``b = sigmoid(wb x)`` per head, and the
    reading ``S' q`` is divided by its root mean square per head and scaled. Schlag et al. (https://arxiv.org/abs/2102.11174)
    have another feature map and neither convolution nor norm. ``Wo`` mixes the heads
    at the end. State ``(heads, key, hidden / heads)`` and the convolution's last inputs; output ``(hidden,)``.
    """

    def __init__(
        self, features: int, hidden: int, *, heads: int = 2, key: int | None = None, window: int = 4, rngs: nnx.Rngs
    ):
        width = divided("DeltaNet", hidden, heads)
        self.sizes(heads, width if key is None else key, width)
        self.features, self.hidden = features, hidden
        keys = heads * self.key
        self.wq, self.wk, self.wv = (weight(rngs, features, out) for out in (keys, keys, hidden))
        self.wb = weight(rngs, features, heads)
        self.scale, self.out = bias(width, 1.0), weight(rngs, hidden, hidden)
        self.convolution(rngs, 2 * keys + hidden, window)

    def project(self, event: Event) -> tuple[Array, Array]:
        x = event.x
        return jnp.concatenate([x @ self.wq, x @ self.wk, x @ self.wv]), jax.nn.sigmoid(x @ self.wb)

    def rule(self, projected: Any, beside: Array) -> Rule:
        query, key, value = heads_of(self, jax.nn.silu(self.convolved(beside)))
        key, write = unit(key), projected[1]
        erase = Erase(key, write[:, None] * key)
        return Rule(unit(query), key, value, jnp.zeros_like(write), erase, write)

    def output(self, projected: Any, beside: Array, reading: Array) -> Array:
        return (root_mean_square(reading) * self.scale[...][None]).reshape(-1) @ self.out


def heads_of(cell: ShortConvCell, channels: Array) -> tuple[Array, Array, Array]:
    """Query, key and value per head, from one vector that holds them in this order."""
    keys = cell.heads * cell.key
    parts = jnp.split(channels, (keys, 2 * keys))
    query, key, value = (part.reshape(cell.heads, -1) for part in parts)
    return query, key, value
