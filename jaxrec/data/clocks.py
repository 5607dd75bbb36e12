"""A column of times -> int64 microseconds since 1970, the unit decided by looking."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from jaxrec.config import Mistake

if TYPE_CHECKING:
    import polars as pl

# Magnitudes below the limit are read in the unit: seconds until the year 5138; as milliseconds that would be 1973.
UNITS = (("seconds", 1e11, 1_000_000), ("milliseconds", 1e14, 1_000), ("microseconds", 1e17, 1))
ISO = r"^\s*\d{4}[-/]\d{1,2}[-/]\d{1,2}"


def microseconds(column: "pl.Series", fail: Callable[[int, str], Mistake]) -> tuple[np.ndarray, str]:
    """int64 (n,) microseconds since 1970 (UTC where no zone is given), and the unit in words.

    `fail(row, sentence)` makes the Mistake for a value that is neither a number nor ISO text.
    """
    import polars as pl

    if (missing := column.null_count()) > 0:
        others = f" (nor on {missing - 1:,} other rows)" if missing > 1 else ""
        raise fail(first(column.is_null()), f"there is no time here{others}; fill it in or drop the row")
    if column.dtype == pl.Date or isinstance(column.dtype, pl.Datetime):
        return column.cast(pl.Datetime("us")).cast(pl.Int64).to_numpy(), "dates"
    if column.dtype != pl.String:
        return from_numbers(column, column, fail)
    text = column.str.strip_chars()
    if text.len() and bool(text.str.contains(ISO)[0]):
        return from_iso(text, fail), "ISO text"
    whole = text.cast(pl.Int64, strict=False)
    return from_numbers(whole if whole.null_count() == 0 else text.cast(pl.Float64, strict=False), text, fail)


def from_numbers(numbers: "pl.Series", raw: "pl.Series", fail: Callable[[int, str], Mistake]) -> tuple[np.ndarray, str]:
    """Numbers since 1970 in a unit told by their magnitude; fractions are kept to the microsecond."""
    if not numbers.dtype.is_numeric():
        raise fail(0, f"a time of type {numbers.dtype} is neither a number nor a date")
    wrong = numbers.is_null() | ~numbers.is_finite()
    if wrong.any():
        row = first(wrong)
        raise fail(row, f'timestamp "{raw[row]}" is not a number; fix or drop the row')
    values = numbers.to_numpy()
    largest = max(abs(float(values.min())), abs(float(values.max()))) if len(values) else 0.0
    for words, limit, scale in UNITS:
        if largest < limit:
            return scaled(values, scale), words
    if largest < 1e20:
        return scaled(values, 1) // 1000 if values.dtype.kind == "f" else values.astype(np.int64) // 1000, "nanoseconds"
    row = int(np.argmax(np.abs(values.astype(np.float64))))
    raise fail(row, f'timestamp "{raw[row]}" is beyond any date; give seconds or milliseconds since 1970')


def scaled(values: np.ndarray, scale: int) -> np.ndarray:
    if values.dtype.kind == "f":
        return np.round(values * scale).astype(np.int64)
    return values.astype(np.int64) * scale


def from_iso(text: "pl.Series", fail: Callable[[int, str], Mistake]) -> np.ndarray:
    import polars as pl

    shaped = text.str.contains(ISO)
    try:
        moments = text.str.to_datetime(time_unit="us", time_zone="UTC", strict=False)
    except pl.exceptions.PolarsError:
        raise fail(0, f'timestamp "{text[0]}" is not ISO text such as 2024-01-31 or 2024-01-31T18:05:00Z') from None
    wrong = moments.is_null() | ~shaped
    if wrong.any():
        row = first(wrong)
        raise fail(row, f'timestamp "{text[row]}" is not ISO text like the first ("{text[0]}"); fix or drop the row')
    return moments.cast(pl.Int64).to_numpy()


def first(mask: "pl.Series") -> int:
    """Row of the first true value."""
    place = mask.arg_max()
    assert place is not None
    return place


def span(times: np.ndarray) -> str:
    """`1997-09-20 to 1998-04-23`, from microseconds."""
    days = np.array([times.min(), times.max()]).astype("datetime64[us]").astype("datetime64[D]")
    return f"{days[0]} to {days[1]}"
