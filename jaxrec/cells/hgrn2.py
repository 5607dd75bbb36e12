"""The hierarchically gated recurrent network with a matrix state."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxrec.cells.cell import Event
from jaxrec.cells.matrix import MatrixCell, Rule, divided
from jaxrec.cells.norms import root_mean_square
from jaxrec.cells.weights import bias, weight
from jaxrec.config import Mistake


class HGRN2(MatrixCell):
    """HGRN2 (Qin et al. 2024): ``S' = diag(f) S + (1 - f) i^T``: the key is what the forget gate gives up.

    https://arxiv.org/abs/2404.07904, section 3.2: ``f = bound + (1 - bound) sigmoid(Wf x)`` per key dimension,
    ``i = Wi x``, output ``W norm(o S')`` with ``o = swish(Wo x)`` and a root mean square over all heads, as in the
    published code. In a stack the paper lets the lower bound of f rise from 0 in the first layer towards 1;
    ``bound`` is that of this cell. State ``(heads, key, hidden / heads)``, output ``(hidden,)``.
    """

    def __init__(
        self, features: int, hidden: int, *, heads: int = 2, key: int | None = None, bound: float = 0.0, rngs: nnx.Rngs
    ):
        if not 0 <= bound < 1:
            raise Mistake(f"HGRN2: bound={bound} leaves the forget gate no room; give 0 <= bound < 1")
        width = divided("HGRN2", hidden, heads)
        self.sizes(heads, width if key is None else key, width)
        self.features, self.hidden, self.bound = features, hidden, bound
        self.wo, self.wf = (weight(rngs, features, heads * self.key) for _ in range(2))
        self.wi, self.out = weight(rngs, features, hidden), weight(rngs, hidden, hidden)
        self.scale = bias(hidden, 1.0)

    def project(self, event: Event) -> Any:
        x = event.x
        gate = x @ self.wf
        decay = jax.nn.log_sigmoid(gate)
        if self.bound:
            decay = jnp.logaddexp(jnp.log(self.bound), jnp.log1p(-self.bound) + decay)
        # 1 - f = (1 - bound) sigmoid(-gate): next to f = 1 the difference would keep no digits
        return jax.nn.silu(x @ self.wo), (1 - self.bound) * jax.nn.sigmoid(-gate), x @ self.wi, decay

    def rule(self, projected: Any, beside: Any) -> Rule:
        return Rule(*(part.reshape(self.heads, -1) for part in projected))

    def output(self, projected: Any, beside: Any, reading: Array) -> Array:
        return (root_mean_square(reading.reshape(-1)) * self.scale) @ self.out
