"""The GRU-ODE, whose state moves between events."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxrec.cells.cell import DAY, Cell, Event
from jaxrec.cells.gru import GRU
from jaxrec.cells.weights import bias, orthogonal, positive
from jaxrec.config import Mistake, did_you_mean, squash
from jaxrec.types import Hidden

LONGEST = 2.0  # time one step of the solver may cover: the simplest solvers amplify from there on


class GRUODE(Cell):
    """GRU-ODE (De Brouwer et al. 2019): between events the state follows ``dh/dt = (1 - z) (n - h)``, then a GRU steps.

    https://arxiv.org/abs/1905.12374, equation 3 without an input, as it is between events: ``r = sigmoid(Ur h + br)``,
    ``z = sigmoid(Uz h + bz)``, ``n = tanh(Un (r h) + bn)``. The paper's Bayesian update is for noisy measurements of a
    few variables; here a GRU (Cho et al. 2014) takes the event's vector.

    Time runs on a logarithmic clock, ``t = log(1 + gap / unit)``: the paper's for short gaps, while 20 years are 8.9
    days instead of 7,300, which no fixed number of explicit steps could cover; it stops at ``2 steps``, beyond which
    they are unstable. ``solver`` is an explicit Runge-Kutta method of diffrax (``pip install "jaxrec[ode]"``), run in
    ``steps`` equal steps: with fresh weights 8 of ``bosh3``, three evaluations each, are within 2e-3 of the exact
    solution for gaps up to 20 years.

    ``unit`` seconds are one unit of ``gap``, a day by default; negative gaps count as none, and gap 0 leaves the GRU
    alone. State and output ``(hidden,)``.
    """

    family = "time"
    wants = ("x", "gap")

    def __init__(
        self, features: int, hidden: int, *, solver: str = "bosh3", steps: int = 8, unit: float = DAY,
        rngs: nnx.Rngs,
    ):  # fmt: skip
        positive(steps=steps)
        tableau(solver)
        self.features, self.hidden, self.solver, self.steps, self.unit = features, hidden, solver, steps, unit
        self.inner = GRU(features, hidden, reset="before", rngs=rngs)
        self.ur, self.uz, self.un = (orthogonal(rngs, hidden) for _ in range(3))
        self.br, self.bz, self.bn = (bias(hidden) for _ in range(3))

    def initial_state(self) -> Hidden:
        return jnp.zeros(self.hidden)

    def project(self, event: Event) -> tuple[Any, Array]:
        time = jnp.log1p(event.elapsed(self.unit))
        return self.inner.project(event), jnp.minimum(time, LONGEST * self.steps)

    def step(self, state: Hidden, projected: Any) -> Hidden:
        gates, time = projected
        return self.inner.step(self.flow(state, time), gates)

    def flow(self, state: Hidden, time: Array) -> Hidden:
        """Where ``state`` has moved to after ``time``.

        The coefficients are diffrax's; the stages are run here, since its own loop, made for adaptive steps, is refused
        inside `jax.shard_map`.
        """
        known = tableau(self.solver)
        length = time / self.steps

        def one(h: Hidden, _: None) -> tuple[Hidden, None]:
            slopes = [self.slope(h)]
            for row in known.a_lower[: int(known.b_sol.nonzero()[0].max())]:
                slopes.append(self.slope(h + length * mixed(row, slopes)))
            return h + length * mixed(known.b_sol, slopes), None

        return jax.lax.scan(one, state, None, length=self.steps)[0]

    def slope(self, h: Hidden) -> Hidden:
        """``dh/dt``, the same at all times."""
        r = jax.nn.sigmoid(h @ self.ur + self.br)
        z = jax.nn.sigmoid(h @ self.uz + self.bz)
        return (1 - z) * (jnp.tanh((r * h) @ self.un + self.bn) - h)


def mixed(weights: Any, slopes: list[Hidden]) -> Hidden:
    """The weighted sum, without those of no weight."""
    return sum(float(w) * slope for w, slope in zip(weights, slopes, strict=False) if w)  # type: ignore[return-value]


def tableau(solver: str) -> Any:
    """The coefficients of an explicit Runge-Kutta method; `Mistake` where diffrax or the method is missing."""
    try:
        import diffrax
    except ImportError:
        raise Mistake('GRUODE takes its solvers from diffrax, which is missing; pip install "jaxrec[ode]"') from None
    kinds = [kind for kind in vars(diffrax).values() if isinstance(kind, type) and hasattr(kind, "tableau")]
    found = {squash(kind.__name__): kind for kind in kinds if issubclass(kind, diffrax.AbstractERK)}
    if squash(solver) not in found:
        raise Mistake(
            f"GRUODE: solver={solver!r} is none of {', '.join(sorted(found))}; choose one of these"
            f"{did_you_mean(solver, found)}"
        )
    return found[squash(solver)].tableau
