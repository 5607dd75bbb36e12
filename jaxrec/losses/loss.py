"""What a loss is to a training step."""

from abc import abstractmethod
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxrec.config import Mistake, Within
from jaxrec.losses.negatives import NOTHING, Drawn, Popularity, popularity, propensity_weights


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

    A step calls `know` once for many steps, `draw` once a step for all its positions, and then the loss itself with
    rows that were gathered for the targets and for what was drawn.
    """

    temperature: float = 1.0
    """divides every score before the loss sees it"""
    propensity: float = 0.0
    """power of an item's count that a position's weight is divided by; 0 weighs all alike"""

    def __post_init__(self) -> None:
        self.within("temperature", Within(0, above=True))
        self.within("propensity", Within(0))

    def within(self, name: str, rule: Within) -> None:
        """`Mistake` where a number that is known already is out of range; a traced one cannot be looked at."""
        value = getattr(self, name)
        if isinstance(value, int | float) and not rule.admits(value):
            raise Mistake(f"{name} = {value} is out of range; give a number {rule}")

    @property
    def samples(self) -> bool:
        """Whether it reads only the rows that a step draws, and not the whole output table."""
        return False

    def know(self, counts: Array | None) -> Popularity | None:
        """What `draw` needs of the training counts ``(1 + i,)``, computed once for many steps."""
        return None if counts is None else popularity(counts, 0.0)

    def draw(self, known: Popularity | None, positions: Positions) -> Drawn:
        """What the loss draws for a step; here only the weights of positions."""
        return Drawn(weight=self.weights(known, positions))

    def weights(self, known: Popularity | None, positions: Positions) -> Array | None:
        if isinstance(self.propensity, int | float) and self.propensity == 0:
            return None
        if known is None:
            raise ValueError("inverse-propensity weights need the training counts; pass the step's popularity")
        return propensity_weights(known, positions.targets, self.propensity)

    @abstractmethod
    def __call__(
        self, hidden: Array, rows: Array, bias: Array | None, targets: Array, weight: Array, drawn: Drawn = NOTHING
    ) -> Array:
        """Sum over positions of ``weight`` times the loss, a scalar.

        ``hidden`` (n, d); ``rows`` (r, d) and ``bias`` (r,) or None; ``targets`` (n,) and ids in ``drawn`` are places
        in ``rows``; any target where ``weight`` (n,) is 0. Differentiable in every float argument and field.
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
    """Weights of positions, with what was drawn for them."""
    return weight if drawn.weight is None else weight * drawn.weight.astype(weight.dtype)
