"""Wrappers that let a reader see or touch the states of any cell."""

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from jaxrec.cells import AffineCell, Cell, Composite, ElementwiseCell, Event, WindowCell, Wrapper


class Trajectory(NamedTuple):
    """What `Exposed` returns for every event."""

    output: Any
    state: Any


class Exposed(Wrapper):
    """The same cell, whose outputs are `Trajectory(output, state)`: beside what it shows, the state after the event.

    It stays of the cell's kind, so that the same backends take it.
    """

    def __new__(cls, cell: Cell) -> Self:
        kinds = (ExposedAffine, ExposedElementwise, ExposedWindow, ExposedComposite)
        return super().__new__(next((kind for kind in kinds if isinstance(cell, kind.__bases__[1])), cls))

    def __init__(self, cell: Cell):
        self.cell = cell

    def project(self, event: Event) -> Any:
        return self.cell.project(event)

    def step(self, state: Any, projected: Any) -> Any:
        return self.cell.step(state, projected)

    def read(self, state: Any, projected: Any) -> Trajectory:
        return Trajectory(self.cell.read(state, projected), state)


class ExposedElementwise(Exposed, ElementwiseCell):
    """Still elementwise."""


class ExposedAffine(Exposed, AffineCell):
    """Still affine."""

    def affine(self, projected: Any) -> tuple[Array, Array]:
        assert isinstance(self.cell, AffineCell)
        return self.cell.affine(projected)


class ExposedWindow(Exposed, WindowCell):
    """Still a window."""


class ExposedComposite(Exposed, Composite):
    """Still made of cells, each of them exposed."""

    def inner(self) -> dict[str, Cell]:
        assert isinstance(self.cell, Composite)
        return {name: Exposed(cell) for name, cell in self.cell.inner().items()}

    def wire(self, run: Callable[[str, Event], Any], events: Event) -> Trajectory:
        assert isinstance(self.cell, Composite)
        states = {}

        def told(name: str, events: Event) -> Any:
            output, states[name] = run(name, events)
            return output

        return Trajectory(self.cell.wire(told, events), states)


def kept(key: Array, rate: Any, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Which entries of ``shape`` stay where a share ``rate`` (perhaps traced) is dropped, and the share that stays.

    Sixteen random bits an entry: half the generator's work, and the rate is met to 1e-5. The share is never zero.
    """
    threshold = jnp.round(rate * 65536).astype(jnp.uint32)
    stays = jax.random.bits(key, shape, jnp.uint16).astype(jnp.uint32) >= threshold
    return stays, jnp.maximum(1 - threshold / 65536, 2**-16)


class Dropped(Wrapper):
    """The same cell with a share of its new state dropped at every event, carried on and shown that way.

    Inverted dropout of every real-valued leaf, as GRU4Rec has it: what an event drops is lost to all that follow.
    ``rate`` may be traced; see `kept`, whose bits come from the event's ``key``.
    """

    adds = ("key",)

    def __init__(self, cell: Cell, rate: Any):
        self.cell, self.rate = cell, nnx.data(jnp.asarray(rate))

    def project(self, event: Event) -> tuple[Any, Any]:
        key = event.key
        assert key is not None

        def mask(number: int, leaf: Any) -> Array | None:
            if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
                return None
            stays, share = kept(jax.random.fold_in(key, number), self.rate, jnp.shape(leaf))
            return jnp.where(stays, 1 / share, 0).astype(jnp.result_type(leaf))

        leaves, tree = jax.tree.flatten(self.cell.initial_state())
        masks = [mask(number, leaf) for number, leaf in enumerate(leaves)]
        return self.cell.project(event._replace(key=None)), jax.tree.unflatten(tree, masks)

    def step(self, state: Any, projected: Any) -> Any:
        inner, masks = projected
        after = self.cell.step(state, inner)
        return jax.tree.map(
            lambda mask, leaf: leaf if mask is None else leaf * mask, masks, after, is_leaf=lambda mask: mask is None
        )

    def read(self, state: Any, projected: Any) -> Any:
        return self.cell.read(state, projected[0])


class OneHot(Wrapper):
    """The same cell on one-hot items: an event's vector is what the cell's input matrices would make of the item.

    A one-hot vector times a matrix is a row of it, so a table of such vectors, ``OneHot(cell).features`` wide with one
    part for every array that the cell projects, is the input weights of the layer (GRU4Rec's first form: Hidasi et al.
    2016, https://arxiv.org/abs/1511.06939). The cell's biases stay. For cells whose projection is linear in the vector.
    """

    def __init__(self, cell: Cell):
        self.cell = cell
        shapes = jax.eval_shape(self.biases, cell)
        self.sizes = tuple(leaf.size for leaf in jax.tree.leaves(shapes))
        self.features = sum(self.sizes)

    @staticmethod
    def biases(cell: Cell) -> Any:
        """What the cell projects of no vector at all; ``cell`` is for inputs of one feature."""
        return cell.prepare().project(Event(x=jnp.zeros(1)))

    def project(self, event: Event) -> Any:
        none = self.cell.project(event._replace(x=jnp.zeros(1, event.x.dtype)))
        leaves, tree = jax.tree.flatten(none)
        parts = jnp.split(event.x, np.cumsum(self.sizes)[:-1])
        return jax.tree.unflatten(
            tree, [leaf + part.reshape(leaf.shape) for leaf, part in zip(leaves, parts, strict=True)]
        )

    def step(self, state: Any, projected: Any) -> Any:
        return self.cell.step(state, projected)

    def read(self, state: Any, projected: Any) -> Any:
        return self.cell.read(state, projected)


class Taps(NamedTuple):
    """The context of a tapped cell's events: what to add to states, by the name of the tap, and the context itself."""

    values: dict[str, Any]
    context: Any = None


class Tapped(Wrapper):
    """The same cell with ``events.context.values[name]`` added to the state after every event.

    Add zeros and differentiate with respect to them: the gradient at ``[b, t]`` is the loss's derivative by that state,
    through all that follows. A stack of tapped cells needs one ``name`` each.
    """

    adds = ("context",)

    def __init__(self, cell: Cell, name: str = "state"):
        self.cell, self.name = cell, name

    def project(self, event: Event) -> tuple[Any, Any]:
        return self.cell.project(event._replace(context=event.context.context)), event.context.values[self.name]

    def step(self, state: Any, projected: Any) -> Any:
        inner, tap = projected
        after = self.cell.step(state, inner)
        return jax.tree.map(
            lambda add, leaf: leaf if add is None else leaf + add, tap, after, is_leaf=lambda add: add is None
        )

    def read(self, state: Any, projected: Any) -> Any:
        return self.cell.read(state, projected[0])


def zero_taps(cell: Cell, batch: int, time: int) -> Any:
    """Zeros ``(batch, time, ...)`` for every real-valued leaf of the cell's state, None for the others."""

    def zeros(leaf: Any) -> Array | None:
        real = jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
        return jnp.zeros((batch, time, *jnp.shape(leaf)), jnp.result_type(leaf)) if real else None

    return jax.tree.map(zeros, cell.prepare().initial_state())


def tap(events: Event, values: dict[str, Any]) -> Event:
    """``events`` for a model whose cells are `Tapped`: ``values`` by the name of the tap."""
    return events._replace(context=Taps(values, events.context))
