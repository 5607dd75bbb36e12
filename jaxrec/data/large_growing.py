"""Adding files to prepared data where either is large: its events go back to a spool, and those of the files after
them.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxrec.config import Mistake
from jaxrec.data import card as cards
from jaxrec.data.buckets import COLUMNS, ROWS, pieces
from jaxrec.data.columns import Choice
from jaxrec.data.folders import Folder, files_of
from jaxrec.data.formats import Format, look
from jaxrec.data.large import by_disk, laid
from jaxrec.data.options import Preparation
from jaxrec.data.prepared import Prepared, piece
from jaxrec.data.sources import Source
from jaxrec.data.streaming import LARGE, Span, Spool, grown, opened, read_into, scaled, simple, size_of
from jaxrec.data.vocabulary import Vocabulary

if TYPE_CHECKING:
    import polars as pl

Say = Callable[[str], None]
MANY = 1 << 22  # events of prepared data from which it is read back by way of the disk
NEVER = np.iinfo(np.int64).max
EXACT = ("microseconds", 1, 1)  # what times that were read are in


def streamed(
    found: Prepared, source: Source | Folder, options: Preparation, say: Say
) -> tuple[Prepared, None, dict[str, int]] | None:
    """`growing.grow` by way of the disk; None where it is done in memory, because neither is large or one not plain."""
    if type(source) not in (Source, Folder) or not simple(options):
        return None
    if {"user", "session"} <= (columns_before(found) or {}).keys():
        return None
    files = files_of(source)
    form = look(files[0], options)
    if form.guessed is not None or form.kind not in LARGE:
        return None
    if len(found.items) < MANY and size_of(files) < LARGE[form.kind]:
        return None
    made = by_disk(str(source.path), lambda folder: through(found, source, options, folder, say), say)
    return None if made is None else (made, None, {"events": 0, "sequences": 0, "items": 0})


def through(found: Prepared, source: Source | Folder, options: Preparation, folder: Path, say: Say) -> Prepared:
    """Spool what was prepared, then the files; put all of it in order anew."""
    clock = time.process_time()
    files = files_of(source)
    form, choice = opened(files[0], options)
    refuse_unlike(found, source, choice.names())
    spool = spool_of(found, form, choice, folder)
    (folder / "new").mkdir()
    new = Spool(folder / "new", form, choice, spool.person, spool.item)
    read_into(new, files, options, say)
    say(f"{source.path}: {new.rows:,} events after {spool.rows:,} of {found.path}")
    append(spool, new)
    say(f"{source.path}: streamed; read and coded in {time.process_time() - clock:.1f} CPU-seconds")
    when = spool.when()
    told = cards.source(source, form, choice, spool.rows, when and (new.unit()[0], when[1]))
    return laid(spool, options, found.card["name"], told, say)


def refuse_unlike(found: Prepared, source: Source | Folder, columns: dict[str, str] | None) -> None:
    """Mistake for a file that is read by other columns than those before it."""

    def shown(names: dict[str, str] | None) -> str:
        return ", ".join(f"{role} = {name!r}" for role, name in (names or {}).items())

    if columns != (before := columns_before(found)):
        raise Mistake(
            f"{source.path} has {shown(columns)}, and {found.path} was made of {shown(before)}; name the columns alike"
        )


def columns_before(found: Prepared) -> dict[str, str] | None:
    """Role -> column of the files that the data was made of."""
    told: dict[str, str] | None = found.card["source"]["columns"]
    return told


def spool_of(found: Prepared, form: Format, choice: Choice, folder: Path) -> Spool:
    """The spool of a file whose preparation it would be; a person's code is the place of their first event."""
    raw = found.raw
    assert raw is not None
    spool = Spool(folder, form, choice, rows=len(found.items), spans=[Span()], told=EXACT)
    spool.person.codes(texts(found.user_ids).gather(np.argsort(raw.appearance)))
    spool.item.codes(texts(found.item_ids, raw.outside_ids))
    spool.count = np.empty(len(spool.person), np.int64)
    spool.count[raw.appearance] = np.diff(found.offsets)
    spool.first = np.full(len(spool.person) if spool.timed else 0, NEVER)
    for begin, columns in columns_of(found):
        write(folder, columns)
        if spool.timed:
            moments = columns["time"]
            spool.spans[0].meet(moments)
            starting = slice(*np.searchsorted(found.offsets[:-1], [begin, begin + len(moments)]))
            spool.first[raw.appearance[starting]] = moments[found.offsets[:-1][starting] - begin]
    return spool


def columns_of(found: Prepared) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """The events in pieces: where a piece begins, and its columns as a spool has them."""
    raw, before = found.raw, 0  # events outside the vocabulary so far
    assert raw is not None
    for begin in range(0, len(found.items), ROWS):
        item = piece(found.items, begin, begin + ROWS) - 1
        strange = np.flatnonzero(item < 0)
        if raw.outside is not None:
            item[strange] = len(found.item_ids) - 1 + raw.outside[before : before + len(strange)]
        before += len(strange)
        columns = {"person": persons(found, raw.appearance, begin, begin + len(item)), "item": item}
        if found.times is not None:
            columns["time"] = piece(found.times, begin, begin + ROWS) * 1000
            if raw.below is not None:
                columns["time"] += piece(raw.below, begin, begin + ROWS)
        yield begin, columns


def persons(found: Prepared, code: np.ndarray, begin: int, end: int) -> np.ndarray:
    """int32: the code of the person of the events `begin` to `end`."""
    first, last = np.searchsorted(found.offsets, begin, "right") - 1, np.searchsorted(found.offsets, end, "left")
    return np.repeat(code[first:last], np.diff(np.clip(found.offsets[first : last + 1], begin, end)))


def write(folder: Path, columns: dict[str, np.ndarray]) -> None:
    for name, values in columns.items():
        with open(folder / name, "ab") as file:
            values.astype(COLUMNS[name]).tofile(file)


def append(spool: Spool, new: Spool) -> None:
    """The rows of another spool after those that are there; both have the same coders."""
    unit = new.unit() if new.timed else EXACT
    for name in ("person", "item", "time")[: 3 if spool.timed else 2]:
        for values in pieces(new.folder / name, COLUMNS[name]):
            write(spool.folder, {name: scaled(values, unit) if name == "time" else values})
    spool.rows += new.rows
    size = len(spool.person)
    spool.count = grown(spool.count, size, 0) + grown(new.count, size, 0)
    if spool.timed:
        spool.spans[0].meet(scaled(np.array([new.low, new.high]), unit))
        came = np.flatnonzero(new.count)
        spool.first = grown(spool.first, size, NEVER)
        spool.first[came] = np.minimum(spool.first[came], scaled(new.first[came], unit))


def texts(*vocabularies: Vocabulary | None) -> "pl.Series":
    """Raw ids, one vocabulary after the other; the vocabularies are not to remember them as well."""
    import polars as pl

    unread = [Vocabulary(one.blob, one.offsets) for one in vocabularies if one is not None]
    return pl.Series([text for one in unread for text in one.strings], dtype=pl.String)
