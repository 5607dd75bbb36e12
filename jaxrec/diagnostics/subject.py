"""What is examined: any model whose hidden vectors come from a `Network`, on one batch."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxrec.cells import Cell, Event
from jaxrec.models.network import NONE, Block, Network
from jaxrec.models.recommender import output_width
from jaxrec.recurrence.scan import Scan
from jaxrec.recurrence.states import time_major
from jaxrec.recurrence.trees import is_complex, is_real

STEP = Scan(hoist=False)  # one step after the other, with derivatives in both directions


class Model(Protocol):
    """What every measurement asks of a model. A `Recommender` is one; `Alone` makes one of a cell.

    Its batches are any pytree that `events` reads, with a ``target`` and, where rows may start afresh, a ``reset``.
    """

    @property
    def network(self) -> Network: ...

    def events(self, batch: Any) -> Event:
        """What goes into the network, leaves ``(batch, time, ...)``."""

    def losses(self, hidden: Array, target: Any) -> Array:
        """The loss ``(n,)`` of hidden vectors ``(n, width)`` and their targets, leaves ``(n, ...)``."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Alone:
    """A cell by itself with nothing around it; its batches are `Event`s. See `alone`."""

    network: Network

    def events(self, batch: Event) -> Event:
        return batch

    def losses(self, hidden: Array, target: Any) -> Array:
        """What the cell shows along a random direction of length one, drawn for every example.

        The mean square of its gradient is that of the Jacobian's rows, whatever a head would have asked for.
        """
        direction = jax.random.normal(jax.random.key(0), hidden.shape, hidden.dtype)
        return (hidden * direction / jnp.linalg.norm(direction, axis=-1, keepdims=True)).sum(-1)


def alone(cell: Cell, events: Event) -> Alone:
    """A model of nothing but ``cell``, for ``events (batch, time, ...)``."""
    width, rngs = output_width(cell, events), nnx.Rngs(0)
    block = Block(cell, events.x.shape[-1], width, width, norm=False, residual=False, feedforward=0, rngs=rngs)
    return Alone(Network([block], width, norm=False, backend=None, rngs=rngs))


class Subject(NamedTuple):
    """All that a measurement needs of a model and a batch. ``loss (hidden (n, width), target) -> (n,)``."""

    network: Network
    events: Event  # (batch, time, ...)
    reset: Array | None  # (batch, time)
    target: Any  # (batch, time, ...), or None
    real: Array | None  # (batch, time), False where a row is only filled up
    loss: Callable[[Array, Any], Array]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and steps."""
        batch, time = self.events.x.shape[:2]
        return batch, time

    def moving(self) -> tuple[Event, Array]:
        """Events and resets, a step after the other: leaves ``(time, batch, ...)``."""
        reset = jnp.zeros(self.shape, bool) if self.reset is None else self.reset
        return time_major((self.events, reset))

    def loss_at(self, hidden: Array, at: Any) -> Array:
        """The loss ``(batch,)`` of hidden vectors ``(batch, width)`` against the targets of step ``at``."""
        return self.loss(hidden, jax.tree.map(lambda leaf: leaf[:, at], self.target))


def subject(model: Model, batch: Any) -> Subject:
    """Look at ``model`` on ``batch``: deterministic, whatever keys the batch has."""
    reset, target, real = (getattr(batch, name, None) for name in ("reset", "target", "mask"))
    return Subject(model.network, model.events(batch), reset, target, real, model.losses)


def stepwise(network: Network) -> Network:
    """The same network, run by the plain definition of a step: every backend gives the same values, but not every one
    can be differentiated forwards or step by step.
    """
    return network.on(STEP)


def advance(network: Network, state: Any, event: Event, reset: Array | None = None) -> tuple[Any, Array]:
    """One event of every row, leaves ``(batch, ...)``: the states of all layers after it, and ``hidden (batch,
    width)``.
    """
    one = jax.tree.map(lambda leaf: leaf[:, None], (event, reset))
    state, hidden = network(one[0], state, one[1])
    return state, hidden[:, 0]


class Layer(NamedTuple):
    """One recurrence by itself with what goes into it. ``reset`` and ``real`` are ``(batch, time)``, or None: never,
    always.
    """

    cell: Cell
    events: Event  # (batch, time, ...)
    reset: Array | None = None
    real: Array | None = None  # False where a row is only filled up

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and steps."""
        batch, time = self.events.x.shape[:2]
        return batch, time

    @property
    def size(self) -> int:
        """How many real numbers a state is; a complex one is two."""
        leaves = jax.tree.leaves(jax.eval_shape(lambda cell: cell.prepare().initial_state(), self.cell))
        return sum(leaf.size * (2 if is_complex(leaf) else is_real(leaf)) for leaf in leaves)


def layers(given: Subject) -> list[Layer]:
    """Every recurrence of the network with the inputs that the layers below make for it, the lowest first."""
    inputs = entering(given.network, given.events, given.reset)
    return [
        Layer(block.cell, events, given.reset, given.real)
        for block, events in zip(given.network.blocks, inputs, strict=True)
    ]


@jax.jit
def entering(network: Network, events: Event, reset: Array | None) -> list[Event]:
    """What goes into the cell of every layer, leaves ``(batch, time, ...)``, on the network's own backend."""
    found, x = [], events.x
    for block in network.blocks:
        here = events._replace(x=x)
        found.append(block.inner(here))
        x = block(here, None, reset, NONE, None, network.backend)[1]
    return found
