"""Tables drawn in blocks and in pieces: the bits that `jax.random` draws for a whole one."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32
from jax.sharding import AxisType, Mesh

from jaxrec.bench.collectives import collectives
from jaxrec.losses.shards import PIECES
from jaxrec.models import drawing, recommender
from jaxrec.models.drawing import Drawing, further, whole
from jaxrec.models.pieces import drawer, drawn_in_pieces
from jaxrec.models.recommender import Recommender
from jaxrec.parallel.programs import memory_of

WORDS = jax.random.key_data(jax.random.key(3))
MESHES = [(8, 1), (4, 2), (2, 4), (1, 8)]


# As users run it: the programs of tests are not optimised, which rounds sums of products elsewhere.
BITS = """
import jax, jax.numpy as jnp, numpy as np
from jaxrec.models import drawing, recommender
from jaxrec.models.drawing import Drawing, whole
key = jax.random.key(3)

def normal(shape, spread):
    return (spread * jax.random.normal(key, shape)).at[0].set(0.0)

def uniform(shape, spread):
    drawn = jax.random.uniform(key, (shape[0] - 1, shape[1]), minval=-spread, maxval=spread)
    return jnp.zeros(shape).at[1:].set(drawn)

for block, oracle, shape, times, double in (
    (400, normal, (61, 8), 0.3, False), (2**18, normal, (1001, 3), None, True), (400, uniform, (3, 700), None, False),
    (400, uniform, (61, 8), 0.3, True), (2**18, normal, (9001, 50), None, False),
):
    drawing.BLOCK = block
    with jax.enable_x64(double):
        found = whole(Drawing(shape, oracle.__name__, jax.random.key_data(key), 0.7, times))
        np.testing.assert_array_equal(found, oracle(shape, 0.7) * (times or 1.0))
        assert found.dtype == oracle(shape, 0.7).dtype
"""


def same(found, wanted):
    np.testing.assert_array_equal(np.asarray(found), np.asarray(wanted))
    assert found.dtype == wanted.dtype


def mesh_of(data, model):
    devices = np.array(jax.devices()[: data * model]).reshape(data, model)
    return Mesh(devices, ("data", PIECES), axis_types=(AxisType.Auto,) * 2)


def test_a_table_has_the_bits_of_jax_random_however_many_rows_are_drawn_at_a_time():
    apart = {**os.environ, "XLA_FLAGS": ""}
    done = subprocess.run([sys.executable, "-c", BITS], env=apart, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture
def blocks(monkeypatch):
    """Few numbers at a time, so that the last block draws some rows once more."""
    monkeypatch.setattr(drawing, "BLOCK", 40)


@pytest.mark.parametrize("law", ["normal", "uniform"])
@pytest.mark.parametrize("mesh", MESHES)
def test_pieces_have_the_bits_of_the_whole(law, mesh, blocks):
    """31 rows in eight pieces, some of them strangers; nothing is drawn into what fills the last piece."""
    known = np.arange(31) % 5 != 2
    told = {
        "item": Drawing((31, 11), law, WORDS, 0.7, 0.3), "user": Drawing((31, 11), law, WORDS, 0.7, known=known),
        "bias": Drawing((31,), "zeros", WORDS), "context": Drawing((5, 3), law, WORDS, 0.7),
    }  # fmt: skip
    wanted = recommender.drawn(Recommender(told, None)).tables
    assert len(np.unique(np.asarray(wanted["item"]))) == 331, "every row has numbers of its own, and the first none"
    np.testing.assert_array_equal(np.asarray(wanted["user"]).any(1), known & (np.arange(31) > 0))
    found = drawn_in_pieces(Recommender(told, None), mesh_of(*mesh)).tables
    for name, table in found.items():
        same(table[: len(wanted[name])], wanted[name])
        assert not np.asarray(table[31:]).any()
    for name in ("item", "user", "bias"):
        assert {piece.data.shape[0] for piece in found[name].addressable_shards} == {-(-31 // mesh[1])}


def test_places_count_beyond_what_32_bits_hold():
    """By Python's integers: a hundred million rows of 64 numbers are more."""
    for rows, width in ((70_000_000, 64), (2**31 - 1, 3), (10**9, 129), (0, 5), (67_108_863, 64)):
        places = [rows * width + number for number in range(2 * width)]
        told = np.array([[place >> 32 for place in places], [place & 0xFFFFFFFF for place in places]], np.uint32)
        one, other = np.split(np.asarray(threefry_2x32(WORDS, jnp.asarray(told.reshape(-1)))), 2)
        found = jax.random.bits(further(WORDS, jnp.int32(rows), width), (2, width), "uint32")
        same(found, (one ^ other).reshape(2, width))


def test_no_device_has_more_of_a_table_than_its_piece_and_nothing_travels():
    mesh = mesh_of(2, 4)
    rows, width = 400_001, 64
    told = Drawing((rows, width), "normal", WORDS, 0.7)
    lowered = drawer(mesh).lower(told, None)
    program = lowered.compile()
    memory, piece = memory_of(program), 4 * (-(-rows // 4)) * width
    assert memory.outputs == piece
    assert memory.temporary < piece / 4, "blocks, and no second piece"
    assert not collectives(program.as_text())
    alone = memory_of(whole.lower(told).compile())
    assert alone.peak < 1.2 * 4 * rows * width
    for platform in ("cuda", "tpu"):
        assert drawer(mesh).trace(told, None).lower(lowering_platforms=(platform,)).as_text()
