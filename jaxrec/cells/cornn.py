"""The coupled oscillatory recurrent network."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx

from jaxrec.cells.cell import Cell, Event
from jaxrec.cells.weights import above_zero, bias, orthogonal, weight
from jaxrec.types import Hidden


class CoRNNState(NamedTuple):
    """Positions ``y`` and velocities ``z``, each ``(hidden,)``."""

    y: Hidden
    z: Hidden


class CoRNN(Cell):
    """Coupled oscillatory network (Rusch & Mishra 2021): units are damped oscillators driven by each other.

    https://arxiv.org/abs/2010.00951: ``y'' = tanh(.) - gamma y - epsilon y'``, discretised by equation 3, the
    implicit-explicit step, with explicit damping as in the authors' code: ``z' = z + dt (tanh(W y + U z + V x + b) -
    gamma y - epsilon z)``, then ``y' = y + dt z'``. ``gamma`` is a frequency squared, ``epsilon`` the damping;
    gradients are bounded where ``dt`` is small against both. Defaults are the authors' for sequential MNIST. Output
    ``y (hidden,)``.
    """

    family = "oscillator"

    def __init__(
        self, features: int, hidden: int, *, dt: float = 0.042, gamma: float = 2.7, epsilon: float = 4.7,
        rngs: nnx.Rngs,
    ):  # fmt: skip
        above_zero(dt=dt, gamma=gamma, epsilon=epsilon)
        self.features, self.hidden, self.dt, self.gamma, self.epsilon = features, hidden, dt, gamma, epsilon
        self.v, self.b = weight(rngs, features, hidden), bias(hidden)
        self.w, self.u = orthogonal(rngs, hidden), orthogonal(rngs, hidden)

    def initial_state(self) -> CoRNNState:
        return CoRNNState(jnp.zeros(self.hidden), jnp.zeros(self.hidden))

    def project(self, event: Event) -> Hidden:
        return event.x @ self.v + self.b

    def step(self, state: CoRNNState, projected: Any) -> CoRNNState:
        y, z = state
        force = jnp.tanh(projected + y @ self.w + z @ self.u)
        z = z + self.dt * (force - self.gamma * y - self.epsilon * z)
        return CoRNNState(y + self.dt * z, z)

    def read(self, state: CoRNNState, projected: Any) -> Hidden:
        return state.y
