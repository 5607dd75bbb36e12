"""A softmax over a table that devices share out: the numbers and gradients of the whole table, whatever the cut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec as P

from jaxrec.losses import Softmax
from jaxrec.losses.shards import Shard

AXIS = "model"


def pieces(count):
    return jax.make_mesh((count,), (AXIS,), axis_types=(AxisType.Auto,), devices=jax.devices()[:count])


def full(table, count):
    """The table with as many rows as ``count`` equal pieces have; what fills it up must not be seen."""
    rows = -(-len(table) // count) * count
    return np.concatenate([table, np.full((rows - len(table), *table.shape[1:]), 7.0, table.dtype)])


def arguments(items, positions=6, width=3):
    draw = np.random.default_rng(items)
    hidden, rows, bias = (
        draw.normal(size=shape).astype(np.float32) for shape in ((positions, width), (items + 1, width), (items + 1,))
    )
    weight = (draw.uniform(0.5, 2, positions) * (np.arange(positions) != 2)).astype(np.float32)
    return hidden, rows, bias, draw.integers(1, items + 1, positions), weight


@pytest.mark.parametrize("count", [2, 8])
@pytest.mark.parametrize("items", [5, 12, 31])
@pytest.mark.parametrize("chunk", [7, 10_000])
def test_pieces_give_the_loss_and_the_gradients_of_the_whole_table(count, items, chunk):
    hidden, rows, bias, targets, weight = arguments(items)
    loss, shard = Softmax(label_smoothing=0.1, temperature=0.7, chunk=chunk), Shard(items + 1, AXIS)

    def whole(hidden, rows, bias, weight):
        return loss(jnp.tanh(hidden), rows, bias, targets, weight)

    def cut(hidden, rows, bias, weight):
        return loss(jnp.tanh(hidden), rows, bias, targets, weight, shard=shard)

    def both(fn):
        return jax.value_and_grad(fn, (0, 1, 2, 3))

    specs = (P(), P(AXIS), P(AXIS), P())
    run = jax.shard_map(both(cut), mesh=pieces(count), in_specs=specs, out_specs=(P(), specs), check_vma=False)
    value, (d_hidden, d_rows, d_bias, d_weight) = jax.jit(run)(hidden, full(rows, count), full(bias, count), weight)
    wanted, (w_hidden, w_rows, w_bias, w_weight) = both(whole)(hidden, rows, bias, weight)
    np.testing.assert_allclose(value, wanted, rtol=2e-6)
    for found, expected in ((d_hidden, w_hidden), (d_weight, w_weight)):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-6)
    for found, expected in ((d_rows, w_rows), (d_bias, w_bias)):
        np.testing.assert_allclose(found[: items + 1], expected, rtol=1e-5, atol=2e-6)
        np.testing.assert_array_equal(found[items + 1 :], 0)


@pytest.mark.parametrize("count", [2, 8])
def test_rows_come_from_where_they_lie_and_gradients_go_back_there_once(count):
    _, table, _, _, _ = arguments(12)
    ids, shard = np.array([[0, 12, 3], [3, 1, 7]]), Shard(13, AXIS)
    towards = np.random.default_rng(1).normal(size=(2, 3, 3)).astype(np.float32)

    def looked_up(take):
        return lambda table: jnp.sum(towards * take(table) ** 2)

    cut = jax.value_and_grad(looked_up(lambda piece: shard.take(piece, ids)))
    run = jax.shard_map(cut, mesh=pieces(count), in_specs=P(AXIS), out_specs=(P(), P(AXIS)), check_vma=False)
    value, slope = jax.jit(run)(full(table, count))
    wanted, expected = jax.value_and_grad(looked_up(lambda table: table[ids]))(table)
    np.testing.assert_allclose(value, wanted, rtol=1e-6)
    np.testing.assert_allclose(slope[:13], expected, rtol=1e-6)
    np.testing.assert_array_equal(slope[13:], 0)
