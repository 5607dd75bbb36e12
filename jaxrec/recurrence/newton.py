"""All steps at once: the states of a whole sequence as the unknowns of one system of equations. See README.md here."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxrec.cells import Cell, ElementwiseCell, Event
from jaxrec.config import Mistake
from jaxrec.recurrence.associative import shifted
from jaxrec.recurrence.checks import is_count
from jaxrec.recurrence.ready import admitted, begun
from jaxrec.recurrence.states import batched_initial, spread

LIMIT = 32  # units up to which a dense cell takes its full Jacobian: its square is kept for every event
Linear = Callable[[Array], Array]


class Report(NamedTuple):
    """How a solve went."""

    iterations: Array  # how many there were, ()
    residual: Array  # largest |f(h before) - h| / max(1, |f|) of each row, (b,)
    converged: Array  # whether that is within the tolerance, (b,)


@dataclass(frozen=True)
class Newton:
    """All events at once by Newton's method (DEER), for long sequences on an accelerator and any real state.

    Lim et al. 2024 (https://arxiv.org/abs/2309.12252). ``form="full"`` takes the whole Jacobian of a step, which for an
    elementwise cell is one small block per unit; "quasi" takes its diagonal (Gonzalez et al. 2024,
    https://arxiv.org/abs/2407.19115): more iterations, each cheaper. None is "full" for elementwise cells and up to 32
    units, else "quasi". ``damping`` multiplies the Jacobian by one minus itself (scale-ELK in that paper): 0 is Newton,
    1 plain iteration. ``tol`` bounds the residual of every step (None: 1e-6, in float64 1e-12), ``iterations`` their
    number (None: as many as there are events, which always suffices). A row that has not converged is NaN under jit
    and a `Mistake` outside; `solve` reports instead.
    """

    tol: float | None = None
    iterations: int | None = None
    form: str | None = None
    damping: float = 0.0

    def __post_init__(self) -> None:
        if self.form not in (None, "full", "quasi"):
            raise Mistake(f'newton: form={self.form!r} does not exist; choose "full", "quasi" or none')
        if self.tol is not None and not (isinstance(self.tol, int | float) and 0 < self.tol < 1):
            raise Mistake(f"newton: tol={self.tol!r} is not a tolerance; give a number between 0 and 1")
        if self.iterations is not None and not is_count(self.iterations):
            raise Mistake(f"newton: iterations={self.iterations!r} is no count; give a whole number of at least 1")
        if isinstance(self.damping, bool) or not isinstance(self.damping, int | float) or not 0 <= self.damping <= 1:
            raise Mistake(f"newton: damping={self.damping!r} is no share; give a number from 0 (none) to 1")

    def refuses(self, cell: Cell) -> str | None:
        leaves = jax.tree.leaves(jax.eval_shape(lambda cell: cell.prepare().initial_state(), cell))
        if any(jnp.issubdtype(leaf.dtype, jnp.complexfloating) for leaf in leaves):
            return "its state is complex, and the equations solved here are real ones (an affine cell has associative)"
        if other := [str(leaf.dtype) for leaf in leaves if not jnp.issubdtype(leaf.dtype, jnp.floating)]:
            return f"its state has a leaf of {other[0]}, by which nothing can be differentiated"
        kinds = sorted({str(leaf.dtype) for leaf in leaves})
        return (
            None if len(kinds) == 1 else f"its state has leaves of {' and '.join(kinds) or 'no type: there are none'}"
        )

    def solve(
        self, cell: Cell, events: Event, *, state: Any = None, reset: Array | None = None
    ) -> tuple[Any, Any, Report]:
        """What `unroll` returns and a `Report`; a row that has not converged is left as the last iteration had it."""
        cell, events = admitted(cell, events)
        if reason := self.refuses(cell):
            raise Mistake(f"newton cannot run {type(cell).__name__}: {reason}; choose another backend")
        return self.attempt(*begun(cell, state, events, reset))

    def run(self, cell: Cell, state: Any, events: Event, reset: Array | None) -> tuple[Any, Any]:
        last, outputs, report = self.attempt(cell, state, events, reset)
        if not isinstance(report.converged, jax.core.Tracer) and not report.converged.all():
            raise Mistake(
                f"newton: {int((~report.converged).sum())} of {len(report.converged)} rows of {type(cell).__name__} "
                f"have not converged after {int(report.iterations)} iterations (residual "
                f"{float(report.residual.max()):.2g}); allow more iterations, add damping, or take scan"
            )
        poison = jnp.where(report.converged, 1.0, jnp.nan)  # a factor, so that gradients are NaN too

        def marked(leaf: Array) -> Array:
            if not jnp.issubdtype(leaf.dtype, jnp.inexact):
                return leaf
            return leaf * poison.astype(leaf.dtype).reshape(-1, *[1] * (leaf.ndim - 1))

        return jax.tree.map(marked, (last, outputs))

    def attempt(self, cell: Cell, state: Any, events: Event, reset: Array | None) -> tuple[Any, Any, Report]:
        """The solution as it is, converged or not."""
        batch, time = events.x.shape[:2]
        projected = jax.vmap(jax.vmap(cell.project))(events)
        read = jax.vmap(jax.vmap(cell.read))
        if not time:
            nothing = jax.tree.map(lambda leaf: jnp.zeros((batch, 0, *leaf.shape[1:]), leaf.dtype), state)
            report = Report(jnp.array(0), jnp.zeros(batch), jnp.ones(batch, bool))
            return state, read(nothing, projected), report
        layout = Layout.of(cell)
        first, fresh = layout.pack(state), layout.pack(batched_initial(cell, batch))
        step = jax.vmap(jax.vmap(lambda h, u: layout.pack(cell.step(layout.unpack(h), u))))

        def after(h: Array) -> Array:
            """The step from every state to the next ``(b, t, k, n)``."""
            before = jnp.concatenate([first[:, None], h[:, :-1]], axis=1)
            if reset is not None:
                before = jnp.where(reset[:, :, None, None], fresh[:, None], before)
            return step(before, projected)

        guess = step(jnp.broadcast_to(fresh[:, None], (batch, time, *fresh.shape[1:])), projected)
        states, report = self.root(after, spread(guess, (cell, state, events, reset)), layout)
        return layout.unpack(states[:, -1]), read(layout.unpack(states), projected), report

    def root(self, after: Linear, guess: Array, layout: "Layout") -> tuple[Array, Report]:
        """``h = after(h)``; its derivative is the solution of the same equations made linear, exact in every form."""
        quasi = self.form == "quasi" or (self.form is None and layout.dense and guess.shape[2] > LIMIT)
        tol = self.tol or (1e-12 if guess.dtype == jnp.float64 else 1e-6)
        most = self.iterations or guess.shape[1]

        def newton(_: Any, guess: Array) -> tuple[Array, Any]:
            def linearised(h: Array) -> tuple[Array, Array]:
                value, push = jax.linearize(after, h)
                return value, (1 - self.damping) * slopes(push, h, quasi)

            h, report = iterate(linearised, guess, tol, most)
            return h, jax.tree.map(lambda leaf: leaf.astype(guess.dtype), report)  # custom_root differentiates these

        def tangent(residual: Linear, b: Array) -> Array:
            def solve(map_: Linear, b: Array, *, reverse: bool) -> Array:
                push = lambda v: v - map_(v)  # noqa: E731
                return linear(push, b, tol, quasi, reverse)

            return lax.custom_linear_solve(
                residual, b, lambda f, b: solve(f, b, reverse=False), lambda f, g: solve(f, g, reverse=True)
            )

        h, found = lax.custom_root(lambda h: h - after(h), guess, newton, tangent, has_aux=True)
        count, residual, converged = lax.stop_gradient(found)
        return h, Report(count.astype(int), residual, converged > 0)


@dataclass(frozen=True)
class Layout:
    """A state as one array ``(..., k, n)``: unit u of n meets only unit u, and a step's Jacobian is ``(k, k, n)``."""

    structure: Any
    shapes: tuple[tuple[int, ...], ...]
    dense: bool  # all units meet: k is all of them and n is 1; else k leaves of n units

    @classmethod
    def of(cls, cell: Cell) -> "Layout":
        leaves, structure = jax.tree.flatten(jax.eval_shape(lambda: jax.tree.map(jnp.asarray, cell.initial_state())))
        shapes = tuple(leaf.shape for leaf in leaves)
        return cls(structure, shapes, not isinstance(cell, ElementwiseCell) or len(set(shapes)) > 1)

    def pack(self, state: Any) -> Array:
        leaves = jax.tree.leaves(state)
        flat = [
            leaf.reshape(*leaf.shape[: leaf.ndim - len(shape)], math.prod(shape))
            for leaf, shape in zip(leaves, self.shapes, strict=True)
        ]
        return jnp.concatenate(flat, axis=-1)[..., None] if self.dense else jnp.stack(flat, axis=-2)

    def unpack(self, packed: Array) -> Any:
        if self.dense:
            ends = itertools.accumulate(math.prod(shape) for shape in self.shapes)
            flat = jnp.split(packed[..., 0], list(ends)[:-1], axis=-1)
        else:
            flat = [packed[..., i, :] for i in range(len(self.shapes))]
        leaves = [part.reshape(*packed.shape[:-2], *shape) for part, shape in zip(flat, self.shapes, strict=True)]
        return jax.tree.unflatten(self.structure, leaves)


def iterate(
    linearised: Callable[[Array], tuple[Array, Array]], guess: Array, tol: float, most: int, *, reverse: bool = False
) -> tuple[Array, Report]:
    """Newton's method on ``h = after(h)`` where ``linearised(h)`` is ``after(h)`` and its slopes, perhaps not exact.

    A step whose equation and all before it hold is left alone, so that later events change nothing about it. Every
    iteration makes at least one more step right, whatever the slopes: the first wrong one gets ``after`` itself.
    """

    def evaluate(h: Array) -> tuple[Array, Array, Array, Array]:
        value, slope = linearised(h)
        apart = (jnp.abs(value - h) / jnp.maximum(1, jnp.abs(value))).max(axis=(2, 3))
        wrong = (~(apart <= tol)).astype(jnp.int32)  # so that NaN is wrong
        return value, slope, apart, lax.cummax(wrong, axis=1, reverse=reverse) > 0

    def better(carry: Any) -> Any:
        count, h, (value, slope, _, wrong) = carry
        wrong = wrong[:, :, None, None]
        change = prefix(slope, jnp.where(wrong, value - h, 0), reverse=reverse)
        new = value + times(slope, shifted(change, -1 if reverse else 1))
        new = jnp.where(jnp.isfinite(new), new, value)
        h = jnp.where(wrong, new, h)
        return count + 1, h, evaluate(h)

    count, h, (_, _, apart, wrong) = lax.while_loop(
        lambda carry: (carry[0] < most) & carry[2][3].any(), better, (jnp.array(0), guess, evaluate(guess))
    )
    return h, Report(count, apart.max(axis=1), ~wrong.any(axis=1))


def linear(push: Linear, b: Array, tol: float, quasi: bool, reverse: bool) -> Array:
    """``x = push(x) + b`` where ``push`` passes every step on to the next one, or to the one before in ``reverse``."""
    slope = slopes(push, b, quasi)
    if not quasi:
        return prefix(slope, b, reverse=reverse)
    size = jnp.abs(b).max(axis=(1, 2, 3), keepdims=True)
    size = jnp.where(size > 0, size, 1)
    x, report = iterate(lambda x: (push(x) + b / size, slope), b / size, tol, b.shape[1], reverse=reverse)
    return x * jnp.where(report.converged, 1.0, jnp.nan).astype(x.dtype)[:, None, None, None] * size


def slopes(push: Linear, like: Array, quasi: bool) -> Array:
    """The blocks ``(b, t, k, k, n)`` of a linear map that takes each step to the next, or only their diagonals."""
    k = like.shape[2]

    def response(j: Array) -> Array:
        unit = (jnp.arange(k) == j).astype(like.dtype)[None, None, :, None]
        return push(spread(jnp.broadcast_to(unit, like.shape), like))

    if quasi:  # one unit after the other: all at once would be the whole blocks again
        return jnp.moveaxis(lax.map(lambda j: jnp.take(response(j), j, axis=2), jnp.arange(k)), 0, 2)
    return jnp.moveaxis(jax.vmap(response)(jnp.arange(k)), 0, 3)


def prefix(slope: Array, b: Array, *, reverse: bool = False) -> Array:
    """``x_t = slope_t x_(t-1) + b_t`` from zero, or backwards in time."""

    def joined(early: tuple[Array, Array], late: tuple[Array, Array]) -> tuple[Array, Array]:
        return times(late[0], early[0]), times(late[0], early[1]) + late[1]

    return lax.associative_scan(joined, (slope, b), axis=1, reverse=reverse)[1]


def times(slope: Array, other: Array) -> Array:
    """Diagonals, or blocks ``(b, t, k, k, n)``, applied to vectors or blocks."""
    if slope.ndim == 4:
        return slope * other
    vector = other.ndim == 4
    other = other[:, :, :, None] if vector else other
    if slope.shape[-1] == 1:
        found = (slope[..., 0] @ other[..., 0])[..., None]
    else:
        found = (slope[:, :, :, :, None] * other[:, :, None]).sum(axis=3)
    return found[:, :, :, 0] if vector else found
