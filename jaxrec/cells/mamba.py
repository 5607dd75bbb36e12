"""Mamba: a selective state space model between a short convolution and a gate."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxrec.cells.causal_conv import CausalConv
from jaxrec.cells.cell import Cell, Event
from jaxrec.cells.kinds import AffineCell, Composite
from jaxrec.cells.weights import positive, weight
from jaxrec.types import Hidden

SLOWEST, FASTEST = 0.001, 0.1  # between which step sizes start


class Mamba(Composite):
    """Mamba (Gu and Dao 2023): a short convolution, then a linear system whose step size, input and output are gated.

    https://arxiv.org/abs/2312.00752, section 3.4 and algorithm 2 (S6): ``u = silu(conv(Wx x))``; for each of the
    ``hidden`` channels a state of ``states`` numbers, ``h' = exp(dt A) h + dt u B``, ``y = C h + D u``, where
    ``dt = softplus(Wd Wr u + bd)`` (one for each channel, through rank ``features / 16``), ``B = Wb u`` and
    ``C = Wc u`` depend on the input; output ``Wo (y * silu(Wz x))``. As in the authors' code the input is held by
    ``dt B`` rather than by the exact integral of equation 4. ``A = -exp(log_a)`` starts at ``-1 .. -states`` in every
    channel, ``dt`` log-uniform in ``[.001, .1]``, ``D`` at one. ``hidden`` is the inner width, in the paper twice the
    model's. State: the window ``(width, hidden)`` and ``h (hidden, states)``; output ``(features,)``.
    """

    family = "linear"

    def __init__(self, features: int, hidden: int, *, states: int = 16, width: int = 4, rngs: nnx.Rngs):
        self.features, self.hidden = features, hidden
        self.conv = CausalConv(features, hidden, width=width, rngs=rngs)
        self.ssm = _Selective(hidden, states, -(-features // 16), rngs=rngs)
        self.wz, self.wo = weight(rngs, features, hidden), weight(rngs, hidden, features)

    def inner(self) -> dict[str, Cell]:
        return {"conv": self.conv, "ssm": self.ssm}

    def wire(self, run: Callable[[str, Event], Any], events: Event) -> Array:
        u = jax.nn.silu(run("conv", events))
        return (run("ssm", Event(u)) * jax.nn.silu(events.x @ self.wz)) @ self.wo


class _Selective(AffineCell):
    """S6, algorithm 2: every channel of ``event.x`` drives a state ``(states,)`` of its own."""

    def __init__(self, channels: int, states: int, rank: int, *, rngs: nnx.Rngs):
        positive(states=states)
        self.channels, self.states = channels, states
        self.wr = weight(rngs, channels, rank)
        self.wb, self.wc = weight(rngs, channels, states), weight(rngs, channels, states)
        bound = rank**-0.5  # keeps the variance of dt's logit at the start
        self.wd = nnx.Param(jax.random.uniform(rngs.params(), (rank, channels), minval=-bound, maxval=bound))
        share = jax.random.uniform(rngs.params(), (channels,))
        step = SLOWEST * (FASTEST / SLOWEST) ** share
        self.bd = nnx.Param(step + jnp.log(-jnp.expm1(-step)))  # softplus backwards
        self.log_a = nnx.Param(jnp.tile(jnp.log(jnp.arange(1.0, states + 1)), (channels, 1)))
        self.d = nnx.Param(jnp.ones(channels))

    def initial_state(self) -> Array:
        return jnp.zeros((self.channels, self.states))

    def project(self, event: Event) -> tuple[Hidden, Hidden, Array, Array]:
        u = event.x
        return u, jax.nn.softplus((u @ self.wr) @ self.wd + self.bd), u @ self.wb, u @ self.wc

    def affine(self, projected: Any) -> tuple[Array, Array]:
        u, step, b, _ = projected
        return jnp.exp(-step[:, None] * jnp.exp(self.log_a[...])), (step * u)[:, None] * b[None]

    def read(self, state: Array, projected: Any) -> Hidden:
        return state @ projected[3] + self.d * projected[0]
