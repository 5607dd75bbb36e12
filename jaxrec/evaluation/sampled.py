"""Ranks among sampled candidates, only on request; the whole catalogue stays the headline."""

from functools import partial

import jax
import numpy as np
from jax import Array

from jaxrec.data.prepared import Prepared
from jaxrec.evaluation.ranks import Ranks, barred, blocks, groups, unknown
from jaxrec.evaluation.slices import events_of
from jaxrec.metrics.sampled import Sample, draw
from jaxrec.models.catalogue import among
from jaxrec.models.pieces import run
from jaxrec.models.recommender import Recommender
from jaxrec.models.transitions import Histories
from jaxrec.parallel import team

ROWS = 1024  # targets whose candidates are drawn together


def candidates(prepared: Prepared, ranks: Ranks, sample: Sample) -> np.ndarray:
    """``(n, size)`` item numbers to rank each target against: never the target, and no item of the history where the
    card masks those; 0 where items ran out.
    """
    generator = np.random.default_rng(sample.seed)
    uniform = (np.arange(prepared.candidates + 1) > 0).astype(np.float64)
    weights = uniform if sample.kind == "uni" else uniform * prepared.popularity
    histories = Histories.before(prepared, events_of(prepared, ranks))
    found = np.zeros((len(ranks.target), sample.size), np.int32)
    for start in range(0, len(found), ROWS):
        target = ranks.target[start : start + ROWS]
        row, item = np.flatnonzero(target > 0), target[target > 0]
        if prepared.card["mask_seen"] != "none":
            more = histories.part(start, start + len(target)).distinct(prepared.candidates + 1)
            row, item = np.concatenate([row, more[0]]), np.concatenate([item, more[1]])
        found[start : start + ROWS] = draw(weights, row, item, len(target), sample.size, generator)
    return found


@partial(jax.jit, static_argnames=("candidates",))
def rank_among(
    model: Recommender, hidden: Array, row: Array, col: Array, target: Array, drawn: Array, *, candidates: int
) -> tuple[Array, Array]:
    """The inner pass: pure, and vmappable over models; see `jaxrec.evaluation.ranks.rank`."""
    return among(model, hidden[row, col], target, drawn, candidates=candidates)


def evaluate(model: Recommender, prepared: Prepared, ranks: Ranks, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(greater, equal)`` (n,) of the targets of ``ranks`` among ``drawn (n, size)``.

    A target that can only be missed has ``size + 1`` above it, one more than there are.
    """
    events = events_of(prepared, ranks)
    greater, equal = np.zeros((2, len(events)), np.int64)
    for group in groups(prepared, events, ranks.example, user="user" in model.tables):
        for begin, hidden, some, pad in blocks(model, group):
            order = group.order[some]
            found = run(
                rank_among, model, hidden, np.pad(group.row[some], pad), np.pad(group.at[some] - begin - 1, pad),
                np.pad(ranks.target[order], pad).astype(np.int32), np.pad(drawn[order], (pad, (0, 0))),
                candidates=prepared.candidates,
            )  # fmt: skip
            greater[order], equal[order] = (np.asarray(values)[: len(order)] for values in found)
    greater, equal = team.added(greater), team.added(equal)
    lost = unknown(prepared, ranks) | barred(prepared, ranks)
    return np.where(lost, drawn.shape[1] + 1, greater), np.where(lost, 0, equal)
