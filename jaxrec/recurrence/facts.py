"""What is known of a cell before it runs: its kind, how large it is, and which backends take it."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxrec.cells import Cell, find, kinds
from jaxrec.config import Call
from jaxrec.recurrence.backends import BACKENDS


@dataclass(frozen=True)
class Facts:
    """Numbers count reals: a complex one is two."""

    kind: str  # the capability that it has, as in "affine"; "dense" for a plain cell
    state: int  # numbers that one example carries from event to event
    parameters: int
    backends: tuple[str, ...]  # names of those that take it on some platform

    def row(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def facts(call: Call, *, features: int = 128, hidden: int = 128) -> Facts:
    """Sizes of the cell that ``call`` names, for inputs ``(features,)``, found without computing anything."""
    cell = jax.eval_shape(lambda: find(call, features, hidden=hidden, rngs=nnx.Rngs(0)))
    state = jax.eval_shape(lambda cell: cell.prepare().initial_state(), cell)
    takes = tuple(name for name, kind in BACKENDS.items() if somewhere(kind(), cell))
    return Facts(kind(cell), reals(state), reals(cell), takes)


def somewhere(backend: Any, cell: Cell) -> bool:
    """Whether a backend takes a cell on some platform, perhaps not on this one."""
    refuses = getattr(backend, "unfit", backend.refuses)
    return refuses(cell) is None


def kind(cell: Cell) -> str:
    """The most special capability of a cell, in a word."""
    known = {base for base in vars(kinds).values() if isinstance(base, type) and issubclass(base, Cell)}
    nearest = next(base for base in type(cell).__mro__ if base in known)
    return "dense" if nearest is Cell else nearest.__name__.removesuffix("Cell").lower()


def reals(tree: Any) -> int:
    """How many real numbers a tree holds."""
    return sum(leaf.size * (2 if jnp.iscomplexobj(leaf) else 1) for leaf in jax.tree.leaves(tree))
