"""Checkpoints of processes that train as one: the first writes and reads them, and hands on what it read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxrec.parallel import team
from jaxrec.training.checkpoints import Checkpoints

Found = tuple[Any, dict[str, Any]]


class SharedCheckpoints:
    """What `Checkpoints` does, for all processes: every one calls every method with equal arguments, and has the answer
    of the first.
    """

    def __init__(self, directory: Path, say: Callable[[str], None]):
        self._own = Checkpoints(directory, say=say)

    def save(self, step: int, tree: Any, notes: dict[str, Any]) -> None:
        if team.leads():
            self._own.save(step, tree, notes)

    def save_best(self, step: int, tree: Any, notes: dict[str, Any]) -> None:
        if team.leads():
            self._own.save_best(step, tree, notes)

    def latest(self) -> int | None:
        return team.agreed(self._own.latest() if team.leads() else None)

    def best(self) -> int | None:
        return team.agreed(self._own.best() if team.leads() else None)

    def forget_best_after(self, step: int) -> None:
        if team.leads():
            self._own.forget_best_after(step)

    def restore(self, step: int, abstract: Any) -> Found:
        return self._handed(self._own.restore(step, abstract) if team.leads() else (abstract, {}))

    def restore_best(self, abstract: Any) -> Found:
        return self._handed(self._own.restore_best(abstract) if team.leads() else (abstract, {}))

    def _handed(self, found: Found) -> Found:
        tree, notes = found
        notes = team.agreed(notes)  # first, for reading takes as long as it takes
        return team.handed(tree), notes
