"""A step on a mesh whose devices share out the tables: the numbers of one device, whatever the mesh."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec.cells import GRU, Event
from jaxrec.config import Mistake
from jaxrec.losses import SCE, SampledSoftmax, Softmax
from jaxrec.models import recommender
from jaxrec.training.lazy import LazyUpdate
from jaxrec.training.loop import compile_run, informed
from jaxrec.training.optimisers import Optimiser
from jaxrec.training.source import Source
from jaxrec.training.spread import Spread
from jaxrec.training.step import DenseUpdate, Step

WIDTH, ITEMS, USERS, STEPS, ROWS, TIME = 3, 30, 6, 3, 8, 4  # 31 and 7 rows: pieces are filled up
MESHES = [(8, 1), (4, 2), (2, 4), (1, 8)]
HYPER = {
    "lr": 0.05, "clip": 0.5, "clip_value": 0.1, "weight_decay": 0.1, "dropout": 0.3, "event_dropout": 0.2,
    "temperature": 0.9, "propensity": 0.2, "label_smoothing": 0.1, "alpha": 0.5, "log_q": 0.8, "momentum": 0.4,
    "average": 0.9,
}  # fmt: skip
SAMPLED = SampledSoftmax(negatives=5, in_batch=True)
RULE = Optimiser("adamw", momentum=True, eps=1e-3)
CASES = {
    "tied": (Step(Softmax(), RULE, averages=True), True),
    "untied": (Step(Softmax(), RULE, microbatches=2), False),
    "cut in blocks": (Step(Softmax(chunk=7), RULE), True),
    "sampled": (Step(SAMPLED, RULE, DenseUpdate()), True),
    "sampled, untied": (Step(SAMPLED, RULE, LazyUpdate()), False),
    "lazy": (Step(SAMPLED, Optimiser("adagrad"), LazyUpdate()), True),
    "lazy, all": (Step(Softmax(), RULE, LazyUpdate()), True),
}


def cell(features, rngs):
    return GRU(features, WIDTH, rngs=rngs)


def shape_of(tied, items=ITEMS):
    """What makes a model."""
    return {
        "items": items, "users": USERS, "width": WIDTH, "depth": 1, "feedforward": 2, "norm": True, "residual": True,
        "tied": tied, "bias": True, "user": True, "backend": None, "seed": 0,
        "wants": Event(x=jnp.zeros((1, 1, WIDTH)), user=jnp.zeros((1, 1, WIDTH))),
    }  # fmt: skip


def begun(step, tied, lanes=0, items=ITEMS):
    """A state, what it is trained with, and three batches: some rows short, the last empty."""
    draw = np.random.default_rng(0)
    model = recommender.build(cell, **shape_of(tied, items))
    model = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), model)
    hyper = {name: jnp.asarray(value) for name, value in HYPER.items()}
    source = Source(
        jnp.asarray(draw.integers(1, items + 1, 60), jnp.int32), owners=jnp.asarray(draw.integers(0, USERS + 1, 60)),
        counts=jnp.asarray(np.append(0, 1 + np.arange(items) ** 2 % 17), float),
    )  # fmt: skip
    index = draw.integers(0, 59, (STEPS, ROWS, TIME)).astype(np.int32)
    index[:, 3, 2:], index[:, -1] = -1, -1
    state = step.init(model, hyper, jax.random.key(0), lanes)
    return state, informed(step, source, hyper), index, np.zeros(index.shape, bool), np.array([0, STEPS]), hyper


def numbers(tree):
    is_key = lambda leaf: jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)  # noqa: E731
    return [np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf) for leaf in jax.tree.leaves(tree)]


def near(found, wanted, tolerance=1e-9):
    for here, there in zip(numbers(found), numbers(wanted), strict=True):
        np.testing.assert_allclose(here, there, rtol=tolerance, atol=tolerance)


def spread_out(step, mode, mesh, given):
    state, source, index, reset, bounds, hyper = given
    run = Spread(step, mode, mesh[0] * mesh[1], mesh[1])
    placed = run.place(state, source, hyper)
    state, metrics = run(*placed[:2], index, reset, bounds, placed[2])
    if mesh[1] > 1:
        for name, table in state.tables.items():
            rows = -(-len(given[0].tables[name]) // mesh[1])
            assert {shard.data.shape[0] for shard in table.addressable_shards} == {rows}, "a device has its piece only"
    return run.whole(state), metrics


def equal_to_one_device(name, ways):
    step, tied = CASES[name]
    with jax.enable_x64(True):
        wanted = compile_run(step)(*begun(step, tied))
        for mode, mesh in ways:
            if step.microbatches * mesh[0] <= ROWS:
                near(spread_out(step, mode, mesh, begun(step, tied)), wanted)


@pytest.mark.parametrize("name", CASES)
def test_a_mesh_gives_the_steps_of_one_device(name):
    equal_to_one_device(name, [("jit", (4, 2)), ("shard_map", (2, 4) if name != "tied" else (1, 8))])


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_every_mesh_gives_the_steps_of_one_device(name):
    equal_to_one_device(name, [(mode, mesh) for mode in ("jit", "shard_map") for mesh in MESHES])


@pytest.mark.parametrize(("name", "mode"), [("tied", "shard_map"), ("sampled, untied", "jit")])
def test_half_precision_is_that_of_one_device_up_to_its_rounding(name, mode):
    step, tied = CASES[name]
    step = replace(step, compute="bfloat16")
    wanted = compile_run(step)(*begun(step, tied, lanes=ROWS))
    _, metrics = spread_out(step, mode, (2, 4), begun(step, tied, lanes=ROWS))
    np.testing.assert_allclose(metrics.loss, wanted[1].loss, rtol=0.01)
    assert wanted[1].grad_norm[0] > 1
    np.testing.assert_allclose(metrics.grad_norm[0], wanted[1].grad_norm[0], rtol=5e-3)  # later Adam amplifies


def test_lanes_keep_their_state_beside_tables_in_pieces():
    step = Step(Softmax(), RULE)
    with jax.enable_x64(True):
        wanted = compile_run(step)(*begun(step, True, lanes=ROWS))
        for mode in ("shard_map", "jit"):
            found = spread_out(step, mode, (2, 4), begun(step, True, lanes=ROWS))
            assert found[0].carry is not None
            near(found, wanted)


def test_a_step_that_is_not_finite_changes_no_piece():
    step = Step(Softmax(), RULE)
    given = begun(step, True)
    given[5]["lr"] = jnp.asarray(0.0)
    wanted = numbers(given[0].tables)
    given[5]["temperature"] = jnp.asarray(jnp.nan)
    state, metrics = spread_out(step, "shard_map", (2, 4), given)
    assert not metrics.finite.any()
    jax.tree.map(np.testing.assert_array_equal, numbers(state.tables), wanted)


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize(("rule", "update"), [(RULE, DenseUpdate()), (Optimiser("adagrad"), LazyUpdate())])
def test_a_state_begun_in_pieces_is_the_one_begun_on_one_device(mesh, rule, update):
    """Tables, moments and averages to the bit, each where a step wants it: nothing is moved or filled up again."""
    step, hyper = (
        Step(SAMPLED, rule, update, averages=True),
        {name: jnp.asarray(value) for name, value in HYPER.items()},
    )
    begin = lambda model: step.init(model, hyper, jax.random.key(0))  # noqa: E731
    told = recommender.undrawn(cell, **shape_of(tied=False))
    wanted = begin(recommender.drawn(told))
    run = Spread(step, "shard_map", 8, mesh[1])
    state = run.begun(told, begin)
    jax.tree.map(np.testing.assert_array_equal, numbers(run.whole(state)), numbers(wanted))
    assert jax.tree.map(np.shape, jax.tree.leaves(run.form(state))) == jax.tree.map(np.shape, jax.tree.leaves(wanted))
    if mesh[1] > 1:
        placed = run.place(state, None, hyper)[0]
        for name in ("item", "output", "bias", "user"):
            assert {len(piece.data) for piece in state.tables[name].addressable_shards} == {
                -(-len(wanted.tables[name]) // mesh[1])
            }
            for tables in (lambda one: one.tables, lambda one: one.average.tables):
                assert tables(placed)[name] is tables(state)[name]
        for before, after in zip(*(jax.tree.leaves(one.optimiser["tables"]) for one in (state, placed)), strict=True):
            assert before is after or not before.ndim


@pytest.mark.parametrize("mode", ["jit", "shard_map"])
@pytest.mark.parametrize("name", ["tied", "sampled, untied"])
def test_no_device_ever_has_a_whole_table_or_all_scores(name, mode):
    """Looked for in the compiled program; and it lowers for accelerators from here."""
    step, tied = CASES[name]
    state, source, index, reset, bounds, hyper = begun(step, tied, items=100)  # 101 rows, 102 in two pieces
    run = Spread(step, mode, 4, 2)
    state, source, hyper = run.place(state, source, hyper)
    program = run.program(state, source, index, reset, bounds, hyper).as_text()
    assert "f32[51,3]" in program, "its piece"
    whole = re.findall(rf"f32\[(?:10[12],{WIDTH}|\d+,10[12]|10[12],\d\d+)\]", program)
    assert not whole
    assert len(run.run.programs) == 1
    args = run.run.place(state._replace(carry=None), source, index, reset, bounds, hyper, None)
    for platform in ("cuda", "tpu"):
        assert run.run.programs.jitted.trace(*args).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize(
    ("loss", "mode", "devices", "pieces", "words"),
    [
        (SCE(), "jit", 8, 2, "sce"),
        (Softmax(), "pmap", 8, 2, "--parallel jit or shard_map"),
        (Softmax(), "jit", 8, 3, "shards=3 does not divide devices=8"),
    ],
)
def test_what_cannot_be_cut_is_one_sentence(loss, mode, devices, pieces, words):
    with pytest.raises(Mistake, match=words):
        Spread(Step(loss, RULE), mode, devices, pieces)
