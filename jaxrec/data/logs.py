"""From columns of text to one log of numbers: files joined, ids coded, events filtered and put in order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxrec.config import Mistake
from jaxrec.data.events import Events
from jaxrec.data.options import Preparation
from jaxrec.data.prepared import ranges

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, eq=False)
class Log:
    """Events as codes (from 0, in order of first appearance in the files). Every array has one entry an event."""

    item: np.ndarray
    sequence: np.ndarray
    person: np.ndarray  # the user where there is one, else the session
    part: np.ndarray  # int8: 0 training file, 1 validation file, 2 test file; 0 for a single file
    time: np.ndarray | None  # int64 microseconds
    session: np.ndarray | None  # inside a user's sequence
    item_names: "pl.Series"
    person_names: "pl.Series"
    kind: str  # what a sequence is: "user" or "session"
    row: np.ndarray | None = None  # int64: place among the events of all files, where further columns are looked up

    def __len__(self) -> int:
        return len(self.item)

    def take(self, events: np.ndarray) -> "Log":
        """The events of an index or mask, in its order."""
        return replace(
            self,
            item=self.item[events],
            sequence=self.sequence[events],
            person=self.person[events],
            part=self.part[events],
            time=None if self.time is None else self.time[events],
            session=None if self.session is None else self.session[events],
            row=None if self.row is None else self.row[events],
        )


def join(files: Mapping[int, Events], options: Preparation) -> Log:
    """One log of the files of each part. Mistake when they do not fit together or lack what is asked."""
    parts, tables = list(files), list(files.values())
    user, session, times = (shared(tables, role) for role in ("user", "session", "time"))
    kind = sequence_kind(options.sequence, user is not None, session is not None)
    person, person_names = factorise(user if user is not None else session)
    item, item_names = factorise(shared(tables, "item"))
    visit = None if user is None or session is None else pair_codes(person, factorise(session)[0])
    return Log(
        item=item,
        sequence=person if kind == "user" or visit is None else visit,
        person=person,
        part=np.repeat(np.array(parts, np.int8), [len(table.item) for table in tables]),
        time=times,
        session=visit if kind == "user" else None,
        item_names=item_names,
        person_names=person_names,
        kind=kind,
        row=np.arange(len(item)) if any(table.features or table.weights is not None for table in tables) else None,
    )


def shared(tables: Sequence[Events], role: str) -> Any:
    """One column of all files, joined; None when none has it, Mistake when only some have."""
    import polars as pl

    columns = [getattr(table, role) for table in tables]
    having = sum(column is not None for column in columns)
    if having == 0:
        return None
    if having < len(columns):
        raise Mistake(f"only {having} of the {len(columns)} given files have a {role}; give them the same columns")
    return np.concatenate(columns) if role == "time" else pl.concat(columns)


def sequence_kind(asked: str, has_user: bool, has_session: bool) -> str:
    if asked == "user" and not has_user:
        raise Mistake("--sequence user needs a user; the data has sessions only, so use --sequence session")
    if asked == "session" and not has_session:
        raise Mistake("--sequence session needs a session column; name it with --session-column or use --sequence user")
    if asked != "auto":
        return asked
    return "user" if has_user else "session"


def factorise(column: "pl.Series") -> "tuple[np.ndarray, pl.Series]":
    """int64 codes in order of first appearance, and the distinct texts in that order."""
    import polars as pl

    distinct = column.unique(maintain_order=True)
    return column.cast(pl.Enum(distinct)).to_physical().to_numpy().astype(np.int64), distinct


def pair_codes(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """int64 codes of pairs in order of first appearance: the same session number under two users is two sessions."""
    pairs = one * (two.max() + 1) + two
    _, place, code = np.unique(pairs, return_index=True, return_inverse=True)
    rank = np.empty(len(place), np.int64)
    rank[np.argsort(place)] = np.arange(len(place))
    return rank[code]


def ordered(log: Log) -> tuple[Log, np.ndarray]:
    """The log in canonical order, and the offsets (sequences + 1,) of its sequences.

    Inside a sequence: part, then time, then file order (never the item). Sequences: by the time of their first event,
    then by first appearance; without times by first appearance. With distinct times the order of rows is irrelevant.
    """
    keys = (log.part, log.sequence) if log.time is None else (log.time, log.part, log.sequence)
    order = np.lexsort(keys)
    begins = np.flatnonzero(np.diff(log.sequence[order], prepend=-1))
    ends = np.append(begins[1:], len(log))
    if log.time is not None:
        by_start = np.argsort(log.time[order[begins]], kind="stable")
        begins, ends = begins[by_start], ends[by_start]
        order = order[ranges(begins, ends)]
    return log.take(order), np.append(0, np.cumsum(ends - begins)).astype(np.int64)


def numbered(codes: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number codes 1, 2, ... by first appearance when the events are visited in `order`, a permutation.

    Returns int32 (events,) numbers, in the events' own order, and int64 (distinct,) the code of number i at i - 1.
    """
    first = np.full(codes.max() + 1, len(codes))
    first[codes[order][::-1]] = np.arange(len(codes))[::-1]  # of several writes to one place the last stays
    by_number = np.argsort(first, kind="stable")[: np.count_nonzero(first < len(codes))]
    number = np.zeros(len(first), np.int32)
    number[by_number] = np.arange(1, len(by_number) + 1)
    return number[codes], by_number
