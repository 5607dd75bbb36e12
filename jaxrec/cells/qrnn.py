"""The quasi-recurrent network."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxrec.cells.cell import Cell, Event
from jaxrec.cells.kinds import AffineCell, Composite, WindowCell
from jaxrec.cells.weights import bias, positive, weight
from jaxrec.types import Hidden


class QRNN(Composite):
    """Quasi-recurrent network (Bradbury et al. 2017): gates from a window of inputs, ``c' = f c + (1 - f) z``.

    https://arxiv.org/abs/1611.01576, section 2, with fo-pooling: ``z = tanh(Wz X)``, ``f = sigmoid(Wf X)``,
    ``o = sigmoid(Wo X)`` with ``X`` the last ``width`` inputs, then ``c' = f c + (1 - f) z`` and ``h = o c``; with
    biases. The gates look at earlier inputs and so at the state, hence two cells: a
    window, and a pooling that is affine. Weights start LeCun normal over the whole window. State: the window
    ``(width, features)`` and ``c (hidden,)``; output ``h (hidden,)``.
    """

    family = "linear"
    keeps: ClassVar[Mapping[str, int]] = {"gates.bf": 1}

    def __init__(self, features: int, hidden: int, *, width: int = 2, rngs: nnx.Rngs):
        self.features, self.hidden = features, hidden
        self.gates = _Gates(features, hidden, width, rngs=rngs)
        self.pool = _Pool(hidden)

    def inner(self) -> dict[str, Cell]:
        return {"gates": self.gates, "pool": self.pool}

    def wire(self, run: Callable[[str, Event], Any], events: Event) -> Array:
        z, f, o = run("gates", events)
        return o * run("pool", Event(z, context=f))


class _Gates(WindowCell):
    """A masked convolution for each gate, over the last ``width`` inputs."""

    def __init__(self, features: int, hidden: int, width: int, *, rngs: nnx.Rngs):
        positive(features=features, width=width)
        self.features, self.width = features, width
        self.wz, self.wf, self.wo = (weight(rngs, width * features, hidden) for _ in range(3))
        self.bz, self.bf, self.bo = (bias(hidden) for _ in range(3))

    def initial_state(self) -> Any:
        return jnp.zeros((self.width, self.features))

    def read(self, state: Any, projected: Any) -> tuple[Hidden, Hidden, Hidden]:
        x = state.reshape(-1)
        z, f, o = x @ self.wz + self.bz, x @ self.wf + self.bf, x @ self.wo + self.bo
        return jnp.tanh(z), jax.nn.sigmoid(f), jax.nn.sigmoid(o)


class _Pool(AffineCell):
    """Keeps the share ``event.context`` of its state and takes the rest from ``event.x``."""

    wants = ("x", "context")

    def __init__(self, hidden: int):
        self.hidden = hidden

    def initial_state(self) -> Hidden:
        return jnp.zeros(self.hidden)

    def project(self, event: Event) -> tuple[Hidden, Hidden]:
        return event.x, event.context

    def affine(self, projected: Any) -> tuple[Hidden, Hidden]:
        z, f = projected
        return f, (1 - f) * z
