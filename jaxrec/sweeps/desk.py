"""The ledger for workers on other machines: they ask in JSON, whatever carries it, and never open the SQLite file."""

import hashlib
import json
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxrec.config import Mistake, from_dict
from jaxrec.runs.options import Config
from jaxrec.sweeps.folder import Place
from jaxrec.sweeps.ledger import Ledger
from jaxrec.sweeps.presence import Worker
from jaxrec.sweeps.store import NoRoom

AS_IT_IS = ("quarantined", "held", "read", "end", "rows", "tick")  # calls that the ledger answers itself
OWN = ("enter", "dismissed", "lease", "beat")
FILES = ("data", "test", "valid")  # options that name files which every worker must see


class Desk:
    """Answers for the sweep in ``out``, on the machine where it was started and in the folder ``home``; any number of
    threads may ask.
    """

    def __init__(self, out: Path, home: Path):
        self.place, self.home = Place(out), home
        self._here = threading.local()
        self._present: dict[str, int] = {}
        self._dismissed: set[str] = set()

    @property
    def ledger(self) -> Ledger:
        """This thread's: an SQLite connection is for one."""
        if not hasattr(self._here, "ledger"):
            self._here.ledger = Ledger(self.place.ledger)
        return self._here.ledger

    def ask(self, question: str) -> str:
        """What a `Remote` wants to know or to have written down."""
        asked = json.loads(question)
        call, given, named = asked["call"], asked["given"], asked["named"]
        try:
            if call not in AS_IT_IS + OWN:
                raise ValueError(f"{call!r} is nothing that a worker asks")
            return json.dumps({"answer": getattr(self if call in OWN else self.ledger, call)(*given, **named)})
        except Mistake as mistake:
            return json.dumps({"mistake": str(mistake), "disk": isinstance(mistake, NoRoom)})
        except Exception as error:  # a defect, and the worker is to end with it, not to ask again
            return json.dumps({"defect": f"{type(error).__name__}: {error}"})

    # for the sweep

    def present(self) -> dict[str, int]:
        """The number of the process that came last, by the name of the worker."""
        return dict(self._present)

    def forget(self, name: str) -> None:
        """Another process is to come under this name."""
        self._present.pop(name, None)

    def dismiss(self, names: Collection[str]) -> None:
        """Let these workers save and leave: they look twice a second."""
        self._dismissed.update(names)

    # for workers

    def enter(self, worker: Mapping[str, Any]) -> dict[str, Any]:
        """A worker begins: what it must know of the sweep."""
        self._present[worker["name"]] = worker["pid"]
        ledger = self.ledger
        try:
            folder = hashlib.sha256(self.place.about.read_bytes()).hexdigest()
        except OSError as error:
            raise Mistake(f"{self.place.about}: {error.strerror}; the same command writes it again") from error
        return {"about": ledger.about, "options": ledger.options, "home": str(self.home), "folder": folder}

    def dismissed(self, name: str) -> str:
        """Why a worker is to leave; nothing where it is not."""
        return "the sweep has no more work for it" if name in self._dismissed else ""

    def beat(self, worker: Mapping[str, Any]) -> list[int]:
        return self.ledger.beat(Worker(**worker))

    def lease(self, worker: Mapping[str, Any], most: int, bucket: str | None) -> dict[str, Any]:
        """Trials, the text of every file of cells that they name, and the sizes of the files of data that they read."""
        leases = self.ledger.lease(Worker(**worker), most, bucket)
        configs = [lease.config for lease in leases]
        try:
            return {"leases": leases, "code": self._code(configs), "files": self._files(configs)}
        except BaseException as error:
            for lease in leases:
                self.ledger.end(lease.attempt, "waiting", reason=str(error))
            raise

    def _code(self, configs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        from jaxrec.runs.bundle import code_files

        calls = {config["model"]["cell"]: config for config in configs if "model" in config}
        found = set[str]().union(*(code_files(from_dict(Config, each, "").model.cell) for each in calls.values()))
        try:
            return {file: self._at(file).read_bytes().decode("latin-1") for file in found}  # every byte as it is
        except OSError as error:
            raise Mistake(
                f"{error.filename}: cannot be read ({error.strerror}); put the file of the cell back"
            ) from error

    def _files(self, configs: Sequence[Mapping[str, Any]]) -> dict[str, int]:
        """Of a folder the size is 0: it is there. What is no path here, as a pattern, is not looked at."""
        names = {str(config.get(option) or "demo") for config in configs for option in FILES} - {"demo"}
        found = {name: self._at(name) for name in names if self._at(name).exists()}
        return {name: 0 if path.is_dir() else path.stat().st_size for name, path in found.items()}

    def _at(self, name: str) -> Path:
        return self.home / Path(name).expanduser()
