"""Temporary folders that no kill leaves behind for long: each is locked while its process lives, and whoever makes the
next one removes those that nobody holds.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jaxrec.config import Mistake

PREFIX = "jaxrec-spool-"
RANDOM = 8  # characters that `tempfile` adds


class Scratch:
    """A new folder in TMPDIR, until `remove` or the end of the process."""

    def __init__(self) -> None:
        sweep()
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
            self._held = os.open(self.path, os.O_RDONLY)
            with suppress(OSError):  # a file system without locks: then nobody sweeps there either
                fcntl.flock(self._held, fcntl.LOCK_EX)
            if self.path.exists():  # else another process took it for a leftover before it was locked
                return
            os.close(self._held)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        with suppress(OSError):
            os.close(self._held)


@contextmanager
def holding() -> Iterator[Scratch]:
    """A new folder, which goes where what is to be written to it fails; Mistake where it cannot be written."""
    scratch = Scratch()
    try:
        yield scratch
    except OSError as error:
        scratch.remove()
        raise Mistake(
            f"{scratch.path} cannot be written ({error.strerror}); set TMPDIR to a folder with room"
        ) from error
    except BaseException:
        scratch.remove()
        raise


def sweep() -> None:
    """Remove folders of ours that no process holds."""
    for left in Path(tempfile.gettempdir()).glob(PREFIX + "?" * RANDOM):
        with suppress(OSError):  # somebody holds it, or it is another user's
            held = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(held)
