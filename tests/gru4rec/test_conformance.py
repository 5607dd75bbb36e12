"""The profile `gru4rec` against a float64 implementation that was written from the algorithm's description alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrec.cells import GRU, Event
from jaxrec.config import resolve
from jaxrec.losses.loss import with_hyper
from jaxrec.models.network import dropout, event_keys, site
from jaxrec.models.recommender import Batch
from jaxrec.recurrence.wrappers import Dropped
from jaxrec.runs import build
from jaxrec.runs.options import Config
from jaxrec.runs.profiles import profile_file
from jaxrec.training.step import row_keys

ITEMS, LANES, UNITS, SAMPLES, STEPS = 17, 5, 4, 6, 5
BOTH = f"negatives={SAMPLES}, alpha=0.5, in_batch=true, hits=kept"
LOSSES = {
    "cross_entropy": (f"sampled_softmax({BOTH}, correction=raw, log_q=0.0)", {}),
    "cross_entropy, log-Q": (f"sampled_softmax({BOTH}, correction=raw)", {"logq": 1.0}),
    "bpr_max": (f"bpr_max({BOTH}, reg=0.75)", {"bpreg": 0.75}),
    "bpr_max, elu": (f"bpr_max({BOTH}, reg=0.75, elu=0.5)", {"bpreg": 0.75, "elu": 0.5}),
    "bpr": (f"bpr({BOTH}, shared=true)", {}),
    "top1": (f"top1({BOTH})", {}),
    "top1_max, elu": (f"top1_max({BOTH}, elu=1.0)", {"elu": 1.0}),
}
MODES = {
    "shared": {},
    "separate": {"model.tied": False, "model.embedding": 3},
    "one_hot": {"model.tied": False, "model.one_hot": True, "model.cell": "gru(reset=before)"},
}


def configured(**flags):
    chosen = {"model.width": UNITS, "batch.size": LANES} | flags
    return resolve(Config, flags=chosen, profile=profile_file("gru4rec")).section


def batches(seed=0):
    """Lanes with sessions that end, repeated items, and lanes that run out one by one."""
    draw = np.random.default_rng(seed)
    for step in range(STEPS):
        present = np.arange(LANES) < LANES - max(0, step - 2)
        item, target = (np.where(present, draw.integers(1, ITEMS // 2, LANES), 0) for _ in range(2))
        reset = (draw.uniform(size=LANES) < 0.4) | (step == 0) | ~present
        column = lambda array: jnp.asarray(array)[:, None]  # noqa: E731
        yield Batch(*map(column, (item.astype(np.int32), target.astype(np.int32), present, reset)))


def parameters(state):
    """Ours under the oracle's names."""
    cell = state.network.blocks[0].cell
    cell = getattr(cell, "cell", cell)
    named = {name: getattr(cell, name) for name in ("wr", "wz", "wn", "ur", "uz", "un", "br", "bz", "bn", "cn")}
    found = {name: np.asarray(leaf[...], np.float64) for name, leaf in named.items() if leaf is not None}
    if len(found["wr"]) == 1:  # one-hot: the item table is the input weights
        found = {name: leaf for name, leaf in found.items() if name not in ("wr", "wz", "wn")}
    return found | {name: np.asarray(table, np.float64) for name, table in state.tables.items()}


def masks(state, hyper, width):
    """The dropout masks (lanes, units) and (lanes, width) of the step to come."""
    keys = row_keys(state, LANES, None)
    embedding = dropout(jnp.ones((LANES, 1, width)), hyper.get("embedding_dropout", 0.0), site(keys, 0))[:, 0]
    if "state_dropout" not in hyper:
        return None, embedding
    dropped = Dropped(GRU(width, UNITS, rngs=nnx.Rngs(0)), hyper["state_dropout"])
    at = event_keys(site(site(keys, 1), 2), 1)[:, 0]
    return jax.vmap(lambda key: dropped.project(Event(x=jnp.zeros(width), key=key))[1])(at), embedding


def follow(oracle, loss, mode, flags, options, dtype):
    """Both train on the same batches, samples and masks; what each has after every step."""
    config = configured(**MODES[mode], **flags, loss=loss)
    step, hyper = build.step(config, 100)
    hyper = {name: value.astype(dtype) for name, value in hyper.items()}
    counts = jnp.asarray([0, *np.random.default_rng(1).integers(1, 60, ITEMS)], dtype)
    model = build.model(config.model, build.Offer(ITEMS, 0, False, False), seed=3)
    model = jax.tree.map(lambda leaf: leaf.astype(dtype), model)
    state = step.init(model, hyper, jax.random.key(2), LANES)
    known = step.know(counts, hyper)
    theirs = oracle(
        parameters(state), mode=mode, lr=float(hyper["lr"]), momentum=float(hyper.get("momentum", 0)),
        counts=np.asarray(counts), batch=LANES, **options,
    )  # fmt: skip
    go = jax.jit(step)
    for batch in batches():
        flat = batch._replace(keys=row_keys(state, LANES, None))
        drawn = step.draw(with_hyper(step.loss, hyper), state, flat, None, known)
        hidden, embedding = masks(state, hyper, state.tables["item"].shape[1])
        leaves = (np.asarray(leaf[:, 0]) for leaf in (batch.item, batch.target, batch.mask, batch.reset))
        wanted = theirs.step(
            *leaves, np.asarray(drawn.shared.ids[LANES:]), hidden, None if mode == "one_hot" else np.asarray(embedding)
        )
        state, metrics = go(state, batch, hyper, known=known)
        yield float(metrics.loss) / LANES, wanted, parameters(state), theirs.params, np.asarray(state.carry[0]), (
            theirs.state, np.asarray(batch.mask[:, 0]),
        )  # fmt: skip


def agree(pairs, tolerance):
    for found, wanted, ours, theirs, carry, (state, present) in pairs:
        np.testing.assert_allclose(found, wanted, rtol=tolerance)
        np.testing.assert_allclose(carry[present], state[present], atol=tolerance)
        assert ours.keys() == theirs.keys()
        for name, leaf in theirs.items():
            np.testing.assert_allclose(ours[name], leaf, atol=tolerance, err_msg=name)


CASES = [(loss, "shared") for loss in LOSSES]
CASES += [(loss, mode) for loss in ("cross_entropy, log-Q", "bpr_max, elu") for mode in ("separate", "one_hot")]


@pytest.mark.parametrize(("loss", "mode"), CASES)
def test_training_is_that_of_the_description(oracle, loss, mode):
    text, options = LOSSES[loss]
    flags = {"optimizer.momentum": 0.3, "model.state_dropout": 0.25}
    flags |= {} if mode == "one_hot" else {"model.embedding_dropout": 0.5}
    with jax.enable_x64(True):
        pairs = follow(oracle, text, mode, flags, {"loss": loss.split(",")[0]} | options, jnp.float64)
        agree(pairs, 1e-9)


@pytest.mark.parametrize("loss", ["cross_entropy, log-Q", "bpr_max, elu"])
def test_without_momentum_and_dropout_in_single_precision(oracle, loss):
    text, options = LOSSES[loss]
    agree(follow(oracle, text, "shared", {}, {"loss": loss.split(",")[0]} | options, jnp.float32), 1e-5)


def test_every_matrix_begins_uniform_within_its_own_bound():
    for mode, flags in MODES.items():
        model = build.model(configured(**flags).model, build.Offer(4000, 0, False, False), seed=0)
        cell = model.network.blocks[0].cell
        recurrent = getattr(cell, "cell", cell)
        bounds = {"ur": (UNITS, UNITS)} | (
            {} if mode == "one_hot" else {"wr": (3 if mode == "separate" else UNITS, UNITS)}
        )
        for name, shape in bounds.items():
            assert np.abs(getattr(recurrent, name)[...]).max() <= (6 / sum(shape)) ** 0.5
        columns = {"shared": UNITS, "separate": 3, "one_hot": UNITS}[mode]
        bound = (6 / (4000 + columns)) ** 0.5
        assert 0.99 * bound < np.abs(model.tables["item"]).max() <= bound
        assert np.std(model.tables["item"][1:]) == pytest.approx(bound / 3**0.5, rel=0.05)
        assert not model.tables["item"][0].any()
        assert not model.tables["bias"].any()


def test_a_lane_that_has_run_out_changes_nothing_and_weighs_nothing(oracle):
    """Halving the lanes that have events halves the step's loss: the mean is over the nominal batch."""
    del oracle
    config = configured(loss=LOSSES["bpr_max"][0])
    step, hyper = build.step(config, 100)
    assert step.nominal == LANES
    model = build.model(config.model, build.Offer(ITEMS, 0, False, False), seed=3)
    state = step.init(model, hyper, jax.random.key(2), LANES)
    known = step.know(jnp.ones(ITEMS + 1), hyper)
    batch = next(batches())
    gone = batch._replace(mask=batch.mask.at[2].set(False))
    other = gone._replace(item=gone.item.at[2].set(9), target=gone.target.at[2].set(0))
    go = jax.jit(step)
    one, two = go(state, gone, hyper, known=known)[0], go(state, other, hyper, known=known)[0]
    np.testing.assert_array_equal(one.tables["bias"], two.tables["bias"])
    jax.tree.map(np.testing.assert_array_equal, one.network, two.network)
