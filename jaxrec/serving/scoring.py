"""Recommendations for more histories than memory holds: read a part, recommend, write its Parquet file, go on.

The output is a folder. A part appears under its name when it is complete, so the same command after a kill does the
parts that are missing; `_score.json` says what was asked, and another question never goes into the same folder.
"""

import glob
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxrec.config import Mistake
from jaxrec.data.folders import files_of, locate
from jaxrec.data.prepared import file_sha256
from jaxrec.data.sources import Source, not_utf8
from jaxrec.runs import bundle
from jaxrec.runs.options import Score
from jaxrec.serving import load
from jaxrec.serving.histories import KEYS, One, events, full, together
from jaxrec.serving.served import Served

if TYPE_CHECKING:
    import polars as pl

Say = Callable[[str], None]
ABOUT = "_score.json"
OFTEN = 10.0  # seconds between two sentences
DIGITS = 18  # of a whole number that 64 bits hold


class Tally(NamedTuple):
    """Events of histories, those of them whose item the model does not know, and histories that have none it knows."""

    events: int = 0
    unknown: int = 0
    strange: int = 0

    def plus(self, other: "Tally") -> "Tally":
        return Tally(*(one + more for one, more in zip(self, other, strict=True)))

    def told(self) -> str | None:
        if not self.unknown:
            return None
        rest = f"; {self.strange:,} histories have no other and get the most popular items" if self.strange else ""
        return f"the model does not know the item of {self.unknown:,} of {self.events:,} events{rest}"


class Part(NamedTuple):
    """Consecutive histories of one file, which are read when they are asked for."""

    rows: int
    read: Callable[[], list[One]]


def score(options: Score, say: Say) -> dict[str, Any]:
    """Write the parts that are missing; how many histories there are, how many are new, and at which rate."""
    sources, out = sources_of(options.data), Path(options.out)
    asked = question(options, sources)
    claim(out, asked)
    model = load(options.run, allow_code=options.allow_code)
    begun, cpu, said = time.perf_counter(), time.process_time(), time.perf_counter()
    row = new = number = 0
    tally = Tally()
    for part in (part for source in sources for part in parts_of(source, options.part)):
        target = part_file(out, number)
        if not complete(target, part.rows):
            read = part.read()
            write(recommended(model, read, row, options), target)
            new, tally = new + part.rows, tally.plus(counted(model, read))
        row, number = row + part.rows, number + 1
        if time.perf_counter() - said > OFTEN:
            said = time.perf_counter()
            say(f"{row:,} histories, {new / (said - begun):,.0f} a second")
    conclude(out, asked, row, number)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    if told := tally.told():
        say(told)
    done = {"histories": row, "parts": number, "new": new, "seconds": seconds, "cpu_seconds": cpu}
    return done | {"of_new": tally._asdict()}


def complete(target: Path, rows: int) -> bool:
    """Whether a part is there with so many rows; one that cannot be read is not."""
    import polars as pl

    if not target.exists():
        return False
    try:
        return bool(pl.scan_parquet(target, glob=False).select(pl.len()).collect().item() == rows)
    except (pl.exceptions.PolarsError, OSError):
        return False


def counted(model: Served, read: Sequence[One]) -> Tally:
    lost = [len(model.unknown(one.items)) for one in read]
    strange = sum(bool(one.items) and gone == len(one.items) for one, gone in zip(read, lost, strict=True))
    return Tally(sum(len(one.items) for one in read), sum(lost), strange)


def sources_of(data: str) -> tuple[Source, ...]:
    if not glob.has_magic(data) and not Path(data).expanduser().exists():
        raise Mistake(f"{data} does not exist; give a file with a history a line, or Parquet with a column history")
    return files_of(locate(data))


def question(options: Score, sources: Sequence[Source]) -> dict[str, Any]:
    """What decides the output: the model's and the data's bytes, and the options."""
    place = bundle.find(Path(options.run))
    files = sorted(file for file in place.iterdir() if file.is_file())
    return {
        "model": {file.name: file_sha256(file) for file in files},
        "data": [source.sha256 for source in sources],
        "k": options.k,
        "exclude_seen": options.seen(),
        "part": options.part,
    }


def claim(out: Path, asked: dict[str, Any]) -> None:
    """Make the folder, or find in it the same question; what a kill left half written goes."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / ABOUT, asked)
        return
    if not (out / ABOUT).is_file():
        raise Mistake(f"{out} exists already, and jaxrec score did not write it; choose another --out")
    try:
        before = json.loads((out / ABOUT).read_text(encoding="utf-8"))
    except ValueError:
        before = None
    if not isinstance(before, dict):
        raise Mistake(f"{out / ABOUT} is damaged; choose another --out or remove {out}")
    if differ := [name for name, value in asked.items() if before.get(name) != value]:
        raise Mistake(f"{out} was written for another {' and '.join(differ)}; choose another --out or remove it")
    left_over(out)


def conclude(out: Path, asked: dict[str, Any], histories: int, parts: int) -> None:
    """Say in the folder that it is complete."""
    write_json(out / ABOUT, asked | {"histories": histories, "parts": parts})


def part_file(out: Path, number: int) -> Path:
    return out / f"part-{number:05d}.parquet"


def left_over(out: Path) -> None:
    """Remove what a kill left half written."""
    for left in out.glob(".*.tmp"):
        left.unlink(missing_ok=True)


def write_json(path: Path, value: dict[str, Any]) -> None:
    with_name(path, lambda temporary: temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8"))


def write(frame: "pl.DataFrame", target: Path) -> None:
    with_name(target, frame.write_parquet)


def with_name(target: Path, write: Callable[[Path], Any]) -> None:
    """A file that has its name only when it is complete, and on disk."""
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        raise Mistake(f"{target} cannot be written: {error.strerror}; free some space, then run it again") from error
    finally:
        temporary.unlink(missing_ok=True)


def parts_of(source: Source, size: int) -> Iterator[Part]:
    """The histories of a file in parts of `size`; the last is shorter."""
    return parquet_parts(source, size) if source.parquet else text_parts(source, size)


def text_parts(source: Source, size: int) -> Iterator[Part]:
    first = 1
    with source.guarded(), source.text() as file:
        while lines := list(islice(file, size)):
            yield Part(len(lines), lambda lines=lines, first=first: of_lines(lines, f"{source.path}:", first))  # type: ignore[misc]
            first += len(lines)


def of_lines(lines: Sequence[str], where: str, first: int) -> list[One]:
    """Histories as they are written on the command line; Mistake names the line."""
    found = []
    for number, line in enumerate(lines, start=first):
        if not_utf8(line):
            raise Mistake(f"{where}{number}: the text is not UTF-8; save the file as UTF-8")
        try:
            found.append(events(line.rstrip("\r\n")))
        except Mistake as error:
            raise Mistake(f"{where}{number}: {error}") from None
    return found


def parquet_parts(source: Source, size: int) -> Iterator[Part]:
    import polars as pl

    table = pl.scan_parquet(source.path, glob=False)
    names = columns(table.collect_schema().names(), source.path)
    rows = table.select(pl.len()).collect().item()

    def read(begin: int) -> list[One]:
        return of_rows(table.select(names).slice(begin, size).collect().iter_rows(named=True), str(source.path), begin)

    for begin in range(0, rows, size):
        yield Part(min(size, rows - begin), lambda begin=begin: read(begin))  # type: ignore[misc]


def columns(names: Sequence[str], path: Path) -> list[str]:
    """The columns of a table that say something of a history."""
    if "history" not in names:
        raise Mistake(f"{path} has no column history; it has {', '.join(names)}: write a list of item ids a row")
    return [name for name in KEYS if name in names]


def of_rows(rows: Iterator[dict[str, Any]], where: str, first: int) -> list[One]:
    """Histories of a table; Mistake names the row."""
    found = []
    for number, row in enumerate(rows, start=first + 1):
        try:
            found.append(full({name: value for name, value in row.items() if value is not None}))
        except Mistake as error:
            raise Mistake(f"{where}: row {number}: {error}") from None
    return found


def recommended(model: Served, read: Sequence[One], row: int, options: Score) -> "pl.DataFrame":
    """A part as it is written; `row` is the place of its first history."""
    import polars as pl

    items, scores = lists(model, read, options.k, options.seen())
    users, places = [one.user for one in read], range(row, row + len(read))
    kind = pl.Int64 if whole_numbers(model) else pl.String
    schema: dict[str, Any] = {"row": pl.Int64, "user": pl.String, "items": pl.List(kind), "scores": pl.List(pl.Float64)}
    return pl.DataFrame({"row": places, "user": users, "items": items, "scores": scores}, schema=schema)


def lists(model: Served, read: Sequence[One], k: int, seen: bool | None) -> tuple[list[list[Any]], list[list[float]]]:
    """Items and scores of each history, best first."""
    asked = together(read)
    ranked = model.recommend(asked.items, k=k, exclude_seen=seen, **asked.aside())
    return [[item for item, _ in one] for one in ranked], [[value for _, value in one] for one in ranked]


def whole_numbers(model: Served) -> bool:
    """Whether raw item ids are whole numbers that a column of them holds."""
    ids = model.bundle.item_ids
    return ids.integers and max(map(len, ids.strings), default=0) <= DIGITS
