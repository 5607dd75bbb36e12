"""What several cells with a matrix state have in front of their rule: a short causal convolution of each channel."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxrec.cells.matrix import MatrixCell
from jaxrec.cells.weights import positive


class ShortConvCell(MatrixCell):
    """Beside the matrix lie the last ``window`` inputs of the convolution; `project` gives the newest one first.

    Before the first event they are 0. ``window=1`` looks at no past: it leaves one factor per channel. Weights start
    uniform in ``+-1 / sqrt(window)``, as a depthwise convolution does in the published codes.
    """

    def convolution(self, rngs: nnx.Rngs, channels: int, window: int) -> None:
        positive(channels=channels, window=window)
        self.channels, self.window, bound = channels, window, window**-0.5
        self.kernel = nnx.Param(jax.random.uniform(rngs.params(), (window, channels), minval=-bound, maxval=bound))

    def nothing(self) -> Array:
        return jnp.zeros((self.window, self.channels))

    def remember(self, beside: Array, projected: Any) -> Array:
        return jnp.concatenate([beside[1:], projected[0][None]])

    def remembered(self, beside: Array, projected: Any, reset: Array | None) -> Array:
        """Cut from the sequence: no loop over time."""
        full = jnp.concatenate([beside, projected[0]])
        time = len(projected[0])
        windows = jnp.stack([full[1 + place : 1 + place + time] for place in range(self.window)], axis=1)
        if reset is None:
            return windows
        events = jnp.arange(time)
        begin = jax.lax.cummax(jnp.where(reset, events, -self.window))
        known = events[:, None] - jnp.arange(self.window)[None, ::-1] >= begin[:, None]
        return jnp.where(known[:, :, None], windows, 0)

    def convolved(self, beside: Array) -> Array:
        return (beside * self.kernel).sum(0)
