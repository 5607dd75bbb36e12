"""Context that multiplies, for any cell."""

from collections.abc import Callable
from typing import Any, Literal, Self

from flax import nnx
from jax import Array

from jaxrec.cells.cell import Cell, Event
from jaxrec.cells.gru import GRU
from jaxrec.cells.kinds import AffineCell, Composite, ElementwiseCell, MatrixCell, WindowCell
from jaxrec.cells.weights import weight
from jaxrec.cells.wrapper import Wrapper, shown
from jaxrec.config import Mistake


class LatentCross(Wrapper):
    """Latent cross around any cell (Beutel et al. 2018): the context of an event multiplies what goes through the cell,
    ``(1 + W c) h``.

    https://doi.org/10.1145/3159652.3159727, section 5: a factor for every entry, near 1 at first, that learns to mask
    or to stress it. ``fusion="after"`` multiplies what the cell shows, and the state goes on bare; ``"before"``
    multiplies its input ``x``. In the paper each context has an embedding of its own as ``W c`` and several are added
    up; here `Event.context` is already the sum of embedded features, and ``W`` brings it to the right width. After the
    cell the paper takes the context of the next event, known when a recommendation is asked for; here an event has its
    own.

    ``cell`` is a GRU of ``hidden`` units unless given. What it wraps keeps its kind: the state is not touched, so the
    latent cross of an affine cell is affine; around a matrix state, a window or a composite it is a composite of
    one cell, which takes the backend that suits it. State and width of the output are the inner cell's.
    """

    family = "context"
    adds = ("context",)

    def __new__(cls, features: int = 0, cell: Cell | None = None, **options: Any) -> Self:
        """The class of the inner cell's kind: a capability is a type."""
        kinds = {
            AffineCell: LatentCrossAffine, ElementwiseCell: LatentCrossElementwise,
            MatrixCell: LatentCrossComposite, WindowCell: LatentCrossComposite, Composite: LatentCrossComposite,
        }  # fmt: skip
        same = (crossed for kind, crossed in kinds.items() if cls is LatentCross and isinstance(cell, kind))
        return super().__new__(next(same, cls))

    def __init__(
        self, features: int, cell: Cell | None = None, *, fusion: Literal["after", "before"] = "after",
        hidden: int = 64, rngs: nnx.Rngs,
    ):  # fmt: skip
        if not isinstance(cell, Cell | None):
            raise Mistake(f"LatentCross wraps a cell, which {cell!r} is not; give one, as in latentcross(lru)")
        if fusion not in ("after", "before"):
            raise Mistake(f'LatentCross has no fusion={fusion!r}; choose "after" or "before" the cell')
        self.cell = GRU(features, hidden, rngs=rngs) if cell is None else cell
        self.fusion = fusion
        rule = 'LatentCross multiplies one vector unless fusion="before"'
        self.w = weight(rngs, features, features if fusion == "before" else shown(self.cell, features, rule))

    def project(self, event: Event) -> Any:
        factor = 1 + event.context @ self.w
        if self.fusion == "before":
            return self.cell.project(event._replace(x=event.x * factor)), None
        return self.cell.project(event), factor

    def step(self, state: Any, projected: Any) -> Any:
        return self.cell.step(state, projected[0])

    def read(self, state: Any, projected: Any) -> Any:
        inner, factor = projected
        output = self.cell.read(state, inner)
        return output if factor is None else output * factor


class LatentCrossElementwise(LatentCross, ElementwiseCell):
    """`LatentCross` around an elementwise cell."""


class LatentCrossAffine(LatentCross, AffineCell):
    """`LatentCross` around an affine cell."""

    def affine(self, projected: Any) -> tuple[Array, Array]:
        return self.cell.affine(projected[0])


class LatentCrossComposite(Composite, LatentCross):
    """`LatentCross` around a matrix state, a window or a composite; its state is that cell's, under the name "cell"."""

    def inner(self) -> dict[str, Cell]:
        return {"cell": self.cell}

    def wire(self, run: Callable[[str, Event], Any], events: Event) -> Any:
        factor = 1 + events.context @ self.w
        if self.fusion == "before":
            return run("cell", events._replace(x=events.x * factor))
        return run("cell", events) * factor
