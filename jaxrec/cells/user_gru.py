"""The GRU that knows whose events it reads."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from jaxrec.cells.cell import Cell, Event
from jaxrec.cells.weights import bias, orthogonal, weight
from jaxrec.config import Mistake
from jaxrec.types import Hidden


class UserGRU(Cell):
    """User-based GRU (Donkers et al. 2017): gates that see the person ``v`` beside the item ``x``.

    https://doi.org/10.1145/3109859.3109877, section 3. ``variant="linear"``: the user is one more input of the reset
    gate ``r``, the update gate ``z`` and the candidate, ``n = tanh(Wn x + Vn v + Un (r h) + bn)``. ``"attentional"``:
    a fourth gate ``a = sigmoid(Wa x + Va v + Ua h + ba)`` shares the candidate's input out between the two, entry by
    entry: ``n = tanh((1 - a) Wn x + a Vn v + Un (r h) + bn)``. Then ``h' = (1 - z) n + z h``. Here ``a`` has the width
    of the state and weighs the projected inputs, so that these need no state; ``r`` and ``z`` see both inputs whole.
    The paper's third variant, the rectified linear one, cuts the user off below a hard threshold; it is left out
    because no gradient reaches the threshold's own weights. The text was not at hand and there is no published code:
    written after what others say of it, and the attentional gate's width is our reading.

    ``ba`` starts at 0: half and half. Bias vectors start at 0, recurrent matrices orthogonal. State and output
    ``(hidden,)``.
    """

    family = "context"
    wants = ("x", "user")
    keeps: ClassVar[Mapping[str, int]] = {"bz": 1}

    def __init__(
        self, features: int, hidden: int, *, variant: Literal["attentional", "linear"] = "attentional", rngs: nnx.Rngs
    ):
        if variant not in ("attentional", "linear"):
            raise Mistake(f'UserGRU has no variant={variant!r}; choose "attentional" or "linear"')
        self.features, self.hidden, self.variant = features, hidden, variant
        self.wr, self.wz, self.wn = (weight(rngs, features, hidden) for _ in range(3))
        self.vr, self.vz, self.vn = (weight(rngs, features, hidden) for _ in range(3))
        self.ur, self.uz, self.un = (orthogonal(rngs, hidden) for _ in range(3))
        self.br, self.bz, self.bn = (bias(hidden) for _ in range(3))
        attends = variant == "attentional"
        self.wa, self.va = (weight(rngs, features, hidden) if attends else None for _ in range(2))
        self.ua = orthogonal(rngs, hidden) if attends else None
        self.ba = bias(hidden) if attends else None

    def initial_state(self) -> Hidden:
        return jnp.zeros(self.hidden)

    def project(self, event: Event) -> tuple[Any, ...]:
        x, v = event.x, event.user
        assert v is not None
        gates = x @ self.wr + v @ self.vr + self.br, x @ self.wz + v @ self.vz + self.bz
        if self.wa is None or self.va is None:
            return *gates, x @ self.wn + v @ self.vn + self.bn
        return *gates, x @ self.wn, v @ self.vn, x @ self.wa + v @ self.va + self.ba

    def step(self, state: Hidden, projected: Any) -> Hidden:
        r = jax.nn.sigmoid(projected[0] + state @ self.ur)
        z = jax.nn.sigmoid(projected[1] + state @ self.uz)
        if self.ua is None:
            given = projected[2]
        else:
            item, person, share = projected[2:]
            a = jax.nn.sigmoid(share + state @ self.ua)
            given = (1 - a) * item + a * person + self.bn
        n = jnp.tanh(given + (r * state) @ self.un)
        return n + z * (state - n)
