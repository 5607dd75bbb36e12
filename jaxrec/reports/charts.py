"""Plain SVG charts: lines, bars, quantiles, dots with intervals. No library, no script; colours come from the page.

Every chart is a `<figure>` with its title above it and units on its axes. Series differ in colour, dash and label, so
that they can be told apart in grey. Values that are not finite, or not positive on a log axis, are left out.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jaxrec.reports.html import Markup, element

WIDTH, HEIGHT = 400, 240
LEFT, RIGHT, TOP, BOTTOM = 58, 20, 8, 40
ROW = 24  # height of a row of dots
LETTER = 6.4  # average width of a letter
DASHES = (None, "6 4", "2 4", "10 4 2 4", "4 2", "1 3")
COLOURS = 7
FIVE = 5  # steps of an axis at most


def short(value: float) -> str:
    """A number of at most five characters or so: 0.05, 12, 1.5k, 20M."""
    if value == 0:
        return "0"
    size = abs(value)
    if size < 1e-3 or size >= 1e15:
        return f"{value:.0e}".replace("e-0", "e-").replace("e+", "e")
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= limit:
            return f"{value / (1e3 if unit == 'k' else limit):.3g}{unit}"
    return f"{value:.4g}"


def percent(value: float) -> str:
    """0.125 -> 12.5%."""
    return f"{100 * value:.3g}%"


@dataclass(frozen=True)
class Axis:
    """What is measured and its unit; `form` writes a tick. `low` and `high` widen the range, they never cut it."""

    label: str
    log: bool = False
    form: Callable[[float], str] = short
    low: float | None = None
    high: float | None = None

    def fits(self, value: float | None) -> bool:
        return value is not None and math.isfinite(value) and (value > 0 or not self.log)


@dataclass(frozen=True)
class Series:
    """One line; a few points are also drawn as dots."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]


@dataclass(frozen=True)
class Scale:
    """From values to pixels along one axis."""

    axis: Axis
    low: float
    high: float
    start: float
    end: float

    @classmethod
    def of(cls, axis: Axis, values: Iterable[float | None], start: float, end: float) -> "Scale":
        found = [float(v) for v in [*values, axis.low, axis.high] if v is not None and axis.fits(v)]
        low, high = (min(found), max(found)) if found else (1.0, 10.0)
        if axis.log:
            low, high = (low, high) if high > low else (low / 2, high * 2)
        elif high <= low:
            low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
        if start > end and not axis.log and found:  # upwards there is room: end on round values
            step = _step(low, high, FIVE)
            low, high = step * math.floor(low / step + 1e-9), step * math.ceil(high / step - 1e-9)
        return cls(axis, low, high, start, end)

    def __call__(self, value: float) -> float:
        low, high, value = (math.log(v) if self.axis.log else v for v in (self.low, self.high, value))
        return round(self.start + (value - low) / (high - low) * (self.end - self.start), 1)

    def ticks(self) -> list[float]:
        """Round values inside the range: multiples of 1, 2 or 5, on a log axis powers of ten where they are enough."""
        if not self.axis.log:
            return _round_steps(
                self.low, self.high, min(FIVE, abs(self.end - self.start) / (48 if self.end > self.start else 30))
            )
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        for factors in ((1,), (1, 3), (1, 2, 5)):
            found = [f * 10.0**p for p in range(first, last + 1) for f in factors]
            inside = [v for v in found if self.low * 0.999 <= v <= self.high * 1.001]
            if len(inside) >= 3:
                return inside[:: -(-len(inside) // 6)]
        return inside if len(inside) > 1 else _round_steps(self.low, self.high, FIVE)


def _step(low: float, high: float, about: float) -> float:
    """1, 2 or 5 times a power of ten, so that at most ``about`` of them lie between."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    return float(next(f * power for f in (1, 2, 5, 10) if f * power >= rough * 0.999))


def _round_steps(low: float, high: float, about: float) -> list[float]:
    step = _step(low, high, about)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{n * step:.12g}") for n in range(first, last + 1)]


def line_chart(
    title: str, series: Sequence[Series], x: Axis, y: Axis, *, note: str | None = None,
    shade: tuple[float, float, str] | None = None, marks: Sequence[tuple[float, str]] = (),
) -> Markup:  # fmt: skip
    """Lines over a common x. `shade` is a span of x with a label, `marks` are single places of x with theirs."""
    legend = _places([one.name for one in series]) if len(series) > 1 else []
    top = TOP + (legend[-1][1] + 18 if legend else 0) + (16 if marks or shade else 0)
    given = [v for one in series for v in one.x] + [v for v, _ in marks] + list(shade[:2] if shade else ())
    across = Scale.of(x, given, LEFT, WIDTH - RIGHT)
    up = Scale.of(y, [v for one in series for v in one.y], HEIGHT - BOTTOM, top)
    parts = [*_shaded(across, shade, top), *_frame(across, up), *_marked(across, marks, top)]
    for number, one in enumerate(series):
        parts += _line(one, number, across, up)
    parts += _legend([one.name for one in series], legend) if legend else []
    return _figure(title, note, HEIGHT, parts)


def _line(one: Series, number: int, across: Scale, up: Scale) -> list[Markup]:
    colour, dash = f"var(--c{number % COLOURS})", DASHES[number % len(DASHES)]
    pieces: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(one.x, one.y, strict=True):
        if y is not None and across.axis.fits(x) and up.axis.fits(y):
            pieces[-1].append((across(x), up(y)))
        elif pieces[-1]:
            pieces.append([])
    drawn = [
        element("polyline", points=" ".join(f"{x},{y}" for x, y in piece), class_="line", stroke=colour,
                stroke_dasharray=dash)
        for piece in pieces if len(piece) > 1
    ]  # fmt: skip
    points = [point for piece in pieces for point in piece]
    shown = points if len(points) <= 30 else [piece[0] for piece in pieces if len(piece) == 1]
    return drawn + [element("circle", cx=x, cy=y, r=2.6, fill=colour) for x, y in shown]


def quantile_curve(title: str, quantiles: dict[str, float], y: Axis, *, note: str | None = None) -> Markup:
    """Value at each share of the whole, from `{"0": smallest, ..., "0.5": median, ..., "1": largest}`."""
    shares = [float(share) for share in quantiles]
    one = Series("", shares, list(quantiles.values()))
    return line_chart(title, [one], Axis("share at or below", form=percent, low=0, high=1), y, note=note)


def bars(
    title: str, labels: Sequence[str], values: Sequence[float], x: str, y: Axis, *, note: str | None = None
) -> Markup:
    """A bar for each label, from zero (from the smallest value on a log axis); names are thinned to fit."""
    up = Scale.of(y, [*values, *([] if y.log else [0])], HEIGHT - BOTTOM, TOP)
    room = WIDTH - LEFT - RIGHT
    step = room / max(len(values), 1)
    thin = max(1, math.ceil(max((len(label) for label in labels), default=1) * LETTER * 1.35 / step))
    parts = _upright(up)
    for place, (label, value) in enumerate(zip(labels, values, strict=True)):
        left = LEFT + place * step
        if value and y.fits(value):
            base, level = up.start, up(value)
            hover = element("title", f"{label}: {value:,.6g}")
            parts.append(
                element("rect", hover, x=round(left + step * 0.08, 1), y=min(level, base), width=round(step * 0.84, 1),
                        height=round(max(abs(base - level), 0.5), 1), fill="var(--c0)")
            )  # fmt: skip
        if place % thin == 0:
            parts.append(_text(left + step / 2, HEIGHT - BOTTOM + 16, label, _anchor(place, len(values), thin)))
    parts += [_baseline(HEIGHT - BOTTOM), _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x, "middle")]
    return _figure(title, note, HEIGHT, parts)


def _anchor(place: int, count: int, thin: int) -> str:
    """The last name must not leave the picture."""
    return "end" if thin > 1 and place + thin / 2 > count else "middle"


def interval_dots(
    title: str, rows: Sequence[tuple[str, float | None, float | None, float | None]], x: Axis, *,
    note: str | None = None, reference: tuple[float, str] | None = None, exact: Callable[[float], str] | None = None,
) -> Markup:  # fmt: skip
    """A row for each (label, value, low, high): a dot and its interval; `reference` is a value to hold them against.

    A row without a value is a heading. `exact` writes the values beside the dots, as the axis does unless told.
    """
    exact = exact or x.form
    side = min(max((len(row[0]) for row in rows), default=0) * LETTER + 8, 180.0)
    top = TOP + (18 if reference else 0)
    height = round(top + ROW * len(rows) + BOTTOM)
    given = [v for row in rows for v in row[1:]] + ([reference[0]] if reference else [])
    across = Scale.of(x, given, side, WIDTH - 52)
    parts = _grid_across(across, top, height)
    if reference:
        parts += _marked(across, [reference], top, height)
    for number, (label, value, low, high) in enumerate(rows):
        middle = top + ROW * (number + 0.5)
        parts.append(_text(0, middle + 4, _cut(label, side), "start", strong=value is None))
        if value is None or not x.fits(value):
            continue
        hover = element("title", f"{label}: {exact(value)}" + _between(exact, low, high))
        if low is not None and high is not None and x.fits(low) and x.fits(high):
            parts.append(
                element("line", x1=across(low), x2=across(high), y1=middle, y2=middle, stroke="var(--c0)",
                        stroke_width=2)
            )  # fmt: skip
        parts.append(element("circle", hover, cx=across(value), cy=middle, r=4.2, fill="var(--c0)"))
        parts.append(_text(WIDTH, middle + 4, exact(value), "end", strong=True))
    return _figure(title, note, height, parts)


def _between(exact: Callable[[float], str], low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" ({exact(low)} to {exact(high)})"


def _cut(label: str, side: float) -> str:
    room = int(side / LETTER)
    return label if len(label) <= room else label[: room - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _figure(title: str, note: str | None, height: float, parts: Iterable[Markup]) -> Markup:
    picture = element("svg", *parts, viewBox=f"0 0 {WIDTH} {height}", role="img", aria_label=title)
    return element("figure", element("figcaption", title, element("span", note) if note else None), picture)


def _frame(across: Scale, up: Scale) -> list[Markup]:
    """Grid, ticks and names of both axes."""
    parts = _upright(up)
    for value in across.ticks():
        name = across.axis.form(value)
        anchor = "end" if across(value) + len(name) * LETTER / 2 > WIDTH else "middle"
        parts.append(_text(across(value), HEIGHT - BOTTOM + 16, name, anchor))
    return [
        *parts, _baseline(HEIGHT - BOTTOM),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, across.axis.label, "middle"),
    ]  # fmt: skip


def _upright(up: Scale) -> list[Markup]:
    parts = []
    for value in up.ticks():
        y = up(value)
        parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(_text(LEFT - 6, y + 4, up.axis.form(value), "end"))
    middle = (up.start + up.end) / 2
    turned = f"rotate(-90 11 {middle})"
    return [*parts, element("text", up.axis.label, x=11, y=middle, text_anchor="middle", transform=turned)]


def _grid_across(across: Scale, top: float, height: float) -> list[Markup]:
    parts = []
    for value in across.ticks():
        x = across(value)
        parts.append(element("line", x1=x, x2=x, y1=top, y2=height - BOTTOM, class_="grid"))
        parts.append(_text(x, height - BOTTOM + 16, across.axis.form(value), "middle"))
    return [*parts, _text((across.start + across.end) / 2, height - 6, across.axis.label, "middle")]


def _baseline(y: float) -> Markup:
    return element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="axis")


def _shaded(across: Scale, shade: tuple[float, float, str] | None, top: float) -> list[Markup]:
    if shade is None:
        return []
    left, right = across(shade[0]), across(shade[1])
    box = element("rect", x=left, y=top, width=round(max(right - left, 1), 1), height=HEIGHT - BOTTOM - top,
                  class_="band")  # fmt: skip
    return [box, _text(left, top - 4, shade[2], "start")]


def _marked(across: Scale, marks: Sequence[tuple[float, str]], top: float, height: float = HEIGHT) -> list[Markup]:
    parts = []
    for value, label in marks:
        x = across(value)
        anchor = "end" if x > WIDTH * 0.6 else "start" if x < WIDTH * 0.3 else "middle"
        parts.append(
            element("line", x1=x, x2=x, y1=top, y2=height - BOTTOM, stroke="var(--c1)", stroke_width=1.5,
                    stroke_dasharray="4 3")
        )  # fmt: skip
        parts.append(_text(x, top - 4, label, anchor))
    return parts


def _places(names: Sequence[str]) -> list[tuple[float, int]]:
    """Where each name of a legend begins and how far down, in as many lines as the width needs."""
    places, x, down = [], float(LEFT), 0
    for name in names:
        wide = 27 + len(name) * LETTER
        if x > LEFT and x + wide > WIDTH:
            x, down = float(LEFT), down + 18
        places.append((x, down))
        x += wide + 16
    return places


def _legend(names: Sequence[str], places: Sequence[tuple[float, int]]) -> list[Markup]:
    parts = []
    for number, (name, (x, down)) in enumerate(zip(names, places, strict=True)):
        colour, dash, y = f"var(--c{number % COLOURS})", DASHES[number % len(DASHES)], TOP + down
        parts.append(
            element("line", x1=x, x2=x + 22, y1=y + 4, y2=y + 4, class_="line", stroke=colour, stroke_dasharray=dash)
        )
        parts.append(_text(x + 27, y + 8, name, "start"))
    return parts


def _text(x: float, y: float, words: Any, anchor: str, *, strong: bool = False) -> Markup:
    kind = "strong" if strong else None
    return element("text", words, x=round(x, 1), y=round(y, 1), text_anchor=anchor, class_=kind)
