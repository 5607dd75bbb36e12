"""Drawings of the atlas that need no script: a strip a cell, the scale of colours, marks of families, and holders."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from jaxrec.reports import palette
from jaxrec.reports.atlas_columns import ZERO, fewer, logs, median
from jaxrec.reports.atlas_findings import Reach, Row
from jaxrec.reports.atlas_records import lags, numbers
from jaxrec.reports.html import Markup, element

WIDE, TALL = 320, 30  # of a strip
BAND = (3, 17)  # where its colours begin and end
MOST = 56  # fields of a strip
PATTERNS = (("zeros", palette.ZERO, "M-1 6L6-1M2 9L9 2"), ("unknown", palette.NOT_A_NUMBER, "M0 0L7 7M7 0L0 7"))
GLYPHS = {
    "vanishing": "\N{WHITE DOWN-POINTING TRIANGLE}",
    "in band": "\N{BLACK CIRCLE}",
    "exploding": "\N{BLACK UP-POINTING TRIANGLE}",
    "zero": "\N{WHITE CIRCLE}",
}


def mark(family: str) -> Markup:
    """The shape of a family in its hue."""
    ink = palette.known(family)
    outline = element("path", d=palette.SHAPES[palette.INKS[ink].shape], fill=f"var(--{ink})")
    return element("svg", outline, viewBox="-6 -6 12 12", class_="mark-of", aria_hidden="true")


def patterns() -> Markup:
    """The reserved colours with their strokes, for every strip of the page."""
    made = [
        element("pattern", element("rect", width=7, height=7, fill=face), element("path", d=line, stroke=stroke),
                id=name, width=7, height=7, patternUnits="userSpaceOnUse")
        for name, (face, stroke), line in PATTERNS
    ]  # fmt: skip
    return element("svg", element("defs", *made), width=0, height=0, class_="apart", aria_hidden="true")


def across(lag: float, last: float) -> float:
    """Where a lag stands on a strip: even in the logarithm of lag + 1."""
    return round(WIDE * math.log1p(min(max(lag, 0), last)) / math.log1p(max(last, 1)), 1)


def strip(row: Row, last: float, low: float, high: float) -> Markup:
    """The gradient over lag as a band of colour; a line at the half-life, a dashed one at 1 %, a diamond with its
    interval at the information horizon.
    """
    own = lags(row.record)
    values = logs(median(row.record), numbers(row.record.get("zeros")))
    places = [at for at in fewer(own, MOST) if at < len(values)]
    fields = _fields([own[at] for at in places], [values[at] for at in places], last, low, high)
    shown = [] if row.label in ("exploding", "zero") else [("half_life", None), ("one_percent", "3 2")]
    parts = [*fields, *(part for name, dash in shown for part in _line(row.horizons[name], last, dash))]
    parts += _diamond(row.uses if row.matters else Reach(), last)
    return element("svg", *parts, viewBox=f"0 0 {WIDE} {TALL}", role="img", aria_label=_alt(row), class_="strip")


def _alt(row: Row) -> str:
    uses = f", information horizon {row.uses.text}" if row.information else ""
    return (
        f"{row.subject.name}: {row.label}, half-life {row.horizons['half_life'].text}, "
        f"1 % after {row.horizons['one_percent'].text} events{uses}"
    )


def _fields(lags: Sequence[float], values: Sequence[int | None], last: float, low: float, high: float) -> list[Markup]:
    """Rectangles from halfway to halfway; neighbours of one colour are one."""
    places = [across(lag, last) for lag in lags]
    edges = [places[0], *((a + b) / 2 for a, b in pairwise(places)), places[-1]] if places else []
    found: list[tuple[str, float, float]] = []
    for value, (left, right) in zip(values, pairwise(edges), strict=True):
        colour = "url(#zeros)" if value == ZERO else "url(#unknown)" if value is None else _colour(value, low, high)
        begin = found.pop()[1] if found and found[-1][0] == colour else left
        found.append((colour, begin, right))
    return [
        element("rect", x=round(left, 1), y=BAND[0], width=round(right - left + 0.3, 1), height=BAND[1] - BAND[0],
                fill=colour, shape_rendering="crispEdges")
        for colour, left, right in found
    ]  # fmt: skip


def _colour(value: int, low: float, high: float) -> str:
    return palette.shade(round((value / 100 - low) / (high - low), 2))


def _line(reach: Reach, last: float, dash: str | None) -> list[Markup]:
    if reach.value is None:
        return []
    x = across(reach.value, last)
    at = {"x1": x, "x2": x, "y1": BAND[0] - 3, "y2": BAND[1] + 2}
    return [element("line", **at, class_="halo"), element("line", **at, class_="edge", stroke_dasharray=dash)]


def _diamond(reach: Reach, last: float) -> list[Markup]:
    if reach.value is None:
        return []
    y = BAND[1] + 7
    ends = [across(value, last) for value in (reach.low or reach.value, reach.high or reach.value)]
    line = element("line", x1=ends[0], x2=ends[1], y1=y, y2=y, class_="span")
    x = min(max(across(reach.value, last), 4), WIDE - 4)
    return [line, element("path", d=f"M{x - 4} {y}L{x} {y - 4.5}L{x + 4} {y}L{x} {y + 4.5}Z", class_="uses")]


def lag_axis(last: float) -> Markup:
    """Lags above the strips."""
    wanted = [lag for lag in (0, 1, 3, 10, 30, 100, 300, 1000, 3000, 10000) if lag <= last]
    names = []
    for lag in wanted:
        x = across(lag, last)
        side = "start" if x < 8 else "end" if x > WIDE - 18 else "middle"
        names.append(element("text", f"{lag:,}", x=x, y=11, text_anchor=side))
        names.append(element("line", x1=x, x2=x, y1=14, y2=18, class_="axis"))
    return element("svg", *names, viewBox=f"0 0 {WIDE} 18", role="img", aria_label="events back", class_="strip")


def scale(low: float, high: float) -> Markup:
    """The one scale of colours, with the reserved ones beside it."""
    stops = [element("stop", offset=f"{place / 16:.4f}", stop_color=colour)
             for place, colour in enumerate(palette.SCALE)]  # fmt: skip
    bar = element("rect", x=2, y=2, width=240, height=12, fill="url(#scale)")
    every = max(1, round((high - low) / 6))
    steps = [value for value in range(math.ceil(low), math.floor(high) + 1) if value % every == 0]
    ticks = [element("text", _power(value), x=round(2 + 240 * (value - low) / (high - low), 1), y=27,
                     text_anchor="middle") for value in steps]  # fmt: skip
    rest = [
        element("rect", x=x, y=2, width=16, height=12, fill=f"url(#{name})")
        for x, name in ((266, "zeros"), (350, "unknown"))
    ]
    words = [element("text", text, x=x, y=12) for x, text in ((287, "exactly 0"), (371, "not a number"))]
    inside = element("defs", element("linearGradient", *stops, id="scale"))
    about = f"colours from 10 to the power {low:g} to 10 to the power {high:g}; grey strokes: zero; pink: not a number"
    return element("svg", inside, bar, *ticks, *rest, *words, viewBox="-16 0 470 32", role="img", aria_label=about,
                   class_="colours")  # fmt: skip


def _power(value: int) -> Markup:
    sign = "\N{MINUS SIGN}" if value < 0 else ""
    return Markup(f'10<tspan dy="-4" font-size="9">{sign}{abs(value)}</tspan>')


def labels(found: Sequence[Row]) -> Markup:
    """The label at every length: a glyph above the length, words for whoever cannot see it."""
    boxes = [
        element("span", element("b", GLYPHS.get(row.label, "\N{EN DASH}"), aria_hidden="true"),
                element("small", thousands(row.length)), title=f"{row.label} at {row.length:,} events",
                class_=f"at {row.label.replace(' ', '-')}" if row.label in GLYPHS else "at")
        for row in found
    ]  # fmt: skip
    return element("span", *boxes, class_="labels")


def thousands(value: int) -> str:
    return f"{value // 1000}k" if value >= 1000 and value % 1000 == 0 else str(value)


def drawing(title: Any, kind: str, label: str, *, subject: int | None = None, about: Any = None, of: str | None = None,
            name: str | None = None, full: bool = False) -> Markup:  # fmt: skip
    """A figure that the script draws; of several kinds of chart one below the other where ``kind`` has a space."""
    holders = [holder(one, label, subject=subject, of=of, name=name) for one in kind.split()]
    caption = element("figcaption", title, element("span", about) if about else None)
    return element("figure", caption, *holders, data_subject=subject, class_="full" if full else None)


LINES = ("curve", "together", "information", "task", "exponents", "singular")  # which uPlot draws


def holder(kind: str, label: str, *, subject: int | None, of: str | None, name: str | None) -> Markup:
    told = {"class_": "plot", "data_chart": kind, "data_subject": subject, "data_of": of, "data_label": name}
    if kind in LINES:
        return element("div", role="group", aria_label=label, **told)
    return element("div", element("canvas", role="img", aria_label=label, tabindex="0"), **told)


def told(reach: Reach) -> Markup:
    """A number of events with its interval below it."""
    return element("span", reach.text, element("small", reach.between) if reach.between else None, class_="told")


def change(first: Reach | None, last: Reach, label: object) -> str:
    """half-life 4.1, 2.2 before training."""
    if label == "exploding":
        return "the gradient grows"
    before = f", {first.text} before training" if first is not None and first.known else ""
    return f"half-life {last.text}{before}" if last.known else ""
