"""An ordered and split log -> the numbered arrays."""

from typing import Any

import numpy as np

from jaxrec.data.filters import first_of_each
from jaxrec.data.logs import Log, numbered
from jaxrec.data.prepared import Prepared, ranges
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
        item_ids=Vocabulary.from_strings(log.item_names[codes].to_list()),
        user_ids=Vocabulary.from_strings(log.person_names[persons].to_list()),
        known=known,
        candidates=len(codes),
        times=times,
        gaps=None if times is None else gaps(times, offsets),
        starts=None if log.session is None else first_of_each(log.session),
    )


def gaps(times: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """float32 (events,): seconds since the previous event of the sequence, 0 for its first; subtracted in int64."""
    since = np.diff(times, prepend=times[:1])
    since[offsets[:-1]] = 0
    return (since / 1000).astype(np.float32)
