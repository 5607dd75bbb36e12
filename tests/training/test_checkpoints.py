"""Checkpoints give back the bits that went in, or say that they cannot."""

import errno
import resource
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import HealthCheck, given, settings, strategies as st
from hypothesis.extra import numpy as hnp

from jaxrec.config import Mistake
from jaxrec.training.checkpoints import Checkpoints, Damaged


class Block(nnx.Module):
    def __init__(self, rngs):
        self.parts = nnx.List([nnx.Linear(2, 3, rngs=rngs), nnx.Linear(3, 2, rngs=rngs)])
        self.frozen = None


def training_state(seed=0):
    params = {"table": jax.random.normal(jax.random.key(seed), (5, 3)), "cell": Block(nnx.Rngs(seed))}
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
    return {
        "params": params,
        "optimiser": optimiser.init(params),
        "key": jax.random.key(seed),
        "keys": jax.random.split(jax.random.key(1, impl="rbg"), 3),
        "carry": None,
        "step": jnp.int32(4),
        "flags": jnp.array([True, False]),
        "half": jnp.array([1.5, -0.0, jnp.inf], jnp.bfloat16),
        "nan": np.array([0x7FC00001, 0xFFC12345], np.uint32).view(np.float32),  # payloads must survive too
        "empty": jnp.zeros((0, 3)),
        "milliseconds": np.array([2**40 + 1]),
        "count": 3,
        "rate": 0.25,
    }


def bits(tree):
    """What must be equal: structure, and dtype, shape and bytes of every leaf."""

    def one(leaf):
        if jnp.issubdtype(getattr(leaf, "dtype", np.int8), jax.dtypes.prng_key):
            return str(leaf.dtype), leaf.shape, np.asarray(jax.random.key_data(leaf)).tobytes()
        leaf = np.asarray(leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf))
        return str(leaf.dtype), leaf.shape, leaf.tobytes()

    leaves, structure = jax.tree.flatten(tree)
    return structure, [one(leaf) for leaf in leaves]


def small(value):
    return {"w": np.full((3, 2), value, np.float32), "n": np.int32(value)}


def test_everything_a_training_has_comes_back_bit_for_bit(tmp_path):
    state = training_state()
    Checkpoints(tmp_path).save(7, state, {"loss": 1.5, "epoch": [1, 2], "why": None})
    other = training_state(seed=5)
    found, notes = Checkpoints(tmp_path).restore(7, other)
    assert bits(found) == bits(state)
    assert bits(other) != bits(state)
    assert notes == {"loss": 1.5, "epoch": [1, 2], "why": None}
    assert isinstance(found["milliseconds"], np.ndarray)


def test_shapes_alone_are_enough_to_restore(tmp_path):
    state = training_state()
    del state["milliseconds"]  # 64 bits: an abstract tree of JAX arrays cannot ask for them
    Checkpoints(tmp_path).save(0, state, {})
    found, _ = Checkpoints(tmp_path).restore(0, jax.eval_shape(lambda: state))
    assert bits(found) == bits(state)
    assert isinstance(found["nan"], jax.Array)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tree=st.dictionaries(
        st.text(min_size=1, max_size=5).filter(lambda name: name.isprintable()),
        hnp.arrays(
            st.sampled_from([np.float32, np.float16, np.int8, np.uint32, np.int64, np.bool_, np.complex64]),
            hnp.array_shapes(min_dims=0, max_dims=3, min_side=1, max_side=4),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_arrays_under_any_names(tmp_path, tree):
    shutil.rmtree(tmp_path)
    shelf = Checkpoints(tmp_path)
    shelf.save(0, {"a": tree, "b": [tree]}, {})
    found, _ = shelf.restore(0, {"a": tree, "b": [tree]})
    assert bits(found) == bits({"a": tree, "b": [tree]})


def test_leaves_go_where_the_abstract_tree_says(tmp_path):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("data",))
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    value = jnp.arange(8.0).reshape(4, 2)
    Checkpoints(tmp_path).save(1, {"w": jax.device_put(value, place)}, {})
    for sharding in (place, jax.sharding.SingleDeviceSharding(jax.devices()[1])):
        wanted = {"w": jax.ShapeDtypeStruct((4, 2), jnp.float32, sharding=sharding)}
        found, _ = Checkpoints(tmp_path).restore(1, wanted)
        assert found["w"].sharding == sharding
        np.testing.assert_array_equal(found["w"], value)


def test_the_newest_are_kept_and_the_best_apart_from_them(tmp_path):
    shelf = Checkpoints(tmp_path, keep=2)
    assert shelf.latest() is None
    assert shelf.best() is None
    for step in (10, 20, 30, 40):
        shelf.save(step, small(step), {"step": step})
        if step in (10, 20):
            shelf.save_best(step, small(-step), {"ndcg": step})
    assert shelf.latest() == 40
    assert {entry.name for entry in tmp_path.iterdir()} == {"30", "40", "best"}
    assert {entry.name for entry in (tmp_path / "best").iterdir()} == {"10", "20"}
    found, notes = shelf.restore_best(small(0))
    assert bits(found) == bits(small(-20))
    assert notes == {"ndcg": 20}
    assert bits(shelf.restore(30, small(0))[0]) == bits(small(30))
    shelf.forget_best_after(19)
    assert shelf.best() == 10
    assert shelf.latest() == 40


def test_saving_a_step_again_keeps_the_same_and_replaces_the_different(tmp_path):
    shelf = Checkpoints(tmp_path)
    shelf.save(5, small(1), {"try": 1})
    written = (tmp_path / "5").stat().st_ino
    shelf.save(5, small(1), {"try": 1})
    assert (tmp_path / "5").stat().st_ino == written
    for tree, notes in ((small(2), {"try": 1}), (small(2), {"try": 2})):
        Checkpoints(tmp_path).save(5, tree, notes)
        found, found_notes = Checkpoints(tmp_path).restore(5, small(0))
        assert bits(found) == bits(tree)
        assert found_notes == notes


def damaged(content: bytes, how: str, offset: float) -> bytes:
    place = int(offset * (len(content) - 1))
    if how == "cut":
        return content[:place]
    return content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]


# A read that fails in one array closes Orbax's event loop while the others still report to it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("how", ["cut", "flip", "remove"])
def test_no_damage_to_any_file_passes_for_good(tmp_path, how):
    """Whatever file of the newest is hit: its bits are given back all the same, or the one before is, with a word."""
    original = tmp_path / "original"
    trees = {step: {"w": np.random.default_rng(step).normal(size=(40, 5)), "n": np.int32(step)} for step in (1, 2)}
    for step, tree in trees.items():
        Checkpoints(original).save(step, tree, {"step": step})
    files = sorted(path.relative_to(original) for path in (original / "2").rglob("*") if path.is_file())
    passed_over = 0
    for number, name in enumerate(files):
        copy, said = tmp_path / f"{number}", []
        shutil.copytree(original, copy)
        if how == "remove":
            (copy / name).unlink()
        else:
            (copy / name).write_bytes(damaged((original / name).read_bytes(), how, 0.5 + 0.4 * (number % 2)))
        shelf = Checkpoints(copy, say=said.append)
        step = shelf.latest()
        found, notes = shelf.restore(step, trees[1])
        assert bits(found) == bits(trees[step])
        assert notes == {"step": step}
        assert len(said) == (step == 1)
        if step == 1:
            passed_over += 1
            assert said[0].startswith(f"checkpoint 2 in {copy}")
            assert said[0].endswith("trying the one before")
            with pytest.raises((Damaged, Mistake)):
                shelf.restore(2, trees[1])
    assert passed_over >= 3


def test_notes_that_changed_are_damage_too(tmp_path):
    """They say where in the data a training goes on: as good as a wrong weight."""
    shelf = Checkpoints(tmp_path)
    shelf.save(1, small(1), {"batch": 17})
    record = tmp_path / "1" / "record" / "metadata"
    record.write_text(record.read_text().replace("17", "18"))
    assert shelf.latest() is None
    with pytest.raises(Damaged, match=r"checkpoint 1 .* changed after it was written"):
        shelf.restore(1, small(0))


def test_a_training_goes_on_from_before_the_damage(tmp_path):
    """The new checkpoint has a lower step than the damaged one and must win over it."""
    for step in (10, 20):
        Checkpoints(tmp_path).save(step, small(step), {})
    (tmp_path / "20" / "record" / "metadata").write_text("{}")
    shelf = Checkpoints(tmp_path)
    assert shelf.latest() == 10
    shelf.save(15, small(15), {})
    assert Checkpoints(tmp_path).latest() == 15
    assert {entry.name for entry in tmp_path.iterdir()} == {"10", "15"}
    shutil.rmtree(tmp_path / "15" / "leaves")
    assert shelf.latest() == 10
    shelf.save(15, small(16), {})
    assert bits(shelf.restore(shelf.latest(), small(0))[0]) == bits(small(16))


def test_other_trees_are_refused_by_leaf(tmp_path):
    shelf = Checkpoints(tmp_path)
    shelf.save(3, {"w": jnp.zeros((2, 3)), "key": jax.random.key(0)}, {})
    key = jax.random.key(0)
    refused = {
        r"lacks leaf \['v'\]": {"w": jnp.zeros((2, 3)), "key": key, "v": jnp.zeros(1)},
        r"unknown leaf \['w'\]": {"key": key},
        r"leaf \['w'\] is float32\[2, 3\] where float32\[2, 4\]": {"w": jnp.zeros((2, 4)), "key": key},
        r"float32\[2, 3\] where int32\[2, 3\]": {"w": jnp.zeros((2, 3), jnp.int32), "key": key},
        r"key<fry>\[\] where key<rbg>\[\]": {"w": jnp.zeros((2, 3)), "key": jax.random.key(0, impl="rbg")},
    }
    for sentence, abstract in refused.items():
        with pytest.raises(Mistake, match=f"checkpoint 3 .*{sentence}.*start a new run"):
            shelf.restore(3, abstract)
    with pytest.raises(Mistake, match=r"has no checkpoint 4, only \[3\]"):
        shelf.restore(4, {})
    with pytest.raises(Mistake, match="no readable best state"):
        shelf.restore_best({})
    with pytest.raises(Mistake, match="keep=0"):
        Checkpoints(tmp_path, keep=0)
    with pytest.raises(TypeError, match=r"leaf \['name'\] is a str"):
        shelf.save(4, {"name": "gru"}, {})
    assert shelf.latest() == 3


@pytest.mark.parametrize("refused", ["the arrays", "the record"])
@pytest.mark.parametrize("step", [1, 2])
def test_whichever_file_the_system_refuses_the_error_names_the_checkpoint(tmp_path, refused, step):
    """Tensorstore writes the arrays and tells in words what the system said; the record's file has no name in it."""
    size = 50_000
    noise = np.random.default_rng(0).integers(256, size=size if refused == "the arrays" else 1, dtype=np.uint8)
    shelf = Checkpoints(tmp_path)
    shelf.save(1, small(1), {})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            shelf.save(step, {"w": noise}, {"text": "x" * size} if refused == "the record" else {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (raised.value.errno, raised.value.filename) == (errno.EFBIG, str(tmp_path / str(step)))
    assert shelf.restore(shelf.latest(), small(0))[1] == {}
    assert [entry.name for entry in tmp_path.iterdir()] == ["1"]


def test_arrays_that_are_still_written_after_a_refusal_leave_nothing(tmp_path, monkeypatch):
    """Orbax does not wait for the other arrays, and who writes one makes the folder that it lies in."""
    shelf, half = Checkpoints(tmp_path), tmp_path / "2.orbax-checkpoint-tmp" / "leaves"
    shelf.save(1, small(1), {})
    late = threading.Timer(0.1, half.mkdir, kwargs={"parents": True})

    def refused(*given, **named):
        late.start()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("orbax.checkpoint.Checkpointer.save", refused)
    with pytest.raises(OSError, match="No space left"):
        shelf.save(2, small(2), {})
    late.join()
    assert [entry.name for entry in tmp_path.iterdir()] == ["1"]


def test_reading_leaves_a_writer_alone(tmp_path):
    """A report may open the folder of a training: half-written checkpoints are another process's business."""
    Checkpoints(tmp_path).save(1, small(1), {})
    half = tmp_path / "2.orbax-checkpoint-tmp"
    half.mkdir()
    reader = Checkpoints(tmp_path)
    assert reader.latest() == 1
    assert reader.best() is None
    reader.restore(1, small(0))
    assert half.exists()
    assert not (tmp_path / "best").exists()
    Checkpoints(tmp_path).save(3, small(3), {})
    assert not half.exists()


KILLED = '''
"""Kill a process at many moments of a save; print for each the step that survives."""
import os, signal, sys
from pathlib import Path
import numpy as np
from jaxrec.training.checkpoints import Checkpoints

def tree(step):
    return {"w": np.full((50, 4), step, np.float32), "n": np.int32(step)}

def child(folder, fatal, second):
    shelf = Checkpoints(folder, keep=1)
    shelf.save(1, tree(1), {"value": 1})
    seen = []
    def hook(event, _):
        if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"):
            seen.append(event)
            if len(seen) == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    shelf.save(second, tree(2), {"value": 2})
    Path(folder, "events").write_text(str(len(seen)))

def fork(folder, fatal, second):
    process = os.fork()  # before this process starts any JAX back end
    if process == 0:
        try:
            child(folder, fatal, second)
        finally:
            os._exit(0)
    return os.WTERMSIG(os.waitpid(process, 0)[1])

def survivor(folder, second):
    """The content that is there after a kill; a training can go on from it."""
    shelf = Checkpoints(folder, keep=1)
    step = shelf.latest()
    found, notes = shelf.restore(step, tree(0))
    value = notes["value"]
    assert step == (second if value == 2 else 1), (step, value)
    assert (found["w"] == value).all() and found["n"] == value
    shelf.save(3, tree(3), {})
    assert shelf.latest() == 3 and sorted(p.name for p in folder.iterdir()) == ["3"]
    return value

killed = []
for second in (2, 1):  # the save that is killed is of the next step, or of the same one with another content
    root = Path(sys.argv[1], str(second))
    assert fork(root / "whole", 0, second) == 0
    moments = int((root / "whole" / "events").read_text())
    late = {moments - number for number in range(3)}  # what follows the writing: renaming and removing
    for fatal in sorted(late | {1 + (moments - 1) * part // 3 for part in range(3)}):
        assert fork(root / f"at{fatal}", fatal, second) == signal.SIGKILL
        killed.append((root / f"at{fatal}", second))
for folder, second in killed:
    print(second, survivor(folder, second))
'''


def test_a_kill_at_any_moment_of_a_save_leaves_a_checkpoint(tmp_path):
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    # killed before and after the one moment that counts, in both cases
    assert set(done.stdout.splitlines()) == {"2 1", "2 2", "1 1", "1 2"}
