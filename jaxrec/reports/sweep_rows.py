"""The rows of a sweep as its folder holds them: `trials.jsonl`, a trial a line, and `sweep.json`, what was asked for.

Everything else about a sweep's page starts from here and needs neither the ledger nor the runs.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxrec.config import Mistake

Row = Mapping[str, Any]
FAILED = ("diverged", "out_of_memory", "failed")
STATES = ("done", "pruned", *FAILED, "running", "waiting")
WORDS = {"out_of_memory": "out of memory"}  # states that are not their own word
OPEN = ("running", "waiting")
ORDERLY = ("done", "pruned", "stopped", *OPEN)  # how an attempt ends when nothing is wrong


@dataclass(frozen=True)
class Objective:
    """What is sought, and which way is better."""

    name: str
    maximize: bool = True

    @property
    def sign(self) -> int:
        return 1 if self.maximize else -1

    @property
    def unit(self) -> str:
        """The name with its unit, for an axis."""
        return {"seconds": "seconds of training"}.get(self.name, self.name)


def is_sweep(folder: Path | str) -> bool:
    """Whether a folder holds a sweep's rows."""
    return Path(folder, "trials.jsonl").is_file() or Path(folder, "sweep.json").is_file()


def read_sweep(folder: Path | str) -> tuple[dict[str, Any], list[Row]]:
    """What was asked for and a row a trial; `Mistake` where a file cannot be read."""
    rows, about = Path(folder, "trials.jsonl"), Path(folder, "sweep.json")
    lines = rows.read_text(encoding="utf-8").split("\n") if rows.is_file() else []
    found = [_parsed(line, f"{rows}:{place}", dict) for place, line in enumerate(lines, start=1) if line.strip()]
    asked = _parsed(about.read_text(encoding="utf-8"), str(about), dict) if about.is_file() else {}
    return asked, found


def _parsed(text: str, where: str, kind: type) -> Any:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise Mistake(f"{where} is not JSON ({error}); the sweep's command again writes it anew") from None
    if not isinstance(value, kind):
        raise Mistake(f"{where} is not a JSON object; the sweep's command again writes it anew")
    return value


def objectives(about: Row, rows: Sequence[Row]) -> list[Objective]:
    """The objectives asked for, the first one leads; where nothing was asked for, those of the rows."""
    asked = [Objective(one["name"], one.get("direction") != "minimize") for one in about.get("objectives") or ()]
    if asked:
        return asked
    names = next((list(row["objectives"]) for row in rows if row.get("objectives")), ["ndcg@10"])
    return [Objective(name, name not in ("seconds", "parameters")) for name in names]


def number(value: Any) -> float | None:
    """A finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def value_of(row: Row, name: str) -> float | None:
    """An objective of a finished trial; None where it has no finite number."""
    places = (row.get("objectives") or {}, row.get("valid") or {}, row)
    return next((number(place[name]) for place in places if name in place), None)


def tested(row: Row, name: str) -> float | None:
    return number((row.get("test") or {}).get(name))


def readings(row: Row, name: str) -> Iterator[tuple[float, float]]:
    """Epoch and value of every reading that is a number, in order."""
    for one in row.get("readings") or ():
        epoch, value = number(one.get("epoch")), number((one.get("values") or {}).get(name))
        if epoch is not None and value is not None:
            yield epoch, value


def reached(row: Row, name: str) -> float | None:
    """What a trial came to: its result, or what it read last before it was given up."""
    if row["state"] == "done":
        return value_of(row, name)
    return max(readings(row, name), key=lambda pair: pair[0], default=(0, None))[1]


def epochs(row: Row) -> float:
    """Epochs trained: as recorded, else those of the last reading."""
    said = number(row.get("epochs"))
    return said if said is not None else max((n for n in (one.get("epoch", 0) for one in row.get("readings") or ())),
                                             default=0)  # fmt: skip


def seconds(row: Row) -> float:
    """Seconds of work, over every attempt."""
    spent = [number(one.get("seconds")) for one in row.get("attempts") or ()]
    return sum(filter(None, spent)) or number(row.get("seconds")) or 0.0


def own(rows: Sequence[Row]) -> list[Row]:
    """The trials that were trained: not those answered from another one."""
    return [row for row in rows if row.get("same_as") is None]


def four(value: float) -> str:
    """A metric: four decimals, four digits where those would not do."""
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 100 else f"{value:.4g}"


def duration(value: float) -> str:
    """Seconds in words, of two units where the larger is small: 0.4 s, 12 s, 3 min 5 s, 33 min, 2 h 10 min, 3 d 4 h."""
    if value < 10:
        return f"{value:.1f} s"
    whole = round(value)
    for name, unit, small, part in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= unit:
            rest = whole % unit // part if whole < 10 * unit or name == "h" else 0
            return f"{whole // unit} {name}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"
