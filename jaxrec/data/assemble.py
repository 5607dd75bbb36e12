"""An ordered and split log -> the numbered arrays."""

from typing import Any

import numpy as np

from jaxrec.data.filters import first_of_each
from jaxrec.data.logs import Log, numbered
from jaxrec.data.prepared import Prepared, Raw, ranges
from jaxrec.data.vocabulary import Vocabulary


def assemble(
    log: Log, offsets: np.ndarray, train_end: np.ndarray, valid_end: np.ndarray, card: dict[str, Any]
) -> Prepared:
    """Number items (first appearance in training, then in the rest) and users (in order), and derive the rest."""
    training = np.zeros(len(log), bool)
    training[ranges(offsets[:-1], train_end)] = True
    items, codes = numbered(log.item, np.concatenate([np.flatnonzero(training), np.flatnonzero(~training)]))
    known = int(items[training].max(initial=0))
    if card["catalogue"] == "train":
        items, codes = np.where(items <= known, items, 0).astype(np.int32), codes[:known]
    users, persons = numbered(log.person[offsets[:-1]], np.arange(len(offsets) - 1))
    times = None if log.time is None else log.time // 1000
    return Prepared(
        card=card,
        items=items,
        offsets=offsets,
        train_end=train_end,
        valid_end=valid_end,
        users=users,
        popularity=np.bincount(items[training], minlength=len(codes) + 1).astype(np.int64),
        item_ids=Vocabulary.from_series(log.item_names[codes]),
        user_ids=Vocabulary.from_series(log.person_names[persons]),
        known=known,
        candidates=len(codes),
        times=times,
        gaps=None if times is None else gaps(times, offsets),
        starts=None if log.session is None else first_of_each(log.session),
        raw=raw(log, offsets, items),
    )


def raw(log: Log, offsets: np.ndarray, items: np.ndarray) -> Raw:
    """What the numbered arrays no longer tell of the log."""
    below = None if log.time is None else (log.time % 1000).astype(np.int16)
    outside, outside_ids = by_appearance(log.item[items == 0], log.item_names)
    session, session_ids = (None, None) if log.visit is None else by_appearance(log.visit, log.visit_names)
    return Raw(
        appearance=np.argsort(np.argsort(log.sequence[offsets[:-1]])).astype(np.int32),
        below=below if below is not None and below.any() else None,
        outside=outside,
        session=session,
        outside_ids=outside_ids,
        session_ids=session_ids,
    )


def by_appearance(codes: np.ndarray, names: Any) -> tuple[np.ndarray | None, Vocabulary | None]:
    """Numbers by first appearance and their raw ids; None without any."""
    if not len(codes):
        return None, None
    numbers, distinct = numbered(codes, np.arange(len(codes)))
    return numbers, Vocabulary.from_series(names.gather(distinct))


def gaps(times: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """float32 (events,): seconds since the previous event of the sequence, 0 for its first; subtracted in int64."""
    since = np.diff(times, prepend=times[:1])
    since[offsets[:-1]] = 0
    return (since / 1000).astype(np.float32)
