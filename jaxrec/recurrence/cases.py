"""A cell under examination: random events that it can read, and the runs that several laws share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from jaxrec.cells import Cell, Event
from jaxrec.recurrence.shapes import SHAPES
from jaxrec.recurrence.trees import double, is_complex, is_real, real_leaves, score, trained
from jaxrec.recurrence.unroll import start, unroll

JITTER = 0.1  # so that no parameter is examined at a special value such as zero
STEP = 1e-5  # of finite differences, in float64


@dataclass(frozen=True)
class Case:
    """``make(rngs)`` builds the cell for inputs ``(features,)``; ``time`` is even: its halves share a compilation."""

    make: Callable[[nnx.Rngs], Cell]
    features: int = 3
    backend: Any = None
    batch: int = SHAPES["tiny"].batch
    time: int = SHAPES["tiny"].time
    seed: int = 0

    @cached_property
    def fresh(self) -> Cell:
        """The cell as its constructor leaves it."""
        with jax.ensure_compile_time_eval():  # what is kept here must not be a tracer of whoever asked first
            return self.make(nnx.Rngs(self.seed))

    @cached_property
    def cell(self) -> Cell:
        """The cell away from its initial parameters."""
        with jax.ensure_compile_time_eval():
            return jitter(self.fresh, self.noise(1))

    @cached_property
    def events(self) -> Event:
        """Random events ``(batch, time, ...)`` with every leaf that the cell wants."""
        with jax.ensure_compile_time_eval():
            return self.sample(2)

    @cached_property
    def state(self) -> Any:
        """A state ``(batch, ...)`` that is not the initial one."""
        with jax.ensure_compile_time_eval():
            return jitter(start(self.cell, self.batch), self.noise(3))

    @cached_property
    def reset(self) -> Array:
        """Row 0 restarts halfway, the others never."""
        with jax.ensure_compile_time_eval():
            return jnp.zeros((self.batch, self.time), bool).at[0, self.time // 2].set(True)

    def noise(self, number: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, number))

    def sample(self, number: int, time: int | None = None) -> Event:
        """Other random events; equal numbers give equal events."""
        return random_events(self.noise(number), self.cell.wants, self.batch, time or self.time, self.features)

    @cached_property
    def first(self) -> tuple[Any, Any]:
        """An uncompiled run with nothing given."""
        return self.eager(self.cell, self.events)

    def eager(self, cell: Cell, events: Event, **options: Any) -> tuple[Any, Any]:
        """`unroll` on the case's backend."""
        return unroll(cell, events, backend=self.backend, **options)

    @cached_property
    def compiled(self) -> Callable[..., tuple[Any, Any]]:
        return jax.jit(lambda cell, events, state, reset: self.eager(cell, events, state=state, reset=reset))

    def run(
        self, events: Event, *, cell: Cell | None = None, state: Any = None, reset: Array | None = None
    ) -> tuple[Any, Any]:
        """The same, compiled once per shape: state and reset are always there."""
        cell = self.cell if cell is None else cell
        shape = events.x.shape[:2]
        state = start(cell, shape[0]) if state is None else state
        return self.compiled(cell, events, state, jnp.zeros(shape, bool) if reset is None else reset)

    @cached_property
    def whole(self) -> tuple[Any, Any]:
        """The run that most laws compare with: from `state`, no reset."""
        return self.run(self.events, state=self.state)

    @cached_property
    def derivatives(self) -> list["Derivative"]:
        """Derivatives of a loss on the outputs by every real leaf of parameters, events and state, in float64."""
        with jax.enable_x64(True):
            names, leaves, rebuild = real_leaves(double((self.cell, self.events, self.state)))
            kinds = trained((self.cell, self.events, self.state))

            def loss(leaves: Sequence[Array]) -> Array:
                cell, events, state = rebuild(leaves)
                return score(self.eager(cell, events, state=state, reset=self.reset)[1])

            gradients, slopes, directions = differentiate(loss, leaves, self.noise(4))
            return [
                Derivative(name, name in kinds, float(jnp.abs(g).max(initial=0.0)), float((g * v).sum()), float(slope))
                for name, g, v, slope in zip(names, gradients, directions, slopes, strict=True)
            ]


@dataclass(frozen=True)
class Derivative:
    """One leaf: its largest gradient entry, and the slope along a random direction by gradient and by differences."""

    name: str
    parameter: bool
    largest: float
    analytic: float
    numeric: float


def differentiate(loss: Callable[..., Array], leaves: list[Array], noise: np.random.Generator) -> tuple[Any, Any, Any]:
    """Gradients, slopes by central differences moving one leaf at a time ``(leaves,)``, and the directions."""
    directions = [noise.standard_normal(leaf.shape) for leaf in leaves]
    places = np.arange(len(leaves))

    def moved(place: int, leaf: Array, direction: np.ndarray[Any, Any]) -> Array:
        """The leaf ``(2, leaves, ...)``, moved forth and back in its own turn only."""
        signs = np.stack([places == place, -1.0 * (places == place)])
        return jnp.asarray(np.asarray(leaf) + STEP * signs.reshape(2, -1, *[1] * leaf.ndim) * direction)

    copies = [moved(i, leaf, v) for i, (leaf, v) in enumerate(zip(leaves, directions, strict=True))]
    forth, back = jax.jit(jax.vmap(jax.vmap(loss)))(copies)
    return jax.jit(jax.grad(loss))(leaves), (forth - back) / (2 * STEP), directions


def random_events(noise: np.random.Generator, wants: Sequence[str], batch: int, time: int, features: int) -> Event:
    """Standard normal vectors, gaps in seconds, a session start in three: every leaf in ``wants``, and ``x``.

    One gap in six is a tie; the others are from a second to a month, each order of magnitude as often as the next.
    """
    shape = (batch, time)
    made: dict[str, Callable[[], Any]] = {
        "x": lambda: noise.standard_normal((*shape, features), np.float32),
        "gap": lambda: ((noise.random(shape) > 1 / 6) * 10 ** noise.uniform(0, 6.4, shape)).astype(np.float32),
        "context": lambda: noise.standard_normal((*shape, features), np.float32),
        "user": lambda: noise.standard_normal((*shape, features), np.float32),
        "start": lambda: noise.random(shape) < 1 / 3,
        "key": lambda: jax.random.wrap_key_data(jnp.asarray(noise.integers(2**32, size=(*shape, 2), dtype=np.uint32))),
    }
    leaves = {name: make() for name, make in made.items() if name in wants or name == "x"}
    return jax.tree.map(jnp.asarray, Event(**leaves))


def jitter(tree: Any, noise: np.random.Generator) -> Any:
    """Add small noise to every real leaf."""

    def moved(leaf: Any) -> Any:
        if is_complex(leaf):
            return jax.lax.complex(moved(leaf.real), moved(leaf.imag))
        if not is_real(leaf):
            return leaf
        return leaf + jnp.asarray(JITTER * noise.standard_normal(jnp.shape(leaf)), leaf.dtype)

    return jax.tree.map(moved, tree)
