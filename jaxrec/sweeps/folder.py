"""The folder of a sweep: the names of its files, and one sweep at a time in it."""

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jaxrec.config import Mistake
from jaxrec.runs.folder import Locked, lock

OURS = ("ledger.sqlite", "sweep.json", "trials.jsonl", "runs", "workers")


class Place:
    """The files of a sweep under `out`."""

    def __init__(self, out: Path):
        self.out = out
        self.ledger = out / "ledger.sqlite"
        self.about = out / "sweep.json"
        self.table = out / "trials.jsonl"
        self.runs = out / "runs"
        self.lock = out / ".lock"

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold the folder, made where there is none; `Mistake` where it is something else or another sweep works in it.

        The end of this process lets go of it, however it ends. A sweep that is refused before it has begun leaves
        nothing behind.
        """
        if self.out.exists() and not self.out.is_dir():
            raise Mistake(f"{self.out} is a file, and a sweep needs a folder; choose another --out")
        new = not self.out.exists()
        there = {path.name for path in self.out.iterdir()} if self.out.exists() else set()
        if there - {self.lock.name} and not there & set(OURS):
            raise Mistake(f"{self.out} is not a sweep, and holds {min(there)!r}; choose another --out")
        self.out.mkdir(parents=True, exist_ok=True)
        try:
            held = lock(self.lock)
        except Locked as other:
            raise Mistake(
                f"a sweep, process {other}, works in {self.out} already; wait for it, stop it, or choose another --out"
            ) from None
        try:
            yield
        finally:
            if not self.about.exists() and not there & set(OURS):
                self.clear(new)
            os.close(held)

    def clear(self, folder: bool) -> None:
        """Take away what a sweep that never began has made."""
        for path in (*self.out.glob("ledger.sqlite*"), self.lock):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # somebody put something there
            (self.out / "workers").rmdir()
        if folder:
            with contextlib.suppress(OSError):
                self.out.rmdir()
