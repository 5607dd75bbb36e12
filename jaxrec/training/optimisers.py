"""Optax chains whose rates are traced numbers, so that one compiled step serves every value and a population of
them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax import Array

Hyper = dict[
    str, Any
]  # name -> float, traced inside a step: lr, weight_decay, clip, clip_value, dropout, and the loss's own


@dataclass(frozen=True)
class Optimiser:
    """What is static about an optimiser; the floats arrive with every step in ``hyper``.

    `clip` comes before all of it. ``weight_decay`` is decoupled (AdamW: Loshchilov and Hutter 2019) and applies to
    matrices, not to biases and norms.
    ``accumulator`` is where Adagrad's sum of squares begins. ``momentum`` adds ``hyper["momentum"]`` times the step
    before to every step, rate included (heavy ball: Polyak 1964).
    ``warmup`` steps rise linearly to ``lr``; ``cosine`` falls to zero at ``steps``.
    """

    name: Literal["adam", "adamw", "adagrad"] = "adamw"
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: int = 0
    steps: int = 1
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    accumulator: float = 0.1
    momentum: bool = False

    def transform(self, hyper: Hyper, step: Array | int) -> optax.GradientTransformation:
        """The chain after clipping; its state does not depend on the values in ``hyper``."""
        parts = [self.scaling()]
        if self.name == "adamw":
            parts.append(optax.add_decayed_weights(hyper["weight_decay"], mask=matrices))
        rate = hyper["lr"] * self.rate(step, hyper.get("steps"))
        parts.append(optax.stateless_with_tree_map(lambda update, _: -rate * update))
        if self.momentum:
            parts.append(optax.trace(hyper["momentum"]))
        return optax.chain(*parts)

    def scaling(self) -> optax.GradientTransformation:
        if self.name == "adagrad":
            return optax.scale_by_rss(initial_accumulator_value=self.accumulator, eps=self.eps)
        return optax.scale_by_adam(b1=self.b1, b2=self.b2, eps=self.eps)

    def rate(self, step: Array | int, steps: Any = None) -> Array:
        """The schedule's factor at a step, 1 at its height; ``steps`` in all where they are a traced number."""
        step = jnp.asarray(step, jnp.result_type(float))
        after = jnp.ones_like(step)
        if self.schedule == "cosine":
            falling = jnp.maximum((self.steps if steps is None else steps) - self.warmup, 1)
            after = (1 + jnp.cos(jnp.pi * jnp.clip((step - self.warmup) / falling, 0, 1))) / 2
        ramp = jnp.minimum((step + 1) / (self.warmup + 1), 1)
        return ramp * after


def everything(parts: Any) -> Array:
    """The sum of a tree's leaves: `clip`'s way of adding up what it finds in each gradient."""
    return jnp.sum(jnp.stack(jax.tree.leaves(parts)))


def clip(
    grads: Any, limit: Any, value: Any = None, total: Callable[[Any], Array] = everything
) -> tuple[Any, Array, Array]:
    """Gradients clipped by ``value`` and then by norm, the global norm that they had before both, and whether either
    changed anything.

    Every entry is brought into ``[-value, value]``, where there is one; then the global norm of what is left over all
    gradients is brought down to ``limit`` (Pascanu et al. 2013, https://arxiv.org/abs/1211.5063), infinity for none.
    In this order both bounds hold in the end. Clipping by value changes the gradient's direction; it is older: Mikolov
    (2012, his thesis) and Graves (2013, https://arxiv.org/abs/1308.0850) bound so what flows back through time, here as
    in today's libraries it is the gradient of the parameters.
    """

    def length(grads: Any) -> Array:
        return jnp.sqrt(total(jax.tree.map(lambda leaf: jnp.sum(leaf * leaf), grads)))

    before = norm = length(grads)
    cut = jnp.zeros((), bool)
    if value is not None:
        cut = total(jax.tree.map(lambda leaf: jnp.sum(jnp.abs(leaf) > value), grads)) > 0
        grads = jax.tree.map(lambda leaf: jnp.clip(leaf, -value, value), grads)
        norm = length(grads)
    # what optax.clip_by_global_norm does, whose norm knows nothing of pieces that lie on other devices
    shorter = jax.tree.map(lambda leaf: jnp.where(norm < limit, leaf, leaf / norm.astype(leaf.dtype) * limit), grads)
    return shorter, before, cut | (norm >= limit)


def matrices(params: Any) -> Any:
    """True where weight decay applies: leaves with two axes or more."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
