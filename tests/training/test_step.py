"""One pure step: under jit, pmap, shard_map and vmap, in micro-batches, with traced floats, and when a number
breaks.
"""

import collections
from dataclasses import replace
from functools import partial

import jax
import jax.extend as jex
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrec.cells import GRU, Event
from jaxrec.losses import BPR, Softmax
from jaxrec.models import recommender
from jaxrec.models.recommender import Batch
from jaxrec.parallel.strategy import distribute
from jaxrec.training.optimisers import Optimiser, clip
from jaxrec.training.step import Step

WIDTH, ITEMS, ROWS, TIME = 4, 9, 8, 3
HYPER = {"lr": 0.05, "weight_decay": 0.1, "clip": 0.5, "dropout": 0.3, "label_smoothing": 0.1, "temperature": 0.9}
HYPER = {name: jnp.float32(value) for name, value in HYPER.items()}


def model(seed=0, tied=True, user=False):
    return recommender.build(
        lambda features, rngs: GRU(features, WIDTH, rngs=rngs), items=ITEMS, users=6, width=WIDTH, depth=1,
        feedforward=1, norm=True, residual=True, tied=tied, bias=True, user=user, backend=None,
        wants=Event(x=jnp.zeros((1, 1, WIDTH))), seed=seed,
    )  # fmt: skip


def batch(seed=0, rows=ROWS):
    draw = np.random.default_rng(seed)
    mask = np.arange(TIME)[None] < draw.integers(1, TIME + 1, rows)[:, None]
    item = np.where(mask, draw.integers(1, ITEMS + 1, mask.shape), 0).astype(np.int32)
    target = np.where(mask, draw.integers(1, ITEMS + 1, mask.shape), 0).astype(np.int32)
    reset = np.tile(np.arange(TIME) == 0, (rows, 1))
    user = np.where(mask, draw.integers(1, 7, (rows, 1)), 0).astype(np.int32)
    return Batch(*map(jnp.asarray, (item, target, mask, reset)), user=jnp.asarray(user))


def run(step, state, steps=3, hyper=HYPER, go=None):
    go = go or jax.jit(step)
    losses = []
    for number in range(steps):
        state, metrics = go(state, batch(number), hyper)
        losses.append(float(metrics.loss / metrics.events))
    return state, losses


def close(a, b, tolerance=1e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=tolerance, rtol=tolerance), a, b)


@pytest.mark.parametrize("gathered", [False, True], ids=["whole tables", "gathered rows"])
def test_three_data_parallel_modes_agree_with_one_device_dropout_included(gathered):
    """In float64: Adam divides by a gradient's own size, so that the order of a float32 sum shows."""
    with jax.enable_x64(True):
        hyper = {name: value.astype(jnp.float64) for name, value in HYPER.items()}
        step = Step(Softmax(), Optimiser("adamw"))
        wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), model(tied=not gathered, user=gathered))
        start = step.init(wide, hyper, jax.random.key(3))
        alone, losses = run(step, start, hyper=hyper)
        for mode in ("jit", "shard_map", "pmap"):
            many = distribute(step, mode, 8, split=(None, 0, None))
            state, found = run(step, start, hyper=hyper, go=many)
            np.testing.assert_allclose(found, losses, rtol=1e-13)
            close((state.tables, jax.tree.leaves(state.network)), (alone.tables, jax.tree.leaves(alone.network)), 1e-9)


def test_vmap_over_seeds_and_hyperparameters_equals_one_by_one():
    step = Step(Softmax(), Optimiser("adamw", "cosine", warmup=2, steps=10))
    seeds = [0, 1, 2]
    hypers = [
        HYPER | {"lr": jnp.float32(rate), "dropout": jnp.float32(drop)}
        for rate, drop in ((0.1, 0), (0.01, 0.2), (0.03, 0.5))
    ]
    states = [step.init(model(seed), hyper, jax.random.key(seed)) for seed, hyper in zip(seeds, hypers, strict=True)]
    stack = lambda trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)  # noqa: E731
    together, all_hyper = stack(states), stack(hypers)
    go = jax.jit(jax.vmap(step, in_axes=(0, None, 0)))
    for number in range(3):
        together, _ = go(together, batch(number), all_hyper)
    for place, (state, hyper) in enumerate(zip(states, hypers, strict=True)):
        alone, _ = run(step, state, hyper=hyper)
        close(jax.tree.map(lambda leaf, n=place: leaf[n], together.tables), alone.tables)


def test_micro_batches_are_the_same_step():
    step, parts = Step(Softmax()), Step(Softmax(), microbatches=4)
    start = step.init(model(), HYPER, jax.random.key(0))
    whole, losses = run(step, start)
    cut, found = run(parts, start)
    np.testing.assert_allclose(found, losses, rtol=1e-6)
    close(whole.tables, cut.tables)


def test_the_update_is_clipped_adam_as_optax_writes_it():
    """Against optax's own chain on one flat problem, decay on matrices only."""
    step, hyper = Step(Softmax(), Optimiser("adamw")), HYPER | {"dropout": jnp.float32(0)}
    state = step.init(model(), hyper, jax.random.key(0))
    params = {"tables": state.tables, "network": state.network}

    def loss(params):
        given = batch()
        scores = recommender.Recommender(params["tables"], params["network"])(given)[..., 1:]
        logs = jax.nn.log_softmax(scores / 0.9)
        label = jax.nn.one_hot(given.target - 1, ITEMS) * 0.9 + 0.1 / ITEMS
        return jnp.sum(-jnp.sum(label * logs, -1) * given.mask) / jnp.sum(given.mask)

    rule = optax.chain(
        optax.clip_by_global_norm(0.5),
        optax.adamw(0.05, weight_decay=0.1, mask=lambda tree: jax.tree.map(lambda leaf: leaf.ndim > 1, tree)),
    )
    updates, _ = rule.update(jax.grad(loss)(params), rule.init(params), params)
    wanted = optax.apply_updates(params, updates)
    after, _ = jax.jit(step)(state, batch(), hyper)
    close({"tables": after.tables, "network": after.network}, wanted, 2e-5)


def test_floats_are_traced_and_shapes_compile_once():
    step = Step(Softmax())
    state = step.init(model(), HYPER, jax.random.key(0))
    go = jax.jit(step)
    for rate in (0.1, 0.2, 0.3):
        state, _ = go(state, batch(), {name: jnp.float32(rate) for name in HYPER})
    assert go._cache_size() == 1


def test_a_step_that_is_not_finite_changes_nothing_and_says_so():
    step = Step(Softmax())
    state = step.init(model(), HYPER, jax.random.key(0))
    broken = state._replace(tables=state.tables | {"bias": state.tables["bias"].at[3].set(jnp.nan)})
    after, metrics = jax.jit(step)(broken, batch(), HYPER)
    assert not metrics.finite
    jax.tree.map(np.testing.assert_array_equal, after.tables, broken.tables)
    assert int(after.step) == 0


def test_a_running_average_is_the_one_that_numpy_makes_and_a_broken_step_is_not_in_it():
    hyper = HYPER | {"average": jnp.float32(0.6)}
    step = Step(Softmax(), Optimiser("adamw"), averages=True)
    state = step.init(model(), hyper, jax.random.key(0))
    expected = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(state.model)]
    close(state.judged, state.model, 0)
    go = jax.jit(step)
    for number in range(12):
        if number == 5:
            before = state
            state, metrics = go(state, batch(number), hyper | {"temperature": jnp.float32(jnp.nan)})
            assert not metrics.finite
            close(state.average, before.average, 0)
        state, _ = go(state, batch(number), hyper)
        decay = min(0.6, (1 + number) / (10 + number))
        now = jax.tree.leaves(state.model)
        expected = [decay * old + (1 - decay) * np.asarray(new) for old, new in zip(expected, now, strict=True)]
    close(jax.tree.leaves(state.judged), expected, 1e-6)
    assert not np.allclose(jax.tree.leaves(state.judged)[0], jax.tree.leaves(state.model)[0])
    bare = Step(Softmax(), Optimiser("adamw"))
    plain, _ = run(bare, bare.init(model(), HYPER, jax.random.key(0)))
    averaged, _ = run(step, step.init(model(), hyper, jax.random.key(0)), hyper=hyper)
    close(plain.model, averaged.model, 1e-6)  # training does not feel it: another program, up to rounding


def test_the_average_is_the_same_on_many_devices():
    hyper = HYPER | {"average": jnp.float32(0.9)}
    step = Step(Softmax(), Optimiser("adamw"), averages=True)
    start = step.init(model(), hyper, jax.random.key(3))
    alone, _ = run(step, start, hyper=hyper)
    for mode in ("jit", "shard_map", "pmap"):
        state, _ = run(step, start, hyper=hyper, go=distribute(step, mode, 8, split=(None, 0, None)))
        close(state.judged, alone.judged, 2e-4)


HALF = Step(Softmax(), Optimiser("adamw"), compute="bfloat16")


def products(jaxpr):
    """Types of the numbers that are multiplied in matrix products, those in loops included."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield tuple(str(variable.aval.dtype) for variable in equation.invars)
        for inner in jex.core.jaxprs_in_params(equation.params):
            yield from products(inner)


def test_half_precision_is_near_single_and_everything_that_is_kept_is_single():
    whole, losses = run(replace(HALF, compute=None), HALF.init(model(), HYPER, jax.random.key(0)))
    state, found = run(HALF, HALF.init(model(), HYPER, jax.random.key(0)))
    np.testing.assert_allclose(found, losses, rtol=0.01)
    assert found != losses
    assert {str(leaf.dtype) for leaf in jax.tree.leaves((state.model, state.optimiser))} <= {"float32", "int32"}
    moved = [
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(jax.tree.map(jnp.subtract, after.model, model()))])
        for after in (whole, state)
    ]
    assert np.corrcoef(*moved)[0, 1] > 0.99


def test_scores_and_feed_forward_are_multiplied_in_half_precision_and_recurrences_in_single():
    """Three products each forth and back: a block's scores; up and down; those of the cell, and its inputs."""
    state = HALF.init(model(), HYPER, jax.random.key(0))
    found = collections.Counter(products(jax.make_jaxpr(HALF)(state, batch(), HYPER).jaxpr))
    assert found[("bfloat16", "bfloat16")] == 3 + 6
    assert found[("float32", "float32")] >= 12
    plain = collections.Counter(products(jax.make_jaxpr(replace(HALF, compute=None))(state, batch(), HYPER).jaxpr))
    assert found.total() == plain.total()
    assert set(plain) == {("float32", "float32")}


@pytest.mark.parametrize("loss", [Softmax(), BPR(negatives=5, shared=True)], ids=["softmax", "drawn"])
def test_the_gradient_of_a_row_that_is_read_thousands_of_times_is_summed_in_single(loss):
    """In bfloat16 a sum of equal numbers ends at 256 of them."""
    rows = 2048
    ones = jnp.ones((rows, 2), jnp.int32)
    same = Batch(ones, ones, ones > 0, keys=jax.random.split(jax.random.key(0), rows))
    hyper = {"lr": HYPER["lr"], "clip": HYPER["clip"], "weight_decay": HYPER["weight_decay"]}
    slopes = []
    for step in (Step(loss), Step(loss, compute="bfloat16")):
        state = step.init(model(), hyper, jax.random.key(0))
        known = step.know(jnp.arange(ITEMS + 1), hyper)
        *_, grads, _ = jax.jit(partial(step.gradients, known=known))(state, same, hyper)
        slopes.append(grads["rows"]["item"])
    assert slopes[1].dtype == jnp.float32
    np.testing.assert_allclose(slopes[1], slopes[0], rtol=0.02, atol=0.01 * float(jnp.abs(slopes[0]).max()))


def test_half_precision_is_the_same_on_many_devices_and_in_micro_batches():
    start = HALF.init(model(), HYPER, jax.random.key(3))
    alone, losses = run(HALF, start)
    ways = [distribute(HALF, mode, 8, split=(None, 0, None)) for mode in ("jit", "shard_map", "pmap")]
    for go in (*ways, jax.jit(replace(HALF, microbatches=2))):
        state, found = run(HALF, start, go=go)
        np.testing.assert_allclose(found, losses, rtol=1e-3)
        close(state.model, alone.model, 0.02)


@pytest.mark.parametrize("compute", [None, "bfloat16"])
def test_the_step_lowers_for_accelerators_from_here(compute):
    step = Step(Softmax(), compute=compute)
    state = step.init(model(), HYPER, jax.random.key(0))
    for platform in ("cuda", "tpu"):
        assert jax.jit(step).trace(state, batch(), HYPER).lower(lowering_platforms=(platform,)).as_text()


def test_clip_reports_the_norm_before_and_infinity_never_clips():
    grads = {"a": jnp.array([3.0, 4.0])}
    clipped, norm, changed = clip(grads, 1.0)
    assert float(norm) == pytest.approx(5)
    assert changed
    np.testing.assert_allclose(clipped["a"], [0.6, 0.8], rtol=1e-6)
    same, _, changed = clip(grads, jnp.inf)
    assert not changed
    np.testing.assert_array_equal(same["a"], grads["a"])


@pytest.mark.parametrize(("value", "limit"), [(9.0, np.inf), (3.0, np.inf), (3.0, 2.0), (9.0, 2.0), (0.1, 2.0)])
def test_values_are_clipped_before_the_norm_and_both_bounds_hold(value, limit):
    """Against numpy, entry by entry; the norm that is told is the one before both."""
    grads = {"a": jnp.array([[3.0, -4.0]]), "b": jnp.array([0.5, 7.0, -2.0])}
    clipped, norm, changed = clip(grads, jnp.float32(limit), jnp.float32(value))
    before = np.concatenate([np.ravel(leaf).astype(np.float64) for leaf in jax.tree.leaves(grads)])
    wanted = np.clip(before, -value, value)
    wanted = wanted * min(1, limit / np.linalg.norm(wanted))
    found = np.concatenate([np.ravel(leaf).astype(np.float64) for leaf in jax.tree.leaves(clipped)])
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert float(norm) == pytest.approx(np.linalg.norm(before))
    assert bool(changed) == (not np.array_equal(wanted, before))


def test_a_clipped_entry_hides_no_gradient_that_is_not_finite():
    """``inf`` clipped is a number: the norm before says that it was none."""
    _, norm, changed = clip({"a": jnp.array([jnp.inf, 1.0])}, 1.0, jnp.float32(0.5))
    assert not np.isfinite(norm)
    assert changed


@pytest.mark.parametrize("gathered", [False, True], ids=["whole tables", "gathered rows"])
def test_a_step_clips_values_of_the_whole_gradient_on_any_number_of_devices(gathered):
    """One step of plain descent (Adagrad that has seen much) moves every parameter by ``rate * clip(gradient)``; a row
    that is read several times has one gradient; devices clip what they have summed, not their parts.
    """
    with jax.enable_x64(True):
        hyper = {"lr": 1.0, "clip": np.inf, "label_smoothing": 0.0, "temperature": 1.0, "dropout": 0.3}
        hyper = {name: jnp.asarray(number, jnp.float64) for name, number in hyper.items()}
        step = Step(Softmax(), Optimiser("adagrad", accumulator=1e12, eps=1e-300))
        wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), model(tied=not gathered, user=gathered))
        start = step.init(wide, hyper, jax.random.key(3))
        params = lambda state: jax.tree.leaves((state.tables, state.network))  # noqa: E731
        free, told = jax.jit(step)(start, batch(), hyper)
        moved = [np.ravel(b - a) for a, b in zip(params(start), params(free), strict=True)]
        size = np.quantile(np.concatenate(moved), 0.9) * 1e6
        hyper["clip_value"] = jnp.asarray(size)
        assert not told.clipped
        for mode, devices in (("jit", 1), ("jit", 8), ("shard_map", 8), ("pmap", 8)):
            go = jax.jit(step) if devices == 1 else distribute(step, mode, devices, split=(None, 0, None))
            after, metrics = go(start, batch(), hyper)
            assert metrics.clipped
            np.testing.assert_allclose(metrics.grad_norm, told.grad_norm, rtol=1e-12)
            for a, b, c in zip(params(start), params(free), params(after), strict=True):
                np.testing.assert_allclose(1e6 * (c - a), np.clip(1e6 * (b - a), -size, size), atol=1e-8)


def test_schedules_reach_their_height_and_their_end():
    rule = Optimiser(schedule="cosine", warmup=4, steps=20)
    rates = np.array([float(rule.rate(step)) for step in range(21)])
    assert np.argmax(rates) == 4
    assert rates[4] == pytest.approx(1)
    assert (np.diff(rates[:5]) > 0).all()
    assert (np.diff(rates[4:]) < 0).all()
    assert rates[20] == pytest.approx(0, abs=1e-6)
    assert float(Optimiser().rate(1000)) == 1
