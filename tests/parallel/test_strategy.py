"""The three ways of running on several devices give the numbers of one device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from jaxrec.config import Mistake
from jaxrec.parallel.strategy import AXIS, distribute, local_devices

MODES = ["jit", "shard_map", "pmap"]
SPLIT = (None, None, 1, 1, None, None)
STEPS, ROWS, LENGTH = 4, 16, 3


def train(state, source, index, weight, bounds, hyper, axis=None):
    """SGD on a table: the shape of the training loop, with rows of very different weight."""

    def loss(table, items, weights):
        return jnp.sum(weights * jnp.sum(jnp.square(table[items] - 1.0), -1))

    def step(number, carried):
        state, total = carried
        items, weights = source[index[number]], weight[number]
        value, grad = jax.value_and_grad(loss)(state["table"], items, weights)
        sums = value, grad, jnp.sum(weights)
        value, grad, count = sums if axis is None else jax.lax.psum(sums, axis)
        noise = jax.random.normal(jax.random.fold_in(state["key"], state["step"]), state["table"].shape)
        table = state["table"] - hyper["lr"] * grad / count + 1e-3 * noise
        return state | {"table": table, "step": state["step"] + 1}, total + value / count

    return jax.lax.fori_loop(bounds[0], bounds[1], step, (state, jnp.zeros(())))


def arguments(rows=ROWS):
    draw = np.random.default_rng(0)
    state = {
        "table": jnp.asarray(draw.normal(size=(7, 5)), jnp.float32),
        "step": jnp.int32(0),
        "key": jax.random.key(3),
        "carry": None,
    }
    index = draw.integers(0, 20, (STEPS, rows, LENGTH))
    weight = (draw.random((STEPS, rows, LENGTH)) * np.arange(rows)[:, None]).astype(np.float32)
    bounds = np.array([0, STEPS], np.int32)
    return state, draw.integers(0, 7, 20), index, weight, bounds, {"lr": np.float32(0.1)}


def plain(tree):
    """A tree of numpy arrays, keys as their words."""
    is_key = lambda leaf: jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)  # noqa: E731
    return jax.tree.map(lambda leaf: np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf), tree)


def assert_near(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), plain(found), plain(expected))


@pytest.fixture(scope="module")
def expected():
    """What one device gives."""
    return plain(jax.jit(train)(*arguments()))


@pytest.mark.parametrize("count", [1, 8])
@pytest.mark.parametrize("mode", MODES)
def test_devices_do_not_change_the_numbers(mode, count, expected):
    found = distribute(train, mode, count, split=SPLIT)(*arguments())
    assert_near(found, expected)


@pytest.mark.parametrize("mode", MODES)
def test_the_trip_count_is_an_argument(mode):
    """Other bounds run without tracing anew, and two part trips make one whole trip."""
    traced = []

    def counted(*args, axis=None):
        traced.append(axis)
        return train(*args, axis=axis)

    run = distribute(counted, mode, 4, split=SPLIT)
    state, *others, bounds, hyper = arguments()
    whole, _ = run(state, *others, bounds, hyper)
    half, _ = run(state, *others, np.array([0, 1], np.int32), hyper)
    both, _ = run(half, *others, np.array([1, STEPS], np.int32), hyper)
    assert_near(both, whole)
    assert int(half["step"]) == 1
    assert len(traced) == 1


@pytest.mark.parametrize("mode", MODES)
def test_outputs_lie_whole_on_every_device_and_feed_the_next_call(mode):
    run = distribute(train, mode, 8, split=SPLIT)
    state, _ = run(*arguments())
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state))
    again = run.put(0, state)
    assert all(a is b for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(state), strict=True))


@pytest.mark.parametrize("mode", MODES)
def test_pieces_are_real(mode):
    """A cut argument is spread, not copied: every device holds its own rows."""
    placed = distribute(train, mode, 8, split=SPLIT).place(*arguments())
    shards = placed[2].addressable_shards
    assert len({shard.device for shard in shards}) == 8
    assert sum(shard.data.size for shard in shards) == STEPS * ROWS * LENGTH
    rows = np.concatenate([np.asarray(shard.data).reshape(STEPS, -1, LENGTH) for shard in shards], 1)
    np.testing.assert_array_equal(rows, arguments()[2])


def test_axis_is_told_to_the_function_that_sums_itself():
    told = {}

    def ask(x, axis=None):
        told[mode] = (axis, x.shape)
        return jnp.zeros(())

    for mode in MODES:
        distribute(ask, mode, 4, split=(0,))(np.zeros((8, 2), np.float32))
    assert told == {"jit": (None, (8, 2)), "shard_map": (AXIS, (2, 2)), "pmap": (AXIS, (2, 2))}


@pytest.mark.parametrize("mode", MODES)
def test_donation_takes_the_placed_copy_and_not_the_callers_array(mode, expected):
    run = distribute(train, mode, 2, split=SPLIT, donate=(0,))
    args = arguments()
    before = plain(args[0])
    placed = run.place(*args)
    assert_near(run.programs(*placed)(*placed), expected)
    assert placed[0]["table"].is_deleted()
    assert_near(run(*args), expected)
    jax.tree.map(np.testing.assert_array_equal, plain(args[0]), before)


def test_donated_host_arrays_stay_as_they_were():
    host = np.arange(4096, dtype=np.float32)
    run = distribute(lambda x, axis=None: x * 2, "jit", 1, split=(None,), donate=(0,))
    np.testing.assert_array_equal(run(host), 2 * np.arange(4096))
    np.testing.assert_array_equal(host, np.arange(4096))


@pytest.mark.parametrize("mode", MODES)
def test_an_uneven_cut_is_refused_with_what_would_fit(mode):
    run = distribute(train, mode, 8, split=SPLIT)
    with pytest.raises(Mistake, match=r"12 rows .* 8 devices; use a multiple of 8, such as 16, or 6 device"):
        run(*arguments(rows=12))


@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, 200), count=st.integers(1, 8))
def test_a_refusal_names_sizes_that_work(size, count):
    run = distribute(lambda x, axis=None: jnp.zeros(()), "jit", count, split=(0,))
    x = np.zeros(size, np.float32)
    try:
        (placed,) = run.place(x)
    except Mistake as mistake:
        assert size % count
        words = str(mistake).replace(",", " ").split()
        larger, fewer = int(words[words.index("as") + 1]), int(words[words.index("or") + 1])
        assert larger % count == 0
        assert larger > size
        assert size % fewer == 0
        assert fewer < count
    else:
        assert size % count == 0
        np.testing.assert_array_equal(placed, x)


def test_mistakes_name_the_value_and_the_remedy():
    with pytest.raises(Mistake, match="'shardmap' is not one of jit, shard_map, pmap; did you mean 'shard_map'"):
        distribute(train, "shardmap", 1, split=SPLIT)
    with pytest.raises(Mistake, match="devices=99, but this process has 8 cpu"):
        local_devices(99)
    with pytest.raises(Mistake, match="devices=0"):
        distribute(train, "jit", 0, split=SPLIT)
    with pytest.raises(TypeError, match="1 arguments, but split names 6"):
        distribute(train, "jit", 1, split=SPLIT)(1)
