"""The orthogonal recurrent network by way of the exponential map."""

from typing import Any, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.scipy.linalg import expm

from jaxrec.cells.cell import Cell, Event
from jaxrec.cells.weights import skew, two_units
from jaxrec.config import Mistake
from jaxrec.types import Hidden


class ExpRNN(Cell):
    """Orthogonal network, expRNN (Lezcano-Casado & Martinez-Rubio 2019): ``h' = modReLU(exp(A) h + T x)``, A skew.

    https://arxiv.org/abs/1901.08428: the exponential of an antisymmetric matrix is orthogonal whatever the
    optimiser does, so no gradient grows or fades by it. ``modReLU(a) = sign(a) relu(|a| + b)``. ``skew`` holds the
    entries of ``A`` above its diagonal; ``exp(A)`` is computed once for a sequence, in `prepare`. ``A`` starts as 2 x 2
    blocks of angles ``s``: ``start="cayley"``, ``s = tan(u / 2)`` with ``u ~ U(0, pi/2)`` (Helfrich et al. 2018), or
    ``"henaff"``, ``s ~ U(-pi, pi)`` (Henaff et al. 2016). ``T`` starts He normal and ``b ~ U(-.01, .01)``, as in the
    authors' code. State and output ``(hidden,)``.
    """

    family = "simple"
    rotation: Array  # exp(A) transposed; `prepare` computes it

    def __init__(self, features: int, hidden: int, *, start: Literal["cayley", "henaff"] = "cayley", rngs: nnx.Rngs):
        two_units(hidden)
        if start not in ("cayley", "henaff"):
            raise Mistake(f"ExpRNN has no start={start!r}; choose one of cayley, henaff")
        self.features, self.hidden = features, hidden
        bound = np.pi / 2 if start == "cayley" else np.pi
        angle = jax.random.uniform(rngs.params(), (hidden // 2,), minval=-bound, maxval=bound)
        angle = jnp.tan(jnp.abs(angle) / 2) if start == "cayley" else angle
        first = 2 * np.arange(hidden // 2)
        blocks = jnp.zeros((hidden, hidden)).at[first, first + 1].set(angle)
        self.skew = nnx.Param(blocks[np.triu_indices(hidden, 1)])
        self.t = nnx.Param(jax.nn.initializers.he_normal()(rngs.params(), (features, hidden)))
        self.b = nnx.Param(jax.random.uniform(rngs.params(), (hidden,), minval=-0.01, maxval=0.01))

    def prepare(self) -> Self:
        return self.with_derived(rotation=expm(-skew(self.skew[...], self.hidden)))

    def initial_state(self) -> Hidden:
        return jnp.zeros(self.hidden)

    def project(self, event: Event) -> Hidden:
        return event.x @ self.t

    def step(self, state: Hidden, projected: Any) -> Hidden:
        a = projected + state @ self.rotation
        return jnp.sign(a) * jax.nn.relu(jnp.abs(a) + self.b)
