"""What a worker on another machine has in the place of a ledger: it asks the `Desk`, whatever carries the words."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from jaxrec.cells.find import instead
from jaxrec.config import Mistake
from jaxrec.sweeps.ledger import Lease, Ledger
from jaxrec.sweeps.presence import Worker
from jaxrec.sweeps.store import NoRoom
from jaxrec.training.stop import Stopped

PATIENCE = 20.0  # seconds in which a desk that does not answer may come back
AGAIN = 0.5  # seconds between two tries
Carry = Callable[[str], str]  # takes a question to the desk and brings the answer; OSError or EOFError where it cannot


class Unreachable(Stopped):
    """Nobody answers for the sweep: the process saves and leaves."""


class Remote:
    """A ledger of another machine, for one thread, as far as workers need one. ``connect`` gives who carries;
    ``copies`` is a folder for files of cells.
    """

    def __init__(self, connect: Callable[[], Carry], out: Path, copies: Path, patience: float = PATIENCE):
        self.path, self._connect, self._copies, self._patience = out / "ledger.sqlite", connect, copies, patience
        self._carry: Carry | None = None
        self.about: dict[str, Any] | None = None
        self.options: dict[str, Any] = {}

    def again(self) -> Self:
        """The same for another thread."""
        return type(self)(self._connect, self.path.parent, self._copies, self._patience)

    def enter(self, worker: Worker) -> None:
        """Begin as ``worker``, in the folder where the sweep was started, where this machine has it. `Mistake` where it
        does not see the sweep's folder.
        """
        found = self._ask("enter", asdict(worker))
        self.about, self.options = found["about"], found["options"]
        out = self.path.parent
        try:
            same = hashlib.sha256((out / "sweep.json").read_bytes()).hexdigest() == found["folder"]
        except OSError:
            same = False
        if not same:
            raise Mistake(
                f"{out} is not the folder of this sweep on {worker.host}; take an --out that all workers see under "
                "the same path, on a shared file system"
            )
        if os.path.isdir(found["home"]):
            os.chdir(found["home"])

    def lease(self, worker: Worker, most: int = 1, bucket: str | None = None) -> list[Lease]:
        """Trials, with the files of cells that they need at hand. `Mistake`, and they are given back, where their data
        is not to be seen from here.
        """
        found = self._ask("lease", asdict(worker), most, bucket)
        leases = [Lease(*each) for each in found["leases"]]
        try:
            look_at(found["files"], worker.host)
        except Mistake as mistake:
            for lease in leases:
                self.end(lease.attempt, "waiting", reason=str(mistake))
            raise
        instead({file: self._copy(file, text.encode("latin-1")) for file, text in found["code"].items()})
        return leases

    def _copy(self, file: str, content: bytes) -> Path:
        """A file of cells under its own name, in a folder of its own."""
        place = Path(self._copies, hashlib.sha256(content).hexdigest()[:16], Path(file).name)
        if not place.exists():
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(content)
        return place

    def beat(self, worker: Worker) -> list[int]:
        return self._ask("beat", asdict(worker))

    def dismissed(self, name: str) -> str:
        """Why a worker is to leave; nothing where it is not."""
        return self._ask("dismissed", name)

    def quarantined(self) -> list[str]:
        return self._ask("quarantined")

    def held(self, name: str, pid: int) -> list[int]:
        return self._ask("held", name, pid)

    def read(self, attempt: int, reading: Mapping[str, Any]) -> bool:
        return self._ask("read", attempt, dict(reading))

    def end(
        self, attempt: int, state: str, *, result: Mapping[str, Any] | None = None, reason: str = "",
        signature: str = "", again: bool = True, counts: bool = True, log: Sequence[str] = (),
        compile_seconds: float = 0.0,
    ) -> str | None:  # fmt: skip
        return self._ask(
            "end", attempt, state, result=result, reason=reason, signature=signature, again=again, counts=counts,
            log=log, compile_seconds=compile_seconds,
        )  # fmt: skip

    def rows(self, since: int = 0) -> list[dict[str, Any]]:
        return self._ask("rows", since)

    def tick(self) -> int:
        return self._ask("tick")

    def _ask(self, call: str, *given: Any, **named: Any) -> Any:
        """The desk's answer. To ask again does no harm: what an answer that was lost had leased comes back when this
        worker gives back what it holds.
        """
        question = json.dumps({"call": call, "given": given, "named": named})
        until = time.monotonic() + self._patience
        while True:
            try:
                self._carry = self._carry or self._connect()
                return answered(json.loads(self._carry(question)))
            except (OSError, EOFError) as error:
                self._carry = None
                if time.monotonic() >= until:
                    self._patience = 0.0  # it leaves, and need not wait again for every word it has left
                    raise Unreachable(f"nobody answers for the sweep in {self.path.parent}: {error}") from error
            time.sleep(AGAIN)


Books = Ledger | Remote  # what a worker works with


def answered(found: Mapping[str, Any]) -> Any:
    if "mistake" in found:
        raise (NoRoom if found["disk"] else Mistake)(found["mistake"])
    if "defect" in found:
        raise RuntimeError(found["defect"])
    return found["answer"]


def look_at(files: Mapping[str, int], host: str) -> None:
    """`Mistake` where a file of data is not here as it is where the sweep was started."""
    for name, size in files.items():
        path = Path(name).expanduser()
        if not path.exists() or (size and path.stat().st_size != size):
            what = "is another file" if path.exists() else "is not to be seen"
            raise Mistake(f"{name} {what} on {host}; let data lie where all workers see it, and name its whole path")
