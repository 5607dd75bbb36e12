"""Lanes: an epoch in pieces computes what whole sequences do, wherever the lanes run and wherever the run is cut."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import HealthCheck, given, settings, strategies as st

from jaxrec.cells import Event, Wrapper, find
from jaxrec.cells.find import ours
from jaxrec.config import Call
from jaxrec.data.batches import packed, windows
from jaxrec.data.context import Context
from jaxrec.data.lanes import lanes
from jaxrec.losses import Softmax
from jaxrec.losses.softmax import cross_entropy
from jaxrec.models import recommender
from jaxrec.parallel.strategy import distribute
from jaxrec.recurrence.facts import kind
from jaxrec.training.autopsy import first_bad
from jaxrec.training.checkpoints import Checkpoints
from jaxrec.training.loop import Clock, Loop, compile_run
from jaxrec.training.optimisers import Optimiser
from jaxrec.training.source import Source, batches, slabs
from jaxrec.training.spread import Spread
from jaxrec.training.step import Step

ITEMS, WIDTH, LANES, LONGEST, SEQUENCES = 9, 4, 8, 6, 12
HYPER = {"lr": 0.05, "weight_decay": 0.0, "clip": 1.0, "dropout": 0.0, "label_smoothing": 0.0, "temperature": 1.0}
HYPER = {name: jnp.float32(value) for name, value in HYPER.items()}
STILL = HYPER | {"lr": jnp.float32(0)}
DROPPED = HYPER | {"dropout": jnp.float32(0.3)}
PAIRS = [6, 2, 1, 4, 3, 5, 1, 6, 2, 6, 1, 3]


def sequences(pairs):
    """Prepared data with so many training pairs in each sequence, and one event that is not for training."""
    offsets = np.concatenate([[0], np.cumsum(np.array(pairs) + 2)])
    return SimpleNamespace(offsets=offsets, train_end=offsets[1:] - 1)


def load(data, seed=0):
    draw, events = np.random.default_rng(seed), SEQUENCES * (LONGEST + 2)  # the same for all data: one program
    gaps = jnp.asarray(draw.standard_exponential(events), jnp.float32)
    items = jnp.asarray(draw.integers(1, ITEMS + 1, events), jnp.int32)
    starts, owners = jnp.asarray(draw.random(events) < 0.3), jnp.asarray(draw.integers(3, size=events), jnp.int32)
    codes, sides = draw.integers(4, size=(events, 1)), draw.normal(size=(events, 1))
    context = Context(jnp.asarray(codes, jnp.int32), jnp.asarray(sides, jnp.float32))
    return Source(items, gaps=gaps, starts=starts, owners=owners, context=context)


def model(cell="gru", depth=1, seed=0):
    vector = jnp.zeros((1, 1, WIDTH))
    example = Event(vector, gap=jnp.zeros((1, 1)), context=vector, user=vector, start=jnp.zeros((1, 1), bool))
    return recommender.build(
        lambda features, rngs: find(Call.parse(cell), features, hidden=WIDTH, rngs=rngs), items=ITEMS, users=2,
        width=WIDTH, depth=depth, feedforward=0, norm=True, residual=True, tied=True, bias=True, user=True,
        backend=None, wants=example, seed=seed, context=3,
    )  # fmt: skip


take = jax.jit(Source.batch)


def steps(data, source, length, width=LANES):
    """Every batch of an epoch."""
    plan = lanes(data, length, width=width)
    for begin in range(0, plan.rows, width):
        part = plan.part(begin, begin + width)
        yield take(source, jnp.asarray(part.index), jnp.asarray(part.reset)), part.index


def numbers(tree):
    is_key = lambda leaf: jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)  # noqa: E731
    return [np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf) for leaf in jax.tree.leaves(tree)]


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, numbers(a), numbers(b))


def assert_near(a, b, tolerance=1e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), numbers(a), numbers(b))


@jax.jit
def whole(made, source, begin):
    """Loss ``(sequences, time)`` of every event and states ``(sequences * time, ...)`` after it, sequences run whole.

    Losses come from one run without a reset. States come from rows that end with the event and are reset where its
    sequence begins.
    """
    index = begin[:, None] + jnp.arange(LONGEST)[None]
    batch = source.batch(index, jnp.zeros(index.shape, bool))
    _, hidden = made.encode(batch)
    scores = (hidden @ made.output.T + made.tables["bias"][None, None]).reshape(-1, ITEMS + 1)[:, 1:]
    losses = cross_entropy(scores, batch.target.reshape(-1) - 1).reshape(index.shape)
    before = jnp.arange(LONGEST - 1, -1, -1)[None, None]
    ending = jnp.maximum(index[:, :, None] - before, 0).reshape(-1, LONGEST)
    starts = (before == jnp.arange(LONGEST)[None, :, None]) & (begin >= 0)[:, None, None]
    states, _ = made.encode(source.batch(ending, starts.reshape(-1, LONGEST)))
    return losses, states


def by_event(made, data, source):
    """What whole sequences give: loss and state after every event, by the event's number."""
    begin, pairs = data.offsets[:-1], data.train_end - 1 - data.offsets[:-1]
    losses, states = whole(made, source, jnp.asarray(np.resize(begin, SEQUENCES), jnp.int32))
    losses, states = np.asarray(losses), [np.asarray(leaf) for leaf in jax.tree.leaves(states)]
    found = {}
    for row, first in enumerate(begin):
        for time in range(pairs[row]):
            found[first + time] = losses[row, time], [leaf[row * LONGEST + time] for leaf in states]
    return found


def check_split_equals_whole(go, state, data, length, source):
    wanted, seen = by_event(state.model, data, source), set()
    for batch, index in steps(data, source, length):
        state, metrics = go(state, batch, STILL)
        real = index[index >= 0].tolist()
        assert int(metrics.events) == len(real)
        np.testing.assert_allclose(metrics.loss, sum(wanted[event][0] for event in real), rtol=2e-6, atol=1e-6)
        running = index[:, -1] >= 0  # the others have left, and nobody reads their state
        for place, leaf in enumerate(jax.tree.leaves(state.carry)):
            states = [wanted[event][1][place] for event in index[running, -1]]
            if states:
                np.testing.assert_allclose(np.asarray(leaf)[running], np.stack(states), rtol=2e-6, atol=2e-6)
        seen |= set(real)
    assert seen == wanted.keys()


# of each kind one cell, one whose state is complex, and for each leaf of an event one that reads it; others with --long
FEW = ("GRU", "IndRNN", "LRU", "CausalConv", "QRNN", "MLSTM", "Decayed", "LatentCross", "UserGRU", "HierarchicalRNN")
MANY = [name for name in (*ours(), "GRU(reset=before)") if name not in FEW]


def test_the_few_stand_for_the_many():
    cells = {
        name: jax.eval_shape(lambda name=name: find(Call(name), WIDTH, hidden=WIDTH, rngs=nnx.Rngs(0)))
        for name in ours()
    }
    few = [cells[name] for name in FEW]
    assert {kind(cell) for cell in few} == {kind(cell) for cell in cells.values()}
    assert {leaf for cell in few for leaf in cell.wants} == {leaf for cell in cells.values() for leaf in cell.wants}
    assert any(isinstance(cell, Wrapper) for cell in few)


@pytest.mark.parametrize("length", [1, 3])
@pytest.mark.parametrize("cell", [*FEW, *(pytest.param(name, marks=pytest.mark.long) for name in MANY)])
def test_an_epoch_that_changes_nothing_gives_every_event_the_state_and_loss_of_its_whole_sequence(cell, length):
    step, data = Step(Softmax()), sequences(PAIRS)
    state = step.init(model(cell, depth=2), STILL, jax.random.key(0), LANES)
    check_split_equals_whole(jax.jit(step), state, data, length, load(data))


@pytest.fixture(scope="module")
def still():
    step = Step(Softmax())
    return jax.jit(step), step.init(model(), STILL, jax.random.key(0), LANES)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pairs=st.lists(st.integers(0, LONGEST), min_size=1, max_size=SEQUENCES), length=st.sampled_from([1, 2, 5]))
def test_and_so_for_sequences_of_any_length(still, pairs, length):
    data = sequences(pairs)
    check_split_equals_whole(*still, data, length, load(data, seed=len(pairs)))


def test_the_gradient_is_cut_between_steps_and_not_inside_one():
    """Against the gradient written by hand, the state before a step a constant."""
    step, data = Step(Softmax(), Optimiser("adam")), sequences([6] * LANES)
    source = load(data)
    state = step.init(model(), STILL, jax.random.key(0), LANES)
    (first, _), (second, _) = steps(data, source, 3)
    before, _ = jax.jit(step)(state, first, STILL)

    def loss(made, carry, batch):
        _, hidden = made.encode(batch, carry)
        scores = (hidden @ made.output.T + made.tables["bias"][None, None]).reshape(-1, ITEMS + 1)[:, 1:]
        return jnp.sum(cross_entropy(scores, batch.target.reshape(-1) - 1))

    def through(made):
        return loss(made, made.encode(first, None)[0], second)

    grads = jax.jit(lambda *given: step.gradients(*given)[3])(before, second, STILL)
    cut = jax.jit(jax.grad(loss))(before.model, before.carry, second)
    assert_near(grads["network"], cut.network)
    assert_near(grads["rows"]["item"], cut.tables["item"])
    uncut = jax.jit(jax.grad(through))(before.model)
    apart = max(np.abs(a - b).max() for a, b in zip(numbers(cut.network), numbers(uncut.network), strict=True))
    assert apart > 1e-3, "here the past matters, so the cut can be seen"


def two_epochs(step, run):
    """Of a slab each, the lanes' state going on from one to the next."""
    data, losses = sequences(PAIRS), []
    state, source, hyper = step.init(model("lstm"), DROPPED, jax.random.key(0), LANES), load(data), DROPPED
    if isinstance(run, Spread):
        state, source, hyper = run.place(state, source, hyper)
    for _ in range(2):
        for slab in slabs(lanes(data, 2, width=LANES), size=LANES, steps=8, begin=0):
            state, metrics = run(state, source, slab.index, slab.reset, np.array([0, slab.count], np.int32), hyper)
            losses += np.asarray(metrics.loss)[: slab.count].tolist()
    return state, losses


@pytest.fixture(scope="module")
def alone():
    step = Step(Softmax())
    return two_epochs(step, compile_run(step))


@pytest.mark.parametrize(
    ("mode", "microbatches"), [("jit", 1), ("shard_map", 1), ("pmap", 1), ("jit", 2), ("shard_map", 2)]
)
def test_devices_and_micro_batches_share_out_the_lanes_and_change_nothing(alone, mode, microbatches):
    (wanted, losses), step = alone, Step(Softmax(), microbatches=microbatches)
    state, found = two_epochs(step, Spread(step, mode, 4))
    np.testing.assert_allclose(found, losses, rtol=5e-6)
    assert jax.tree.structure(state.carry) == jax.tree.structure(wanted.carry)
    assert_near((state.carry, state.tables, state.network), (wanted.carry, wanted.tables, wanted.network), 5e-5)
    if mode == "pmap":
        return  # which hands the carry out joined
    for leaf in jax.tree.leaves(state.carry):
        assert [shard.data.shape[0] for shard in leaf.addressable_shards] == [LANES // 4] * 4
        assert len({shard.device for shard in leaf.addressable_shards}) == 4


def test_vmap_over_seeds_equals_one_by_one():
    step, data = Step(Softmax()), sequences(PAIRS)
    source = load(data)
    states = [step.init(model(seed=seed), HYPER, jax.random.key(seed), LANES) for seed in range(3)]
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    go, one = jax.jit(jax.vmap(step, in_axes=(0, None, None))), jax.jit(step)
    for batch, _ in steps(data, source, 3):
        together, _ = go(together, batch, HYPER)
        states = [one(state, batch, HYPER)[0] for state in states]
    for place, state in enumerate(states):
        assert_near(jax.tree.map(lambda leaf, n=place: leaf[n], together), state)


@pytest.fixture(scope="module")
def trained():
    step = Step(Softmax(), Optimiser("adamw", "cosine", warmup=3, steps=40))
    return step, compile_run(step)


def train(step, run, *, stop=None, state=None, clock=None, epochs=3):
    """Up to a step; a new process begins with what a checkpoint holds."""
    data, records = sequences(PAIRS), []
    loop = Loop(
        run=run, plans=lambda epoch: lanes(data, 2, width=LANES), size=LANES, record=records.append,
        pause=lambda state, clock: clock.step == stop, epoch_end=lambda state, clock: False,
    )  # fmt: skip
    loop.adapt = lambda count, seconds: None
    state = step.init(model("lstm", 2), DROPPED, jax.random.key(0), LANES) if state is None else state
    return loop.fit(state, load(data), DROPPED, epochs=epochs, clock=clock or Clock()), records


def test_twice_n_steps_are_n_steps_a_checkpoint_and_n_steps_bit_for_bit(trained, tmp_path):
    whole, _ = train(*trained)
    total = int(whole.step)
    assert total % 3 == 0
    assert any(np.abs(leaf).max() > 0 for leaf in numbers(whole.carry))
    per_epoch = total // 3
    for stop in (1, per_epoch - 1, per_epoch, per_epoch + 2):
        half, _ = train(*trained, stop=stop)
        shelf = Checkpoints(tmp_path / str(stop))
        shelf.save(stop, half, {})
        fresh = trained[0].init(model("lstm", 2, seed=9), DROPPED, jax.random.key(9), LANES)
        restored, _ = shelf.restore(shelf.latest(), fresh)
        assert_same(restored, half)
        clock = Clock(epoch=stop // per_epoch, batch=stop % per_epoch, step=stop)
        again, _ = train(*trained, state=restored, clock=clock)
        assert_same(again, whole)


def test_a_run_without_its_carry_is_another_run(trained):
    """So that the law above cannot hold by chance."""
    whole, _ = train(*trained)
    half, _ = train(*trained, stop=1)
    forgetful = half._replace(carry=jax.tree.map(jnp.zeros_like, half.carry))
    again, _ = train(*trained, state=forgetful, clock=Clock(batch=1, step=1))
    assert any((a != b).any() for a, b in zip(numbers(whole), numbers(again), strict=True))


def test_an_epoch_begins_afresh_whatever_the_lanes_held():
    step, data = Step(Softmax()), sequences(PAIRS)
    source, go = load(data), jax.jit(step)
    state = step.init(model(), STILL, jax.random.key(0), LANES)
    losses = []
    for _ in range(2):
        losses.append([])
        for batch, _ in steps(data, source, 2):
            state, metrics = go(state, batch, STILL)
            losses[-1].append(float(metrics.loss))
        state = state._replace(carry=jax.tree.map(lambda leaf: leaf + 7, state.carry))
    assert losses[0] == losses[1]


def test_nominal_divides_the_sum_by_what_it_says_and_leaves_the_record_alone():
    data = sequences([3, 1])
    source = load(data)
    batch = list(steps(data, source, 1))[-1][0]
    plain, fixed = Step(Softmax()), Step(Softmax(), nominal=LANES)
    state = plain.init(model(), HYPER, jax.random.key(0), LANES)
    (_, one), (_, all_) = jax.jit(plain)(state, batch, HYPER), jax.jit(fixed)(state, batch, HYPER)
    assert int(one.events) == int(all_.events) == 1, "all lanes but one have left"
    assert float(one.loss) == float(all_.loss)
    np.testing.assert_allclose(one.grad_norm, LANES * all_.grad_norm, rtol=1e-6)


def test_a_step_that_is_not_finite_leaves_the_carry_and_the_autopsy_reads_it():
    step, data = Step(Softmax()), sequences(PAIRS)
    source, go = load(data), jax.jit(step)
    batches = [batch for batch, _ in steps(data, source, 1)]
    state, _ = go(step.init(model(), HYPER, jax.random.key(0), LANES), batches[0], HYPER)
    broken = state._replace(tables=state.tables | {"bias": state.tables["bias"].at[3].set(jnp.nan)})
    after, metrics = go(broken, batches[1], HYPER)
    assert not metrics.finite
    assert_same(after.carry, state.carry)
    overflown = state._replace(carry=jax.tree.map(lambda leaf: leaf.at[5].set(jnp.inf), state.carry))
    assert not batches[1].reset[5].any()
    name, rows = first_bad(step, overflown, batches[1], HYPER)
    assert "state kept from the step before" in name
    assert rows.tolist() == [5]


def test_a_step_with_lanes_lowers_for_accelerators():
    step, data = Step(Softmax(), microbatches=2), sequences(PAIRS)
    state = step.init(model(), HYPER, jax.random.key(0), LANES)
    batch, _ = next(steps(data, load(data), 2))
    for platform in ("cuda", "tpu"):
        assert jax.jit(step).trace(state, batch, HYPER).lower(lowering_platforms=(platform,)).as_text()


PLANS = {
    "packed": lambda data: packed(data, 3, seed=4, epoch=2),
    "windows": lambda data: windows(data, 3, seed=4, epoch=2),
    "lanes": lambda data: lanes(data, 3, width=LANES),
}


@pytest.mark.parametrize("layout", PLANS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pairs=st.lists(st.integers(0, 9), max_size=40), size=st.integers(1, 9), begin=st.integers(0, 4))
def test_a_seed_decides_the_order_of_events_and_the_size_of_a_dispatch_does_not(layout, pairs, size, begin):
    data = sequences(pairs)
    plan = PLANS[layout](data)
    total = batches(plan, LANES)

    def order(plan, steps, begin=0):
        found = list(slabs(plan, size=LANES, steps=steps, begin=begin))
        return [(i.tolist(), r.tolist()) for s in found for i, r in zip(s.index[: s.count], s.reset, strict=False)]

    one = order(plan, 1)
    assert len(one) == total
    assert order(PLANS[layout](data), size) == one
    assert order(plan, size, min(begin, total)) == one[begin:], "a run that goes on reads what the whole would"


@pytest.mark.parametrize("layout", PLANS)
def test_devices_read_the_same_events_in_the_same_steps(layout):
    """The rows of a step, put together from where they lie, for 1 to 8 devices and every mode."""
    data = sequences(PAIRS)
    slab = next(slabs(PLANS[layout](data), size=LANES, steps=4, begin=0))
    for mode in ("jit", "shard_map", "pmap"):
        for count in (1, 2, 8):
            run = distribute(lambda index, axis=None: jnp.zeros(()), mode, count, split=(1,))
            (placed,) = run.place(slab.index)
            shards = sorted(placed.addressable_shards, key=lambda shard: shard.device.id)
            rows = [np.asarray(shard.data).reshape(4, -1, slab.index.shape[-1]) for shard in shards]
            np.testing.assert_array_equal(np.concatenate(rows, axis=1), slab.index)
            assert [piece.shape[1] for piece in rows] == [LANES // count] * count
