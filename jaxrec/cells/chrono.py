"""Chrono initialisation: how long each unit of a gated cell remembers, before training has begun."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxrec.cells.cell import Cell
from jaxrec.cells.find import ours
from jaxrec.config import Mistake


def start_keeping(cell: Cell, horizon: int, key: Array) -> None:
    """Set the biases of a cell's gates so that its units forget over spans up to ``horizon`` events.

    Tallec and Ollivier 2018, https://arxiv.org/abs/1804.11188, section 2: what keeps the state starts at ``log U(1,
    horizon - 1)`` and what writes over it at the negative of the same draw, as `Cell.keeps` says which. A unit whose
    gate sees nothing else then keeps the share ``u / (1 + u)`` of its state at every event: it falls to ``1 / e``
    within ``u + 1/2`` events, to the first order.
    """
    if not cell.keeps:
        raise Mistake(
            f"{type(cell).__name__} names no gate that keeps its state, whose bias chrono could draw; take one of "
            f"{', '.join(keepers())}, or name it in keeps where the cell is yours"
        )
    for name, sign in cell.keeps.items():
        owner, last, row = found(cell, name)
        old = getattr(owner, last)[...]
        start = sign * jnp.log(jax.random.uniform(key, old.shape[-1:], minval=1.0, maxval=horizon - 1.0))
        start = start.astype(old.dtype)
        setattr(owner, last, nnx.Param(start if row is None else old.at[row].set(start)))


def found(cell: Cell, name: str) -> tuple[nnx.Module, str, int | None]:
    """Who has the bias of that name, as in ``"bf"``, ``"inner.bf"``, ``"b[1]"``; what it is called there; which row."""
    path, _, row = name.removesuffix("]").partition("[")
    *parts, last = path.split(".")
    owner: nnx.Module = cell
    for part in parts:
        owner = getattr(owner, part, None)
    if not isinstance(getattr(owner, last, None), nnx.Param):
        raise Mistake(f"{type(cell).__name__}.keeps names {name!r}, and there is no such parameter; correct the name")
    return owner, last, int(row) if row else None


def keepers() -> list[str]:
    """Names of the cells that have such gates, wrappers aside."""
    return sorted(name.lower() for name, kind in ours().items() if isinstance(kind.keeps, Mapping) and kind.keeps)
