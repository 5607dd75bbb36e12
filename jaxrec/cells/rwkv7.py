"""RWKV-7."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxrec.cells.matrix import Erase, MatrixCell, Rule, divided
from jaxrec.cells.norms import standardised, unit
from jaxrec.cells.weights import bias, weight


class Shift(NamedTuple):
    """The input before and the input now."""

    last: Array
    now: Array


class RWKV7(MatrixCell):
    """RWKV-7, Goose (Peng et al. 2025): ``S' = S (diag(w) - k^ (a k^)^T) + v k~^T``: decay, delta rule by dimension.

    https://arxiv.org/abs/2503.14456, section 4.1, the time mixing of a first layer (so without the value residual):
    every projection sees its own mix of this input and the last, ``x + mu (last - x)``. Per key dimension, each through
    a product of rank ``rank``: decay ``w = exp(-e^-.5 sigmoid(d0 + tanh(x D1) D2))``, learning rate
    ``a = sigmoid(a0 + x A1 A2)``, output gate ``g = sigmoid(x G1) G2``. Removal key ``k^ = unit(k * xi)``, added key
    ``k~ = k (1 + (a - 1) alpha)``, output ``Wo (g * (norm(r S') + (r . (rho k~)) v))`` with a layer norm per head.

    Biases, mixes and scales start as in the published code for layer 0, ``D1`` and ``A1`` at zero: decays and rates are
    the same for every event at first. State ``(heads, n, n)``,
    ``n = hidden / heads``, and two inputs; output ``(hidden,)``.
    """

    def __init__(self, features: int, hidden: int, *, heads: int = 2, rank: int = 32, rngs: nnx.Rngs):
        width = divided("RWKV7", hidden, heads)
        self.sizes(heads, width, width)
        self.features, self.hidden = features, hidden
        places = jnp.arange(features) / features
        self.mu = nnx.Param(jnp.stack([1 - places**power for power in (0.2, 0.9, 0.7, 0.7, 0.9, 0.2)]))  # r d k v a g
        self.wr, self.wk, self.wv = (weight(rngs, features, hidden) for _ in range(3))
        self.d1, self.a1 = (nnx.Param(jnp.zeros((features, rank))) for _ in range(2))
        self.d2, self.a2, self.g2 = (weight(rngs, rank, hidden) for _ in range(3))
        self.g1 = weight(rngs, features, rank)
        slope = jnp.linspace(0.0, 1.0, hidden)
        inside = jnp.tile(jnp.linspace(-1.0, 1.0, width) if width > 1 else jnp.zeros(1), heads)
        inside = inside * jnp.abs(inside)
        self.d0 = nnx.Param(-5.5 + 6 * slope + 2.5 * inside)
        self.a0 = nnx.Param(-0.19 + 0.3 * inside + 0.4 * (slope - 0.5))
        self.xi = nnx.Param(0.71 - 0.1 * (slope - 0.5))
        self.alpha, self.rho = bias(hidden, 1.02), bias(hidden, -0.04)
        self.scale, self.shift, self.out = bias(hidden, 1.0), bias(hidden), weight(rngs, hidden, hidden)

    def nothing(self) -> Shift:
        return Shift(jnp.zeros(self.features), jnp.zeros(self.features))

    def remember(self, beside: Shift, projected: Array) -> Shift:
        return Shift(beside.now, projected)

    def remembered(self, beside: Shift, projected: Array, reset: Array | None) -> Shift:
        """Moved by one event: no loop over time."""
        last = jnp.concatenate([beside.now[None], projected[:-1]])
        return Shift(last if reset is None else jnp.where(reset[:, None], 0, last), projected)

    def rule(self, projected: Array, beside: Shift) -> Rule:
        query, value, added, removed, rate, decay, _ = self.mix(beside)
        return Rule(query, added, value, decay, Erase(removed, rate * removed))

    def output(self, projected: Array, beside: Shift, reading: Array) -> Array:
        query, value, added, _, _, _, gate = self.mix(beside)
        rho, scale, shift = (weight.reshape(self.heads, -1) for weight in (self.rho, self.scale, self.shift))
        shown = standardised(reading, 1e-5 * self.value) * scale + shift
        return ((shown + (query * rho * added).sum(1, keepdims=True) * value).reshape(-1) * gate) @ self.out

    def mix(self, beside: Shift) -> tuple[Array, ...]:
        """All that the event says: per head, but for the gate."""
        xr, xd, xk, xv, xa, xg = beside.now[None] + self.mu * (beside.last - beside.now)[None]
        key, rate = xk @ self.wk, jax.nn.sigmoid(xa @ self.a1 @ self.a2 + self.a0)
        decay = -jnp.exp(-0.5) * jax.nn.sigmoid(jnp.tanh(xd @ self.d1) @ self.d2 + self.d0)
        added, removed = key * (1 + (rate - 1) * self.alpha), key * self.xi
        flat = (xr @ self.wr, xv @ self.wv, added, removed, rate, decay)
        query, value, added, removed, rate, decay = (part.reshape(self.heads, -1) for part in flat)
        return query, value, added, unit(removed), rate, decay, jax.nn.sigmoid(xg @ self.g1) @ self.g2
