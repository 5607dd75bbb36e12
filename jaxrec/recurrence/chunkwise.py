"""Matrix states in chunks of time: products of matrices inside a chunk, one state handed from chunk to chunk."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.linalg import solve_triangular

from jaxrec.cells import Cell, Event, MatrixCell, MatrixState, Rule
from jaxrec.config import Mistake
from jaxrec.recurrence.checks import is_count, own
from jaxrec.recurrence.scan import Scan
from jaxrec.recurrence.states import spread

# of a chunk: one decay per key dimension costs chunk^2 * key, and a triangular solve of 50 rows took a CPU, at (16, 50,
# 2 heads of 32), 13 times the loop's time, where chunks of 16 took half of it
LONG, SHORT = 64, 16
EXACT = lax.Precision.HIGHEST  # a recurrence stays in float32: no TF32, no bfloat16 passes


@dataclass(frozen=True)
class Chunkwise:
    """A `MatrixCell` by chunks of at most ``chunk`` events, a loop over chunks: see the README here for the algebra.

    ``chunk`` None is 64, but 16 where each key dimension has its own decay or the rule erases.
    """

    chunk: int | None = None

    def __post_init__(self) -> None:
        if self.chunk is not None and not is_count(self.chunk):
            raise Mistake(f"chunkwise: chunk={self.chunk!r} is not a length; give a whole number of events or none")

    def refuses(self, cell: Cell) -> str | None:
        if not isinstance(cell, MatrixCell):
            return "it is not a MatrixCell, so it has no rule that could run over a chunk at once"
        return own(cell, MatrixCell, ("initial_state", "step", "read"), "rule") or outdated(type(cell))

    def run(self, cell: Cell, state: Any, events: Event, reset: Array | None) -> tuple[Any, Any]:
        assert isinstance(cell, MatrixCell)
        if not events.x.shape[1]:
            return Scan().run(cell, state, events, reset)
        state = spread(state, (cell, events, reset))
        projected = jax.vmap(jax.vmap(cell.project))(events)
        besides = jax.vmap(cell.remembered)(state.beside, projected, reset)
        rule = jax.vmap(jax.vmap(cell.rule))(projected, besides)
        usual = LONG if rule.erase is None and rule.decay.ndim == 3 else SHORT
        matrix, readings = over_chunks(state.matrix, rule, reset, self.chunk or usual)
        beside = jax.tree.map(lambda leaf: leaf[:, -1], besides)
        return MatrixState(matrix, beside), jax.vmap(jax.vmap(cell.output))(projected, besides, readings)


def outdated(kind: type[MatrixCell]) -> str | None:
    """Why ``remembered`` does not say of a sequence what ``remember`` says of an event, or None."""
    places = {
        name: next(place for place, one in enumerate(kind.__mro__) if name in vars(one))
        for name in ("remembered", "remember", "nothing")
    }
    newer = [name for name, place in places.items() if place < places["remembered"]]
    if not newer or kind.remembered is MatrixCell.remembered:
        return None
    return f"its {newer[0]} is newer than its remembered, and remembered still moves on as before"


def over_chunks(matrix: Array, rule: Rule, reset: Array | None, longest: int) -> tuple[Array, Array]:
    """From matrices ``(b, heads, key, value)`` by a rule ``(b, t, ...)``: the last ones, and what each query read."""
    batch, time = rule.query.shape[:2]
    count = math.ceil(time / longest)
    length = math.ceil(time / count)  # equal chunks: the last one is short of them by less than their number
    starts = jnp.zeros((batch, time), bool) if reset is None else reset

    def chunks(leaf: Array) -> Array:
        """``(b, t, ...)`` as ``(chunk, b, within, ...)``; past the end nothing fades and nothing is added."""
        padded = jnp.pad(leaf, [(0, 0), (0, count * length - time)] + [(0, 0)] * (leaf.ndim - 2))
        return jnp.moveaxis(padded.reshape(batch, count, length, *leaf.shape[2:]), 1, 0)

    per_head = jax.vmap(one_chunk, in_axes=(0, 1, None), out_axes=(0, 1))
    decay = rule.decay if rule.decay.ndim == 4 else rule.decay[..., None]
    last, readings = lax.scan(
        lambda state, entry: jax.vmap(per_head)(state, *entry),
        matrix,
        jax.tree.map(chunks, (rule._replace(decay=decay), starts)),
    )
    return last, jnp.moveaxis(readings, 0, 1).reshape(batch, count * length, *readings.shape[3:])[:, :time]


def one_chunk(matrix: Array, rule: Rule, starts: Array) -> tuple[Array, Array]:
    """One head of one row: the matrix ``(key, value)`` after the chunk, and the readings ``(time, value)``.

    With ``D(t, s)`` the decay from after s to after t, and ``u`` what the erasing reads,
    ``S_t = D(t, 0) S_0 + sum_{s <= t} D(t, s) (gate key value^T - write u^T)_s``.
    """
    # what has decayed below the square of the rounding is gone: so that long sums of logarithms keep their digits
    decay = jnp.maximum(rule.decay, 2 * math.log(jnp.finfo(rule.decay.dtype).eps))
    total = jnp.cumsum(decay, axis=0)
    session = jnp.cumsum(starts)
    same = session[:, None] == session[None]
    carried, seen = (session == 0)[:, None], jnp.tril(same)
    values = rule.value if rule.gate is None else rule.gate[:, None] * rule.value
    within = spans(total, total, seen)
    readings = dot(jnp.where(carried, rule.query * jnp.exp(total), 0), matrix)
    readings += dot(pairs(rule.query, rule.key, within), values)
    to_end = jnp.exp(jnp.where(same[-1][:, None], total[-1:] - total, -jnp.inf))
    after = jnp.where(carried[-1], jnp.exp(total[-1]), 0)[:, None] * matrix + dot((rule.key * to_end).T, values)
    if rule.erase is not None:
        read, write = rule.erase
        before = total - decay  # the erasing reads the matrix before its step
        earlier = spans(before, total, jnp.tril(same, -1))
        known = dot(jnp.where(carried, read * jnp.exp(before), 0), matrix) + dot(pairs(read, rule.key, earlier), values)
        gone = solve_triangular(pairs(read, write, earlier), known, lower=True, unit_diagonal=True)
        readings -= dot(pairs(rule.query, write, within), gone)
        after -= dot((write * to_end).T, gone)
    return after, readings


def spans(upper: Array, lower: Array, mask: Array) -> Array:
    """Decays ``exp(upper_t - lower_s)`` where ``mask``, else 0: ``(t, s, key)``, or ``(t, s, 1)`` for one per head.

    The difference is taken before the exponential, where it is at most 0: neither factor alone need be finite.
    """
    return jnp.exp(jnp.where(mask[:, :, None], upper[:, None] - lower[None], -jnp.inf))


def pairs(left: Array, right: Array, decays: Array) -> Array:
    """``left_t . right_s``, decayed: ``(t, s)``."""
    if decays.shape[-1] == 1:
        return dot(left, right.T) * decays[:, :, 0]
    return jnp.einsum("tk,sk,tsk->ts", left, right, decays, precision=EXACT)


def dot(left: Array, right: Array) -> Array:
    return jnp.dot(left, right, precision=EXACT)
