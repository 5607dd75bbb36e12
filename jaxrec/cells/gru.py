"""The gated recurrent unit, in its two published forms."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from jaxrec.cells.cell import Cell, Event
from jaxrec.cells.weights import bias, orthogonal, weight
from jaxrec.config import Mistake
from jaxrec.types import Hidden


class GRU(Cell):
    """Gated recurrent unit (Cho et al. 2014): ``h' = (1 - z) n + z h`` with gates ``r`` and ``z`` and candidate ``n``.

    https://arxiv.org/abs/1406.1078, equations 5 to 8. ``reset="after"`` gates the matrix product, ``n = tanh(Wn x + bn
    + r (Un h + cn))``, as in cuDNN, PyTorch and GRU4Rec; ``reset="before"`` gates the state, ``n = tanh(Wn x + bn + Un
    (r h))``, as in the paper (its second version). The two bias vectors that cuDNN gives to r and z are one here,
    since only their sum is identified. State and output ``(hidden,)``.
    """

    keeps: ClassVar[Mapping[str, int]] = {"bz": 1}

    def __init__(self, features: int, hidden: int, *, reset: Literal["after", "before"] = "after", rngs: nnx.Rngs):
        if reset not in ("after", "before"):
            raise Mistake(
                f'GRU has no reset={reset!r}; choose "after" (cuDNN, PyTorch, GRU4Rec) or "before" (Cho et al. 2014)'
            )
        self.features, self.hidden, self.reset = features, hidden, reset
        self.wr, self.wz, self.wn = (weight(rngs, features, hidden) for _ in range(3))
        self.ur, self.uz, self.un = (orthogonal(rngs, hidden) for _ in range(3))
        self.br, self.bz, self.bn = (bias(hidden) for _ in range(3))
        self.cn = bias(hidden) if reset == "after" else None

    def initial_state(self) -> Hidden:
        return jnp.zeros(self.hidden)

    def project(self, event: Event) -> tuple[Hidden, Hidden, Hidden]:
        return event.x @ self.wr + self.br, event.x @ self.wz + self.bz, event.x @ self.wn + self.bn

    def step(self, state: Hidden, projected: Any) -> Hidden:
        r = jax.nn.sigmoid(projected[0] + state @ self.ur)
        z = jax.nn.sigmoid(projected[1] + state @ self.uz)
        if self.cn is None:
            n = jnp.tanh(projected[2] + (r * state) @ self.un)
        else:
            n = jnp.tanh(projected[2] + r * (state @ self.un + self.cn))
        return n + z * (state - n)
