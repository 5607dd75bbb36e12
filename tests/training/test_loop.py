"""However a run is cut into dispatches and attempts, it is the same run, bit for bit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec.cells import GRU, Event
from jaxrec.data.batches import Plan
from jaxrec.losses import Softmax
from jaxrec.models import recommender
from jaxrec.training.loop import RECORD, Clock, Loop, NotFinite, compile_run
from jaxrec.training.optimisers import Optimiser
from jaxrec.training.source import Source, batches, slabs
from jaxrec.training.step import Step

HYPER = {"lr": 0.01, "weight_decay": 0.0, "clip": 1.0, "dropout": 0.2, "label_smoothing": 0.0, "temperature": 1.0}
SIZE, TIME, ITEMS = 2, 3, 7


@pytest.fixture(scope="module")
def step():
    return Step(Softmax(), Optimiser("adamw", "cosine", warmup=3, steps=120))


@pytest.fixture(scope="module")
def run(step):
    return compile_run(step)


def fresh(step):
    made = recommender.build(
        lambda features, rngs: GRU(features, 4, rngs=rngs), items=ITEMS, users=1, width=4, depth=1, feedforward=0,
        norm=False, residual=False, tied=True, bias=True, user=False, backend=None,
        wants=Event(x=jnp.zeros((1, 1, 4))), seed=0,
    )  # fmt: skip
    return step.init(made, HYPER, jax.random.key(0))


def plan(epoch):
    draw = np.random.default_rng(epoch)
    rows = 81 + epoch  # epochs differ by a step, and the last batch is not full
    first = draw.integers(0, 190, (rows, 1))
    index = (first + np.arange(TIME)[None]).astype(np.int32)
    return Plan(index, np.tile(np.arange(TIME) == 0, (rows, 1)))


SOURCE = Source(jnp.asarray(np.random.default_rng(0).integers(1, ITEMS + 1, 200), jnp.int32))


def train(step, run, *, stops=(), pace=RECORD, epochs=2):
    """Train in attempts that end after the steps in ``stops``; what survives an attempt is what a checkpoint holds."""
    records, state, clock = [], fresh(step), Clock()
    for stop in (*stops, None):
        loop = Loop(
            run=run, plans=plan, size=SIZE, record=records.append, epoch_end=lambda state, clock: False,
            pause=lambda state, clock, stop=stop: stop is not None and clock.step >= stop,
        )  # fmt: skip
        loop.adapt = lambda count, seconds: None
        loop.pace = pace if stop is None else 1
        clock = Clock(**dataclasses.asdict(clock))
        state = loop.fit(state, SOURCE, HYPER, epochs=epochs, clock=clock)
    return state, records


def leaves(state):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state._replace(key=jax.random.key_data(state.key)))]


def test_dispatches_and_attempts_leave_no_trace(step, run):
    whole, records = train(step, run)
    assert records[-1]["step"] == int(whole.step) == 41 + 41
    assert [record["step"] for record in records] == [32, 41, 73, 82]
    for stops, pace in (((), 5), ((1,), 32), ((7, 31, 32, 33, 41, 60), 32), ((40, 80), 3)):
        again, same = train(step, run, stops=stops, pace=pace)
        assert same == records
        for a, b in zip(leaves(whole), leaves(again), strict=True):
            np.testing.assert_array_equal(a, b)


def test_slabs_cover_a_plan_once_in_one_shape():
    one = plan(0)
    found = list(slabs(one, size=SIZE, steps=RECORD, begin=0))
    assert batches(one, SIZE) == 41 == sum(slab.count for slab in found)
    assert {slab.index.shape for slab in found} == {(RECORD, SIZE, TIME)}
    rows = np.concatenate([slab.index[: slab.count].reshape(-1, TIME) for slab in found])
    np.testing.assert_array_equal(rows[: len(one.index)], one.index)
    assert (rows[len(one.index) :] == -1).all()
    later = list(slabs(one, size=SIZE, steps=RECORD, begin=35))
    np.testing.assert_array_equal(later[0].index[:6], found[1].index[3:9])


def test_the_source_pairs_every_input_with_the_next_event():
    source = Source(jnp.arange(10, 20, dtype=jnp.int32), gaps=jnp.arange(10.0))
    batch = source.batch(jnp.array([[3, 4, -1]]), jnp.array([[True, False, False]]))
    np.testing.assert_array_equal(batch.item, [[13, 14, 0]])
    np.testing.assert_array_equal(batch.target, [[14, 15, 0]])
    np.testing.assert_array_equal(batch.gap, [[3.0, 4.0, 0.0]])
    np.testing.assert_array_equal(batch.mask, [[True, True, False]])
    assert batch.user is None


def test_a_run_stops_at_the_first_step_that_is_not_finite_with_the_state_before_it(step, run):
    records = []
    loop = Loop(
        run=run, plans=plan, size=SIZE, record=records.append, pause=lambda state, clock: False,
        epoch_end=lambda state, clock: False,
    )  # fmt: skip
    bad = plan(0).index.reshape(-1)[: 6 * SIZE * TIME][-1]
    gaps = jnp.zeros(200).at[bad].set(jnp.nan)

    class Gappy(GRU):
        wants = ("x", "gap")

        def project(self, event):
            return super().project(event._replace(x=event.x + event.gap))

    made = recommender.build(
        lambda features, rngs: Gappy(features, 4, rngs=rngs), items=ITEMS, users=1, width=4, depth=1, feedforward=0,
        norm=False, residual=False, tied=True, bias=True, user=False, backend=None,
        wants=Event(x=jnp.zeros((1, 1, 4)), gap=jnp.zeros((1, 1))), seed=0,
    )  # fmt: skip
    with pytest.raises(NotFinite) as caught:
        loop.fit(step.init(made, HYPER, jax.random.key(0)), SOURCE._replace(gaps=gaps), HYPER, epochs=1, clock=Clock())
    at = int(caught.value.state.step)
    assert bad in caught.value.index
    assert at <= 5
    assert all(np.isfinite(leaf).all() for leaf in leaves(caught.value.state))
