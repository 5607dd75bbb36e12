"""Files without a header: what is in which column, by the first lines, and only where they leave no doubt."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxrec.config import Mistake

NUMBER = re.compile(r"-?\d+(\.\d*)?([eE][-+]?\d+)?")
DATE = re.compile(r"\d{4}[-/]\d{1,2}[-/]\d{1,2}([ T]\d.*)?")
ASIN = re.compile(r"B[0-9A-Z]{9}|\d{9}[\dX]")  # Amazon's products; their reviewers are A and nine or more
REVIEWER = re.compile(r"A[0-9A-Z]{9,}")
MODERN = (315_532_800, 7_258_118_400)  # seconds: 1980 to 2200
MOST_RATINGS = 11  # 0 to 5 in halves


@dataclass(frozen=True)
class Guess:
    """Role -> position (from 0), and what was seen, in words."""

    position: dict[str, int]
    words: str


def is_data(fields: Sequence[str]) -> bool:
    """Whether a first line holds values: a number or a date is no name of a column."""
    return any(NUMBER.fullmatch(text.strip()) or DATE.fullmatch(text.strip()) for text in fields)


def is_time(values: Sequence[str]) -> bool:
    """Dates, or numbers that are moments between 1980 and 2200 in seconds, milliseconds, microseconds, nanoseconds."""
    if all(DATE.fullmatch(value) for value in values):
        return True
    if not all(NUMBER.fullmatch(value) for value in values):
        return False
    numbers = [float(value) for value in values]
    scales = (1, 1e3, 1e6, 1e9)
    return any(all(MODERN[0] * scale <= number < MODERN[1] * scale for number in numbers) for scale in scales)


def is_rating(values: Sequence[str]) -> bool:
    """A few distinct small numbers, not below 0 and not above 10."""
    few = set(values)
    return (
        1 < len(few) <= MOST_RATINGS
        and all(NUMBER.fullmatch(value) for value in few)
        and all(0 <= float(value) <= 10 for value in few)
    )


def guess_roles(rows: Sequence[Sequence[str]], told: Mapping[str, int], where: str) -> Guess:
    """User, item and time of a file without names, from its first rows (all of one width).

    `told` are roles by position as the user named them; only the time is then guessed. Mistake where the values leave
    a doubt: several times, or more than two columns that could be the user and the item.
    """
    taken = told.values()
    columns = [[text.strip() for text in column] for column in zip(*rows, strict=True)]
    timed = [place for place, column in enumerate(columns) if place not in taken and is_time(column)]
    times = [] if "time" in told else timed
    if len(times) > 1:
        shown = " and ".join(str(place + 1) for place in times)
        raise Mistake(f"{where} has no header, and columns {shown} could all be the time; name one: --time-column 4")
    left = [place for place in range(len(columns)) if place not in times and place not in taken]
    position = {"time": times[0]} if times else {}
    if taken:
        return Guess(position, words(position))
    ratings = [place for place in left[2:] if is_rating(columns[place])]
    ids = [place for place in left if place not in ratings]
    if len(ids) != 2 or len(ratings) > 1:
        first = ", ".join(repr(column[0]) for column in columns[:8])
        raise Mistake(
            f"{where} has no header ({first} is an event), and its values do not tell which columns are user and item; "
            "say so by position, as in --user-column 1 --item-column 2 --time-column 4, or put a header on top"
        )
    user, item = ids
    swapped = all(map(ASIN.fullmatch, columns[user])) and all(map(REVIEWER.fullmatch, columns[item]))
    user, item = (item, user) if swapped else (user, item)
    position = {"user": user, "item": item, **position}
    note = f"; column {ratings[0] + 1} looks like a rating" if ratings else ""
    because = "the second holds reviewers, the first products" if swapped else "the usual order"
    return Guess(position, f"{words(position)} ({because}){note}")


def words(position: dict[str, int]) -> str:
    return ", ".join(f"column {place + 1} is the {role}" for role, place in position.items())


def refuse_hidden_header(rows: Sequence[Sequence[str]], where: str) -> None:
    """Positions say that there is no header; Mistake where the first line is one all the same."""
    if is_data(rows[0]):
        return
    for place in range(len(rows[0])):
        values = [row[place].strip() for row in rows[1:]]
        number = [NUMBER.fullmatch(value) or DATE.fullmatch(value) for value in values]
        if values and all(number) and not is_data([rows[0][place]]):
            raise Mistake(
                f"{where}:1 looks like a header ({rows[0][place]!r} above values like {values[0]!r}), and positions "
                "are for files without one; use the names, as in --user-column NAME"
            )
