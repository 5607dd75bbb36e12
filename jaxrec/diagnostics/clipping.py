"""What clipping does to the gradients of real training steps."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrec.diagnostics.curves import finite, plain
from jaxrec.diagnostics.records import Record
from jaxrec.losses.negatives import Popularity
from jaxrec.models.recommender import Batch
from jaxrec.models.tables import scatter
from jaxrec.training.optimisers import Hyper, clip
from jaxrec.training.step import State, Step, row_keys

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


@partial(jax.jit, static_argnums=0)
def gradients(step: Step, state: State, batch: Batch, hyper: Hyper, known: Popularity | None) -> Any:
    """The gradient of one step before clipping, the mean over real positions, dense."""
    batch = batch._replace(keys=row_keys(state, len(batch.item), None))  # with the dropout of a step
    _, events, rows, grads, _ = step.gradients(state, batch, hyper, None, known)
    dense = {name: scatter(table, rows[name], grads["rows"][name]) for name, table in state.tables.items()}
    return jax.tree.map(lambda leaf: leaf / jnp.maximum(events, 1), (dense, grads["network"]))


@jax.jit
def compared(left: Any, right: Any) -> Array:
    """The cosine of the angle between two gradients."""
    inner = sum(jnp.vdot(a, b) for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True))
    return inner / jnp.maximum(size(left) * size(right), jnp.finfo(float).tiny)


def size(tree: Any) -> Array:
    return jnp.sqrt(sum(jnp.vdot(leaf, leaf).real for leaf in jax.tree.leaves(tree)))


def clipping(
    step: Step, state: State, batches: Iterable[Batch], hyper: Hyper, known: Popularity | None = None
) -> Record:
    """The gradients of ``batches`` at ``state`` and what the step's clipping makes of them.

    ``share`` of steps that are clipped, quantiles of the norm before it, and two cosines: ``each``, between a gradient
    and what is left of it (1 under clipping by norm, which only shortens), and ``together``, between the mean of all
    gradients and the mean of what is left: large gradients count for less, and that turns the direction of the whole.
    """
    norms, cosines, clipped = list[float](), list[float](), 0
    whole: Any = None
    left: Any = None
    for batch in batches:
        found = gradients(step, state, batch, hyper, known)
        rest, norm, changed = clip(found, hyper["clip"], hyper.get("clip_value"))
        norms.append(float(norm))
        clipped += bool(changed)
        cosines.append(float(compared(found, rest)))
        whole = found if whole is None else jax.tree.map(jnp.add, whole, found)
        left = rest if left is None else jax.tree.map(jnp.add, left, rest)
    return {
        "kind": "clipping", "steps": len(norms), "limit": finite(float(hyper["clip"])),
        "value": finite(float(hyper["clip_value"])) if "clip_value" in hyper else None,
        "share": clipped / max(len(norms), 1), "norms": plain(np.quantile(norms, SHARES)), "shares": list(SHARES),
        "each": finite(float(np.mean(cosines))), "together": finite(float(compared(whole, left))),
    }  # fmt: skip
