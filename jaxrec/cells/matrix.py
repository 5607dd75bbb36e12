"""Cells whose state is a matrix per head."""

from abc import abstractmethod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrec.cells.cell import Cell
from jaxrec.cells.weights import positive
from jaxrec.config import Mistake


class Erase(NamedTuple):
    """What a step takes out of the matrix ``S`` before it: ``write (read^T S)``, both ``(heads, key)``."""

    read: Array
    write: Array


class Rule(NamedTuple):
    """One step, ``S' = exp(decay) S - write (read^T S) + gate key value^T``, of which ``query^T S'`` is read."""

    query: Array  # (heads, key)
    key: Array  # (heads, key)
    value: Array  # (heads, value)
    decay: Array  # its logarithm, finite and at most 0: (heads,), or (heads, key) for one per key dimension
    erase: Erase | None = None
    gate: Array | None = None  # (heads,)

    def apply(self, matrix: Array) -> Array:
        """The matrix ``(heads, key, value)`` after the step."""
        value = self.value if self.gate is None else self.gate[:, None] * self.value
        after = jnp.exp(self.decay).reshape(len(matrix), -1, 1) * matrix + self.key[:, :, None] * value[:, None, :]
        if self.erase is None:
            return after
        return after - self.erase.write[:, :, None] * look(self.erase.read, matrix)[:, None, :]


def look(vector: Array, matrix: Array) -> Array:
    """``vector^T S`` for every head: ``(heads, value)``. A product and a sum fuse with the step; a matmul would not."""
    return (vector[:, :, None] * matrix).sum(1)


class MatrixState(NamedTuple):
    """A matrix per head ``(heads, key, value)``, and whatever small things the cell remembers beside it."""

    matrix: Array
    beside: Any


class MatrixCell(Cell):
    """A matrix per head that changes by a `Rule` which does not see it: so that time can run in chunks of matmuls.

    A subclass calls `sizes` and gives `rule` and `output`. What the rule needs of the past other than the matrix (a
    running maximum, the last input) is kept ``beside`` it and moved on by `remember`, which does not see it either.
    """

    family = "matrix"
    heads: int
    key: int
    value: int

    def sizes(self, heads: int, key: int, value: int) -> None:
        positive(heads=heads, key=key, value=value)
        self.heads, self.key, self.value = heads, key, value

    def initial_state(self) -> MatrixState:
        return MatrixState(jnp.zeros((self.heads, self.key, self.value)), self.nothing())

    def nothing(self) -> Any:
        """What is remembered beside the matrix before the first event."""
        return ()

    def remember(self, beside: Any, projected: Any) -> Any:
        """What is remembered beside the matrix after an event; all that `rule` and `output` need of the past."""
        return beside

    def remembered(self, beside: Any, projected: Any, reset: Array | None) -> Any:
        """`remember` after each of the events ``(time, ...)``; to be overridden where it has a parallel form."""

        def one(beside: Any, entry: tuple[Any, Array | None]) -> tuple[Any, Any]:
            projected, start = entry
            if start is not None:
                beside = jax.tree.map(lambda new, old: jnp.where(start, new, old), self.nothing(), beside)
            beside = self.remember(beside, projected)
            return beside, beside

        return jax.lax.scan(one, beside, (projected, reset))[1]

    @abstractmethod
    def rule(self, projected: Any, beside: Any) -> Rule:
        """How the event changes the matrix; ``beside`` is what is remembered after it."""

    @abstractmethod
    def output(self, projected: Any, beside: Any, reading: Array) -> Any:
        """What the layer above sees, from ``reading = query^T S'``, ``(heads, value)``."""

    def step(self, state: MatrixState, projected: Any) -> MatrixState:
        beside = self.remember(state.beside, projected)
        return MatrixState(self.rule(projected, beside).apply(state.matrix), beside)

    def read(self, state: MatrixState, projected: Any) -> Any:
        query = self.rule(projected, state.beside).query
        return self.output(projected, state.beside, look(query, state.matrix))


def divided(cell: str, hidden: int, heads: int) -> int:
    """The width of one of ``heads`` equal parts of ``hidden``."""
    positive(hidden=hidden, heads=heads)
    if hidden % heads:
        raise Mistake(f"{cell}: hidden={hidden} is not a multiple of heads={heads}; choose heads that divide it")
    return hidden // heads
