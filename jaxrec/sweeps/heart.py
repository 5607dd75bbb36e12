"""A thread beside the training: it keeps the leases alive, and asks the process to leave when it should."""

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Self

from jaxrec.config import Mistake
from jaxrec.sweeps.ledger import Ledger
from jaxrec.sweeps.presence import Worker

LOOK = 0.5  # seconds between two looks at the process that started this one


class Heart(threading.Thread):
    """Beats for ``worker`` while the context is open. ``parent`` is the process without which it leaves, None where it
    works for itself; ``why`` says why it has asked the process to leave, by SIGTERM: training saves and stops.
    """

    def __init__(self, path: Path, worker: Worker, parent: int | None, every: float):
        super().__init__(name="jaxrec-heart", daemon=True)
        self._path, self._worker, self._parent, self._every = path, worker, parent, every
        self._over = threading.Event()
        self.why: str | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._over.set()
        self.join(2.0)

    def run(self) -> None:
        ledger, beaten, known = Ledger(self._path), 0.0, set[int]()
        while not self._over.wait(min(LOOK, self._every)):
            if self._parent is not None and os.getppid() != self._parent:
                self._leave(f"process {self._parent}, which started this one, is gone")
            if time.monotonic() - beaten < self._every:
                continue
            beaten = time.monotonic()
            try:
                taken = set(ledger.beat(self._worker))
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
