"""The fused softmax against its specification: values, gradients, chunkings, transformations, extremes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from jax.sharding import PartitionSpec
from jax.test_util import check_grads

from jaxrec.config import Mistake
from jaxrec.losses import Softmax
from jaxrec.losses.fused import Blocks, block_sizes, fused_cross_entropy
from jaxrec.losses.shards import Shard
from jaxrec.losses.softmax import cross_entropy

CHUNKS = (1, 7, 24, 60, 10_000)  # of 5 x 13 scores: single scores, odd item blocks, whole rows, everything


def inputs(seed=0, positions=5, width=3, items=12, dtype=np.float32, scale=1.0):
    """Random arguments of a loss; some positions are padding: weight 0 and target 0."""
    draw = np.random.default_rng(seed)
    hidden, rows, bias = (draw.normal(size=s) * scale for s in ((positions, width), (items + 1, width), (items + 1,)))
    weight = draw.uniform(0.5, 2, positions) * (draw.uniform(size=positions) < 0.8)
    targets = np.where(weight > 0, draw.integers(1, items + 1, positions), 0)
    floats = (jnp.asarray(array, dtype) for array in (hidden, rows, bias, weight))
    hidden, rows, bias, weight = floats
    return hidden, rows, bias, jnp.asarray(targets, jnp.int32), weight


def specification(hidden, rows, bias, targets, weight, label_smoothing=0.0, temperature=1.0):
    """All scores at once, padding row cut off, through ``cross_entropy``."""
    scores = hidden @ rows[1:].T
    scores = scores if bias is None else scores + bias[None, 1:]
    losses = cross_entropy(scores, jnp.maximum(targets - 1, 0), label_smoothing, temperature)
    return jnp.sum(weight * losses)


def compare(arguments, smoothing, temperature, chunk, tolerance):
    """Value without gradients, value with them, and every gradient agree with the specification."""

    def fused(hidden, rows, bias, weight, smoothing, temperature):
        return Softmax(label_smoothing=smoothing, temperature=temperature, chunk=chunk)(
            hidden, rows, bias, arguments[3], weight
        )

    def plain(hidden, rows, bias, weight, smoothing, temperature):
        return specification(hidden, rows, bias, arguments[3], weight, smoothing, temperature)

    hidden, rows, bias, _, weight = arguments
    floats = (hidden, rows, bias, weight, jnp.asarray(smoothing, hidden.dtype), jnp.asarray(temperature, hidden.dtype))
    wrt = tuple(n for n, value in enumerate(floats) if value is not None)

    @jax.jit
    def everything(*floats):
        return jax.value_and_grad(plain, wrt)(*floats), jax.value_and_grad(fused, wrt)(*floats), fused(*floats)

    (wanted, gradients), (found, found_gradients), value = everything(*floats)
    np.testing.assert_allclose([found, value], [wanted, wanted], rtol=tolerance)
    for left, right in zip(found_gradients, gradients, strict=True):
        assert left.dtype == right.dtype
        np.testing.assert_allclose(left, right, atol=tolerance * max(1.0, float(jnp.abs(right).max())))


@pytest.mark.parametrize("chunk", [*CHUNKS, None])
@pytest.mark.parametrize(("smoothing", "temperature"), [(0.0, 1.0), (0.2, 0.5)])
def test_equals_the_specification(chunk, smoothing, temperature):
    compare(inputs(), smoothing, temperature, chunk, 3e-6)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_equals_the_specification_to_double_precision(chunk):
    with jax.enable_x64(True):
        compare(inputs(dtype=np.float64), 0.1, 0.7, chunk, 1e-13)


@pytest.mark.parametrize("chunk", [24, None])
def test_without_bias(chunk):
    hidden, rows, _, targets, weight = inputs()
    compare((hidden, rows, None, targets, weight), 0.1, 2.0, chunk, 3e-6)


@settings(max_examples=10, derandomize=True)  # each example compiles; the same ones come from the cache
@given(
    seed=st.integers(0, 99),
    positions=st.integers(1, 9),
    width=st.integers(1, 4),
    items=st.integers(1, 9),
    chunk=st.integers(1, 50),
)
def test_any_shape_and_chunk(seed, positions, width, items, chunk):
    compare(inputs(seed, positions, width, items), 0.1, 1.5, chunk, 1e-5)


@pytest.mark.parametrize("chunk", [24, None])
def test_numerical_derivatives(chunk):
    """Independent of the specification's own derivative rules."""
    with jax.enable_x64(True):
        hidden, rows, bias, targets, weight = inputs(dtype=np.float64)

        def loss(*floats):
            chosen = Softmax(label_smoothing=floats[3], temperature=floats[4], chunk=chunk)
            return chosen(*floats[:3], targets, weight)

        check_grads(loss, (hidden, rows, bias, jnp.array(0.1), jnp.array(0.7)), order=1, modes=["rev"])


@pytest.mark.parametrize("chunk", [24, None])
@pytest.mark.parametrize("scale", [1e2, 1e4])
def test_extreme_scores_stay_finite_and_right(chunk, scale):
    """Scores up to 1e8: exponentials overflow without the shift, and an unlikely target loses its whole score."""
    hidden, rows, bias, targets, weight = inputs(scale=scale)
    value, gradients = jax.jit(jax.value_and_grad(Softmax(chunk=chunk), (0, 1, 2)))(hidden, rows, bias, targets, weight)
    with jax.enable_x64(True):
        exact = [jnp.asarray(array, jnp.float64) for array in (hidden, rows, bias)]
        wanted = specification(*exact, targets, weight.astype(jnp.float64))
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    assert all(bool(jnp.isfinite(gradient).all()) for gradient in gradients)


def test_equal_scores_cost_the_log_of_the_catalogue():
    hidden, rows, _, targets, weight = inputs()
    value = Softmax(chunk=24)(hidden, jnp.zeros_like(rows), None, targets, weight)
    np.testing.assert_allclose(value, jnp.sum(weight) * np.log(12), rtol=1e-6)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_the_padding_row_takes_no_part(chunk):
    """The largest score of all belongs to row 0: it is no candidate and gets no gradient."""
    hidden, rows, bias, targets, weight = inputs()
    loss = jax.jit(jax.value_and_grad(Softmax(label_smoothing=0.1, chunk=chunk), (0, 1, 2)))
    loud = (hidden, rows.at[0].set(100.0), bias.at[0].set(1e4), targets, weight)
    value, (d_hidden, d_rows, d_bias) = loss(*loud)
    quiet = loss(hidden, rows.at[0].set(0.0), bias.at[0].set(0.0), targets, weight)
    np.testing.assert_allclose(value, quiet[0], rtol=1e-6)
    np.testing.assert_allclose(d_hidden, quiet[1][0], atol=1e-6)
    assert not d_rows[0].any()
    assert d_bias[0] == 0


@pytest.mark.parametrize("target", [0, -1, 13, 2**31 - 1])
def test_positions_without_weight_do_not_count(target):
    hidden, rows, bias, targets, weight = inputs(positions=6)
    weight = weight.at[4:].set(0.0)
    loss = jax.value_and_grad(Softmax(label_smoothing=0.1, chunk=24), (0, 1, 2))
    loss = jax.jit(loss)
    value, gradients = loss(hidden, rows, bias, targets.at[4:].set(target), weight)
    short = loss(hidden[:4], rows, bias, targets[:4], weight[:4])
    np.testing.assert_allclose(value, short[0], rtol=1e-6)
    assert not gradients[0][4:].any()
    np.testing.assert_allclose(gradients[0][:4], short[1][0], atol=1e-6)
    np.testing.assert_allclose(gradients[1], short[1][1], atol=1e-6)


@pytest.mark.parametrize("chunk", [24, None])
def test_one_compiled_loss_for_every_smoothing_and_temperature(chunk):
    arguments, traces = inputs(), []

    @jax.jit
    def value(smoothing, temperature):
        traces.append(None)
        return Softmax(label_smoothing=smoothing, temperature=temperature, chunk=chunk)(*arguments)

    for smoothing, temperature in ((0.0, 1.0), (0.3, 0.5)):
        np.testing.assert_allclose(
            value(smoothing, temperature), specification(*arguments, smoothing, temperature), rtol=3e-6
        )
    assert len(traces) == 1


@pytest.mark.parametrize("chunk", [24, None])
def test_stacked_trials_equal_single_ones(chunk):
    trials = [inputs(seed) for seed in range(3)]
    smoothing = jnp.array([0.0, 0.1, 0.2])
    loss = jax.value_and_grad(lambda *a: Softmax(label_smoothing=a[5], chunk=chunk)(*a[:5]), (0, 1, 2))
    stacked = jax.jit(jax.vmap(loss))(*(jnp.stack(parts) for parts in zip(*trials, strict=True)), smoothing)
    alone_loss = jax.jit(loss)
    for trial, arguments in enumerate(trials):
        alone = alone_loss(*arguments, smoothing[trial])
        jax.tree.map(lambda left, right, n=trial: np.testing.assert_allclose(left[n], right, atol=2e-6), stacked, alone)


@pytest.mark.parametrize("chunk", [24, None])
def test_shards_of_positions_sum_to_the_whole(chunk):
    """Under shard_map each device takes its positions; summed losses and gradients are those of all positions."""
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:4])
    arguments = inputs(positions=8)
    loss = jax.value_and_grad(Softmax(label_smoothing=0.1, chunk=chunk), (0, 1, 2))

    def shard(*arguments):
        value, (d_hidden, d_rows, d_bias) = loss(*arguments)
        return jax.lax.psum(value, "data"), (d_hidden, *jax.lax.psum((d_rows, d_bias), "data"))

    split, whole = PartitionSpec("data"), PartitionSpec()
    sharded = jax.shard_map(
        shard,
        mesh=mesh,
        in_specs=(split, whole, whole, split, split),
        out_specs=(whole, (split, whole, whole)),
        check_vma=False,
    )
    found, wanted = jax.jit(sharded)(*arguments), jax.jit(loss)(*arguments)
    jax.tree.map(lambda left, right: np.testing.assert_allclose(left, right, atol=5e-6), found, wanted)


def test_half_precision_is_summed_in_single():
    """bfloat16 arguments: scores, normaliser and sums are float32; gradients come back in the arguments' dtype."""
    arguments = [jnp.asarray(a, jnp.bfloat16) if a.dtype == jnp.float32 else a for a in inputs(positions=40, items=50)]
    exact = [a.astype(jnp.float32) if a.dtype == jnp.bfloat16 else a for a in arguments]
    for chunk in (300, None):
        value, gradients = jax.jit(jax.value_and_grad(Softmax(chunk=chunk), (0, 1, 2)))(*arguments)
        wanted, wanted_gradients = jax.jit(jax.value_and_grad(specification, (0, 1, 2)))(*exact)
        np.testing.assert_allclose(float(value), float(wanted), rtol=1e-2)
        for left, right in zip(gradients, wanted_gradients, strict=True):
            assert left.dtype == jnp.bfloat16
            np.testing.assert_allclose(left.astype(np.float32), right, atol=0.02 * float(jnp.abs(right).max()))


@pytest.mark.parametrize("chunk", [300, None])
def test_wider_rows_are_rounded_for_products_and_get_their_gradient_as_it_was_summed(chunk):
    """The value is that of rounded rows to single precision, also with a temperature that half precision has not."""
    hidden, rows, bias, targets, weight = inputs(positions=40, items=50)
    hidden = hidden.astype(jnp.bfloat16)
    loss = Softmax(chunk=chunk, label_smoothing=0.1)
    value, gradients = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(hidden, rows, bias, targets, weight)
    exact = hidden.astype(np.float32), rows.astype(jnp.bfloat16).astype(np.float32), bias, targets, weight
    wanted, wanted_gradients = jax.value_and_grad(specification, (0, 1, 2))(*exact, label_smoothing=0.1)
    np.testing.assert_allclose(float(value), float(wanted), rtol=1e-4)
    assert [str(leaf.dtype) for leaf in gradients] == ["bfloat16", "float32", "float32"]
    for left, right in zip(gradients, wanted_gradients, strict=True):
        np.testing.assert_allclose(left.astype(np.float32), right, atol=0.01 * float(jnp.abs(right).max()))


@pytest.mark.parametrize(("positions", "items", "width"), [(512, 2000, 8), (64, 40_000, 4)])
def test_memory_stays_within_the_chunk(positions, items, width):
    """The compiled program's temporaries hold a few blocks of scores and copies of the arguments, never all scores."""
    chunk = 2**14
    shapes = [(positions, width), (items + 1, width), (items + 1,)]
    floats = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    targets, weight = jax.ShapeDtypeStruct((positions,), jnp.int32), jax.ShapeDtypeStruct((positions,), jnp.float32)
    compiled = jax.jit(jax.grad(Softmax(chunk=chunk), (0, 1, 2))).lower(*floats, targets, weight).compile()
    arguments = sum(4 * int(np.prod(shape)) for shape in shapes)
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * (4 * chunk + arguments)
    assert 4 * (4 * chunk + arguments) < 4 * positions * items


def test_evaluation_computes_no_gradient():
    """Without grad there is one product a block, with it three: whole rows, in the forward pass."""
    arguments = inputs()
    value = str(jax.make_jaxpr(Softmax())(*arguments))
    gradient = str(jax.make_jaxpr(jax.grad(Softmax(), (0, 1, 2)))(*arguments))
    assert value.count("dot_general") < gradient.count("dot_general")
    assert "scatter-add" not in value


@given(positions=st.integers(1, 10**5), items=st.integers(2, 10**7), chunk=st.none() | st.integers(1, 10**7))
def test_blocks_stay_within_the_chunk(positions, items, chunk):
    blocks = block_sizes(positions, items, chunk)
    assert 1 <= blocks.positions <= positions
    assert 1 <= blocks.items <= items
    assert blocks.positions * blocks.items <= (chunk or 2**22)


def test_large_catalogues_are_cut_and_small_ones_are_not():
    assert block_sizes(6400, 1683).items == 1683
    assert block_sizes(3200, 43_098).items == 43_098
    assert block_sizes(1024, 10**6).items < 10**5


def test_every_block_size_gives_the_same_gradients():
    """Blocks by hand, through sizes that ``block_sizes`` would not choose."""
    hidden, rows, bias, targets, weight = inputs()
    gradient = jax.jit(jax.grad(fused_cross_entropy, (0, 1, 2)), static_argnums=(6, 7))
    whole = Shard(len(rows))
    loss = lambda blocks: gradient(hidden, rows, bias, targets, weight, jnp.float32(0.1), blocks, whole)  # noqa: E731
    wanted = loss(Blocks(5, 13))
    for blocks in (Blocks(1, 1), Blocks(2, 4), Blocks(5, 12), Blocks(3, 13)):
        jax.tree.map(lambda left, right: np.testing.assert_allclose(left, right, atol=2e-6), loss(blocks), wanted)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"chunk": 0}, "chunk = 0"),
        ({"label_smoothing": 1.5}, "1.5"),
        ({"temperature": 0.0}, "0.0"),
        ({"temperature": float("nan")}, "nan"),
    ],
)
def test_mistakes(options, part):
    with pytest.raises(Mistake) as raised:
        Softmax(**options)
    assert part in str(raised.value)


def test_it_reads_every_row():
    assert not Softmax().samples
