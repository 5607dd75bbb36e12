"""From columns of text to one log of numbers: files joined, ids coded, events filtered and put in order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxrec.config import Mistake
from jaxrec.data.events import Events
from jaxrec.data.filters import by_first_appearance, sessions_from_gaps
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
    visit: np.ndarray | None = None  # beside users: the raw session
    visit_names: "pl.Series | None" = None

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
            visit=None if self.visit is None else self.visit[events],
        )


def join(files: Mapping[int, Events], options: Preparation) -> Log:
    """One log of the files of each part. Mistake when they do not fit together or lack what is asked."""
    parts, tables = list(files), list(files.values())
    user, session, times = (shared(tables, role) for role in ("user", "session", "time"))
    part = np.repeat(np.array(parts, np.int8), [len(table.item) for table in tables])
    if options.session_gap:
        refuse_gap(options, user is not None, times is not None)
    kind = sequence_kind(options.sequence, user is not None, session is not None, bool(options.session_gap))
    person, person_names = factorise(user if user is not None else session)
    item, item_names = factorise(shared(tables, "item"))
    both = user is not None and session is not None and not options.session_gap
    raw_visit, visit_names = factorise(session) if both else (None, None)
    visit = None if raw_visit is None else pair_codes(person, raw_visit)
    if options.session_gap:
        visit = sessions_from_gaps(person, part, times, round(options.session_gap * 60e6))
    return Log(
        item=item,
        sequence=person if kind == "user" or visit is None else visit,
        person=person,
        part=part,
        time=times,
        session=visit if kind == "user" else None,
        item_names=item_names,
        person_names=person_names,
        kind=kind,
        row=np.arange(len(item)) if any(table.features or table.weights is not None for table in tables) else None,
        visit=raw_visit,
        visit_names=visit_names,
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


def refuse_gap(options: Preparation, has_user: bool, has_time: bool) -> None:
    """Mistake where a pause cannot cut sessions; a session column that nobody named gives way to it."""
    if not has_time:
        raise Mistake("--session-gap needs times, and the data has none; name the column with --time-column NAME")
    if not has_user:
        raise Mistake("--session-gap cuts a user's events, and the data has sessions only; drop --session-gap")
    if options.session_column is not None:
        raise Mistake("--session-gap cuts sessions and --session-column names them; keep one")


def sequence_kind(asked: str, has_user: bool, has_session: bool, cut_by_gap: bool = False) -> str:
    if asked == "user" and not has_user:
        raise Mistake("--sequence user needs a user; the data has sessions only, so use --sequence session")
    if asked == "session" and not (has_session or cut_by_gap):
        raise Mistake("--sequence session needs a session column; name it with --session-column or use --sequence user")
    if asked != "auto":
        return asked
    return "user" if has_user and not cut_by_gap else "session"


def factorise(column: "pl.Series") -> "tuple[np.ndarray, pl.Series]":
    """int64 codes in order of first appearance, and the distinct texts in that order."""
    import polars as pl

    distinct = column.unique(maintain_order=True)
    return column.cast(pl.Enum(distinct)).to_physical().to_numpy().astype(np.int64), distinct


def pair_codes(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """int64 codes of pairs in order of first appearance: the same session number under two users is two sessions."""
    return by_first_appearance(one * (two.max() + 1) + two)


def ordered(log: Log, seed: int | None = None) -> tuple[Log, np.ndarray]:
    """The log in canonical order, and the offsets (sequences + 1,) of its sequences.

    Inside a sequence: part, then time, then file order or, with a `seed`, an order drawn for each group of one time
    (never the item's). Sequences: by the time of their first event, then by first appearance; without times by first
    appearance. With distinct times the order of rows is irrelevant.
    """
    keys = (log.part, log.sequence) if log.time is None else (log.time, log.part, log.sequence)
    order = np.lexsort(keys)
    if seed is not None:
        order = shuffled_ties(order, [key[order] for key in keys], seed)
    log, offsets, _ = arranged(log, order)
    return log, offsets


def shuffled_ties(order: np.ndarray, keys: Sequence[np.ndarray], seed: int) -> np.ndarray:
    """`order` with the places of equal keys permuted at random; the rest stays where it is."""
    same = np.all([np.diff(key) == 0 for key in keys], axis=0)
    group = np.append(0, np.cumsum(~same))
    tied = np.flatnonzero(np.append(same, False) | np.append(False, same))
    drawn = np.lexsort((np.random.default_rng(seed).random(len(tied)), group[tied]))
    order = order.copy()
    order[tied] = order[tied[drawn]]
    return order


def arranged(log: Log, order: np.ndarray) -> tuple[Log, np.ndarray, np.ndarray]:
    """The events of an index, in which sequences are contiguous, with sequences in canonical order.

    Returns the log, its offsets, and the index that was taken.
    """
    sequence = log.sequence[order]
    begins = np.flatnonzero(np.diff(sequence, prepend=-1))
    ends = np.append(begins[1:], len(order))
    if log.time is not None:
        by_start = np.lexsort((sequence[begins], log.time[order[begins]]))
        begins, ends = begins[by_start], ends[by_start]
        order = order[ranges(begins, ends)]
    return log.take(order), np.append(0, np.cumsum(ends - begins)).astype(np.int64), order


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
