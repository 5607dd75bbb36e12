"""Softmax cross-entropy over the whole catalogue: the specification, and the form that never holds all scores."""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array
from jax.nn import log_softmax

from jaxrec.config import Mistake
from jaxrec.losses.fused import block_sizes, fused_cross_entropy


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
class Softmax:
    """Full softmax cross-entropy. Float fields may be traced numbers; ``chunk`` is static.

    ``chunk`` bounds how many scores exist at one time (positions x items of one block); None chooses for the device.
    """

    label_smoothing: float = 0.0
    temperature: float = 1.0
    chunk: int | None = None

    def __post_init__(self) -> None:
        if self.chunk is not None and not (isinstance(self.chunk, int) and self.chunk >= 1):
            raise Mistake(f"chunk = {self.chunk} is not a number of scores; give 1 or more, or leave it out")
        if isinstance(self.label_smoothing, int | float) and not 0 <= self.label_smoothing <= 1:
            raise Mistake(f"label_smoothing = {self.label_smoothing} is not a share; give a number from 0 to 1")
        if isinstance(self.temperature, int | float) and not self.temperature > 0:
            raise Mistake(f"temperature = {self.temperature} is not positive; give a number above 0, 1 for none")

    def touched(self, targets: Array) -> Array | None:
        """Which rows of the output table the loss reads: None, for every row."""
        return None

    def __call__(self, hidden: Array, rows: Array, bias: Array | None, targets: Array, weight: Array) -> Array:
        """Sum over positions of ``weight`` times cross-entropy, a scalar in nats.

        ``hidden`` (n, d); ``rows`` (1 + i, d) and ``bias`` (1 + i,) or None, where row 0 is padding and never a
        candidate; ``targets`` (n,) row numbers from 1, any number where ``weight`` (n,) is 0. Differentiable in every
        float argument and field; gradients are computed in the forward pass where that saves a product.
        """
        scale = 1 / jnp.asarray(self.temperature, hidden.dtype)
        if bias is None:
            bias = jnp.zeros(rows.shape[0], rows.dtype)
        smoothing = jnp.asarray(self.label_smoothing, hidden.dtype)
        blocks = block_sizes(hidden.shape[0], rows.shape[0], self.chunk)
        return fused_cross_entropy(hidden * scale, rows, bias * scale, targets, weight, smoothing, blocks)
