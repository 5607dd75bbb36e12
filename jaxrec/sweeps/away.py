"""Workers on other machines: known by what the sweep's desk hears of them, and let go by its word."""

import math
import time
from abc import abstractmethod
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol

from jaxrec.sweeps.team import PATIENCE, Ended, Post, Team
from jaxrec.training.stop import AGAIN


class Front(Protocol):
    """The side of a `sweeps.desk.Desk` that the sweep sees."""

    def present(self) -> dict[str, int]: ...

    def forget(self, name: str) -> None: ...

    def dismiss(self, names: Collection[str]) -> None: ...


class Away(Team):
    """A team that is not on this machine. What was started and has not come may be waiting for a machine."""

    brief = math.inf

    def __init__(self, out: Path, count: int, front: Front):
        (out / "workers").mkdir(parents=True, exist_ok=True)
        self.out, self.front = out, front
        self.posts = [Post(f"w{number}") for number in range(count)]
        self._came: dict[str, int] = {}
        self._left: list[Ended] | None = None  # after `stop`

    @abstractmethod
    def end(self, post: Post) -> None:
        """Kill what works at a post, or waits to."""

    @abstractmethod
    def close(self) -> None:
        """Nobody works any more."""

    @property
    def children(self) -> list[int]:
        if self.working:
            self._look()  # every time: one that comes and dies between two looks would be taken for a stranger
        return list(self._came.values())

    def _look(self) -> None:
        self._came = self.front.present()

    def pid(self, post: Post) -> int:
        """The number of the process at a post, 0 where none has come."""
        if post.name not in self._came:
            self._look()
        return self._came.get(post.name, 0)

    def begun(self, post: Post) -> None:
        """Somebody new is on the way to a post."""
        self._came.pop(post.name, None)
        self.front.forget(post.name)

    def ended(self) -> list[Ended]:
        if self._left is None:
            return super().ended()
        found, self._left = self._left, []
        return found

    def stop(self, patience: float = PATIENCE) -> None:
        found: list[Ended] = []
        try:
            self.front.dismiss([post.name for post in self.posts])
            self._look()
            until = time.monotonic() + patience
            while any(post.process is not None and self.pid(post) for post in self.posts) and time.monotonic() < until:
                found += super().ended()
                time.sleep(0.1)
        finally:
            for post in self.posts:
                if post.process is not None:
                    self.end(post)
                    found.append(Ended(post, self._came.get(post.name, 0), AGAIN, "it did not leave in time", []))
                    post.process = None
            self._left = found
            self.close()

    def kill(self, which: Callable[[str, int], bool]) -> None:
        for post in self.posts:
            if post.process is not None and which(post.name, self.pid(post)):
                self.end(post)
