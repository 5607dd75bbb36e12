"""What a loss is to a training step."""

from abc import abstractmethod
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, NamedTuple, TypeVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrec.config import Within, checked
from jaxrec.losses.fused import wide_type
from jaxrec.losses.negatives import NOTHING, Drawn, Popularity, popularity

Counted = TypeVar("Counted", Array, Popularity)


class Positions(NamedTuple):
    """The positions of one step, all of them, whatever micro-batch or device computes them: ``targets (n,)`` item
    numbers (0 where ``mask (n,)`` is false), ``keys (rows,)`` one key a row of ``n / rows`` positions, ``key`` for all.
    """

    targets: Array
    mask: Array
    keys: Array
    key: Array


@dataclass(frozen=True)
class Loss:
    """A frozen dataclass whose float fields may be traced numbers; what is not a float is static.

    A run calls `know` once; a step calls `draw` once for all its positions, and then the loss itself with rows that
    were gathered for the targets and for what was drawn.
    """

    temperature: float = 1.0
    """divides every score before the loss sees it"""
    propensity: float = 0.0
    """power of an item's count that a position's weight is divided by; 0 weighs all alike"""

    def __post_init__(self) -> None:
        self.check("temperature", Annotated[float, Within(0, above=True)])
        self.check("propensity", Annotated[float, Within(0)])

    def check(self, name: str, kind: Any) -> None:
        """`Mistake` where a field is not of ``kind``, an annotation as `config` reads it; an array, which may be
        traced, cannot be looked at.
        """
        value = getattr(self, name)
        if not isinstance(value, Array | np.ndarray):
            checked(value.item() if isinstance(value, np.generic) else value, kind, name)

    @property
    def samples(self) -> bool:
        """Whether it reads only the rows that a step draws, and not the whole output table."""
        return False

    @property
    def shares(self) -> bool:
        """Whether it can be computed where devices share out the output table; such a loss takes a `Shard`, or samples
        rows and sees no table.
        """
        return self.samples

    def know(self, counts: Array | None) -> Popularity | None:
        """What `draw` needs of the training counts ``(1 + i,)``, once for a run; None where it needs nothing."""
        return popularity(self.counted(counts), 0.0, self.propensity) if self.weighs else None

    def draw(self, known: Popularity | None, positions: Positions) -> Drawn:
        """What the loss draws for a step; here only the weights of positions."""
        return Drawn(weight=self.weights(known, positions))

    def weights(self, known: Popularity | None, positions: Positions) -> Array | None:
        """Of the positions' targets, None where all weigh alike."""
        return self.counted(known).weights(positions.targets) if self.weighs else None

    @property
    def weighs(self) -> bool:
        """Whether positions may weigh differently: a traced power cannot be looked at."""
        return not isinstance(self.propensity, int | float) or self.propensity != 0

    def counted(self, found: Counted | None) -> Counted:
        """The training counts, or what is known of them; where there are none a sentence that says how to get them."""
        if found is None:
            raise ValueError(
                f"{type(self).__name__} needs the training counts, and has none: give `draw` what `know` makes of "
                "them, and a run a source with counts that `informed` returned"
            )
        return found

    @abstractmethod
    def __call__(
        self, hidden: Array, rows: Array, bias: Array | None, targets: Array, weight: Array, drawn: Drawn = NOTHING
    ) -> Array:
        """Sum over positions of ``weight`` times the loss, a scalar.

        ``hidden`` (n, d), in whose type products are made; ``rows`` (r, d), which may be wider, and ``bias`` (r,) or
        None; ``targets`` (n,) and ids in ``drawn`` are places in ``rows``; any target where ``weight`` (n,) is 0.
        Differentiable in every float argument and field.
        """


def traced(loss: Loss) -> list[str]:
    """Names of the loss's float fields: they are entries of ``hyper`` of the same name."""
    return [f.name for f in fields(loss) if f.type in (float, "float")]


def with_hyper(loss: Loss, hyper: dict[str, Any]) -> Loss:
    """The loss with the floats that ``hyper`` has for it."""
    return replace(loss, **{name: hyper[name] for name in traced(loss) if name in hyper})


def given(bias: Array | None, rows: Array) -> Array:
    """The bias, zeros where there is none."""
    return jnp.zeros(rows.shape[0], rows.dtype) if bias is None else bias


def weighted(weight: Array, drawn: Drawn) -> Array:
    """Weights of positions, with what was drawn for them, in `wide_type`."""
    weight = weight.astype(wide_type(weight))
    return weight if drawn.weight is None else weight * drawn.weight.astype(weight.dtype)
