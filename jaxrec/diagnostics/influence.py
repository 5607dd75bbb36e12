"""Which past events moved one prediction: what their states' gradients say, and what leaving them out says."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrec.diagnostics.curves import plain
from jaxrec.diagnostics.gradient import Walk
from jaxrec.diagnostics.information import Ranking
from jaxrec.diagnostics.powers import Norms
from jaxrec.diagnostics.records import Record
from jaxrec.diagnostics.subject import subject

MOST = 100  # events that are left out one by one


@jax.jit
def by_score(model: Ranking, batch: Any, item: Array) -> Norms:
    """``|d score_item / d state_t|`` of the last step's score ``(layers, batch, time)``, as `gradient.by_scan`."""
    given = subject(model, batch)._replace(loss=lambda hidden, target: model.scores(hidden)[:, item])
    walk = Walk(given)
    found = walk.backward(walk.forward(), walk.place(-1))
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, -1), found)


@jax.jit
def last_scores(model: Ranking, batch: Any) -> Array:
    """Scores ``(batch, items + 1)`` after the last event."""
    given = subject(model, batch)
    return model.scores(given.network(given.events, None, given.reset)[1][:, -1])


def influence(model: Ranking, batch: Any, own: int, *, item: int | None = None, exclude_seen: bool = False) -> Record:
    """One row ``(1, time)`` whose last ``own`` events are the history: for each of them, oldest first, ``gradient``
    (``log10`` of the norm of the score's gradient by the top layer's state after it) and ``influence`` (the score that
    is lost when it is left out, in logits; the last `MOST` events only, None for older ones and for an only one).

    The score is that of ``item``, unless told of the item that is ranked first; ``place`` is the rank of the target.
    """
    scores = np.array(last_scores(model, batch)[0], np.float64)
    open_scores = scores.copy()
    if exclude_seen:
        open_scores[np.asarray(batch.item)[0, -own:]] = -np.inf
    first = int(open_scores.argmax())
    chosen = first if item is None else item
    target = int(np.asarray(batch.target)[0, -1])
    log10 = by_score(model, batch, jnp.asarray(chosen)).log10()[-1, 0, -own:]
    left_out = min(own, MOST)
    lost = np.full(own, np.nan)
    if own > 1:  # without its only event there is no history
        without = np.asarray(last_scores(model, leaving_out(batch, own, left_out))[:, chosen], np.float64)
        lost[-left_out:] = scores[chosen] - without
    return {
        "kind": "trace", "prediction": chosen, "score": float(scores[chosen]), "target": target,
        "place": int((open_scores > scores[target]).sum() + 1),
        "items": np.asarray(batch.item)[0, -own:].tolist(), "gradient": plain(log10), "influence": plain(lost),
    }  # fmt: skip


def leaving_out(batch: Any, own: int, count: int) -> Any:
    """A row for each of the last ``count`` of the ``own`` events, without it: those before it move up by one place and
    the history begins one later. Gaps move with their events.
    """
    time = batch.item.shape[1]
    gone = np.arange(time - count, time)
    places = np.arange(time)[None] - (np.arange(time)[None] <= gone[:, None])
    rows = jax.tree.map(lambda leaf: leaf[0][np.maximum(places, 0)], batch._replace(keys=None))
    starts = np.arange(time)[None] == np.maximum(time - own + 1, 0) + 0 * gone[:, None]
    return rows._replace(reset=jnp.asarray(starts))
