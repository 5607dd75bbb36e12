"""Softmax cross-entropy over the whole catalogue: the specification, and the form that never holds all scores."""

from dataclasses import dataclass
from typing import Annotated

import jax.numpy as jnp
from jax import Array
from jax.nn import log_softmax

from jaxrec.config import Within
from jaxrec.losses.fused import block_sizes, fused_cross_entropy, wide_type
from jaxrec.losses.loss import Loss, given, weighted
from jaxrec.losses.negatives import NOTHING, Drawn
from jaxrec.losses.shards import Shard


def cross_entropy(scores: Array, target: Array, label_smoothing: float = 0.0, temperature: float = 1.0) -> Array:
    """Cross-entropy of each row: the specification every faster form is tested against.

    ``scores`` (n, i), ``target`` (n,) column numbers; returns (n,) nats. The wanted distribution puts
    ``1 - label_smoothing`` on the target and spreads the rest evenly over all columns, the target's included
    (Szegedy et al. 2016).
    """
    logs = log_softmax(scores / temperature, axis=-1)
    hit = jnp.take_along_axis(logs, target[:, None], axis=-1)[:, 0]
    return -(1 - label_smoothing) * hit - label_smoothing * jnp.mean(logs, axis=-1)


@dataclass(frozen=True)
class Softmax(Loss):
    """Full softmax cross-entropy. Float fields may be traced numbers; ``chunk`` is static."""

    label_smoothing: float = 0.0
    """share of the wanted distribution that is spread evenly over all items, 0 to 1"""
    chunk: int | None = None
    """the most scores (positions x items of one block) that exist at one time; none chooses for the device"""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("label_smoothing", Annotated[float, Within(0, 1)])
        self.check("chunk", Annotated[int | None, Within(1)])

    @property
    def shares(self) -> bool:
        return True

    def __call__(
        self, hidden: Array, rows: Array, bias: Array | None, targets: Array, weight: Array, drawn: Drawn = NOTHING,
        shard: Shard | None = None,
    ) -> Array:  # fmt: skip
        """Sum over positions of ``weight`` times cross-entropy, a scalar in nats.

        ``hidden`` (n, d); ``rows`` (1 + i, d) and ``bias`` (1 + i,) or None, where row 0 is padding and never a
        candidate; ``targets`` (n,) row numbers from 1, any number where ``weight`` (n,) is 0. Differentiable in every
        float argument and field; gradients are computed in the forward pass where that saves a product. With ``shard``
        the rows and their bias are this device's piece of the table, and targets still rows of the whole.
        """
        wide = wide_type(hidden)
        scale, smoothing = 1 / jnp.asarray(self.temperature, wide), jnp.asarray(self.label_smoothing, wide)
        weight = weighted(weight, drawn)
        blocks = block_sizes(hidden.shape[0], rows.shape[0], self.chunk)
        return fused_cross_entropy(
            (hidden * scale).astype(hidden.dtype), rows, given(bias, rows) * scale, targets, weight, smoothing, blocks,
            Shard(len(rows)) if shard is None else shard,
        )  # fmt: skip
