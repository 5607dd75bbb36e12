"""The recurrence of one layer by itself, driven by what really goes into it, and how small changes move with it.

A state counts as a vector of ``n`` real numbers: all its real leaves one after the other, a complex one as its two
parts. Leaves of whole numbers go along as they are.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxrec.diagnostics.subject import Layer
from jaxrec.recurrence.ready import admitted, begun
from jaxrec.recurrence.reverse import parted, smooth_of
from jaxrec.recurrence.states import restart, time_major
from jaxrec.recurrence.trees import is_complex

FULL = 256  # real numbers of a state up to which a measurement takes all directions


def vector(state: Any) -> Array:
    """The real numbers ``(n,)`` of one example's state."""
    parts = [
        part.ravel() for leaf in smooth_of(state) for part in ((leaf.real, leaf.imag) if is_complex(leaf) else (leaf,))
    ]
    return jnp.concatenate(parts) if parts else jnp.zeros(0)


def placed(numbers: Array, state: Any) -> Any:
    """``state`` with ``numbers (n,)`` in place of its own."""
    smooth, rest, join = parted(state)
    found, at = [], 0

    def take(leaf: Array, dtype: Any) -> Array:
        nonlocal at
        at += leaf.size
        return numbers[at - leaf.size : at].reshape(leaf.shape).astype(dtype)

    for leaf in smooth:
        kind = leaf.real.dtype
        found.append(lax.complex(take(leaf, kind), take(leaf, kind)) if is_complex(leaf) else take(leaf, kind))
    return join(found, rest)


@contextmanager
def precise() -> Iterator[None]:
    """Products in full precision: an accelerator's shorter mantissa would put a floor under what can be seen."""
    with jax.default_matmul_precision("highest"):
        yield


class Motion:
    """A layer's recurrence, a step at a time: states ``(batch, ...)`` and changes of them ``(batch, n, k)``.

    A reset replaces the state and leaves changes as they are, and a step that only fills a row up is none: what is
    measured is the step of the recurrence, not that a session ended.
    """

    def __init__(self, layer: Layer):
        self.rows, self.time = layer.shape
        cell, events = admitted(layer.cell, layer.events)
        self.cell, self.first, events, _ = begun(cell, None, events, None)
        projected = jax.vmap(jax.vmap(self.cell.project))(events)
        self.entries = time_major((projected, layer.reset, layer.real))
        self.size = jax.eval_shape(jax.vmap(vector), self.first).shape[1]

    def begin(self, state: Any, entry: Any) -> Any:
        """The state that a step starts from."""
        return restart(state, self.first, entry[1])

    def step(self, state: Any, entry: Any) -> Any:
        state = self.begin(state, entry)
        return self.unless_filling(entry, jax.vmap(self.cell.step)(state, entry[0]), state)

    def push(self, state: Any, changes: Array, entry: Any) -> tuple[Any, Array]:
        """The next state, and the Jacobian of the step times ``changes (batch, n, k)``."""

        def one(move: Callable[[Array], Array], here: Array, changes: Array) -> Array:
            return jax.vmap(lambda change: jax.jvp(move, (here,), (change,))[1], 1, 1)(changes)

        return self.step(state, entry), self.mapped(one, state, changes, entry)

    def pull(self, state: Any, changes: Array, entry: Any) -> Array:
        """The transposed Jacobian of the step from ``state`` times ``changes (batch, n, k)``."""

        def one(move: Callable[[Array], Array], here: Array, changes: Array) -> Array:
            back = jax.vjp(move, here)[1]
            return jax.vmap(lambda change: back(change)[0], 1, 1)(changes)

        return self.mapped(one, state, changes, entry)

    def jacobians(self, state: Any, entry: Any) -> Array:
        """The Jacobian ``(batch, n, n)`` of the step from ``state``."""
        return self.mapped(lambda move, here, _: jax.jacfwd(move)(here), state, jnp.zeros(self.rows), entry)

    def mapped(self, one: Callable[[Any, Array, Array], Array], state: Any, changes: Array, entry: Any) -> Array:
        """``one(next state's numbers of a state's, here, changes)`` for every row."""

        def row(state: Any, projected: Any, changes: Array) -> Array:
            return one(
                lambda numbers: vector(self.cell.step(placed(numbers, state), projected)), vector(state), changes
            )

        moved = jax.vmap(row)(self.begin(state, entry), entry[0], changes)
        return self.unless_filling(entry, moved, changes) if moved.shape == changes.shape else moved

    def unless_filling(self, entry: Any, after: Any, before: Any) -> Any:
        return after if entry[2] is None else restart(before, after, entry[2])

    def trail(self, last: int) -> tuple[Any, Any]:
        """The states before each of the ``last`` steps, and what these steps are given: ``(last, batch, ...)``."""
        head, tail = self.parts(self.time - last)
        state, _ = lax.scan(lambda state, entry: (self.step(state, entry), None), self.first, head)
        _, states = lax.scan(lambda state, entry: (self.step(state, entry), state), state, tail)
        return states, tail

    def parts(self, at: int) -> tuple[Any, Any]:
        """What the steps before step ``at`` and the others are given."""
        return jax.tree.map(lambda leaf: leaf[:at], self.entries), jax.tree.map(lambda leaf: leaf[at:], self.entries)

    def directions(self, columns: int) -> tuple[Array, Array]:
        """Random orthonormal changes ``(batch, n, columns)``, and a probe ``(batch, n, 1)`` that finds how large a
        Jacobian is: the mean square of what becomes of it is the square of the Jacobian's Frobenius norm.
        """
        kind = jax.eval_shape(jax.vmap(vector), self.first).dtype
        key, other = jax.random.split(jax.random.key(0))
        random = jax.random.normal(key, (self.rows, self.size, columns), kind)
        return jnp.linalg.qr(random)[0], jax.random.normal(other, (self.rows, self.size, 1), kind)
