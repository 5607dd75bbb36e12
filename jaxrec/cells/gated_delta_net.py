"""The delta rule with a gate that forgets."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxrec.cells.cell import Event
from jaxrec.cells.delta_net import heads_of
from jaxrec.cells.matrix import Erase, Rule, divided
from jaxrec.cells.norms import inverse_softplus, root_mean_square, unit
from jaxrec.cells.short_conv import ShortConvCell
from jaxrec.cells.weights import bias, weight


class GatedDeltaNet(ShortConvCell):
    """Gated DeltaNet (Yang et al. 2025): ``S' = S a (I - b k k^T) + b v k^T``: replaces by key, and forgets.

    https://arxiv.org/abs/2412.06464, equation 10 and the layer of section 3.4: ``q``, ``k`` and ``v`` are projections
    behind a short causal convolution and SiLU, ``q`` and ``k`` of length 1; per head ``b = sigmoid(wb x)`` and, as in
    Mamba-2, ``a = exp(-exp(A) softplus(wa x + ba))``; output ``Wo (silu(Wg x) * rms(S' q))`` with the norm per
    head. ``exp(A)`` starts uniform in [1, 16] (in the published code in [0, 16]: a decay of 1 would never be seen
    again), ``softplus(ba)`` log-uniform in [.001, .1].
    State ``(heads, key, hidden / heads)`` and the convolution's last inputs; output ``(hidden,)``.
    """

    def __init__(
        self, features: int, hidden: int, *, heads: int = 2, key: int | None = None, window: int = 4, rngs: nnx.Rngs
    ):
        width = divided("GatedDeltaNet", hidden, heads)
        self.sizes(heads, width if key is None else key, width)
        self.features, self.hidden = features, hidden
        keys = heads * self.key
        self.wq, self.wk, self.wv = (weight(rngs, features, out) for out in (keys, keys, hidden))
        self.wa, self.wb = (weight(rngs, features, heads) for _ in range(2))
        self.wg, self.scale = weight(rngs, features, hidden), bias(width, 1.0)
        self.out = weight(rngs, hidden, hidden)
        self.a, self.ba = slow_decays(rngs, heads)
        self.convolution(rngs, 2 * keys + hidden, window)

    def project(self, event: Event) -> tuple[Array, Array, Array, Array]:
        x = event.x
        decay = -jnp.exp(self.a[...]) * jax.nn.softplus(x @ self.wa + self.ba)
        qkv = jnp.concatenate([x @ self.wq, x @ self.wk, x @ self.wv])
        return qkv, decay, jax.nn.sigmoid(x @ self.wb), jax.nn.silu(x @ self.wg)

    def rule(self, projected: Any, beside: Array) -> Rule:
        _, decay, write, _ = projected
        query, key, value = heads_of(self, jax.nn.silu(self.convolved(beside)))
        key = unit(key)
        erase = Erase(key, (jnp.exp(decay) * write)[:, None] * key)
        return Rule(unit(query), key, value, decay, erase, write)

    def output(self, projected: Any, beside: Array, reading: Array) -> Array:
        return (projected[3] * (root_mean_square(reading) * self.scale[...][None]).reshape(-1)) @ self.out


def slow_decays(rngs: nnx.Rngs, heads: int) -> tuple[nnx.Param, nnx.Param]:
    """``A`` and the bias of the step size, for decays ``exp(-exp(A) softplus(bias))`` from .2 to .999 per event."""
    rate = jax.random.uniform(rngs.params(), (heads,), minval=1.0, maxval=16.0)
    step = jnp.exp(jax.random.uniform(rngs.params(), (heads,), minval=jnp.log(0.001), maxval=jnp.log(0.1)))
    return nnx.Param(jnp.log(rate)), nnx.Param(inverse_softplus(step))
