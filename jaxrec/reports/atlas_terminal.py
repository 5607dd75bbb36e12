"""The atlas in a terminal of eighty columns: the same sentences, curves as blocks, the same numbers."""

import math
import textwrap
from collections.abc import Sequence
from itertools import groupby

from jaxrec.reports.atlas_findings import NONE, REACHES, Reach, four
from jaxrec.reports.atlas_records import Record, number, numbers, part
from jaxrec.reports.tables import print_json, print_table

BLOCKS = "▁▂▃▄▅▆▇█"  # from a ten-thousandth of the gradient of lag 0 to all of it
DEEPEST = -4.0
WIDE = 12  # of a curve
FULL = 12  # cells, up to which every number has its interval
COLUMNS = 80


def print_atlas(summary: Record, *, as_json: bool) -> None:
    """What `write_atlas` and `summary` return, as text; or that itself."""
    if as_json:
        print_json(summary)
        return
    say(summary["sentence"])
    rows = summary["rows"]
    names = list(dict.fromkeys(row["subject"] for row in rows))
    for told in summary["sentences"] if len(names) > 1 else ():
        say(f"- {told}", hanging="  ")
    for _, some in groupby(rows, key=lambda row: row["subject"]):
        subject(list(some), intervals=len(names) <= FULL)
    legend(bool(rows), intervals=len(names) <= FULL)
    for note in summary["notes"]:
        say(f"Note: {note}")
    if summary.get("page"):
        print(f"Page: {summary['page']}")


def say(text: str, hanging: str = "") -> None:
    print(textwrap.fill(text, COLUMNS, subsequent_indent=hanging, break_on_hyphens=False, break_long_words=True))


def subject(rows: Sequence[Record], *, intervals: bool) -> None:
    """A table a cell, a line a length."""
    heads = ("events, by lag", *REACHES.values(), "Lyapunov", "label")
    lines = [
        [f"{row['length']:>6,} {blocks(row)}",
         *(cell(Reach.of(row[name]), intervals) for name in (*REACHES, "lyapunov")), row["label"]]
        for row in rows
    ]  # fmt: skip
    print_table(heads, lines, title=heading(rows[-1]))


def heading(row: Record) -> str:
    """gru (gated): NDCG@10 0.1069 (0.0989 to 0.1149), uses 11 events (7.7 to 17)"""
    name = row["subject"] if len(row["subject"]) <= 40 else row["subject"][:39] + "\N{HORIZONTAL ELLIPSIS}"
    told = []
    value, low, high = (number(part(row, "ndcg@10", end)) for end in ("value", "low", "high"))
    if value is not None:
        told.append(f"NDCG@10 {four(value)}" + (f" ({four(low)} to {four(high)})" if low is not None else ""))
    uses = Reach.of(row["information_horizon"])
    if row["information_horizon"]["matters"] is False:
        told.append("older events are worth nothing to it")
    elif uses.known:
        told.append(f"uses {uses.text} events" + (f" ({uses.between})" if uses.between else ""))
    return ": ".join([f"{name} ({row['family'][:20]})", *([", ".join(told)] if told else [])])


def cell(reach: Reach, intervals: bool) -> str:
    """A number, and below it its interval."""
    if not intervals or not reach.between:
        return reach.text
    between = reach.between.replace(" or more", "+")
    between = between if "-" in between else between.replace(" to ", NONE)
    return f"{reach.text}\n{between}"


def blocks(row: Record) -> str:
    """What is left of the gradient of lag 0, in blocks; lags are even in the logarithm of lag + 1."""
    lags, values, zeros = (numbers(part(row, "curve", name)) for name in ("lags", "log10", "zeros"))
    if not lags or not values or values[0] is None:
        return NONE
    last = math.log1p(lags[-1] or 0)
    drawn = []
    for place in range(WIDE):
        wanted = math.expm1(last * place / (WIDE - 1))
        at = min(range(len(lags)), key=lambda n: abs((lags[n] or 0) - wanted))
        drawn.append(block(values[at], values[0], zeros[at] if at < len(zeros) else None))
    return "".join(drawn)


def block(value: float | None, first: float, zero: float | None) -> str:
    if value is None:
        return "0" if zero is not None and zero >= 0.5 else "?"
    left = value - first
    if left > 1:
        return "\N{UPWARDS ARROW}"
    if left < DEEPEST:
        return "\N{MIDDLE DOT}"
    return BLOCKS[min(len(BLOCKS) - 1, int((1 - left / DEEPEST) * len(BLOCKS)))]


def legend(rows: bool, *, intervals: bool) -> None:
    """What the blocks mean."""
    if not rows:
        return
    below = ", with 95 % intervals below" if intervals else "; --json has their intervals"
    say(
        f"{BLOCKS}: left of the gradient of lag 0, from 1/10,000 to all; \N{MIDDLE DOT} less, 0 none at all, "
        "\N{UPWARDS ARROW} more than ten times, ? not a number; lags from 0 to the longest, closer together when near. "
        f"Numbers are events{below}."
    )
