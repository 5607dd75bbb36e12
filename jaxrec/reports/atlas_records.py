"""Records of gradient flow, as a file holds them, put in order: subjects, their layers, lengths, steps and phases.

A record is one JSON object a line; null stands for what is not finite. Of records about the same thing the last counts.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from jaxrec.config import Mistake

Record = dict[str, Any]
PHASES = ("start", "during", "end")


def is_atlas(folder: str) -> bool:
    """Whether `jaxrec diagnose` wrote there, and no run lies beside."""
    place = Path(folder)
    return (place / "records.jsonl").is_file() and not (place / "config.json").exists()


def read_records(path: Path) -> list[Record]:
    """Every record of a file. Mistake where a line is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise Mistake(f"{path} cannot be read ({error.strerror}); name a file of records, records.jsonl") from None
    except UnicodeDecodeError:
        raise Mistake(f"{path} is not UTF-8 text; name a file of records, records.jsonl") from None
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
            raise Mistake(f"{path}:{number}: not a record, which is a JSON object with a 'kind'; drop the line")
        found.append(record)
    return found


def number(value: Any) -> float | None:
    """A finite number, or None."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good else None


def numbers(values: Any) -> list[float | None]:
    return [number(value) for value in values] if isinstance(values, Sequence) and not isinstance(values, str) else []


def part(record: Record | None, *names: str) -> Any:
    """What lies under names of a record, one within the other; None where one is missing."""
    found: Any = record
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def many(told: Any, *names: str) -> list[Any]:
    """The list under names of a record; empty where there is none."""
    found = part(told, *names) if names else told
    return found if isinstance(found, list) else []


def parts(told: Any, *names: str) -> list[Record]:
    """The records in the list under names of a record."""
    return [one for one in many(told, *names) if isinstance(one, dict)]


def lags(record: Any) -> list[float]:
    return [value or 0.0 for value in numbers(part(record, "lags"))]


def phase(record: Record) -> str:
    told = record.get("phase")
    return str(told) if told in PHASES else "end" if step(record) else "start"


def step(record: Record) -> int:
    return int(number(record.get("step")) or 0)


def layer(record: Record) -> int:
    return int(number(record.get("layer")) or 0)


def length(record: Record) -> int:
    return int(number(record.get("length")) or 0)


@dataclass(frozen=True)
class Subject:
    """One thing that was measured, and all its records."""

    name: str
    family: str
    cell: str
    run: str | None
    records: list[Record] = field(repr=False)

    def of(self, kind: str, **wanted: Any) -> list[Record]:
        """Its records of a kind by step; ``wanted`` are values of `layer`, `length`, `phase` or another key."""
        read = {"layer": layer, "length": length, "phase": phase, "step": step}
        return [
            one for one in self.by_kind.get(kind, ())
            if all(read.get(name, lambda r, name=name: r.get(name))(one) == value for name, value in wanted.items())
        ]  # fmt: skip

    @cached_property
    def by_kind(self) -> dict[str, list[Record]]:
        found: dict[str, list[Record]] = {}
        for one in sorted(self.records, key=lambda one: (step(one), PHASES.index(phase(one)))):
            found.setdefault(one["kind"], []).append(one)
        return found

    @cached_property
    def layers(self) -> list[int]:
        return sorted({layer(one) for one in self.of("gradient")})

    @cached_property
    def lengths(self) -> list[int]:
        return sorted({length(one) for one in self.of("gradient")})

    @property
    def trained(self) -> bool:
        return any(step(one) for one in self.records)

    def last(self, kind: str, **wanted: Any) -> Record | None:
        """Its latest record of a kind, of the longest rows where there are several."""
        found = self.of(kind, **wanted)
        return max(found, key=lambda one: (step(one), PHASES.index(phase(one)), length(one)), default=None)

    def first(self, kind: str, **wanted: Any) -> Record | None:
        """The one before training, where the latest one is another."""
        found = [one for one in self.of(kind, **wanted) if phase(one) == "start"]
        return found[0] if found and found[0] is not self.last(kind, **wanted) else None


@dataclass(frozen=True)
class Atlas:
    """Subjects by family, and the length of rows that most is known of."""

    subjects: list[Subject]
    lengths: list[int]
    main: int

    @cached_property
    def families(self) -> list[tuple[str, list[Subject]]]:
        found: dict[str, list[Subject]] = {}
        for one in self.subjects:
            found.setdefault(one.family, []).append(one)
        return list(found.items())

    def of(self, kind: str) -> list[Record]:
        return [record for one in self.subjects for record in one.of(kind)]

    def shown(self, subject: Subject) -> int:
        """The length that speaks for a subject: the atlas's own, else its nearest."""
        return min(subject.lengths or [0], key=lambda one: (abs(one - self.main), -one))


def gathered(records: Iterable[Record]) -> Atlas:
    """Records by subject; those that name none are one subject's, called by its cell."""
    groups: dict[str, dict[Any, Record]] = {}
    for record in records:
        name = str(record.get("subject") or record.get("cell") or "the model")
        same = (record["kind"], layer(record), length(record), step(record), phase(record),
                *(record.get(name) for name in ("inputs", "metric", "task", "distance", "seed", "user")))  # fmt: skip
        groups.setdefault(name, {})[json.dumps(same, default=str)] = record
    subjects = [_subject(name, list(found.values())) for name, found in groups.items()]
    families = list(dict.fromkeys(one.family for one in subjects))
    subjects.sort(key=lambda one: families.index(one.family))
    lengths = sorted({one for subject in subjects for one in subject.lengths})
    return Atlas(subjects, lengths, _main(subjects, lengths))


def _subject(name: str, records: list[Record]) -> Subject:
    def told(key: str) -> Any:
        return next((one[key] for one in reversed(records) if one.get(key)), None)

    run = told("run")
    return Subject(name, str(told("family") or "own"), str(told("cell") or name), run and str(run), records)


def _main(subjects: list[Subject], lengths: list[int]) -> int:
    """The length that was followed during training, where it was also asked for; else the one that most is known of in
    whole histories.
    """

    def most(kind: str, *, whole: bool = True, **wanted: Any) -> int | None:
        found = Counter(
            length(one) for subject in subjects for one in subject.of(kind, **wanted)
            if length(one) in lengths and not (whole and "end to end" in str(one.get("inputs")))
        )  # fmt: skip
        return max(found, key=lambda one: (found[one], one), default=None)

    asked = {
        length(one) for subject in subjects for end in ("start", "end") for one in subject.of("gradient", phase=end)
    }
    followed = most("gradient", phase="during", whole=False)
    if asked and followed not in asked:
        followed = most("gradient", phase="end") or most("gradient", phase="start")
    kinds = followed, most("information"), most("gradient")
    return next((one for one in kinds if one is not None), lengths[-1] if lengths else 0)
