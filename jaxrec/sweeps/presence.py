"""Who does something, whether that process is still there, and a clock that nobody sets."""

import os
import platform
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Worker:
    """A process that trains. ``born`` tells it from a later one with its number, ``place`` is where its number and its
    clock mean something.
    """

    name: str
    host: str
    pid: int
    born: str
    place: str
    device: str = ""
    code: str = ""

    @classmethod
    def here(cls, name: str, device: str = "", code: str = "") -> Self:
        """This process."""
        return cls(name, platform.node(), os.getpid(), born(os.getpid()) or "", place(), device, code)


def clock() -> float:
    """Seconds since the machine started, the same for all its processes. It neither jumps nor counts a suspension, in
    which nobody could have worked either.
    """
    return time.monotonic()


@cache
def place() -> str:
    """The boot of this machine and the namespaces of processes and time: containers of one machine differ."""
    try:
        boot = BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return platform.node()
    return " ".join([boot, *(namespace(kind) for kind in ("pid", "time"))])


def namespace(kind: str) -> str:
    try:
        return os.readlink(f"/proc/self/ns/{kind}")
    except OSError:
        return ""


def born(pid: int) -> str | None:
    """When a process started, in ticks since boot, as text; None where there is none, or one that only waits to be
    collected. Without /proc an empty text for any that lives.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None if Path("/proc/self/stat").exists() else _lives(pid)
    return None if fields[0] in "ZX" else fields[19]


def _lives(pid: int) -> str | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return ""
    return ""


def gone(worker: Worker) -> bool:
    """Whether a process certainly is no more; False where this cannot be seen from here."""
    if worker.place == place():
        return born(worker.pid) != worker.born
    rebooted = worker.place.split(" ")[0] != place().split(" ")[0]
    return rebooted and worker.host == platform.node()
