"""Gated linear attention."""

from typing import Any

import jax
from flax import nnx
from jax import Array

from jaxrec.cells.cell import Event
from jaxrec.cells.matrix import MatrixCell, Rule, divided
from jaxrec.cells.norms import root_mean_square
from jaxrec.cells.weights import bias, weight

TEMPERATURE = 16.0  # the paper's tau


class GLA(MatrixCell):
    """Gated linear attention (Yang et al. 2024): ``S' = diag(a) S + k^T v``, a data-dependent decay per key dimension.

    https://arxiv.org/abs/2312.06635, equation 3 and section 4.4: ``a = sigmoid(x W1 W2 + b)^(1/16)`` through a
    product of rank ``rank``, ``o = q S'``, output ``Wo (norm(o) * swish(Wr x + br))`` with the norm per head: in the
    paper a layer norm, here, as in its published code, a root mean square with a scale (the constant
    ``key^-.5`` on q, which the norm undoes, is left out). Half as many key as value dimensions, as in the paper.
    State ``(heads, key, hidden / heads)``, output ``(hidden,)``.
    """

    def __init__(
        self, features: int, hidden: int, *, heads: int = 2, key: int | None = None, rank: int = 16, rngs: nnx.Rngs
    ):
        width = divided("GLA", hidden, heads)
        self.sizes(heads, max(1, width // 2) if key is None else key, width)
        self.features, self.hidden = features, hidden
        keys = heads * self.key
        self.wq, self.wk, self.wv = (weight(rngs, features, out) for out in (keys, keys, hidden))
        self.down, self.up, self.b = weight(rngs, features, rank), weight(rngs, rank, keys), bias(keys)
        self.wr, self.br, self.scale = weight(rngs, features, hidden), bias(hidden), bias(width, 1.0)
        self.out = weight(rngs, hidden, hidden)

    def project(self, event: Event) -> Any:
        x = event.x
        decay = jax.nn.log_sigmoid(x @ self.down @ self.up + self.b) / TEMPERATURE
        return (x @ self.wq, x @ self.wk, x @ self.wv, decay), jax.nn.silu(x @ self.wr + self.br)

    def rule(self, projected: Any, beside: Any) -> Rule:
        return Rule(*(part.reshape(self.heads, -1) for part in projected[0]))

    def output(self, projected: Any, beside: Any, reading: Array) -> Array:
        return ((root_mean_square(reading) * self.scale[...][None]).reshape(-1) * projected[1]) @ self.out
