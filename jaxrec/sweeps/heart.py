"""A thread beside the training: it keeps the leases alive, and asks the process to leave when it should."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Self

from jaxrec.config import Mistake
from jaxrec.sweeps.presence import Worker
from jaxrec.sweeps.remote import Books, Unreachable

LOOK = 0.5  # seconds between two looks whether to leave


def orphaned(parent: int | None) -> str:
    """Why a process that ``parent`` started is to leave; nothing while that one lives, or where it works for itself."""
    gone = parent is not None and os.getppid() != parent
    return f"process {parent}, which started this one, is gone" if gone else ""


class Heart(threading.Thread):
    """Beats for ``worker`` while the context is open. ``leave``, given the books of this thread, says why to leave, or
    nothing; ``why`` says why it has asked the process to leave, by SIGTERM: training saves and stops.
    """

    def __init__(self, books: Books, worker: Worker, leave: Callable[[Any], str], every: float):
        super().__init__(name="jaxrec-heart", daemon=True)
        self._books, self._worker, self._leaving, self._every = books, worker, leave, every
        self._over = threading.Event()
        self.why: str | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._over.set()
        self.join(2.0)

    def run(self) -> None:
        try:
            self._beat(self._books.again())
        except Unreachable as error:
            self._leave(str(error))

    def _beat(self, books: Books) -> None:
        beaten, known = 0.0, set[int]()
        while not self._over.wait(min(LOOK, self._every)):
            if why := self._leaving(books):
                self._leave(why)
            if time.monotonic() - beaten < self._every:
                continue
            beaten = time.monotonic()
            try:
                taken = set(books.beat(self._worker))
            except Mistake as mistake:  # training finds out when it has something to write down
                print(f"no beat: {mistake}", file=sys.stderr, flush=True)
                continue
            if taken - known:
                self._leave("its lease was taken away: it had not been heard of in time")
            known |= taken

    def _leave(self, why: str) -> None:
        if self.why is None and not self._over.is_set():
            self.why = why
            print(f"leaving: {why}", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGTERM)
