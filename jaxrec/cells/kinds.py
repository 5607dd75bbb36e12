"""What a cell can be beyond its step. A capability is a type: a backend asks `isinstance`, nobody sets a flag."""

from abc import abstractmethod
from typing import Any

from jax import Array

from jaxrec.cells.cell import Cell


class ElementwiseCell(Cell):
    """Unit i of the next state depends on unit i of the state only: its Jacobian is diagonal."""


class AffineCell(ElementwiseCell):
    """``h' = a * h + b`` elementwise, ``a`` and ``b`` free of the state: a prefix sum, so time can run in parallel."""

    family = "linear"

    @abstractmethod
    def affine(self, projected: Any) -> tuple[Array, Array]:
        """Decay ``a`` and input ``b``, each of the state's shape (real or complex)."""

    def step(self, state: Array, projected: Any) -> Array:
        a, b = self.affine(projected)
        return a * state + b
