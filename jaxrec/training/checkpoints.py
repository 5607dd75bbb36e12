"""Checkpoints that outlive a kill: a thin shelf over Orbax that trusts nothing it has not hashed.

Orbax writes to a temporary directory and renames, so a process killed while saving leaves the earlier checkpoints
alone. It does not notice a file that changed after that, so every leaf's sha256 travels in the notes and is checked
before a checkpoint is called readable.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from jaxrec.config import Mistake
from jaxrec.models.pieces import cut_in, filled
from jaxrec.training.leaves import asked, handler, sha256, together

Leaves = dict[str, Any]

QUIET, PATIENCE = 0.5, 10.0  # seconds without a late writer, and seconds to wait for that
NEWER = ".newer"  # ends the name of a checkpoint that is complete and about to replace the one of its step


class Damaged(ValueError):
    """A checkpoint whose files are missing, cut short or changed since they were written."""


class Checkpoints:
    """The newest `keep` checkpoints of a run in `directory`, and apart from them the best two in `directory/best`.

    Trees are any pytrees of arrays: typed PRNG keys, optax states, NNX modules and None included.
    Saving blocks until the checkpoint is on disk. `say` receives one sentence for every damaged checkpoint passed over.
    """

    def __init__(self, directory: Path | str, keep: int = 2, say: Callable[[str], None] = lambda sentence: None):
        if keep < 1:
            raise Mistake(f"keep={keep} checkpoints would leave nothing to resume from; keep at least 1")
        directory = Path(directory).absolute()
        self._newest = _Shelf(directory, keep, say)
        self._best = _Shelf(directory / "best", 2, say)

    def save(self, step: int, tree: Any, notes: dict[str, Any]) -> None:
        """Write `tree` and the JSON `notes` as checkpoint `step`, then drop all but the newest `keep`.

        A step that is there already is left alone when its content is the same and replaced when it is not.
        Checkpoints of later steps belong to a course of events that was abandoned, and are removed.
        """
        self._newest.save(step, tree, notes)

    def latest(self) -> int | None:
        """Step of the newest checkpoint that is complete and whose every leaf still has its hash, or None."""
        return self._newest.latest()

    def restore(self, step: int, abstract: Any) -> tuple[Any, dict[str, Any]]:
        """The tree of checkpoint `step` in the structure of `abstract` (arrays or `jax.ShapeDtypeStruct`), and notes.

        A leaf of `abstract` with a sharding is put there, filled up with zeros to equal pieces where it lies in some.
        Raises Damaged when the files are, Mistake when the checkpoint holds a different tree.
        """
        return self._newest.restore(step, abstract)

    def save_best(self, step: int, tree: Any, notes: dict[str, Any]) -> None:
        """Write the best state so far; the one before stays, in case this one is damaged later."""
        self._best.save(step, tree, notes)

    def forget_best_after(self, step: int) -> None:
        """Remove best states of later steps: a training that goes on from `step` has not seen them."""
        self._best.drop([later for later in self._best.steps() if later > step])

    def best(self) -> int | None:
        """Step of the best state, or None when there is none that can be read."""
        return self._best.latest()

    def restore_best(self, abstract: Any) -> tuple[Any, dict[str, Any]]:
        """Tree and notes of the best state; raises Mistake when there is none."""
        step = self.best()
        if step is None:
            raise Mistake(f"{self._best.directory} holds no readable best state; train until the first evaluation")
        return self._best.restore(step, abstract)


class _Shelf:
    """One directory of checkpoints. Opening it changes nothing on disk: only a writer cleans up after killed writers.

    Orbax's CheckpointManager is not used: it refuses to replace a step, and by dropping the lowest steps it would drop
    the good ones after a training fell back from a damaged one.
    """

    def __init__(self, directory: Path, keep: int, say: Callable[[str], None]):
        self.directory, self._keep, self._say = directory, keep, say
        with _one_word():
            self._orbax = _alone()
        self._swept = False

    def steps(self) -> list[int]:
        if not self.directory.is_dir():
            return []
        names = {entry.name.removesuffix(NEWER) for entry in self.directory.iterdir()}
        return sorted(int(name) for name in names if name.isdecimal())

    def save(self, step: int, tree: Any, notes: dict[str, Any]) -> None:
        leaves = _flatten(tree)
        record = _record(leaves, _kinds(tree), notes)
        self._sweep()
        place = self.directory / str(step)
        if place.exists():
            if self._holds(step, record):
                return
            place = place.with_name(place.name + NEWER)
        # Orbax refuses arrays of size zero; their shape in the record is all there is to them.
        stored = ocp.args.PyTreeSave({path: leaf for path, leaf in leaves.items() if leaf.size})
        arguments = ocp.args.Composite(leaves=stored, record=ocp.args.JsonSave(record))
        try:
            with _one_word():
                self._orbax.save(place, args=arguments)
        except Exception as error:
            self._remove_halves(QUIET)  # a full disk gets its space back
            raise _as_system_error(error, self.directory / str(step)) from error
        self._settle()
        self.drop([other for other in self.steps() if other > step])
        self.drop(self.steps()[: -self._keep])

    def latest(self) -> int | None:
        for step in reversed(self.steps()):
            try:
                for _ in self._leaves(step, self._record(step)):
                    pass
            except Damaged as damage:
                self._say(f"{damage}; trying the one before")
            else:
                return step
        return None

    def restore(self, step: int, abstract: Any) -> tuple[Any, dict[str, Any]]:
        if step not in self.steps():
            raise Mistake(f"{self.directory} has no checkpoint {step}, only {self.steps() or 'none'}")
        record, name = self._record(step), self._name(step)
        wanted = dict(_paths(abstract))
        if difference := sorted(wanted.keys() ^ record["leaves"].keys()):
            side = "lacks" if difference[0] in wanted else "holds the unknown"
            raise Mistake(
                f"{name} {side} leaf {difference[0]}: it belongs to another model or optimiser; start a new run"
            )
        values = {
            path: _restored(leaf, record["leaves"][path]["key"], wanted[path], f"{name}: leaf {path}")
            for path, leaf in self._leaves(step, record)
        }
        return jax.tree.unflatten(jax.tree.structure(abstract), [values[path] for path in wanted]), record["notes"]

    def _name(self, step: int) -> str:
        return f"checkpoint {step} in {self.directory}"

    def _record(self, step: int) -> dict[str, Any]:
        """What a step's leaves must be, and its notes."""
        with self._reading(step):
            only = ocp.args.Composite(record=ocp.args.JsonRestore())
            record: dict[str, Any] = self._orbax.restore(self._place(step), args=only)["record"]
            if record["sha256"] == _seal(record):
                return record
        raise Damaged(f"{self._name(step)} changed after it was written (its record)")

    def _leaves(self, step: int, record: dict[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
        """A step's leaves, every byte of them checked, few of them held at a time."""
        for path, described in record["leaves"].items():
            if 0 in described["shape"]:
                yield path, np.empty(described["shape"], np.dtype(described["dtype"]))
        for group in together(record["leaves"]):
            with self._reading(step):
                found = self._orbax.restore(self._place(step), args=ocp.args.Composite(leaves=asked(group)))["leaves"]
            for path in group:
                leaf = found.pop(path)
                if list(np.shape(leaf)) != group[path]["shape"] or sha256(np.asarray(leaf)) != group[path]["sha256"]:
                    raise Damaged(f"{self._name(step)} changed after it was written (leaf {path})")
                yield path, leaf
                del leaf

    @contextmanager
    def _reading(self, step: int) -> Iterator[None]:
        try:
            with _one_word():
                yield
        except Exception as error:  # whatever Orbax, tensorstore or json make of broken files
            raise Damaged(f"{self._name(step)} cannot be read ({type(error).__name__})") from error

    def _holds(self, step: int, record: dict[str, Any]) -> bool:
        try:
            return self._record(step) == record and all(True for _ in self._leaves(step, record))
        except Damaged:
            return False

    def drop(self, steps: list[int]) -> None:
        for step in steps:
            for place in (self.directory / str(step), self.directory / f"{step}{NEWER}"):
                if place.exists():
                    shutil.rmtree(place)

    def _place(self, step: int) -> Path:
        newer = self.directory / f"{step}{NEWER}"
        return newer if newer.exists() else self.directory / str(step)

    def _settle(self) -> None:
        """Give replacements the names of what they replace; a kill in between leaves the replacement to be read."""
        for newer in self.directory.glob(f"*{NEWER}"):
            old = newer.with_name(newer.name.removesuffix(NEWER))
            shutil.rmtree(old, ignore_errors=True)
            newer.rename(old)

    def _sweep(self) -> None:
        if not self._swept:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._remove_halves()
            self._settle()
            self._swept = True

    def _remove_halves(self, quiet: float = 0.0) -> None:
        """Remove what a writer left, until nothing has come back for so many seconds.

        Where one array fails Orbax does not wait for the others: whichever thread is still at one of them makes its
        folder anew.
        """
        began = last = time.monotonic()
        while True:
            for leftover in self.directory.glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(leftover, ignore_errors=True)
                last = time.monotonic()
            if time.monotonic() - last >= quiet or time.monotonic() - began > PATIENCE:
                return
            time.sleep(quiet / 10)


def _alone() -> ocp.Checkpointer:
    """Orbax for this process alone: left to itself it waits for all that train together, of which one only writes."""
    if jax.process_count() == 1:
        return ocp.Checkpointer(ocp.CompositeCheckpointHandler(leaves=handler(), record=ocp.JsonCheckpointHandler()))
    me = jax.process_index()
    options = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"jaxrec-{me}"
    )
    both = ocp.CompositeCheckpointHandler(
        leaves=handler(multiprocessing_options=options),
        record=ocp.JsonCheckpointHandler(multiprocessing_options=options),
        composite_options=ocp.CompositeOptions(multiprocessing_options=options),
    )
    return ocp.Checkpointer(both, multiprocessing_options=options)


_ONE = (
    threading.RLock()
)  # Orbax numbers what it writes by a count of the process: threads of one get in each other's way


@contextmanager
def _one_word() -> Iterator[None]:
    """An error has one word, the exception's: Orbax logs its traceback as well, and the arrays that did not fail go on
    reporting to an event loop that is closed, for a while after. One thread at a time.
    """
    with _ONE:
        log, hook = logging.getLogger("absl"), sys.unraisablehook
        before, log.disabled = log.disabled, True

        def without_closed_loops(unraisable: Any) -> None:
            if str(unraisable.exc_value) != "Event loop is closed":
                hook(unraisable)

        sys.unraisablehook = without_closed_loops
        try:
            yield
            sys.unraisablehook = hook
        finally:
            log.disabled = before


def _as_system_error(error: BaseException, place: Path) -> BaseException:
    """The OSError behind ``error``, such as a full disk, named after ``place``; the error itself where there is none.

    A checkpoint is many files, written at the same time: which is refused first is chance. Of some the system gives no
    name, and tensorstore reports what the system said in words.
    """
    cause: BaseException | None = error
    while cause is not None:
        number = cause.errno if isinstance(cause, OSError) else None
        if found := re.search(r"os_error_code='(\d+)'", str(cause)):
            number = int(found[1])
        if number is not None:
            return OSError(number, os.strerror(number), str(place))
        cause = cause.__cause__ or cause.__context__
    return error


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _paths(tree: Any) -> list[tuple[str, Any]]:
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def _flatten(tree: Any) -> Leaves:
    """Leaves by path, where they lie; Orbax then sees neither key types nor named tuples nor None."""
    return {path: _array(path, leaf) for path, leaf in _paths(tree)}


def _array(path: str, leaf: Any) -> Any:
    if _is_key(leaf):
        return jax.random.key_data(leaf)
    if isinstance(leaf, bool | int | float | complex):
        return jnp.asarray(leaf)  # the dtype that JAX gives it, which is what an abstract tree will say
    if not isinstance(leaf, jax.Array | np.ndarray | np.generic):
        raise TypeError(f"leaf {path} is a {type(leaf).__name__}; a checkpoint holds arrays only")
    return leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)


def _kinds(tree: Any) -> dict[str, str]:
    """For every leaf that is a PRNG key the name of its generator."""
    return {path: str(jax.random.key_impl(leaf)) for path, leaf in _paths(tree) if _is_key(leaf)}


def _record(leaves: Leaves, keys: dict[str, str], notes: dict[str, Any]) -> dict[str, Any]:
    described = {
        path: {
            "dtype": leaf.dtype.name,
            "shape": list(leaf.shape),
            "key": keys.get(path),
            "sha256": sha256(leaf),
        }
        for path, leaf in leaves.items()
    }
    record = {"leaves": described, "notes": json.loads(json.dumps(notes))}
    return record | {"sha256": _seal(record)}


def _seal(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps([record["leaves"], record["notes"]], sort_keys=True).encode()).hexdigest()


def _restored(stored: np.ndarray, kind: str | None, wanted: Any, name: str) -> Any:
    """One leaf with the kind, dtype, shape and place of `wanted`."""
    wanted = wanted if hasattr(wanted, "dtype") else jnp.asarray(wanted)
    value = jax.random.wrap_key_data(jnp.asarray(stored), impl=kind) if kind else stored
    if (value.dtype, value.shape) != (wanted.dtype, wanted.shape):
        found, needed = (f"{leaf.dtype}{list(leaf.shape)}" for leaf in (value, wanted))
        raise Mistake(f"{name} is {found} where {needed} is needed: it belongs to another model; start a new run")
    if isinstance(wanted, np.ndarray | np.generic):
        return value
    place = getattr(wanted, "sharding", None)
    return jax.device_put(filled(value, pieces) if (pieces := cut_in(place)) > 1 else value, place)
