"""Several files of one format as one source: a directory of parts, or a pattern such as 'logs/*.parquet'."""

import glob
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from jaxrec.config import Mistake
from jaxrec.data.events import Events
from jaxrec.data.sources import Source

# Files that a known archive keeps its events in, beside files about items and users.
KNOWN = ("ratings.csv", "ratings.dat", "u.data", "behaviors.tsv")
HELD_OUT = re.compile(r"(^|[^a-z])(test|valid|validation|dev|val)([^a-z]|$)", re.IGNORECASE)
SIDES = (".item", ".user", ".link", ".kg")  # RecBole's, beside .inter


@dataclass(frozen=True)
class Folder:
    """The parts in the order of their names, and what was given: a directory or a pattern."""

    path: Path
    parts: tuple[Source, ...]

    @property
    def name(self) -> str:
        """The data's name: that of the directory, or of the one in which the pattern looks."""
        fixed = self.path.absolute()
        while glob.has_magic(str(fixed)):
            fixed = fixed.parent
        return fixed.name or "data"

    @cached_property
    def sha256(self) -> str:
        """Of the hashes of the parts, in order."""
        return hashlib.sha256("".join(part.sha256 for part in self.parts).encode()).hexdigest()


def parts_of(source: Source | Folder) -> tuple[Source, ...]:
    """The files of several that are one source; none of one file."""
    return source.parts if isinstance(source, Folder) else ()


def files_of(source: Source | Folder) -> tuple[Source, ...]:
    """The files of a source, be it one or several."""
    return source.parts if isinstance(source, Folder) else (source,)


def locate(text: str, say: Callable[[str], None] = lambda _: None) -> Source | Folder:
    """The file, or the files of a directory or pattern. Mistake when there are none, or it is unclear which to take."""
    path = Path(text).expanduser()
    try:
        if path.is_dir():
            return of_directory(path, say)
        if path.exists() or not glob.has_magic(str(path)):
            return Source(path)
    except OSError as error:  # of the folder it lies in, or a name too long
        raise Mistake(f"{path} cannot be read ({error.strerror}); check the path and its permissions") from error
    found = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file())
    if not found:
        raise Mistake(f"{path} fits no file; give the path of a file of events, or a pattern like 'logs/*.parquet'")
    return one_or_more(path, found)


def of_directory(path: Path, say: Callable[[str], None]) -> Source | Folder:
    """All files of a directory but hidden ones and markers such as _SUCCESS; of a known archive only the events."""
    try:
        files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith((".", "_")))
    except OSError as error:
        raise Mistake(f"{path} cannot be read ({error.strerror}); check the path and its permissions") from error
    if not files:
        inner = any(entry.is_dir() for entry in path.iterdir())
        remedy = f"name them as in '{path}/**/*.parquet'" if inner else "name a file of events"
        raise Mistake(f"{path} is a directory without prepared data or files; {remedy}")
    plain = {file: file.name.removesuffix(".gz") for file in files}
    events = [file for file in files if plain[file] in KNOWN]
    inter = [file for file in files if plain[file].endswith(".inter")]
    if inter and all(plain[file].endswith((".inter", *SIDES)) for file in files):
        events = inter
    if len(events) == 1 and len(files) > 1:
        say(f"{path}: the events are in {events[0].name}")
    return one_or_more(path, events if len(events) == 1 else files)


def one_or_more(path: Path, files: Sequence[Path]) -> Source | Folder:
    endings = sorted({"".join(file.suffixes[-2:] if file.suffix == ".gz" else file.suffixes[-1:]) for file in files})
    held_out = [file.name for file in files if HELD_OUT.search(file.name)]
    if held_out and len(held_out) < len(files):
        raise Mistake(
            f"{path} holds {held_out[0]} beside {next(file.name for file in files if file.name not in held_out)}: one "
            "source would mix them; give the training file to --data and the others to --test and --valid"
        )
    if len(endings) > 1:
        raise Mistake(
            f"{path} holds files of different kinds ({', '.join(ending or 'no suffix' for ending in endings)}); "
            f"name one, or a pattern such as '{path if path.is_dir() else path.parent}/*{endings[0]}'"
        )
    return Source(files[0]) if len(files) == 1 else Folder(path, tuple(Source(file) for file in files))


def together(parts: Sequence[tuple[Source | Folder, Events]]) -> Events:
    """The events of all parts, one after the other. Mistake when they were not read alike."""
    import polars as pl

    (first, model), *rest = parts
    for other, events in rest:
        for what in ("format", "columns", "unit"):
            one, two = getattr(model, what), getattr(events, what)
            if one != two:
                raise Mistake(
                    f"{other.path} is read as {two}, {first.path} as {one}; files of one source must be alike: "
                    "name the columns and --time-unit, or give them one by one"
                )
    tables = [events for _, events in parts]

    def joined(values: list[Any]) -> Any:
        if any(value is None for value in values):
            return None
        return np.concatenate(values) if isinstance(values[0], np.ndarray) else pl.concat(values)

    return replace(
        model,
        **{role: joined([getattr(events, role) for events in tables]) for role in ("item", "user", "session", "time")},
        weights=joined([events.weights for events in tables]),
        features={name: feature([events.features[name] for events in tables], name) for name in model.features},
        skipped=added([events.skipped for events in tables]),
        left_out=added([events.left_out for events in tables]),
    )


def feature(values: "list[Any]", name: str) -> Any:
    """One feature of all parts: numbers only where it is numbers in every part."""
    import polars as pl

    if len({isinstance(value, np.ndarray) for value in values}) > 1:
        raise Mistake(f"feature {name!r} is numbers in some files and text in others; write it alike in all of them")
    return np.concatenate(values) if isinstance(values[0], np.ndarray) else pl.concat(values)


def added(counts: Sequence[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in counts:
        for rule, count in part.items():
            total[rule] = total.get(rule, 0) + count
    return total
