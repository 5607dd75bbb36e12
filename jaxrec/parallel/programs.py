"""Compiled programs that are kept by the shapes of their arguments, and the memory that they need of a device."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np


class Programs:
    """The programs of a jitted function: ``programs(*args)`` is the compiled one for arguments like these, which may be
    arrays or `jax.ShapeDtypeStruct`. ``len(programs)`` is how often it was compiled.
    """

    def __init__(self, jitted: Any):
        self.jitted = jitted
        self.known: dict[Any, Any] = {}

    def __call__(self, *args: Any) -> Any:
        leaves, form = jax.tree.flatten(args)
        key = form, tuple((np.shape(leaf), leaf.dtype) for leaf in leaves)
        if key not in self.known:
            self.known[key] = self.jitted.lower(*args).compile()
        return self.known[key]

    def __len__(self) -> int:
        return len(self.known)


class Memory(NamedTuple):
    """Bytes of one device while a program runs, as XLA has laid them out."""

    arguments: int
    outputs: int
    aliased: int  # of the outputs, those that take an argument's place
    temporary: int
    code: int

    @property
    def peak(self) -> int:
        """All of it together: what is alive at once is never more."""
        return self.arguments + self.outputs + self.temporary - self.aliased


def memory_of(program: Any) -> Memory | None:
    """What a compiled program needs of each device; None where the device's compiler does not tell."""
    found = program.memory_analysis()
    if found is None:
        return None
    names = ("argument", "output", "alias", "temp", "generated_code")
    return Memory(*(int(getattr(found, f"{name}_size_in_bytes")) for name in names))


def free_memory() -> float:
    """Bytes that are free of a device's memory, or of the machine's where the device has none of its own."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return float(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    return free_of_machine()


def free_of_machine() -> float:
    """Bytes of the machine's memory that are free, or would be without the files it remembers."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * float(next(line.split()[1] for line in lines if line.startswith("MemAvailable")))
    except (OSError, StopIteration):
        return float("inf")
