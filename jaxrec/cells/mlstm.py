"""The LSTM with a matrix memory."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxrec.cells.cell import Event
from jaxrec.cells.matrix import MatrixCell, Rule, divided
from jaxrec.cells.weights import bias, weight
from jaxrec.config import Mistake


class Scale(NamedTuple):
    """The memory is kept divided by ``exp(top)``; ``keep`` is the logarithm of what the last step left of it."""

    top: Array
    keep: Array


class MLSTM(MatrixCell):
    """Matrix LSTM (Beck et al. 2024, xLSTM): memory ``C' = f C + i v k^T``, read by a query, exponential input gate.

    https://arxiv.org/abs/2405.04517, equations 19 to 27: ``n' = f n + i k``, ``h = o * C' q / max(|n' q|, 1)``, per
    head ``i = exp(wi x + bi)`` and ``f = sigmoid(wf x + bf)`` (or exp), ``k`` divided by ``sqrt(key)``, output gate
    ``o = sigmoid(Wo x + bo)``. The cell alone: without the convolution, the skip and the norm of the block around it;
    as in the equations, and unlike the published block, the gates see x and not q, k, v.

    With exponential gates memory and normaliser are kept divided by ``exp(m)``, ``m' = max(log f + m, log i, 0)``. The
    output does not depend on m (equation 15 has no 0 there; with it ``exp(-m)``, the 1 in the equation above, cannot
    overflow). The normaliser is one more column of the memory: state ``(heads, key, hidden / heads + 1)`` and two
    numbers per head, output ``(hidden,)``. As in the published code gates start with weight 0, ``bi`` normal with
    deviation .1 and ``bf`` from 3 to 6 over the heads: memory fades slowly. An exponential f starts at the same decays.
    """

    def __init__(
        self, features: int, hidden: int, *, heads: int = 2, key: int | None = None,
        forget: Literal["sigmoid", "exponential"] = "sigmoid", rngs: nnx.Rngs,
    ):  # fmt: skip
        if forget not in ("sigmoid", "exponential"):
            raise Mistake(f'MLSTM has no forget={forget!r}; choose "sigmoid" or "exponential"')
        width = divided("MLSTM", hidden, heads)
        self.sizes(heads, width if key is None else key, width + 1)
        self.features, self.hidden, self.forget = features, hidden, forget
        keys = heads * self.key
        self.wq, self.wk, self.wv = (weight(rngs, features, out) for out in (keys, keys, hidden))
        self.bq, self.bk, self.bv = (bias(out) for out in (keys, keys, hidden))
        self.wo, self.bo = weight(rngs, features, hidden), bias(hidden)
        self.wi, self.wf = (nnx.Param(jnp.zeros((features, heads))) for _ in range(2))
        self.bi = nnx.Param(0.1 * jax.random.normal(rngs.params(), (heads,)))
        start = jnp.linspace(3.0, 6.0, heads)
        self.bf = nnx.Param(start if forget == "sigmoid" else jax.nn.log_sigmoid(start))

    def nothing(self) -> Scale:
        return Scale(jnp.zeros(self.heads), jnp.zeros(self.heads))

    def project(self, event: Event) -> Any:
        x = event.x
        query, key, value = x @ self.wq + self.bq, x @ self.wk + self.bk, x @ self.wv + self.bv
        take, forget = x @ self.wi + self.bi, x @ self.wf + self.bf
        keep = jax.nn.log_sigmoid(forget) if self.forget == "sigmoid" else forget
        return (query, key, value), (take, keep), x @ self.wo + self.bo

    def remember(self, beside: Scale, projected: Any) -> Scale:
        take, keep = projected[1]
        top = jnp.maximum(jnp.maximum(keep + beside.top, take), 0)
        return Scale(top, keep + beside.top - top)

    def rule(self, projected: Any, beside: Scale) -> Rule:
        query, key, value = (leaf.reshape(self.heads, -1) for leaf in projected[0])
        ones = jnp.ones((self.heads, 1), value.dtype)
        return Rule(
            query,
            key / jnp.sqrt(1.0 * self.key),
            jnp.concatenate([value, ones], axis=1),
            decay=beside.keep,
            gate=jnp.exp(projected[1][0] - beside.top),
        )

    def output(self, projected: Any, beside: Scale, reading: Array) -> Array:
        memory, normaliser = reading[:, :-1], reading[:, -1:]
        shown = memory / jnp.maximum(jnp.abs(normaliser), jnp.exp(-beside.top)[:, None])
        return jax.nn.sigmoid(projected[2]) * shown.reshape(-1)
