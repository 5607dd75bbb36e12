"""Who works for a sweep, wherever that is: places that are filled, emptied and filled again."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

PATIENCE = 20.0  # seconds for a worker to save and leave; it knows of a signal within ten
PAUSE = 1.0  # seconds before a worker that died at once is started again; doubled every time


@dataclass
class Post:
    """One worker's place: what works there, how often in a row it ended before it did anything, and its last words."""

    name: str
    process: Any = None
    began: float = 0.0
    failed: int = 0
    log: list[str] = field(default_factory=list)


class Ended(NamedTuple):
    """What worked at a post is no more. ``status`` is as of a process, None where its node or job is gone: that is no
    fault of a trial. ``pid`` is 0 where it never came to work.
    """

    post: Post
    pid: int
    status: int | None
    said: str  # how it ended, in words
    log: list[str]


class Team(ABC):
    """The workers of a sweep."""

    posts: list[Post]
    brief: ClassVar[float] = 60.0  # seconds: who fails later has not failed at once

    @property
    @abstractmethod
    def children(self) -> list[int]:
        """Numbers of processes of which this team says itself when they end, and why."""

    @abstractmethod
    def start(self, post: Post) -> Any:
        """Let somebody work at an empty post; what the post keeps of it."""

    @abstractmethod
    def over(self, post: Post) -> Ended | None:
        """How what works at a post has ended, None while it works."""

    @abstractmethod
    def stop(self, patience: float = PATIENCE) -> None:
        """Let every worker save and leave; what is still there after ``patience`` seconds is killed."""

    @abstractmethod
    def kill(self, which: Callable[[str, int], bool]) -> None:
        """End those that a name and the number of a process pick out."""

    def fill(self, most: int, without: Collection[str]) -> None:
        """Start workers where a place is empty, up to ``most`` at work, but none of those named in ``without``."""
        now, active = time.monotonic(), sum(post.process is not None for post in self.posts)
        for post in self.posts:
            wait = PAUSE * 2 ** min(post.failed - 1, 5) if post.failed else 0.0
            if post.process is None and active < most and post.name not in without and now >= post.began + wait:
                post.process, post.began = self.start(post), time.monotonic()
                active += 1

    def ended(self) -> list[Ended]:
        """Those that have ended since last asked."""
        found = [each for post in self.posts if post.process is not None and (each := self.over(post))]
        for post, _, status, _, log in found:
            post.log = log
            post.failed = post.failed + 1 if status and time.monotonic() - post.began < self.brief else 0
            post.process = None
        return found

    @property
    def working(self) -> bool:
        return any(post.process is not None for post in self.posts)
