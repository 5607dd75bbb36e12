"""The folder of a run: the names of its files, whose run it is, and writes that are whole or not at all."""

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from jaxrec.config import Mistake
from jaxrec.data.replacing import replacing
from jaxrec.runs.change import changes, refusal

LEFT = (".tmp", ".old")  # what a kill may leave of a file that was being replaced


DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


@contextmanager
def mendable(place: Path) -> Iterator[None]:
    """A disk that is full or refuses becomes a `Mistake` that names the path, `place` where the system names none."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK:
            raise
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "free some space there" if full else "see to that"
        raise Mistake(
            f"{error.filename or place}: {os.strerror(error.errno)}; {remedy}, and the same command goes on from what "
            "was saved last"
        ) from error


class Busy(Mistake):
    """Another process trains in this folder."""


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


class Locked(Exception):
    """Another process has a lock; the text is its number."""


def lock(path: Path) -> int:
    """Lock a file, made where there is none, for as long as the number that this gives is open; or raise `Locked`."""
    found = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.pread(found, 20, 0).decode() or "unknown"
        os.close(found)
        raise Locked(holder) from None
    os.ftruncate(found, 0)
    os.pwrite(found, str(os.getpid()).encode(), 0)
    return found


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

    def claim(
        self, run_id: str, config: Mapping[str, Any], fresh: bool = False, data: Mapping[str, Any] | None = None
    ) -> bool:
        """Take the folder for the run `run_id`; True when its earlier files are there to resume from.

        Holds the folder's lock until `release`. Raises Mistake when the folder is something else, belongs to another
        run that cannot go on as this one, or is being written by another process. `fresh` first removes the files of
        whatever run is there, and no others. `data` describes the data, so that a refusal can say what changed in it.
        """
        self._look()
        self.path.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        try:
            self._look()
            if fresh or self._half_removed():
                self._clear()
            resumed = self.identity.exists()
            about = json.loads(json.dumps({"id": run_id, "of": dict(config), "data": dict(data or {})}))
            if resumed:
                self._compare(about)
            self._remove(path for path in self._ours() if path.name.endswith(LEFT))
            write_json(self.identity, about)
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
        return [path.with_name(f".{path.name}{end}") for path in named for end in LEFT] + named

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
        try:
            self._lock = lock(self._lock_file)
        except Locked as held:
            raise Busy(
                f"{self.path} is being trained by process {held}; wait for it, stop it, or choose another --run"
            ) from None

    def _half_removed(self) -> bool:
        return self.identity.exists() and read_json(self.identity)["id"] is None

    def _clear(self) -> None:
        if self.identity.exists():
            write_json(self.identity, {"id": None})  # should this be killed half-way, the next claim goes on with it
        self._remove(self._ours())

    def _remove(self, paths: Iterable[Path]) -> None:
        for path in paths:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _compare(self, about: Mapping[str, Any]) -> None:
        found = read_json(self.identity)
        if found["id"] == about["id"] or (why := refusal(found["of"], about["of"])) is None:
            return
        lines = changes(found, about)
        what = "; ".join(lines[:5]) + (f"; and {len(lines) - 5} more" if len(lines) > 5 else "")
        raise Mistake(
            f"{self.path} holds another run ({what or 'same configuration, other data'})"
            f"{f': {why}' if why else ''}; choose another --run, or replace it with --fresh"
        )
