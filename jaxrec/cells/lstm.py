"""Long short-term memory."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.scipy.special import logit

from jaxrec.cells.cell import Cell, Event
from jaxrec.cells.chrono import start_keeping
from jaxrec.cells.weights import bias, orthogonal, weight
from jaxrec.config import Mistake
from jaxrec.types import Hidden


class LSTMState(NamedTuple):
    """Output ``h`` and memory ``c``, each ``(hidden,)``."""

    h: Hidden
    c: Hidden


class LSTM(Cell):
    """Long short-term memory (Gers et al. 2000): ``c' = f c + i g``, ``h' = o tanh(c')``.

    https://doi.org/10.1162/089976600300015015: the network of Hochreiter and Schmidhuber (1997) with the forget gate,
    without peepholes, as in cuDNN and PyTorch. State ``h`` and ``c``, output ``h (hidden,)``.

    ``forget_bias`` is where the forget gate's bias starts; 1 keeps memory from fading before training has begun
    (Jozefowicz et al. 2015), 0 is what PyTorch does on average. Two other starts, each with ``bi = -bf``: ``chrono``,
    the longest lag expected, spreads memories up to it, ``bf = log U(1, chrono - 1)`` (Tallec & Ollivier 2018,
    https://arxiv.org/abs/1804.11188, section 2); ``uniform`` makes the gate itself uniform, ``sigmoid(bf) ~
    U(1/hidden, 1 - 1/hidden)`` (Gu et al. 2020, https://arxiv.org/abs/1910.09890, section 3).

    ``refine`` (Gu et al. 2020) puts a refine gate ``r`` in the place of ``i``, with its parameters: ``c' = G c +
    (1 - G) g`` with ``G = r (1 - (1 - f)^2) + (1 - r) f^2``, which gets nearer to 0 and 1 than ``f`` and still learns.
    With ``uniform`` this is their UR-LSTM.
    """

    keeps: ClassVar[Mapping[str, int]] = {"bf": 1, "bi": -1}

    def __init__(
        self, features: int, hidden: int, *, forget_bias: float = 1.0, chrono: int | None = None,
        uniform: bool = False, refine: bool = False, rngs: nnx.Rngs,
    ):  # fmt: skip
        check_start(forget_bias, chrono, uniform)
        self.features, self.hidden, self.refine = features, hidden, refine
        self.wi, self.wf, self.wg, self.wo = (weight(rngs, features, hidden) for _ in range(4))
        self.ui, self.uf, self.ug, self.uo = (orthogonal(rngs, hidden) for _ in range(4))
        self.bi, self.bg, self.bo = (bias(hidden) for _ in range(3))
        self.bf = bias(hidden, forget_bias)
        if chrono is not None:
            start_keeping(self, chrono, rngs.params())
        if uniform:
            least = 1 / max(hidden, 2)
            start = jax.random.uniform(rngs.params(), (hidden,), minval=least, maxval=1 - least)
            self.bf, self.bi = nnx.Param(logit(start)), nnx.Param(-logit(start))

    def initial_state(self) -> LSTMState:
        return LSTMState(jnp.zeros(self.hidden), jnp.zeros(self.hidden))

    def project(self, event: Event) -> tuple[Hidden, Hidden, Hidden, Hidden]:
        x = event.x
        return x @ self.wi + self.bi, x @ self.wf + self.bf, x @ self.wg + self.bg, x @ self.wo + self.bo

    def step(self, state: LSTMState, projected: Any) -> LSTMState:
        h = state.h
        write, keep = projected[0] + h @ self.ui, projected[1] + h @ self.uf
        i = refined(write, keep) if self.refine else jax.nn.sigmoid(write)
        f = 1 - i if self.refine else jax.nn.sigmoid(keep)
        g = jnp.tanh(projected[2] + h @ self.ug)
        o = jax.nn.sigmoid(projected[3] + h @ self.uo)
        c = f * state.c + i * g
        return LSTMState(o * jnp.tanh(c), c)

    def read(self, state: LSTMState, projected: Any) -> Hidden:
        return state.h


def refined(write: Hidden, keep: Hidden) -> Hidden:
    """``1 - G`` of the refine gate ``r = sigmoid(write)`` and ``f = sigmoid(keep)``.

    A product of small numbers, each exact: next to 1, ``1 - G`` itself would keep no digits.
    """
    shut = jax.nn.sigmoid(-keep)
    return shut * (jax.nn.sigmoid(write) * shut + jax.nn.sigmoid(-write) * (2 - shut))


def check_start(forget_bias: float, chrono: int | None, uniform: bool) -> None:
    """Raise `Mistake` where two options say where the forget gate starts, or ``chrono`` is no lag."""
    if chrono is not None and (isinstance(chrono, bool) or not isinstance(chrono, int) or chrono < 3):
        raise Mistake(f"LSTM: chrono={chrono!r} is not a longest lag; give a whole number of at least 3")
    if chrono is not None and uniform:
        raise Mistake(f"LSTM: chrono={chrono} and uniform=true both say where the forget gate starts; keep one")
    if (chrono is not None or uniform) and forget_bias != 1.0:
        rival = "uniform=true" if uniform else f"chrono={chrono}"
        raise Mistake(f"LSTM: forget_bias={forget_bias} has no effect beside {rival}; keep one")
