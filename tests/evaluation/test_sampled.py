"""Ranks among sampled candidates: brute force over the drawn items, and the full ranking when everything is drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec.cells import GRU, Event
from jaxrec.data.prepared import Prepared
from jaxrec.data.vocabulary import Vocabulary
from jaxrec.evaluation import ranks, sampled
from jaxrec.metrics.sampled import Sample
from jaxrec.models import recommender
from jaxrec.models.recommender import Batch

ITEMS = 25


def prepared(mask):
    draw = np.random.default_rng(1)
    lengths = np.array([12, 5, 20, 3])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    items = draw.integers(1, ITEMS + 1, offsets[-1]).astype(np.int32)
    items[offsets[1] - 1] = 0  # an item that nobody knows
    items[offsets[3] - 1] = items[offsets[2]]  # and one that its user had before
    words = Vocabulary.from_strings([str(n) for n in range(ITEMS)])
    return Prepared(
        card={"mask_seen": mask, "unknown_targets": "miss"}, items=items, offsets=offsets, train_end=offsets[1:] - 3,
        valid_end=offsets[1:] - 2, known=ITEMS - 1, candidates=ITEMS, users=np.arange(1, 5, dtype=np.int32),
        popularity=np.append(0, draw.integers(0, 5, ITEMS)), item_ids=words, user_ids=words,
    )  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return recommender.build(
        lambda features, rngs: GRU(features, 4, rngs=rngs), items=ITEMS, users=4, width=4, depth=1, feedforward=0,
        norm=False, residual=False, tied=True, bias=False, user=False, backend=None,
        wants=Event(x=jnp.zeros((1, 1, 4))), seed=2,
    )  # fmt: skip


@pytest.mark.parametrize("mask", ["none", "history_except_target", "history"])
@pytest.mark.parametrize("flat", [False, True])
def test_everything_drawn_is_the_full_ranking(model, mask, flat):
    data = prepared(mask)
    model = jax.tree.map(jnp.zeros_like, model) if flat else model
    whole = ranks.evaluate(model, data, "test")
    drawn = sampled.candidates(data, whole, Sample("uni", ITEMS, 0))
    greater, equal = sampled.evaluate(model, data, whole, drawn)
    lost = whole.greater_masked == ITEMS
    assert lost.sum() > (whole.greater == ITEMS).sum() if mask == "history" else lost.any()
    np.testing.assert_array_equal(greater[~lost], whole.greater_masked[~lost])
    np.testing.assert_array_equal(equal[~lost], whole.equal_masked[~lost])
    assert (equal[~lost] > 0).all() == flat
    assert (greater[lost] == ITEMS + 1).all()


@pytest.mark.parametrize("kind", ["uni", "pop"])
def test_ranks_among_the_drawn_are_as_by_hand(model, kind):
    data = prepared("history_except_target")
    whole = ranks.evaluate(model, data, "test")
    drawn = sampled.candidates(data, whole, Sample(kind, 6, 3))
    again = sampled.candidates(data, whole, Sample(kind, 6, 3))
    np.testing.assert_array_equal(drawn, again)
    assert (drawn != sampled.candidates(data, whole, Sample(kind, 6, 4))).any(), "the seed decides"
    greater, equal = sampled.evaluate(model, data, whole, drawn)
    for place, event in enumerate(data.targets("test")):
        goal, past = int(data.items[event]), data.items[data.offsets[whole.example[place]] : event]
        mine = drawn[place][drawn[place] > 0]
        assert goal not in mine
        assert not set(mine) & set(past)
        assert kind == "uni" or (data.popularity[mine] > 0).all()
        if 0 < goal <= data.known:
            scores = np.asarray(model(Batch(item=jnp.asarray(past)[None])))[0, -1]
            assert greater[place] == (scores[mine] > scores[goal]).sum()
            assert equal[place] == 0
