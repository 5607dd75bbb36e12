"""What a cell can be beyond its step. A capability is a type: a backend asks `isinstance`, nobody sets a flag."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
from jax import Array

from jaxrec.cells.cell import Cell, Event
from jaxrec.cells.matrix import MatrixCell as MatrixCell
from jaxrec.config import Mistake


class ElementwiseCell(Cell):
    """Unit i of the next state depends on unit i of the state only: its Jacobian is diagonal.

    A state of several leaves has leaves of one shape; unit i is then the i-th entry of all of them together, and the
    Jacobian has one small block for each unit.
    """


class AffineCell(ElementwiseCell):
    """``h' = a * h + b`` elementwise, ``a`` and ``b`` free of the state: a prefix sum, so time can run in parallel."""

    family = "linear"

    @abstractmethod
    def affine(self, projected: Any) -> tuple[Array, Array]:
        """Decay ``a`` and input ``b``, each of the state's shape (real or complex)."""

    def step(self, state: Array, projected: Any) -> Array:
        a, b = self.affine(projected)
        return a * state + b


class WindowCell(Cell):
    """The state is the last w projected inputs: a causal convolution, which needs no loop over time.

    Leaves of `initial_state` are ``(w, ...)``, the oldest input first; `read` sees the window, the new input included.
    """

    def step(self, state: Any, projected: Any) -> Any:
        return jax.tree.map(lambda window, new: jnp.concatenate([window[1:], new[None]]), state, projected)

    @abstractmethod
    def read(self, state: Any, projected: Any) -> Any:
        """What the layer above sees of the window ``(w, ...)``."""


class Composite(Cell):
    """Cells wired together, as in Mamba or in a stack: `inner` names them, `wire` says what flows between them.

    The state is the inner states by name. One step is `wire` over one event, which makes it the specification; over a
    whole sequence each inner cell can take the backend that suits it.
    """

    @abstractmethod
    def inner(self) -> Mapping[str, Cell]:
        """The inner cells by name. They are attributes, so that their parameters are found."""

    @abstractmethod
    def wire(self, run: Callable[[str, Event], Any], events: Event) -> Any:
        """Outputs ``(time, ...)`` of one sequence of ``events``, leaves ``(time, ...)``.

        ``run(name, events)`` gives an inner cell's outputs ``(time, ...)``; each is run once. Nothing else may mix
        events: what acts on one event goes through `jax.vmap`.
        """

    def prepare(self) -> Self:
        """The same with every inner cell prepared."""
        return jax.tree.map(
            lambda leaf: leaf.prepare() if isinstance(leaf, Cell) else leaf,
            self,
            is_leaf=lambda node: isinstance(node, Cell) and node is not self,
        )

    def initial_state(self) -> dict[str, Any]:
        return {name: cell.initial_state() for name, cell in self.inner().items()}

    def project(self, event: Event) -> Event:
        return event

    def step(self, state: Any, projected: Any) -> dict[str, Any]:
        def one(name: str, cell: Cell, events: Event) -> tuple[Any, Any]:
            given = cell.project(_only(events))
            after = cell.step(state[name], given)
            return after, _alone(cell.read(after, given))

        return self.through(one, _alone(projected))[0]

    def read(self, state: Any, projected: Any) -> Any:
        def one(name: str, cell: Cell, events: Event) -> tuple[Any, Any]:
            return state[name], _alone(cell.read(state[name], cell.project(_only(events))))

        return _only(self.through(one, _alone(projected))[1])

    def through(self, one: Callable[[str, Cell, Event], tuple[Any, Any]], events: Event) -> tuple[dict[str, Any], Any]:
        """Inner states by name, and the outputs of `wire` when ``one(name, cell, events)`` runs each inner cell.

        ``one`` gives an inner cell's state after its events, and its outputs. `Mistake` unless `wire` runs each once.
        """
        cells, after = self.inner(), dict[str, Any]()

        def run(name: str, events: Event) -> Any:
            if name not in cells or name in after:
                fault = "a second time" if name in after else f"which is not among {', '.join(cells)}"
                raise Mistake(f"{type(self).__name__}.wire runs {name!r}, {fault}; run each cell of inner() once")
            if absent := [leaf for leaf in cells[name].wants if getattr(events, leaf) is None]:
                raise Mistake(
                    f"{name!r} in {type(self).__name__} wants {absent[0]!r}; give it in wire, or add it to wants"
                )
            after[name], outputs = one(name, cells[name], events)
            return outputs

        outputs = self.wire(run, events)
        if missing := [name for name in cells if name not in after]:
            raise Mistake(f"{type(self).__name__}.wire does not run {missing[0]!r}; run each cell of inner() once")
        return after, outputs


def _alone(tree: Any) -> Any:
    """One event as a sequence."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], tree)


def _only(tree: Any) -> Any:
    """The only event of a sequence."""
    return jax.tree.map(lambda leaf: leaf[0], tree)
