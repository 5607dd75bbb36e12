"""Where training, validation and test part: per sequence, as absolute event indices."""

from collections.abc import Callable

import numpy as np

from jaxrec.config import Mistake

TRAIN, VALID, TEST = 0, 1, 2  # parts of a given split, in the order of events inside a sequence

Ends = tuple[np.ndarray, np.ndarray]


def leave_one_out(offsets: np.ndarray) -> Ends:
    """(train_end, valid_end): the last event tests, the one before validates; under 3 events all are training."""
    return last_n(offsets, 1)


def last_n(offsets: np.ndarray, n: int) -> Ends:
    """(train_end, valid_end): the last n events test, the n before validate; under 2 n + 1 events all are training."""
    end = offsets[1:]
    held = n * (np.diff(offsets) > 2 * n)
    return end - 2 * held, end - held


def by_time(offsets: np.ndarray, times: np.ndarray, boundaries: tuple[int, int]) -> Ends:
    """(train_end, valid_end): events before the first boundary train, before the second validate, the rest test.

    `times` are ascending inside each sequence; boundaries have their unit, and an event on one belongs to its right.
    """
    return part_ends(offsets, np.searchsorted(boundaries, times, side="right"))


def part_ends(offsets: np.ndarray, part: np.ndarray) -> Ends:
    """(train_end, valid_end) from the part 0, 1, 2 of each event, ascending inside each sequence."""
    train, valid = counts_before(offsets, part < VALID), counts_before(offsets, part < TEST)
    return offsets[:-1] + train, offsets[:-1] + valid


def part_of_each(offsets: np.ndarray, ends: Ends) -> np.ndarray:
    """int8 (events,): the part 0, 1, 2 of each event; what `part_ends` undoes."""
    cuts = np.stack([offsets[:-1], *ends, offsets[1:]], axis=1)
    return np.repeat(np.tile(np.array([TRAIN, VALID, TEST], np.int8), len(cuts)), np.diff(cuts).ravel())


def counts_before(offsets: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """int64 (sequences,): true values in each sequence."""
    total = np.concatenate([[0], np.cumsum(mask)])
    return total[offsets[1:]] - total[offsets[:-1]]


def hold_out(offsets: np.ndarray, ends: Ends, share: float) -> tuple[np.ndarray, np.ndarray, int]:
    """Make the last ``share`` of the sequences that have training events (at least one) validation; and how many.

    Mistake when there is only one, because nothing would be left for training.
    """
    train_end, valid_end = ends
    training = np.flatnonzero(train_end > offsets[:-1])
    if len(training) < 2:
        raise Mistake("one training sequence cannot be held out for validation and trained on; add a --valid file")
    held = training[-min(len(training) - 1, max(1, int(len(training) * share))) :]
    train_end = train_end.copy()
    train_end[held] = offsets[held]
    return train_end, valid_end, len(held)


def time_boundaries(texts: tuple[str, str], times: np.ndarray) -> tuple[int, int]:
    """Quantiles of event time ("0.8") or ISO dates ("2014-09-28", UTC) -> two ascending times in microseconds.

    The quantile q is the time of the event at rank floor(q n) of n, so that at most a share q comes strictly before it.
    """
    return apart(texts, (boundary(texts[0], times), boundary(texts[1], times)))


def apart(texts: tuple[str, str], places: tuple[int, int]) -> tuple[int, int]:
    """The places; Mistake when the first is not before the second."""
    first, second = places
    if not first < second:
        raise Mistake(
            f"boundaries {texts[0]!r} and {texts[1]!r} fall on {moment(first)} and {moment(second)}, "
            "so validation would be empty; move them apart"
        )
    return first, second


def boundary(text: str, times: np.ndarray) -> int:
    """Microseconds of one boundary, a share of these times or a date."""
    return place(text, len(times), lambda rank: int(np.partition(times, rank)[rank]))


def place(text: str, events: int, at_rank: Callable[[int], int]) -> int:
    """Microseconds of one boundary: `at_rank` gives the time of the event that many are not later than."""
    try:
        share = float(text)
    except ValueError:
        return date(text)
    if not 0 < share < 1:
        raise Mistake(f"boundary {text!r} is not between 0 and 1; give a share of the events or a date like 2014-09-28")
    return at_rank(int(share * events))


def date(text: str) -> int:
    """Microseconds of an ISO date or date and time, in UTC unless it names an offset."""
    from datetime import UTC, datetime

    try:
        stated = datetime.fromisoformat(text)
    except ValueError:
        raise Mistake(f"boundary {text!r} is neither a share such as 0.8 nor a date such as 2014-09-28") from None
    moment = stated if stated.tzinfo else stated.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1e6)


def moment(microseconds: int) -> str:
    """ISO text of a time, to the second, UTC."""
    return str(np.datetime64(microseconds, "us").astype("datetime64[s]")) + "Z"
