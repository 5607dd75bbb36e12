"""Files and folders that are written whole or not at all."""

import fcntl
import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


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


def take_place(new: Path, target: Path) -> None:
    """Give a folder the name of another, which goes. A kill between two renames is mended by `put_back`."""
    before = set_aside(target)
    if target.exists() and any(target.iterdir()):
        os.replace(target, before)
    os.replace(new, target)
    shutil.rmtree(before, ignore_errors=True)


def set_aside(target: Path) -> Path:
    """Where a folder lies while another takes its name."""
    return target.parent / f".{target.name}.before"


def put_back(target: Path) -> None:
    """Undo what a kill left of `take_place`: nothing under the name of the target."""
    before = set_aside(target)
    if before.exists() and not target.exists():
        os.replace(before, target)
    shutil.rmtree(before, ignore_errors=True)


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Hold a shared lock on the parent while writing; who can have it alone first mends what killed writers left."""
    parent = os.open(target.parent, os.O_RDONLY)
    try:
        with suppress(OSError):  # another writer is at work, or a file system without locks: leave everything alone
            fcntl.flock(parent, fcntl.LOCK_EX | fcntl.LOCK_NB)
            put_back(target)
            for left in target.parent.glob(f".{glob.escape(target.name)}." + "[0-9a-f]" * 8):
                shutil.rmtree(left, ignore_errors=True)
        with suppress(OSError):
            fcntl.flock(parent, fcntl.LOCK_SH)
        yield
    finally:
        os.close(parent)


def mend(target: Path) -> None:
    """What `writing` does first, for who only wants to know what is there."""
    if target.parent.is_dir():
        with writing(target):
            pass
