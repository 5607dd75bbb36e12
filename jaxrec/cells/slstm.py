"""The scalar LSTM of xLSTM."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxrec.cells.cell import Cell, Event
from jaxrec.cells.weights import bias, equal_parts, weight
from jaxrec.config import Mistake
from jaxrec.types import Hidden

NEVER = -1e30  # the logarithm of nothing, finite so that no difference of two is undefined


class SLSTMState(NamedTuple):
    """Output ``h``; memory ``c`` and normaliser ``n``, both divided by ``exp(m)``; each ``(hidden,)``."""

    h: Hidden
    c: Hidden
    n: Hidden
    m: Hidden


class SLSTM(Cell):
    """Scalar LSTM, xLSTM's sLSTM (Beck et al. 2024): exponential gates, ``c' = f c + i z``, ``h' = o c' / n'``.

    https://arxiv.org/abs/2405.04517, equations 8 to 17: ``z = tanh(.)``, ``i = exp(.)``, ``f = sigmoid(.)`` (or
    ``forget="exp"``), ``o = sigmoid(.)`` of ``W x + R h + b``, with ``n' = f n + i``. A stabiliser
    ``m' = max(log f + m, log i)`` keeps the exponentials in range and cancels in ``c / n``; it starts so low that the
    first event sets it, as the authors' code does by a branch. ``R`` is block-diagonal, a block for each of ``heads``,
    and starts at zero as there; the forget bias runs from 3 to 6 within each head, so that a head has slow and fast
    units. The convolution and group norm around it belong to the block, not to the cell. Output ``h (hidden,)``.
    """

    def __init__(
        self, features: int, hidden: int, *, heads: int = 4, forget: Literal["sigmoid", "exp"] = "sigmoid",
        rngs: nnx.Rngs,
    ):  # fmt: skip
        equal_parts(hidden, heads=heads)
        if forget not in ("sigmoid", "exp"):
            raise Mistake(f"SLSTM has no forget={forget!r}; choose one of sigmoid, exp")
        self.features, self.hidden, self.heads, self.forget = features, hidden, heads, forget
        size = hidden // heads
        self.wi, self.wf, self.wz, self.wo = (weight(rngs, features, hidden) for _ in range(4))
        self.ri, self.rf, self.rz, self.ro = (nnx.Param(jnp.zeros((heads, size, size))) for _ in range(4))
        self.bi, self.bz, self.bo = (bias(hidden) for _ in range(3))
        self.bf = nnx.Param(jnp.tile(jnp.linspace(3.0, 6.0, size), heads))

    def initial_state(self) -> SLSTMState:
        zeros = jnp.zeros(self.hidden)
        return SLSTMState(zeros, zeros, zeros, zeros + NEVER)

    def project(self, event: Event) -> tuple[Hidden, Hidden, Hidden, Hidden]:
        x = event.x
        return x @ self.wi + self.bi, x @ self.wf + self.bf, x @ self.wz + self.bz, x @ self.wo + self.bo

    def step(self, state: SLSTMState, projected: Any) -> SLSTMState:
        write = projected[0] + by_head(state.h, self.ri)
        keep = projected[1] + by_head(state.h, self.rf)
        z = jnp.tanh(projected[2] + by_head(state.h, self.rz))
        o = jax.nn.sigmoid(projected[3] + by_head(state.h, self.ro))
        kept = state.m + (jax.nn.log_sigmoid(keep) if self.forget == "sigmoid" else keep)
        m = jnp.maximum(kept, write)
        i, f = jnp.exp(write - m), jnp.exp(kept - m)
        c, n = f * state.c + i * z, f * state.n + i
        return SLSTMState(o * c / n, c, n, m)

    def read(self, state: SLSTMState, projected: Any) -> Hidden:
        return state.h


def by_head(h: Hidden, blocks: nnx.Param) -> Array:
    """``h`` times a block-diagonal matrix of ``blocks (heads, size, size)``."""
    heads, size, _ = blocks.shape
    return jnp.einsum("ns,nsr->nr", h.reshape(heads, size), blocks[...]).reshape(-1)
