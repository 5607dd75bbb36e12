"""What the past is worth: how much worse a model predicts when everything older than k events is cut off.

A gradient says how far learning can reach, this says how far the model looks: the state is reset k events before the
prediction (an ablation, not a gradient), and the loss and NDCG@10 of the last step are measured again.
"""

from functools import partial
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpy.typing import NDArray

from jaxrec.diagnostics.curves import ROUNDS, interval, plain
from jaxrec.diagnostics.records import Record
from jaxrec.diagnostics.subject import Model, subject
from jaxrec.models.recommender import Batch

LIST = 10  # items of the list that NDCG looks at
WORTH = 0.05  # the horizon: from where on less than this share of what the past is worth is lost


class Ranking(Model, Protocol):
    """A model that scores every item, as a `Recommender` does."""

    def scores(self, hidden: Array) -> Array: ...


@partial(jax.jit, static_argnames="exclude_seen")
def cut_off(model: Ranking, batch: Batch, lengths: Array, *, exclude_seen: bool = False) -> tuple[Array, Array]:
    """Loss in nats and NDCG@10 ``(cuts, batch)`` of the last step, from the last ``lengths (cuts,)`` events alone.

    A target among equals gets the mean over their orders; ``exclude_seen`` ranks only items that are not in the row's
    own piece. Whatever was cut off stays excluded: the question is the same, only the memory is shorter.
    """
    given = subject(model, batch)
    rows, time = given.shape
    target = given.target[:, -1]
    reset = jnp.zeros((rows, time), bool) if given.reset is None else given.reset

    def one(length: Array) -> tuple[Array, Array]:
        starts = reset | (jnp.arange(time) == time - length)[None]
        hidden = given.network(given.events, None, starts)[1][:, -1]
        scores = model.scores(hidden)
        seen = own_items(batch, reset, scores.shape[1]) if exclude_seen else None
        return given.loss(hidden, target), gain(scores, target, seen)

    return lax.map(one, lengths)


def own_items(batch: Batch, reset: Array, items: int) -> Array:
    """Which items ``(batch, items)`` are among the events of a row's last piece."""
    piece = jnp.cumsum(reset[:, ::-1], axis=1)[:, ::-1]  # how many starts are still to come, this event's included
    own = piece - reset == 0
    return jax.vmap(lambda item, own: jnp.zeros(items, bool).at[item].max(own))(batch.item, own)


def gain(scores: Array, target: Array, seen: Array | None) -> Array:
    """NDCG@10 ``(batch,)`` of one target each among ``scores (batch, items)``, in expectation over ties."""
    own = jnp.take_along_axis(scores, target[:, None], axis=1)
    others = jnp.ones(scores.shape, bool) if seen is None else ~seen
    others &= jnp.arange(scores.shape[1])[None] != target[:, None]
    above, equal = ((scores > own) & others).sum(1), ((scores == own) & others).sum(1)
    list_ = jnp.arange(LIST)[None]
    places = above[:, None] + list_  # a target among e equals is at one of e + 1 places
    counts = (list_ <= equal[:, None]) & (places < LIST)
    return jnp.where(counts, 1 / jnp.log2(places + 2.0), 0).sum(1) / (equal + 1)


def information(
    model: Ranking, batch: Batch, *, own: NDArray[np.int64] | None = None, exclude_seen: bool = False, seed: int = 0
) -> Record:
    """Loss and NDCG@10 against the events that are left, and the information horizon, with bootstrap intervals.

    ``own (batch,)`` are the events of each row's last piece (all unless told). ``worth`` is what the events before the
    last one are worth; the horizon is the least k from which on at most ``WORTH`` of it is lost. Where the interval of
    the worth holds zero, memory does not matter and the horizon is 1, which ``matters`` says.
    """
    time = batch.item.shape[1]
    longest = time if own is None else int(max(own.max(), 1))
    lengths = cutoffs(longest)
    loss, ndcg = (np.asarray(part, np.float64) for part in cut_off(
        model, batch, jnp.asarray(lengths), exclude_seen=exclude_seen
    ))  # fmt: skip
    lost, gone = loss - loss[-1], ndcg[-1] - ndcg
    noise = np.random.default_rng(seed)
    draws = noise.integers(loss.shape[1], size=(ROUNDS, loss.shape[1]))
    boots = lost[:, draws].mean(-1).T  # (rounds, cuts)
    by_ndcg = gone[:, draws].mean(-1).T
    worth = interval(float(lost[0].mean()), list(boots[:, 0]), longest)
    matters = worth["low"] > 0
    reaches = [horizon(lengths, one) for one in boots] if matters else [1.0]
    value = horizon(lengths, lost.mean(1)) if matters else 1.0
    return {
        "kind": "information", "examples": loss.shape[1], "cutoffs": lengths.tolist(), "exclude_seen": exclude_seen,
        "loss": plain(loss.mean(1)), "ndcg@10": plain(ndcg.mean(1)),
        "lost": plain(lost.mean(1)), "lost_low": plain(np.quantile(boots, 0.025, axis=0)),
        "lost_high": plain(np.quantile(boots, 0.975, axis=0)),
        "gone": plain(gone.mean(1)), "gone_low": plain(np.quantile(by_ndcg, 0.025, axis=0)),
        "gone_high": plain(np.quantile(by_ndcg, 0.975, axis=0)),
        "worth": worth, "matters": bool(matters), "share": WORTH, "horizon": interval(value, reaches, longest),
    }  # fmt: skip


def cutoffs(longest: int) -> NDArray[np.int64]:
    """Numbers of events that are left: 1, 2, 3, 5, 8, ... and all."""
    found = [1]
    while found[-1] < longest:
        found.append(min(longest, max(found[-1] + 1, round(found[-1] * 1.5))))
    return np.array(found)


def horizon(lengths: NDArray[np.int64], lost: NDArray[np.float64]) -> float:
    """The least k from which on at most ``WORTH`` of what the past is worth, ``lost[0]``, is lost."""
    if lost[0] <= 0:
        return 1.0
    above = np.flatnonzero(lost > WORTH * lost[0])
    here = int(above[-1])
    before, after = lost[here] / lost[0], lost[here + 1] / lost[0]
    share = (before - WORTH) / (before - after)
    return float(lengths[here] + share * (lengths[here + 1] - lengths[here]))


def shuffle_drop(model: Ranking, batch: Batch, shuffled: Batch, *, exclude_seen: bool = False, seed: int = 0) -> Record:
    """NDCG@10 and loss that are lost when each row's events come in another order (``shuffled``), with intervals.

    The target stays: where nothing is lost, the order of a history does not matter to this model on these data.
    """
    whole = jnp.array([batch.item.shape[1]])
    ours = [np.asarray(part, np.float64)[0] for part in cut_off(model, batch, whole, exclude_seen=exclude_seen)]
    theirs = [np.asarray(part, np.float64)[0] for part in cut_off(model, shuffled, whole, exclude_seen=exclude_seen)]
    differences = {"loss": theirs[0] - ours[0], "ndcg@10": ours[1] - theirs[1]}
    draws = np.random.default_rng(seed).integers(len(ours[0]), size=(ROUNDS, len(ours[0])))
    found = {
        name: interval(float(lost.mean()), list(lost[draws].mean(1)), len(lost)) for name, lost in differences.items()
    }
    return {"kind": "shuffle", "examples": len(ours[0]), "ndcg@10": float(ours[1].mean()), "drop": found}
