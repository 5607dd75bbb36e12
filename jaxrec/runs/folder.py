"""The folder of a run: the names of its files, whose run it is, and writes that are whole or not at all."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Self

from jaxrec.config import Mistake


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` when the block ends well, and vanishes when it does not."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # the new name survives a power cut too
    finally:
        os.close(directory)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    content = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    with replacing(path) as file:
        file.write(content.encode())


def read_json(path: Path) -> Any:
    """The content of a JSON file; raises Mistake when it is absent or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Mistake(f"{path} does not exist; is {path.parent} the folder of a run?") from None
    except ValueError as error:
        raise Mistake(f"{path} is not JSON ({error}); restore it, or start again with --fresh") from None


def cache() -> Path:
    """Where prepared data and compiled programs are kept between runs: safe to delete at any time."""
    return Path(
        os.environ.get("JAXREC_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxrec"
    )


class Folder:
    """The files of one run under `path`. `claim` before writing; reading needs no claim."""

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.identity = (
            self.path / "run.json"
        )  # which run this is, and what its id is the hash of; it makes the folder a run
        self.config = self.path / "config.json"  # the resolved configuration
        self.command = self.path / "command.txt"  # what recreates the run
        self.machine = self.path / "machine.json"
        self.metrics = self.path / "metrics.jsonl"
        self.ranks = self.path / "ranks.npz"  # of every test target
        self.ranks_valid = self.path / "ranks-valid.npz"  # of the validation targets, by the model that is tested
        self.candidates = self.path / "candidates.npz"  # what sampled metrics ranked against, where any was asked for
        self.result = self.path / "result.json"
        self.report = self.path / "report.html"
        self.checkpoints = self.path / "checkpoints"
        self.bundle = self.path / "bundle"
        self.tensorboard = self.path / "tensorboard"
        self._lock_file = self.path / ".lock"
        self._lock: int | None = None

    def claim(self, run_id: str, config: Mapping[str, Any], fresh: bool = False) -> bool:
        """Take the folder for the run `run_id`; True when its earlier files are there to resume from.

        Holds the folder's lock until `release`. Raises Mistake when the folder is something else, belongs to another
        run, or is being written by another process. `fresh` first removes the files of whatever run is there, and no
        others.
        """
        self._look()
        self.path.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        try:
            self._look()
            if fresh or self._half_removed():
                self._clear()
            resumed = self.identity.exists()
            if resumed:
                self._compare(run_id, config)
            write_json(self.identity, {"id": run_id, "of": dict(config)})
        except BaseException:
            self.release()
            raise
        return resumed

    def release(self) -> None:
        """Let another process have the folder. The end of this process does the same, however it ends."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.release()

    def _ours(self) -> list[Path]:
        """Everything that a run writes at the top of its folder, but for the lock; what makes it a run comes last."""
        named = [value for value in vars(self).values() if isinstance(value, Path) and value.parent == self.path]
        named = [path for path in named if path not in (self._lock_file, self.identity)] + [self.identity]
        return [path.with_name(f".{path.name}.tmp") for path in named] + named

    def _look(self) -> None:
        """Refuse a folder that somebody uses for something else."""
        if self.path.exists() and not self.path.is_dir():
            raise Mistake(f"{self.path} is a file, and a run needs a folder; choose another --run")
        if self.path.exists() and not self.identity.exists():
            beginnings = (self._lock_file.name, f".{self.identity.name}.tmp")
            others = sorted(entry.name for entry in self.path.iterdir() if entry.name not in beginnings)
            if others:
                raise Mistake(f"{self.path} is not a run, and holds {others[0]!r}; choose another --run")

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        lock = os.open(self._lock_file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(lock, 20, 0).decode() or "unknown"
            os.close(lock)
            raise Mistake(
                f"{self.path} is being trained by process {holder}; wait for it, stop it, or choose another --run"
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        self._lock = lock

    def _half_removed(self) -> bool:
        return self.identity.exists() and read_json(self.identity)["id"] is None

    def _clear(self) -> None:
        if self.identity.exists():
            write_json(self.identity, {"id": None})  # should this be killed half-way, the next claim goes on with it
        for path in self._ours():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _compare(self, run_id: str, config: Mapping[str, Any]) -> None:
        found = read_json(self.identity)
        if found["id"] == run_id:
            return
        changes = differences(found["of"], json.loads(json.dumps(dict(config))))
        what = "; ".join(changes[:5]) + (f"; and {len(changes) - 5} more" if len(changes) > 5 else "")
        raise Mistake(
            f"{self.path} holds another run ({what or 'same configuration, other data'}); "
            f"choose another --run, or replace it with --fresh"
        )


def differences(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What changed from one nested mapping to another, as `dotted.key: old -> new`, sorted by key."""
    lines = []
    for name in sorted({*before, *after}):
        old, new = before.get(name, _ABSENT), after.get(name, _ABSENT)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += differences(old, new, f"{prefix}{name}.")
        elif old != new or type(old) is not type(new):
            lines.append(f"{prefix}{name}: {_shown(old)} -> {_shown(new)}")
    return lines


_ABSENT = object()


def _shown(value: Any) -> str:
    return "(absent)" if value is _ABSENT else json.dumps(value, ensure_ascii=False)
