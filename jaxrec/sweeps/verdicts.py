"""How a training ended: from its result, or from what it raised, to what the ledger writes down."""

import math
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxrec.config import Mistake, first_line
from jaxrec.runs.fitting import Diverged, GivenUp
from jaxrec.runs.folder import DISK, Busy
from jaxrec.sweeps.store import NoRoom
from jaxrec.training.stop import Stopped, interruption

MEMORY = ("RESOURCE_EXHAUSTED", "Out of memory", "out of memory", "CUDA_ERROR_OUT_OF_MEMORY")


class Verdict(NamedTuple):
    """The state of an attempt, why, the kind of its error as type and place, and whether another try may end better."""

    state: str
    reason: str
    signature: str = ""
    again: bool = False


class Lost(Exception):
    """The lease of a trial was taken away: whatever it still does counts for nothing."""


def verdict(error: BaseException) -> Verdict:
    """What an error says of a trial. Out of memory, divergence and a configuration that is refused are results."""
    said = first_line(error, type(error).__name__)
    if said.endswith("(most recent call last):"):  # of an error inside a compiled program: the last line is what it is
        said = str(error).strip().splitlines()[-1]
    if ends(error) or isinstance(error, Lost | Busy):
        return Verdict("waiting", said)
    if isinstance(error, GivenUp):
        return Verdict("pruned", said)
    if isinstance(error, Diverged):
        return Verdict("diverged", said, signature(error))
    if out_of_memory(error):
        return Verdict("out_of_memory", f"{type(error).__name__}: {said}", signature(error))
    if isinstance(error, Mistake):
        return Verdict("failed", said, signature(error))
    return Verdict("failed", f"{type(error).__name__}: {said}", signature(error), again=True)


def ends(error: BaseException) -> bool:
    """Whether an error ends the process's work, whatever trial it came in: a signal, an exit, a disk that refuses."""
    told = isinstance(error, Stopped) or not isinstance(error, Exception) or interruption(error) is not None
    return told or disk(error)


def signature(error: BaseException) -> str:
    """Type of an error, file and line where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" {'/'.join(Path(frames[-1].filename).parts[-2:])}:{frames[-1].lineno}" if frames else ""
    return type(error).__name__ + where


def out_of_memory(error: BaseException) -> bool:
    """Whether the device or the machine had no memory left."""
    ours = type(error).__name__ in ("XlaRuntimeError", "JaxRuntimeError")
    return isinstance(error, MemoryError) or (ours and any(word in str(error) for word in MEMORY))


def disk(error: BaseException | None) -> bool:
    """Whether a disk is full or refuses: no trial's fault, and none will fare better."""
    while error is not None:
        if isinstance(error, NoRoom) or (isinstance(error, OSError) and error.errno in DISK):
            return True
        error = error.__cause__
    return False


def row(result: Mapping[str, Any], objectives: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """What the ledger keeps of a ``result.json``: plain numbers."""
    reading = result["headline"]
    found: dict[str, Any] = {
        "valid": numbers(result["valid"][reading]), "test": numbers(result["test"][reading]),
        "seconds": result["seconds"]["train"], "epochs": result["epochs"],
        "parameters": sum(result["model"]["parameters"].values()),
    }  # fmt: skip
    known = found["valid"] | {"seconds": found["seconds"], "parameters": found["parameters"]}
    known |= {"gradient_horizon": result.get("gradient", {}).get("horizon")}
    return found | {"objectives": {entry["name"]: known.get(entry["name"]) for entry in objectives}}


def numbers(values: Mapping[str, Any]) -> dict[str, float | None]:
    """The numbers among some values; None for one that is not finite."""
    kept = {name: value for name, value in values.items() if isinstance(value, int | float)}
    return {name: float(value) if math.isfinite(value) else None for name, value in kept.items()}
