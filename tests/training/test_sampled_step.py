"""A step whose loss samples: the same however it is spread out; and lazy updates, of nothing but what it read."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec.cells import GRU, Event
from jaxrec.losses import SCE, BPRMax, SampledSoftmax, Softmax
from jaxrec.models import recommender
from jaxrec.models.recommender import Batch
from jaxrec.models.tables import gather, scatter
from jaxrec.parallel.strategy import distribute
from jaxrec.training.checkpoints import Checkpoints
from jaxrec.training.lazy import LazyUpdate
from jaxrec.training.loop import informed, run_steps
from jaxrec.training.optimisers import Optimiser
from jaxrec.training.source import Source
from jaxrec.training.step import DenseUpdate, Step, row_keys

WIDTH, ITEMS, ROWS, TIME = 3, 30, 8, 2
COUNTS = np.append(0, 1 + np.arange(ITEMS) ** 2 % 17)
HYPER = {
    "lr": 0.05, "clip": 0.5, "state_dropout": 0.3, "temperature": 0.9, "propensity": 0.2, "alpha": 0.5,
    "log_q": 0.8, "reg": 0.3, "momentum": 0.4,
}  # fmt: skip
SHARED = SampledSoftmax(negatives=5, in_batch=True, hits="kept")
OWN = BPRMax(negatives=3, shared=False, elu=0.5)
RULE = Optimiser("adam", momentum=True, eps=1e-3)  # below which a sum in float32 may have either sign


def hyper(**other):
    return {name: jnp.asarray(value) for name, value in (HYPER | other).items()}


def model(seed=0, tied=True):
    return recommender.build(
        lambda features, rngs: GRU(features, WIDTH, rngs=rngs), items=ITEMS, users=6, width=WIDTH, depth=1,
        feedforward=0, norm=False, residual=False, tied=tied, bias=True, user=False, backend=None,
        wants=Event(x=jnp.zeros((1, 1, WIDTH))), seed=seed,
    )  # fmt: skip


def batch(seed=0):
    """Few of the items, some several times, in and out; some rows are short, one is empty."""
    rng = np.random.default_rng(seed)
    mask = np.arange(TIME)[None] < np.array([2, 2, 1, 0, 2, 2, 1, 2])[:, None]
    item, target = (np.where(mask, low + rng.integers(5, size=mask.shape), 0).astype(np.int32) for low in (1, 4))
    return Batch(*map(jnp.asarray, (item, target, mask, np.tile(np.arange(TIME) == 0, (ROWS, 1)))))


def numbers(tree):
    is_key = lambda leaf: jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)  # noqa: E731
    return [np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf) for leaf in jax.tree.leaves(tree)]


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, numbers(a), numbers(b))


def near(a, b, tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), numbers(a), numbers(b))


def begin(step, given, seed=0, tied=True):
    """A state before its first step, and what the loss knows."""
    made = model(seed, tied)
    if jax.config.jax_enable_x64:
        made = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), made)
    return step.init(made, given, jax.random.key(seed)), step.know(jnp.asarray(COUNTS), given)


def call(step):
    """The step with ``known`` where ``distribute`` and ``vmap`` take it."""
    return lambda state, batch, given, known, axis=None: step(state, batch, given, axis, known)


def run(go, state, given, known, steps=2):
    losses = []
    for number in range(steps):
        state, metrics = go(state, batch(number), given, known)
        losses.append(np.asarray(metrics.loss).tolist())
    return state, losses


@pytest.mark.parametrize(
    ("loss", "tied", "ways"),
    [(SHARED, True, ("jit", "shard_map", "pmap")), (OWN, False, ("shard_map", "micro")), (SHARED, True, ("micro",))],
)
def test_devices_and_micro_batches_change_nothing(loss, tied, ways):
    """In float64, dropout of states included; rows are updated lazily, with a momentum that only they feel."""
    with jax.enable_x64(True):
        step, given = Step(loss, RULE, LazyUpdate()), hyper()
        start, known = begin(step, given, tied=tied)
        alone, losses = run(jax.jit(call(step)), start, given, known)
        assert losses[0] != losses[1]
        for way in ways:
            if way == "micro":
                go = jax.jit(call(dataclasses.replace(step, microbatches=4)))
            else:
                go = distribute(call(step), way, 8, split=(None, 0, None, None))
            state, found = run(go, start, given, known)
            np.testing.assert_allclose(found, losses, rtol=1e-12)
            near((state.tables, state.network, state.optimiser), (alone.tables, alone.network, alone.optimiser), 1e-9)


@pytest.fixture(scope="module")
def lazy():
    step = Step(SHARED, RULE, LazyUpdate())
    return step, jax.jit(call(step))


def test_vmap_over_seeds_and_floats_of_the_loss_equals_one_by_one(lazy):
    """``alpha`` among them: each draws otherwise."""
    step, go = lazy
    trials = [hyper(alpha=alpha, temperature=heat, log_q=q) for alpha, heat, q in ((0.0, 0.5, 1.0), (1.0, 2.0, 0.3))]
    begun = [begin(step, given, seed) for seed, given in enumerate(trials)]
    stack = lambda *trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)  # noqa: E731
    states, knows = (stack(*parts) for parts in zip(*begun, strict=True))
    together, _ = run(jax.jit(jax.vmap(call(step), in_axes=(0, None, 0, 0))), states, stack(*trials), knows)
    np.testing.assert_array_equal(knows.alpha, [0, 1])
    for place, ((state, known), given) in enumerate(zip(begun, trials, strict=True)):
        alone, _ = run(go, state, given, known)
        near(jax.tree.map(lambda leaf, n=place: leaf[n], (together.tables, together.optimiser)),
             (alone.tables, alone.optimiser), 2e-5)  # fmt: skip


EVENTS = Source(jnp.asarray(np.random.default_rng(3).integers(1, ITEMS + 1, 60), jnp.int32), counts=jnp.asarray(COUNTS))
INDEX = jnp.asarray(np.random.default_rng(4).integers(0, 59, (3, ROWS, TIME)), jnp.int32)
RESET = jnp.zeros(INDEX.shape, bool)


@jax.jit(static_argnums=0)
def of_slab(step, state, source, given):
    return run_steps(step, state, source, INDEX, RESET, jnp.array([0, len(INDEX)]), given)


def test_a_run_whose_source_was_informed_once_is_its_steps_one_by_one(lazy):
    """And a stack of runs, each with its own ``alpha``, is each alone."""
    step, go = lazy
    trials, alone = [hyper(alpha=alpha) for alpha in (0.0, 1.0)], []
    for given in trials:
        state, known = begin(step, given)
        found = of_slab(step, state, informed(step, EVENTS, given), given)
        for index, reset in zip(INDEX, RESET, strict=True):
            state, _ = go(state, EVENTS.batch(index, reset), given, known)
        near(found[0], state, 2e-5)
        alone.append(found)
    assert (alone[0][1].loss != alone[1][1].loss).all()
    hypers = jax.tree.map(lambda *leaves: jnp.stack(leaves), *trials)
    start, _ = begin(step, trials[0])
    together = jax.jit(jax.vmap(lambda given: of_slab(step, start, informed(step, EVENTS, given), given)))(hypers)
    for place, found in enumerate(alone):
        near(jax.tree.map(lambda leaf, n=place: leaf[n], together), found, 2e-5)


def test_a_source_that_was_not_informed_is_one_sentence_where_the_loss_must_know():
    few = {name: value for name, value in hyper().items() if name != "propensity"}
    for loss, given in ((SHARED, few), (OWN, few), (Softmax(), hyper()), (SCE(propensity=0.5), few)):
        step = Step(loss, RULE)
        state, _ = begin(step, given)
        with pytest.raises(ValueError, match=f"{type(loss).__name__} needs the training counts.* `informed`"):
            of_slab(step, state, EVENTS, given)
        with pytest.raises(ValueError, match=f"{type(loss).__name__} needs the training counts"):
            informed(step, EVENTS._replace(counts=None), given)
    for loss in (Softmax(), SCE()):
        assert informed(Step(loss, RULE), EVENTS, few).known is None, "nothing is drawn, and all weigh alike"


LOOKED_UP = {"item": np.array([5, 2, 5, 0, 2, 5, 7]), "bias": np.array([3, 3, 1])}  # of nine rows


@pytest.mark.parametrize("accumulator", [0.1, 0.0])
def test_lazy_adagrad_is_dense_adagrad_and_sums_what_repeats_before_it_squares(accumulator):
    rule, given = Optimiser("adagrad", eps=1e-6, accumulator=accumulator), {"lr": 0.1}

    @jax.jit
    def one(tables, states, factors):
        """Both updates by the gradient of a sum of looked-up rows, each times its factor."""
        rows = gather(tables, LOOKED_UP)

        def loss(values):
            found = {name: rows[name]._replace(values=values[name]).take(LOOKED_UP[name]) for name in rows}
            return sum(jnp.sum(found[name] * factors[name]) for name in found)

        grads, rate = jax.grad(loss)({name: table.values for name, table in rows.items()}), rule.transform(given, 0)
        both = zip((LazyUpdate(), DenseUpdate()), states, strict=True)
        return [update(tables, state, rows, grads, rate, jnp.array(True)) for update, state in both]

    def check():
        rng = np.random.default_rng(0)
        tables = {"item": jnp.asarray(rng.normal(size=(9, 2))), "bias": jnp.zeros(9)}
        states = [update.init(tables, rule, given) for update in (LazyUpdate(), DenseUpdate())]
        squares = {name: np.full(table.shape, accumulator) for name, table in tables.items()}
        wanted = jax.tree.map(np.array, tables)
        for _ in range(3):
            factors = {"item": rng.normal(size=(7, 2)), "bias": rng.normal(size=3)}
            (tables, lazy), (dense, state) = one(tables, states, factors)
            states = [lazy, state]
            near(tables, dense, 1e-15)
            for name, places in LOOKED_UP.items():
                slope = np.zeros(wanted[name].shape)
                np.add.at(slope, places, factors[name])
                squares[name] += slope**2
                wanted[name] -= 0.1 * slope / np.sqrt(squares[name] + 1e-6)
            near(tables, wanted, 1e-12)

    with jax.enable_x64(True):
        check()


class Lazy:
    """Adam with heavy ball in float64, of the rows that are hit: Kingma and Ba 2015, Polyak 1964."""

    def __init__(self, table):
        self.table, self.count = np.asarray(table, float), 0
        self.mean, self.square, self.move = np.zeros((3, *self.table.shape))

    def __call__(self, slope, hit):
        self.count += 1
        m, v = self.mean, self.square
        m[hit], v[hit] = 0.9 * m[hit] + 0.1 * slope[hit], 0.999 * v[hit] + 0.001 * slope[hit] ** 2
        unbiased = m[hit] / (1 - 0.9**self.count), v[hit] / (1 - 0.999**self.count)
        self.move[hit] = HYPER["momentum"] * self.move[hit] - HYPER["lr"] * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-3)
        self.table[hit] += self.move[hit]

    @property
    def leaves(self):
        return [self.table, self.mean, self.square, self.move]


def of_rows(state, name):
    """The table and what the optimiser has of its rows."""
    shape = state.tables[name].shape
    return [state.tables[name], *(x for x in jax.tree.leaves(state.optimiser["tables"][name]) if x.shape == shape)]


def test_rows_change_as_lazy_adam_says_and_only_where_they_are_read(lazy):
    """A bias is read where its item is scored, a vector also where its item goes in."""
    step, go = lazy
    given = hyper(clip=np.inf)
    state, known = begin(step, given)
    look = jax.jit(lambda *args: (step.gradients(*args, None, known), step.draw(SHARED, *args[:2], None, known)))
    oracle, ever = {name: Lazy(table) for name, table in state.tables.items()}, np.zeros(ITEMS + 1, bool)
    for number in range(4):
        now = batch(number)._replace(keys=row_keys(state, ROWS, None))
        (_, events, rows, grads, _), drawn = look(state, now, given)
        scored = np.unique([*np.asarray(now.target).reshape(-1), *np.asarray(drawn.shared.ids)])
        after, _ = go(state, batch(number), given, known)
        for name, hit in (("item", np.union1d(scored, now.item)), ("bias", scored)):
            slope = scatter(state.tables[name], rows[name], grads["rows"][name]) / events
            oracle[name](np.asarray(slope, float), hit)
            near(of_rows(after, name), oracle[name].leaves, 1e-5)
            others = np.setdiff1d(np.arange(ITEMS + 1), hit)
            same([leaf[others] for leaf in of_rows(after, name)], [leaf[others] for leaf in of_rows(state, name)])
            assert all((leaf[hit[1:]] != 0).any() for leaf in of_rows(after, name))
        ever[hit] = True
        assert set(np.asarray(now.item).reshape(-1)) - set(scored), "some items only go in"
        state = after
    assert 0 < ever[1:].sum() < ITEMS


def test_a_gradient_that_is_not_finite_changes_nothing_at_all(lazy):
    step, go = lazy
    state, known = begin(step, hyper())
    state, _ = go(state, batch(0), hyper(), known)
    for broken, given in (
        (state, hyper(temperature=0.0)),
        (state._replace(tables=state.tables | {"bias": state.tables["bias"].at[3].set(jnp.nan)}), hyper()),
    ):
        after, metrics = go(broken, batch(1), given, known)
        assert not metrics.finite
        same(after, broken)
    after, metrics = go(state, batch(1), hyper(), known)
    assert metrics.finite
    assert int(after.step) == 2


@pytest.mark.parametrize("loss", [SHARED, OWN])
def test_a_step_that_samples_lowers_for_accelerators(loss):
    step = Step(loss, RULE, LazyUpdate(), microbatches=2)
    state, known = begin(step, hyper())
    for platform in ("cuda", "tpu"):
        traced = jax.jit(call(step)).trace(state, batch(), hyper(), known)
        assert traced.lower(lowering_platforms=(platform,)).as_text()


def test_a_step_draws_the_same_however_it_was_reached_and_another_step_draws_others(lazy, tmp_path):
    step, go = lazy
    start, known = begin(step, hyper())

    @jax.jit
    def ids(state):
        """Shared ones, and a row's own."""
        shared, own = (step.draw(loss, state, batch(), None, known) for loss in (SHARED, OWN))
        return shared.shared.ids[-5:], own.own.ids

    state, _ = run(go, start, hyper(), known)
    shelf = Checkpoints(tmp_path)
    shelf.save(2, state, {})
    restored, _ = shelf.restore(2, begin(step, hyper(), seed=1)[0])
    same(restored, state)
    same(ids(restored), ids(state))
    same(ids(start._replace(step=jnp.int32(2))), ids(state))
    same(go(restored, batch(5), hyper(), known), go(state, batch(5), hyper(), known))
    others = [ids(start), ids(start._replace(step=jnp.int32(1))), ids(begin(step, hyper(), seed=1)[0])]
    for kind in zip(*others, ids(state), strict=True):
        assert len({np.asarray(leaf).tobytes() for leaf in kind}) == 4
    own = np.asarray(ids(state)[1])
    assert len({tuple(row) for row in own}) == len(own) == ROWS * TIME, "every position has its own"
