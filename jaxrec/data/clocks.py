"""A column of times -> int64 microseconds since 1970: the unit decided by looking, or as told."""

from typing import TYPE_CHECKING

import numpy as np

from jaxrec.config import Mistake
from jaxrec.data.rows import Rows

if TYPE_CHECKING:
    import polars as pl

# Magnitudes below the limit are read in the unit: seconds until the year 5138; as milliseconds that would be 1973.
UNITS = {"seconds": (1e11, 1_000_000), "milliseconds": (1e14, 1_000), "microseconds": (1e17, 1)}
WORDS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
LARGEST = 9.2e18  # an int64 holds it
ISO = r"^\s*\d{4}[-/]\d{1,2}[-/]\d{1,2}"
SAMPLE = 100_000  # values that are enough to find the middle one
DAY = 86_400_000_000
MODERN = (3653 * DAY, 84_006 * DAY)  # 1980 to 2200: where half the times lie here, none may lie outside 1971 to 2200
EARLY = 365 * DAY


def microseconds(column: "pl.Series", rows: Rows, unit: str = "auto") -> tuple[np.ndarray, str]:
    """int64 (n,) microseconds since 1970 (UTC where no zone is given), and the unit in words.

    Rows whose value is no time, or is absurd beside the others, are rejected; theirs is 0. A `unit` that is told
    ("s", "ms", "us", "ns", "iso") is taken at its word: then nothing but a value that is no number is rejected.
    """
    import polars as pl

    rows.reject(column.is_null().to_numpy(), "no time", lambda row: "there is no time here")
    if column.dtype == pl.Date or isinstance(column.dtype, pl.Datetime):
        if unit not in ("auto", "iso"):
            raise rows.refuse(f"the times are dates already, not numbers of {WORDS[unit]}; drop --time-unit {unit}")
        found = column.cast(pl.Datetime("us")).cast(pl.Int64).fill_null(0).to_numpy()
        return plausible(found, column, rows) if unit == "auto" else found, "dates"
    if column.dtype != pl.String:
        if unit == "iso":
            raise rows.refuse(f"the times are of type {column.dtype}, not ISO text; drop --time-unit iso")
        return from_numbers(column, column, rows, unit)
    text = column.str.strip_chars()
    if unit == "iso" or (unit == "auto" and looks_iso(text, rows.kept)):
        found = from_iso(text, rows)
        return plausible(found, text, rows) if unit == "auto" else found, "ISO text"
    whole = text.cast(pl.Int64, strict=False)
    numbers = whole if whole.null_count() == 0 else exactest(text, whole)
    return from_numbers(numbers, text, rows, unit)


def looks_iso(text: "pl.Series", kept: np.ndarray) -> bool:
    """Whether the first time that is there begins with a date."""
    place = int(np.argmax(kept)) if kept.any() else 0
    return len(text) > 0 and bool(text[place : place + 1].str.contains(ISO).fill_null(False)[0])


def exactest(text: "pl.Series", whole: "pl.Series") -> "pl.Series":
    """Whole numbers where all that are numbers are whole (a broken row must not blur the others), else fractions."""
    import polars as pl

    fractions = text.cast(pl.Float64, strict=False)
    return whole if whole.null_count() == fractions.null_count() else fractions


def from_numbers(numbers: "pl.Series", raw: "pl.Series", rows: Rows, unit: str) -> tuple[np.ndarray, str]:
    """Numbers since 1970, in a unit told or shown by the size of the middle one; fractions to the microsecond."""
    import polars as pl

    if not numbers.dtype.is_numeric():
        raise rows.refuse(f"a time of type {numbers.dtype} is neither a number nor a date; name another --time-column")
    numbers = numbers.cast(pl.Float64) if numbers.dtype.is_decimal() else numbers
    wrong = (numbers.is_null() | ~numbers.is_finite().fill_null(False)).to_numpy()
    rows.reject(wrong, "a time that is no number", lambda row: f'timestamp "{raw[row]}" is not a number')
    values = numbers.fill_null(0).to_numpy() if wrong.any() else numbers.to_numpy()
    values = np.where(wrong, 0, values) if wrong.any() else values
    if not rows.kept.any():
        return np.zeros(len(values), np.int64), WORDS.get(unit, "seconds")
    words = WORDS[unit] if unit in WORDS else usual(values, rows.kept)
    limit, scale = UNITS.get(words, (1e20, 0))
    if unit in WORDS:
        limit = LARGEST / max(scale, 1)
    if max(abs(float(values.min())), abs(float(values.max()))) >= limit:
        beyond = np.abs(values.astype(np.float64)) >= limit
        rule = f"is beyond any date in {words}"
        rows.reject(beyond, "a time beyond any date", lambda row: f'timestamp "{raw[row]}" {rule}')
        values = np.where(beyond, 0, values)
    found = scaled(values, scale)
    return plausible(found, raw, rows) if unit == "auto" else found, words


def middle(values: np.ndarray, kept: np.ndarray) -> float:
    """The middle value (the upper of two) among the values that are kept, of many those of every n-th row."""
    step = max(1, len(values) // SAMPLE)
    some = values[::step][kept[::step]]
    some = some if len(some) else values[kept]
    return float(np.partition(some, len(some) // 2)[len(some) // 2])


def usual(values: np.ndarray, kept: np.ndarray) -> str:
    """The unit in which the middle value is a date."""
    size = abs(middle(values, kept))
    return next((words for words, (limit, _) in UNITS.items() if size < limit), "nanoseconds")


def scaled(values: np.ndarray, scale: int) -> np.ndarray:
    """Microseconds of numbers in a unit of `scale` microseconds; 0 stands for nanoseconds."""
    if values.dtype.kind == "f":
        return np.round(values * scale).astype(np.int64) if scale else (values // 1000).astype(np.int64)
    return values.astype(np.int64) * scale if scale else values.astype(np.int64) // 1000


def from_iso(text: "pl.Series", rows: Rows) -> np.ndarray:
    import polars as pl

    kept = np.flatnonzero(rows.kept)
    sample = f'"{text[int(kept[0])]}"' if len(kept) else "none"
    shaped = text.str.contains(ISO)
    try:
        moments = text.str.to_datetime(time_unit="us", time_zone="UTC", strict=False)
    except pl.exceptions.PolarsError:
        raise rows.refuse(f"timestamp {sample} is not ISO text such as 2024-01-31 or 2024-01-31T18:05:00Z") from None
    wrong = (moments.is_null() | ~shaped.fill_null(False)).to_numpy()
    sentence = f"is not ISO text like the first ({sample})"
    rows.reject(wrong, "a time that is no ISO text", lambda row: f'timestamp "{text[row]}" {sentence}')
    return moments.cast(pl.Int64).fill_null(0).to_numpy()


def plausible(times: np.ndarray, raw: "pl.Series", rows: Rows) -> np.ndarray:
    """The times; where the middle one lies between 1980 and 2200, those before 1971 or after 2200 are rejected."""
    if not rows.kept.any() or (times.min() >= EARLY and times.max() < MODERN[1]):
        return times
    usually = int(middle(times, rows.kept))
    if MODERN[0] <= usually < MODERN[1]:
        absurd = (times < EARLY) | (times >= MODERN[1])
        year = np.datetime64(usually, "us").astype("datetime64[Y]")

        def sentence(row: int) -> str:
            day = np.datetime64(int(times[row]), "us").astype("datetime64[D]")
            around = f"among times around {year} (--time-unit would take it so)"
            return f'timestamp "{as_written(raw, row)}" would be {day}, {around}'

        rows.reject(absurd, "an absurd time", sentence)
    return times


def as_written(raw: "pl.Series", row: int) -> str:
    """A value as text; Python's own dates end in the year 9999."""
    import polars as pl

    return str(raw.slice(row, 1).cast(pl.String)[0])


def span(times: np.ndarray) -> str:
    """`1997-09-20 to 1998-04-23`, from microseconds."""
    days = np.array([times.min(), times.max()]).astype("datetime64[us]").astype("datetime64[D]")
    return f"{days[0]} to {days[1]}"


CALENDAR = {"@hour": "hours, 0 to 23", "@weekday": "Monday 0 to Sunday 6", "@monthday": "1 to 31", "@month": "1 to 12"}


def calendar(name: str, times: np.ndarray) -> np.ndarray:
    """float32 (n,): a feature of the calendar in UTC from int64 microseconds, computed in int64. Mistake: no such."""
    if name not in CALENDAR:
        raise Mistake(f"{name!r} is no feature of the calendar; there are {', '.join(CALENDAR)}")
    if name == "@hour":
        return (times // 3_600_000_000 % 24).astype(np.float32)
    if name == "@weekday":
        return ((times // DAY + 3) % 7).astype(np.float32)  # 1970-01-01 was a Thursday
    moments = times.astype("datetime64[us]")
    months = moments.astype("datetime64[M]")
    if name == "@month":
        return (months.astype(np.int64) % 12 + 1).astype(np.float32)
    return ((moments.astype("datetime64[D]") - months).astype(np.int64) + 1).astype(np.float32)
