"""Decay of the state with time, for any cell."""

import math
from collections.abc import Iterator
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxrec.cells.cell import DAY, Cell, Event
from jaxrec.cells.gru import GRU
from jaxrec.cells.kinds import AffineCell, ElementwiseCell
from jaxrec.cells.wrapper import Wrapper
from jaxrec.config import Mistake

SLOWEST = 1000.0  # units of gap, the longest time constant a fresh cell has


class Decayed(Wrapper):
    """GRU-D's decay around any cell (Che et al. 2018): ``h* = gamma h`` before each step, ``gamma`` falling with the
    gap.

    https://doi.org/10.1038/s41598-018-24271-9, equations 10 and 11: ``gamma = exp(-max(0, w gap + b))`` with ``w`` and
    ``b`` of the state's shape, since the gap is one number; then the inner cell steps from ``h*``. It touches every
    real or complex leaf of the inner state, each entry by a ``gamma`` of its own, but those named in ``keep`` (blanks
    between names), such as a phase or a stabiliser, which are no memory: ``decayed(lstm, keep=h)`` lets ``c`` alone
    fade. The paper also lets missing inputs decay to their mean; events have no missing inputs, so that part is not
    here.

    ``cell`` is a GRU of ``hidden`` units unless given; ``unit`` seconds are one unit of ``gap``, a day by default, and
    negative gaps count as none. ``b`` starts at 0 and ``1 / w`` log-uniform from 1 to 1000 units: from the first step
    some units forget within a day and others remember for years. What it wraps keeps its kind: the decayed of an
    affine cell is affine (``h' = a gamma h + b``), of an elementwise cell elementwise. Windows, matrices and composites
    lose their form when their entries fade apart: around those it is a plain cell. State and output are the inner
    cell's.
    """

    family = "time"
    adds = ("gap",)

    def __new__(cls, features: int = 0, cell: Cell | None = None, **options: Any) -> Self:
        """The class of the inner cell's kind: a capability is a type."""
        kinds = {AffineCell: DecayedAffine, ElementwiseCell: DecayedElementwise}
        same = (decayed for kind, decayed in kinds.items() if cls is Decayed and isinstance(cell, kind))
        return super().__new__(next(same, cls))

    def __init__(
        self, features: int, cell: Cell | None = None, *, hidden: int = 64, unit: float = DAY, keep: str = "",
        rngs: nnx.Rngs,
    ):  # fmt: skip
        if not isinstance(cell, Cell | None):
            raise Mistake(f"Decayed wraps a cell, which {cell!r} is not; give one, as in decayed(gru(hidden=64))")
        self.cell = GRU(features, hidden, rngs=rngs) if cell is None else cell
        self.unit, self.keep = unit, keep
        state = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, self.cell.prepare().initial_state()))
        names = [name for name, _ in named_leaves(state)]
        for name in keep.split():
            if name not in names:
                known = ", ".join(filter(None, names)) or "one leaf without a name"
                raise Mistake(f"{type(self.cell).__name__} has no state called {name!r} to keep; it has {known}")
        fading = [leaf.shape for leaf, fades in zip(jax.tree.leaves(state), self.fading(state), strict=True) if fades]
        self.w = nnx.List([rate(rngs, shape) for shape in fading])
        self.b = nnx.List([nnx.Param(jnp.zeros(shape)) for shape in fading])

    def project(self, event: Event) -> tuple[Any, list[Array]]:
        gap = event.elapsed(self.unit)
        decays = [jnp.exp(-jax.nn.relu(w * gap + b)) for w, b in zip(self.w, self.b, strict=True)]
        return self.cell.project(event), decays

    def step(self, state: Any, projected: Any) -> Any:
        inner, decays = projected
        leaves, tree = jax.tree.flatten(state)
        gamma = iter(decays)
        faded = [next(gamma) * leaf if fades else leaf for leaf, fades in zip(leaves, self.fading(state), strict=True)]
        return self.cell.step(jax.tree.unflatten(tree, faded), inner)

    def read(self, state: Any, projected: Any) -> Any:
        return self.cell.read(state, projected[0])

    def fading(self, state: Any) -> list[bool]:
        """Which leaves of the state decay."""
        return [
            name not in self.keep.split() and bool(jnp.issubdtype(leaf.dtype, jnp.inexact))
            for name, leaf in named_leaves(state)
        ]


class DecayedElementwise(Decayed, ElementwiseCell):
    """`Decayed` around an elementwise cell."""


class DecayedAffine(Decayed, AffineCell):
    """`Decayed` around an affine cell."""

    def affine(self, projected: Any) -> tuple[Array, Array]:
        inner, (gamma,) = projected
        a, b = self.cell.affine(inner)
        return a * gamma, b


def named_leaves(state: Any) -> Iterator[tuple[str, Any]]:
    """The leaves of a state and what to call them: ``c`` of an LSTM, ``""`` where the state is one array."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        yield jax.tree_util.keystr(path, simple=True, separator="."), leaf


def rate(rngs: nnx.Rngs, shape: tuple[int, ...]) -> nnx.Param:
    """Decay rates whose time constants are log-uniform from one unit to `SLOWEST` units."""
    return nnx.Param(jnp.exp(-jax.random.uniform(rngs.params(), shape, maxval=math.log(SLOWEST))))
