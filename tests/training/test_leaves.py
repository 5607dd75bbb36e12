"""Arrays go to a checkpoint's files some rows at a time, and none of it is seen in what comes back."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from jaxrec.losses.shards import PIECES
from jaxrec.training import checkpoints, leaves
from jaxrec.training.checkpoints import Checkpoints, Damaged

LARGE = ("one", "host", "half", "wide", "cut", "long")


@pytest.fixture
def tree():
    """Arrays on a device, on several and on the host, as many of them more than a hundred bytes as not."""
    draw = np.random.default_rng(0)
    return {
        "one": jnp.asarray(draw.normal(size=(41, 3)), jnp.float32), "host": draw.normal(size=(7, 2, 5)),
        "half": jnp.asarray(draw.normal(size=(300, 1)), jnp.bfloat16), "wide": draw.normal(size=(2, 90)),
        "cut": jax.device_put(draw.normal(size=(32, 3)).astype(np.float32), over_devices()), "long": jnp.arange(101),
        "step": jnp.int32(4), "flags": jnp.array([True, False]), "empty": jnp.zeros((0, 3)), "key": jax.random.key(3),
    }  # fmt: skip


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(leaves, "SLAB", 100)


def over_devices():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), (PIECES,))
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(PIECES))


def bits(tree):
    tree = tree | {"key": jax.random.key_data(tree["key"])}
    return {name: (str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes()) for name, leaf in tree.items()}


def test_parts_are_rows_in_order_and_their_hash_is_that_of_the_whole(tree, small_parts):
    for name in LARGE:
        parts = list(leaves.slabs(tree[name]))
        assert len(parts) > 1
        assert all(part.nbytes <= 100 or len(part) == 1 for _, part in parts)
        np.testing.assert_array_equal(np.concatenate([part for _, part in parts]), tree[name])
        assert leaves.sha256(tree[name]) == hashlib.sha256(np.asarray(tree[name]).tobytes()).hexdigest()


def test_groups_that_are_read_together_are_one_leaf_or_small(tree, small_parts):
    described = {
        name: {"shape": leaf.shape, "dtype": "uint32" if name == "key" else leaf.dtype} for name, leaf in tree.items()
    }
    groups = [list(group) for group in leaves.together(described)]
    assert [name for group in groups for name in group] == [name for name in tree if name != "empty"]
    assert all([name] in groups for name in LARGE)
    assert ["step", "flags", "key"] in groups


def test_what_was_written_in_parts_comes_back_bit_for_bit(tmp_path, tree, small_parts):
    Checkpoints(tmp_path).save(1, tree, {})
    assert bits(Checkpoints(tmp_path).restore(1, tree)[0]) == bits(tree)


def test_damage_to_a_part_is_damage(tmp_path, tree, small_parts):
    """Whichever file is damaged, it is noticed, or nothing of the arrays was in it: some nodes are soon replaced."""
    Checkpoints(tmp_path).save(1, tree, {})
    noticed = 0
    for file in [file for file in (tmp_path / "1" / "leaves").rglob("d/*") if file.is_file()]:
        content = file.read_bytes()
        file.write_bytes(bytes(byte ^ 4 for byte in content))
        try:
            assert bits(Checkpoints(tmp_path).restore(1, tree)[0]) == bits(tree)
        except Damaged:
            noticed += 1
        file.write_bytes(content)
    assert noticed


def test_a_leaf_in_pieces_is_filled_up_to_equal_ones(tmp_path):
    table = np.arange(14.0, dtype=np.float32).reshape(7, 2)
    Checkpoints(tmp_path).save(1, {"w": table}, {})
    wanted = {"w": jax.ShapeDtypeStruct((7, 2), jnp.float32, sharding=over_devices())}
    found = Checkpoints(tmp_path).restore(1, wanted)[0]["w"]
    assert {piece.data.shape for piece in found.addressable_shards} == {(2, 2)}
    np.testing.assert_array_equal(found, np.concatenate([table, np.zeros((1, 2), np.float32)]))


def test_what_orbax_wrote_by_itself_is_read(tmp_path, tree, monkeypatch):
    """Every array in one chunk, as all checkpoints were before."""
    with monkeypatch.context() as before:
        before.setattr(checkpoints, "_alone", lambda: ocp.Checkpointer(ocp.CompositeCheckpointHandler()))
        before.setattr(ocp.args, "PyTreeSave", lambda found: ocp.args.StandardSave(jax.device_get(found)))
        Checkpoints(tmp_path).save(1, tree, {"a": 1})
    monkeypatch.setattr(leaves, "SLAB", 100)
    found, notes = Checkpoints(tmp_path).restore(1, tree)
    assert (bits(found), notes) == (bits(tree), {"a": 1})
