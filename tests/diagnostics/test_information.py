"""The worth of the past, on models whose memory is known to the event."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrec.cells import Event, WindowCell
from jaxrec.diagnostics.influence import influence
from jaxrec.diagnostics.information import cut_off, cutoffs, gain, information, own_items, shuffle_drop
from jaxrec.diagnostics.subject import Alone, alone
from jaxrec.models.recommender import Batch

ITEMS, LAG = 12, 3


class Delay(WindowCell):
    """Shows what came in ``lag`` events ago."""

    def __init__(self, features, lag):
        self.features, self.lag = features, lag
        self.one = nnx.Param(jnp.ones(()))

    def initial_state(self):
        return jnp.zeros((self.lag + 1, self.features))

    def read(self, state, projected):
        return self.one[...] * state[0]


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Parrot(Alone):
    """Recommends the item of `LAG` events ago."""

    def events(self, batch):
        return Event(x=jax.nn.one_hot(batch.item, ITEMS + 1))

    def scores(self, hidden):
        return (5 * hidden).at[..., 0].set(-jnp.inf)

    def losses(self, hidden, target):
        scores = self.scores(hidden)
        return jax.nn.logsumexp(scores, axis=-1) - jnp.take_along_axis(scores, target[:, None], axis=-1)[:, 0]


def parrot(rows=40, time=10, seed=0):
    noise = np.random.default_rng(seed)
    item = np.stack([noise.permutation(ITEMS)[:time] + 1 for _ in range(rows)])
    target = np.roll(item, LAG, axis=1)  # the item of LAG events ago, this event counted as 0
    batch = Batch(item=jnp.asarray(item), target=jnp.asarray(target))
    model = alone(Delay(ITEMS + 1, LAG), Event(x=jnp.zeros((1, 1, ITEMS + 1))))
    return Parrot(model.network), batch


def test_a_parrot_needs_exactly_the_events_back_to_what_it_repeats():
    model, batch = parrot()
    loss, ndcg = cut_off(model, batch, jnp.arange(1, 7))
    needed = LAG + 1
    assert np.allclose(loss[: needed - 1], np.log(ITEMS))
    assert np.allclose(ndcg[needed - 1 :], 1)
    assert np.allclose(loss[needed - 1 :], loss[-1])
    assert float(loss[-1].max()) < 0.1
    record = information(model, batch)
    assert record["matters"]
    assert 3 < record["horizon"]["value"] <= needed
    assert record["worth"]["value"] == pytest.approx(np.log(ITEMS) - float(loss[-1].mean()), abs=1e-5)


def test_where_the_past_says_nothing_memory_does_not_matter():
    model, batch = parrot()
    other = batch._replace(target=jnp.asarray(np.random.default_rng(1).integers(1, ITEMS + 1, batch.item.shape)))
    record = information(model, other)
    assert not record["matters"]
    assert record["horizon"] == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_seen_items_are_those_of_the_own_piece_and_stay_excluded_when_cut():
    item = jnp.array([[3, 4, 5, 6]])
    reset = jnp.array([[False, False, True, False]])
    assert np.flatnonzero(own_items(Batch(item=item), reset, 8)[0]).tolist() == [5, 6]
    assert np.flatnonzero(own_items(Batch(item=item), jnp.zeros((1, 4), bool), 8)[0]).tolist() == [3, 4, 5, 6]


def test_gain_is_ndcg_in_expectation_over_ties():
    noise = np.random.default_rng(2)
    scores = noise.integers(0, 4, (50, 15)).astype(np.float32)
    target, seen = noise.integers(0, 15, 50), noise.random((50, 15)) < 0.3
    for mask in (None, seen):
        found = gain(jnp.asarray(scores), jnp.asarray(target), None if mask is None else jnp.asarray(mask))
        for row in range(50):
            others = np.delete(np.arange(15), target[row])
            others = others if mask is None else others[~mask[row, others]]
            above = (scores[row, others] > scores[row, target[row]]).sum()
            equal = (scores[row, others] == scores[row, target[row]]).sum()
            wanted = np.mean([1 / np.log2(above + e + 2) if above + e < 10 else 0 for e in range(equal + 1)])
            assert float(found[row]) == pytest.approx(wanted, abs=1e-6)


def test_the_order_of_a_history_matters_to_a_parrot_and_its_past_alone_does_not_say_so():
    model, batch = parrot()
    noise = np.random.default_rng(3)
    shuffled = batch._replace(item=jnp.asarray(noise.permuted(np.asarray(batch.item), axis=1)))
    drop = shuffle_drop(model, batch, shuffled)["drop"]["ndcg@10"]
    assert drop["low"] > 0.3
    assert shuffle_drop(model, batch, batch)["drop"]["ndcg@10"]["value"] == 0


def test_cut_offs_rise_and_end_with_all():
    for longest in (1, 2, 7, 200):
        found = cutoffs(longest)
        assert found[0] == 1
        assert found[-1] == longest
        assert (np.diff(found) > 0).all()


def test_only_the_event_that_a_parrot_repeats_moved_its_prediction():
    model, batch = parrot(rows=1)
    record = influence(model, batch, 10)
    assert record["place"] == 1
    assert record["prediction"] == record["target"]
    moved = np.array(record["influence"])
    assert np.allclose(moved[-4 - 3 :], [0, 0, 0, 5, 5, 5, 5])  # leaving a later event out shifts what it repeats
    assert [value is not None for value in record["gradient"]] == [False] * 6 + [True] * 4  # it passes through these


def test_an_only_event_cannot_be_left_out():
    model, batch = parrot(rows=1)
    assert influence(model, batch, 1)["influence"] == [None]
