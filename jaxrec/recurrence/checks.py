"""Mistakes in a cell or in its events, each told in one sentence before anything runs."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxrec.cells import Cell, Event, Wrapper
from jaxrec.config import Mistake, did_you_mean
from jaxrec.recurrence.trees import same_structure


def check_events(cell: Cell, events: Event, axes: tuple[str, ...]) -> tuple[int, ...]:
    """The sizes of the leading ``axes``: all leaves must share them, and all that the cell wants must be there."""
    shape = "(" + ", ".join(axes) + ", ...)"
    if not isinstance(events, Event):
        raise Mistake(f"events is {type(events).__name__}, not Event; wrap vectors of shape {shape} as Event(x)")
    if isinstance(cell.wants, str):
        raise Mistake(f"{kind(cell)} has wants = {cell.wants!r}, which is no tuple; write wants = ({cell.wants!r},)")
    present = [name for name in Event._fields if getattr(events, name) is not None]
    for name in cell.wants:
        if name not in Event._fields:
            raise Mistake(
                f"{kind(cell)} wants {name!r}, which no event can have; choose among {', '.join(Event._fields)}"
                f"{did_you_mean(name, Event._fields)}"
            )
        if name not in present:
            raise Mistake(f"{kind(cell)} wants {name!r}; the events have {present}")
    leading = jnp.shape(events.x)[: len(axes)]
    for path, leaf in jax.tree_util.tree_leaves_with_path(events):
        if jnp.ndim(leaf) < len(axes) or jnp.shape(leaf)[: len(axes)] != leading:
            raise Mistake(
                f"events{jax.tree_util.keystr(path)} has shape {jnp.shape(leaf)} but events.x {jnp.shape(events.x)}; "
                f"every leaf must begin with the same {shape}"
            )
    return leading


def check_reset(reset: Array | None, shape: tuple[int, ...]) -> None:
    """``reset`` must be booleans of the events' leading shape."""
    if reset is not None and (jnp.shape(reset) != shape or jnp.result_type(reset) != jnp.bool_):
        raise Mistake(
            f"reset is {aval(reset)}; give booleans of shape {shape}, True where a row starts afresh before the event"
        )


def check_state(cell: Cell, state: Any, fresh: Any) -> None:
    """A given state must look like the cell's own initial state for this batch."""
    difference = differ(fresh, state)
    if difference:
        raise Mistake(
            f"the state given for {kind(cell)} is not like its initial state: {difference}; pass what unroll returned"
        )


def check_step(cell: Cell, events: Event, axes: int) -> None:
    """One abstract step: the state must keep its tree, shapes and dtypes."""
    event = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[axes:], leaf.dtype), events)
    before = jax.eval_shape(lambda: checked_initial(cell))
    after = jax.eval_shape(lambda state, event: cell.step(state, cell.project(event)), before, event)
    difference = differ(before, after)
    if difference:
        raise Mistake(
            f"{kind(cell)}.step must return a state like {kind(cell)}.initial_state(): {difference}; make the two agree"
        )


def checked_initial(cell: Cell) -> Any:
    """The initial state as arrays; a parameter itself is not an array."""
    state = cell.initial_state()
    for leaf in jax.tree.leaves(state, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable)):
        if isinstance(leaf, nnx.Variable):
            raise Mistake(
                f"{kind(cell)}.initial_state returns a {type(leaf).__name__}; return its array, as in self.h0[...]"
            )
    return jax.tree.map(jnp.asarray, state)


def own(cell: Cell, kind: type[Any], names: tuple[str, ...], source: str) -> str | None:
    """Why a backend that trusts what ``kind`` derives from ``source`` would leave out part of the cell, or None.

    Wrappers that stay of the kind pass on what they wrap, so that it is the innermost cell that counts.
    """
    while isinstance(cell, Wrapper) and isinstance(cell.cell, kind):
        cell = cell.cell
    changed = [name for name in names if getattr(type(cell), name) is not getattr(kind, name)]
    if not changed:
        return None
    return f"its {changed[0]} is its own, not the one that {kind.__name__} derives from its {source}"


def differ(wanted: Any, found: Any) -> str:
    """How two trees of arrays differ, in words; empty when they do not."""
    if not same_structure(wanted, found):
        return f"expected {outline(wanted)}, found {outline(found)}"
    leaves = zip(jax.tree_util.tree_leaves_with_path(wanted), jax.tree.leaves(found), strict=True)
    for (path, want), have in leaves:
        if aval(want) != aval(have):
            return f"expected {aval(want)}, found {aval(have)}" + (f" at {jax.tree_util.keystr(path)}" if path else "")
    return ""


def outline(tree: Any) -> str:
    """A tree with every array written as its dtype and shape."""
    return str(jax.tree.map(lambda leaf: _Bare(aval(leaf)), tree))


def aval(leaf: Any) -> str:
    """An array's dtype and shape, as ``float32[2,3]``."""
    return f"{jnp.result_type(leaf)}[{','.join(map(str, jnp.shape(leaf)))}]"


def kind(cell: Cell) -> str:
    """The name to call a cell by in a message: its class, and what it wraps."""
    inner = getattr(cell, "cell", None)
    return type(cell).__name__ + (f"({kind(inner)})" if isinstance(inner, Cell) else "")


def is_count(value: Any) -> bool:
    """Whether an option is a whole number of at least 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


class _Bare(str):
    """Text that prints without quotes."""

    def __repr__(self) -> str:
        return str(self)
