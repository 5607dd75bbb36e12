"""Gradients of one step's loss by every state before it: how far back learning reaches.

Two ways to the same numbers. `by_taps` adds zeros to every state and differentiates by them: one ordinary backward pass
of the model's own backend, in the model's own precision, where a default GRU's gradient is an exact zero after about
a hundred steps. `by_scan` goes back a step at a time, one vector-Jacobian product for each layer, and takes a power of
two out of the gradient at every step: no length is too long for it.
"""

from math import isqrt
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxrec.diagnostics.powers import NEVER, Norms, Scaled, norm, normalised, total
from jaxrec.diagnostics.subject import Model, Subject, advance, stepwise, subject
from jaxrec.models.network import Network
from jaxrec.recurrence import Tapped, tap, zero_taps
from jaxrec.recurrence.backends import choose
from jaxrec.recurrence.reverse import parted
from jaxrec.recurrence.scan import Scan

State = tuple[Any, ...]  # of all layers


def tapped(network: Network) -> Network:
    """The network with a tap on the state of every layer, named by its number."""
    return network.map_cells(lambda layer, cell: Tapped(cell, str(layer)))


def taps(network: Network, batch: int, time: int) -> dict[str, Any]:
    """Zeros for the taps of every layer."""
    return {str(layer): zero_taps(block.cell, batch, time) for layer, block in enumerate(network.blocks)}


@jax.jit
def by_taps(model: Model, batch: Any, at: Array | int = -1) -> Norms:
    """``|d loss_at / d state_t|`` of every layer, example and step ``(layers, batch, time)``: one backward pass.

    ``loss_at`` is the loss of step ``at`` (the last one unless told), a number for each example. What is smaller than
    the precision holds comes out as zero: use `by_scan` for long horizons.
    """
    given = subject(model, batch)
    rows, time = given.shape
    network = tapped(given.network)

    def loss(values: dict[str, Any]) -> Array:
        hidden = network(tap(given.events, values), None, given.reset)[1]
        return given.loss_at(hidden[:, at], at).sum()

    slopes = jax.grad(loss)(taps(given.network, rows, time))
    flat = [
        norm(jax.tree.map(lambda leaf: leaf.reshape(rows * time, *leaf.shape[2:]), slopes[str(layer)]), rows * time)
        for layer in range(len(given.network.blocks))
    ]
    found = jnp.stack(flat).reshape(-1, rows, time)
    return Norms(found, jnp.zeros(found.shape, jnp.int32))


@jax.jit
def by_scan(model: Model, batch: Any, at: Array | int = -1) -> Norms:
    """The same numbers ``(layers, batch, time)`` by a reverse scan that is renormalised at every step."""
    walk = Walk(subject(model, batch))
    trail = walk.forward()
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, -1), walk.backward(trail, walk.place(at)))


@jax.jit
def matrix(model: Model, batch: Any, at: Array) -> Norms:
    """`by_scan` for each of the steps ``at (n,)``: ``(n, layers, batch, time)``, at the cost of n backward passes."""
    walk = Walk(subject(model, batch))
    trail = walk.forward()
    found = lax.map(lambda step: walk.backward(trail, step), at)
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, -1), found)


class Trail(NamedTuple):
    """What the way back needs of the way there: the state before every piece, and hidden vectors of all steps."""

    states: State  # (pieces, batch, ...)
    hidden: Array  # (time, batch, width)


class Walk:
    """A model over one batch, a step at a time, there and back.

    The way there keeps a state for every piece of about the square root of the steps; the way back computes the others
    again, so that ten thousand steps of a matrix cell fit into memory.
    """

    def __init__(self, given: Subject):
        self.given = given
        self.rows, self.time = given.shape
        self.network = stepwise(given.network)
        self.tapped = tapped(self.network)
        self.layers = range(len(self.network.blocks))
        self.blank = jax.tree.map(lambda leaf: leaf[:, 0], taps(self.network, self.rows, 1))
        self.size = max(1, isqrt(self.time))
        self.pieces = -(-self.time // self.size)
        moving = (*given.moving(), cuts(given.network, self.time))
        # steps after the last one change no gradient of an earlier loss: they only fill the last piece
        steps = jnp.arange(self.pieces * self.size).reshape(self.pieces, self.size)
        self.moving = (*jax.tree.map(lambda leaf: leaf[jnp.minimum(steps, self.time - 1)], moving), steps)
        self.first = self.network.start(self.rows)

    def place(self, at: Array | int) -> Array:
        """A step's number, counted from the end where it is negative."""
        at = jnp.asarray(at)
        return jnp.where(at < 0, self.time + at, at)

    def forward(self) -> Trail:
        def one(state: State, entry: Any) -> tuple[State, Array]:
            event, reset, *_ = entry
            return advance(self.network, state, event, reset)

        def piece(state: State, entries: Any) -> tuple[State, Any]:
            after, hidden = lax.scan(one, state, entries)
            return after, (state, hidden)

        _, (states, hidden) = lax.scan(piece, self.first, self.moving)
        return Trail(states, hidden.reshape(-1, *hidden.shape[2:])[: self.time])

    def backward(self, trail: Trail, at: Array) -> Norms:
        """Norms ``(time, layers, batch)`` of the gradient of the loss of step ``at``."""
        slope = jax.grad(lambda hidden: self.given.loss_at(hidden, at).sum())(trail.hidden[at])

        def one(carry: list[Scaled], entry: Any) -> tuple[list[Scaled], Norms]:
            state, moving = entry
            return self.back(carry, state, moving, slope, at)

        def piece(carry: list[Scaled], entry: Any) -> tuple[list[Scaled], Norms]:
            state, moving = entry

            def keep(state: State, entry: Any) -> tuple[State, State]:
                event, reset, *_ = entry
                return advance(self.network, state, event, reset)[0], state

            return lax.scan(one, carry, (lax.scan(keep, state, moving)[1], moving), reverse=True)

        nothing = [
            Scaled([jnp.zeros_like(leaf) for leaf in parted(state)[0]], jnp.full(self.rows, NEVER))
            for state in self.first
        ]
        _, found = lax.scan(piece, nothing, (trail.states, self.moving), reverse=True)
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[: self.time], found)

    def back(
        self, carry: list[Scaled], state: State, moving: Any, slope: Array, at: Array
    ) -> tuple[list[Scaled], Norms]:
        """One step back: gradients by the states before it from those by the states after it, each layer's with a power
        of two of its own, and norms ``(layers, batch)`` of those by the states that it made.
        """
        event, reset, cut, here = moving
        smooth, rest, join = parted(state)

        def step(smooth: list[Array], values: dict[str, Any]) -> tuple[list[list[Array]], Array]:
            after, hidden = advance(self.tapped, join(smooth, rest), tap(event, values), reset)
            return [parted(layer)[0] for layer in after], hidden

        (after, hidden), pull = jax.vjp(step, smooth, self.blank)
        sources = []
        for layer in self.layers:  # the loss itself goes in with the first layer's share: its own power is 0
            slopes = [
                carry[other].tree if other == layer else jax.tree.map(jnp.zeros_like, after[other])
                for other in self.layers
            ]
            begins = here == at
            entering = jnp.where(begins, slope, 0) if layer == 0 else jnp.zeros_like(hidden)
            exponent = jnp.where(begins, 0, carry[layer].exponent) if layer == 0 else carry[layer].exponent
            sources.append((pull((slopes, entering)), exponent))
        by_state = [
            self.summed(sources, lambda found, place=layer: self.own(found[0], state, place)) for layer in self.layers
        ]
        by_tap = [self.summed(sources, lambda found, place=layer: found[1][str(place)]) for layer in self.layers]
        before = [
            normalised(jax.tree.map(lambda leaf: jnp.where(cut, 0, leaf), tree), power)[0] for tree, power in by_state
        ]
        norms = [normalised(tree, power)[1] for tree, power in by_tap]
        return before, jax.tree.map(lambda *leaves: jnp.stack(leaves), *norms)

    def summed(self, sources: list[Any], take: Any) -> tuple[Any, Array]:
        return total([Scaled(take(found), exponent) for found, exponent in sources])

    def own(self, smooth: list[Array], state: State, layer: int) -> list[Array]:
        """One layer's among the smooth leaves of all."""
        counts = [len(parted(one)[0]) for one in state]
        return smooth[sum(counts[:layer]) : sum(counts[: layer + 1])]


def cuts(network: Network, time: int) -> Array:
    """Before which steps ``(time,)`` a backend that truncates lets no gradient through."""
    backend = choose(network.blocks[0].cell, network.backend) if network.backend is not None else None
    size = backend.truncate if isinstance(backend, Scan) else None
    steps = jnp.arange(time)
    return (steps % size == 0) & (steps > 0) if size else jnp.zeros(time, bool)
