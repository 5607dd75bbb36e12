"""Gradients of one step's loss by every state before it: how far back learning reaches.

Two ways to the same numbers. `by_taps` adds zeros to every state and differentiates by them: one ordinary backward pass
of the model's own backend, in the model's own precision, where a default GRU's gradient is an exact zero after about
a hundred steps. `by_scan` goes back a step at a time, one vector-Jacobian product for each layer, and takes a power of
two out of the gradient at every step: no length is too long for it.
"""

from collections.abc import Callable, Iterator
from math import isqrt
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
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


@jax.jit
def by_weights(model: Model, batch: Any, at: Array | int = -1) -> Norms:
    """What each step adds to the gradient of each array of the network: norms ``(arrays, batch, time)`` in the order of
    ``jax.tree.leaves(model.network)``.

    The gradient by a weight is a sum over the steps that used it. One example at a time: an array's gradient is as
    large as the array.
    """

    def one(row: Any) -> Norms:
        walk = Walk(subject(model, jax.tree.map(lambda leaf: leaf[None], row)), weights=True)
        return walk.backward(walk.forward(), walk.place(at))

    found = lax.map(one, batch)  # (batch, time, arrays, 1)
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf[..., 0], (0, 1), (1, 2)), found)


class Trail(NamedTuple):
    """What the way back needs of the way there: the state before every piece, and hidden vectors of all steps."""

    states: State  # (pieces, batch, ...)
    hidden: Array  # (time, batch, width)


class Walk:
    """A model over one batch, a step at a time, there and back.

    The way there keeps a state for every piece of about the square root of the steps; the way back computes the others
    again, so that ten thousand steps of a matrix cell fit into memory.
    """

    def __init__(self, given: Subject, weights: bool = False):
        self.given, self.weights = given, weights
        self.rows, self.time = given.shape
        self.network = stepwise(given.network)
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
        of two of its own, and norms ``(layers, batch)`` of those by the states that it made, or ``(arrays, batch)`` of
        what it adds to the gradient of the network's arrays.
        """
        event, reset, cut, here = moving
        smooth, rest, join = parted(state)

        def step(smooth: list[Array], values: dict[str, Any], network: Network) -> tuple[list[list[Array]], Array]:
            after, hidden = advance(tapped(network), join(smooth, rest), tap(event, values), reset)
            return [parted(layer)[0] for layer in after], hidden

        (after, hidden), pull = jax.vjp(step, smooth, self.blank, self.network)
        entering = jnp.where(here == at, slope, 0).astype(hidden.dtype)
        found = [
            Scaled(pull((slopes, hidden_slope)), exponent)
            for slopes, hidden_slope, exponent in self.sources(carry, after, entering, here == at)
        ]

        def summed(take: Callable[[Any], Any]) -> tuple[Any, Array]:
            return total([Scaled(take(one.tree), one.exponent) for one in found])

        counts = np.cumsum([0, *(len(layer) for layer in after)])
        before = []
        for layer in self.layers:
            tree, exponent = summed(lambda one, layer=layer: one[0][counts[layer] : counts[layer + 1]])  # type: ignore[misc]
            before.append(normalised([jnp.where(cut, 0, leaf) for leaf in tree], exponent)[0])
        if self.weights:
            tree, exponent = summed(lambda one: [leaf[None] for leaf in jax.tree.leaves(one[2])])
            made = [normalised(leaf, exponent)[1] for leaf in tree]
        else:
            taken = [summed(lambda one, layer=layer: one[1][str(layer)]) for layer in self.layers]  # type: ignore[misc]
            made = [normalised(tree, exponent)[1] for tree, exponent in taken]
        return before, jax.tree.map(lambda *leaves: jnp.stack(leaves), *made)

    def sources(
        self, carry: list[Scaled], after: Any, entering: Array, begins: Array
    ) -> Iterator[tuple[Any, Any, Any]]:
        """What is pulled back, a layer's share after the other's: slopes by the states after the step and by the hidden
        vector, and their power. The loss itself comes with the first layer's share, which is nothing as yet.
        """
        for layer in self.layers:
            slopes = [
                carry[other].tree if other == layer else jax.tree.map(jnp.zeros_like, after[other])
                for other in self.layers
            ]
            exponent = carry[layer].exponent
            if layer:
                yield slopes, jnp.zeros_like(entering), exponent
            else:
                yield slopes, entering, jnp.where(begins, 0, exponent)


def truncation(network: Network) -> int | None:
    """After how many events a backend lets no gradient through; None where it never does."""
    backend = choose(network.blocks[0].cell, network.backend) if network.backend is not None else None
    return backend.truncate if isinstance(backend, Scan) else None


def cuts(network: Network, time: int) -> Array:
    """Before which steps ``(time,)`` a backend that truncates lets no gradient through."""
    size, steps = truncation(network), jnp.arange(time)
    return (steps % size == 0) & (steps > 0) if size else jnp.zeros(time, bool)
