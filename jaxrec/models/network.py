"""The dense half of a recommender: recurrent blocks over a sequence of vectors."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxrec.cells import Cell, Event
from jaxrec.recurrence import start, unroll
from jaxrec.recurrence.wrappers import Dropped, kept


def dropout(x: Array, rate: Any, keys: Array | None) -> Array:
    """Inverted dropout (Srivastava et al. 2014) of ``x (batch, time, d)`` with one key a row; without keys or a rate
    the identity.

    ``rate`` may be traced; see `kept`.
    """
    if keys is None or rate is None:
        return x
    stays, share = jax.vmap(lambda key: kept(key, rate, x.shape[1:]), out_axes=(0, None))(keys)
    return jnp.where(stays, x / share.astype(x.dtype), 0)


class Rates(NamedTuple):
    """Shares of features that are dropped while training; each may be traced, None where nothing is."""

    layer: Any = None  # of what every layer adds
    embedding: Any = None  # of the vectors that go in
    state: Any = None  # of the recurrent state, which is carried on that way
    event: Any = None  # of events, whose vectors go in as those of unknown items


NONE = Rates()


def site(keys: Array | None, number: int) -> Array | None:
    """Keys for one place in the network, so that no two places share a mask."""
    return None if keys is None else jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


class FeedForward(nnx.Module):
    """Position-wise ``W2 gelu(W1 x)`` (Vaswani et al. 2017), ``multiple`` times wider inside."""

    def __init__(self, width: int, multiple: int, *, rngs: nnx.Rngs):
        self.up = nnx.Linear(width, multiple * width, rngs=rngs)
        self.down = nnx.Linear(multiple * width, width, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.down(jax.nn.gelu(self.up(x)))


class Block(nnx.Module):
    """``x + drop(cell(norm(x)))``, then ``x + drop(feedforward(norm(x)))``; norm, residual and feed-forward are
    optional.
    """

    def __init__(
        self, cell: Cell, inputs: int, outputs: int, width: int, *, norm: bool, residual: bool, feedforward: int,
        rngs: nnx.Rngs,
    ):  # fmt: skip
        self.residual = residual
        self.cell = cell
        self.norm = nnx.LayerNorm(inputs, rngs=rngs) if norm else None
        self.out = nnx.Linear(outputs, width, rngs=rngs) if outputs != width else None
        self.feedforward = FeedForward(width, feedforward, rngs=rngs) if feedforward else None
        self.feedforward_norm = nnx.LayerNorm(width, rngs=rngs) if norm and feedforward else None

    def __call__(
        self, events: Event, state: Any, reset: Array | None, rates: Rates, keys: Array | None, backend: Any
    ) -> tuple[Any, Array]:
        """``events.x (batch, time, inputs)`` -> ``(last state, (batch, time, width))``."""
        x, inner = events.x, self.inner(events)
        cell: Cell = self.cell
        if rates.state is not None and (own := site(keys, 2)) is not None:
            cell, inner = Dropped(cell, rates.state), inner._replace(key=event_keys(own, x.shape[1]))
        state, y = unroll(cell, inner, state=state, reset=reset, backend=backend)
        y = y.astype(x.dtype)  # of half precision where the layers around are
        y = y if self.out is None else self.out(y)
        x = self.join(x, dropout(y, rates.layer, site(keys, 0)))
        if self.feedforward is not None:
            normed = x if self.feedforward_norm is None else self.feedforward_norm(x)
            x = self.join(x, dropout(self.feedforward(normed), rates.layer, site(keys, 1)))
        return state, x

    def inner(self, events: Event) -> Event:
        """What the cell sees of what comes into the block."""
        return declared(self.cell, events if self.norm is None else events._replace(x=self.norm(events.x)))

    def join(self, x: Array, y: Array) -> Array:
        return x + y if self.residual else y


def event_keys(keys: Array, time: int) -> Array:
    """One key an event ``(batch, time)``."""
    return jax.vmap(lambda key: jax.vmap(lambda step: jax.random.fold_in(key, step))(jnp.arange(time)))(keys)


def declared(cell: Cell, events: Event) -> Event:
    """The leaves that a cell says it reads: one that it forgot to declare would be missing when people are served."""
    withheld: dict[str, Any] = {name: None for name in ("gap", "context", "user", "start") if name not in cell.wants}
    return events._replace(**withheld)


class Network(nnx.Module):
    """A stack of blocks and a last norm: vectors ``(batch, time, width)`` in, hidden vectors ``(batch, time,
    width)`` out.
    """

    def __init__(self, blocks: list[Block], width: int, *, norm: bool, backend: Any, rngs: nnx.Rngs):
        self.blocks = nnx.List(blocks)
        self.norm = nnx.LayerNorm(width, rngs=rngs) if norm else None
        self.backend = backend

    def start(self, rows: int) -> tuple[Any, ...]:
        """The state of ``rows`` people before their first event."""
        return tuple(start(block.cell, rows) for block in self.blocks)

    def map_cells(self, change: Callable[[int, Cell], Cell]) -> "Network":
        """The same network with ``change(layer, cell)`` in place of every cell; layers count from 0."""
        graph, leaves = nnx.split(self)
        network = nnx.merge(graph, leaves)
        for layer, block in enumerate(network.blocks):
            block.cell = change(layer, block.cell)
        return network

    def rounded(self, dtype: Any) -> "Network":
        """The same network, its norms and feed-forward layers in ``dtype``; cells stay what they are."""
        low = jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, self)
        return low.map_cells(lambda layer, cell: self.blocks[layer].cell)

    def on(self, backend: Any) -> "Network":
        """The same network, its recurrences run by ``backend``."""
        network = self.map_cells(lambda layer, cell: cell)
        network.backend = backend
        return network

    def __call__(
        self,
        events: Event,
        state: Any = None,
        reset: Array | None = None,
        rates: Rates = NONE,
        keys: Array | None = None,
    ) -> tuple[tuple[Any, ...], Array]:
        """Run every block; ``state`` is a tuple with one entry a block (None starts afresh); ``keys (batch,)`` turn
        dropout on.
        """
        x = dropout(events.x, rates.embedding, site(keys, 0))
        states = [None] * len(self.blocks) if state is None else state
        last = []
        for number, (block, before) in enumerate(zip(self.blocks, states, strict=True), start=1):
            after, x = block(events._replace(x=x), before, reset, rates, site(keys, number), self.backend)
            last.append(after)
        return tuple(last), x if self.norm is None else self.norm(x)
