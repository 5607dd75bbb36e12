"""The leaderboard: a line a configuration, as columns of texts that the page and its script show alike."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jaxrec.reports.html import Markup, element, joined
from jaxrec.reports.sweep_commands import commands
from jaxrec.reports.sweep_findings import Sweep, state
from jaxrec.reports.sweep_options import point_text
from jaxrec.reports.sweep_ranking import Configuration
from jaxrec.reports.sweep_rows import duration, four

SHOWN = 10  # lines that stand in the page without its script
LINKS = 5  # runs of a configuration that are linked
WIDE, HIGH = 90, 16  # pixels of the dots of the seeds
NONE = "\N{EN DASH}"


@dataclass(frozen=True)
class Column:
    """A column of the leaderboard. `kind` is text, number, dots, links or point; `keys` are what it is sorted by."""

    name: str
    kind: str
    cells: Sequence[Any]
    keys: Sequence[float | None] | None = None
    more: dict[str, Any] = field(default_factory=dict)
    apart: bool = False  # a number that chose nothing
    about: str | None = None


def columns(sweep: Sweep, out: Path, folder: Path) -> list[Column]:
    """The columns in order; links are relative to the page ``out``, runs lie in ``folder``."""
    ranked, first = sweep.ranked, sweep.first
    start, rest = commands([one.rows[0] for one in ranked])
    values = [one.mean for one in ranked]
    timed = any(one.name == "seconds" for one in sweep.sought)
    return [
        Column("place", "number", [rank(n, one) for n, one in enumerate(ranked, 1)], list(range(len(ranked)))),
        Column("configuration", "point", [point_text(one.point, sweep.options) or "as given" for one in ranked],
               more={"start": start, "rest": rest}, about="open one for its command"),
        Column(first.name, "number", [_four(value) for value in values], values),
        Column("95% interval", "number", [_interval(one) for one in ranked]),
        Column("seeds", "dots", [_seeds(one) for one in ranked], more=_range(ranked)),
        *(_mean(ranked, one.name) for one in sweep.sought[1:]),
        Column("state", "text", [states(one) for one in ranked]),
        Column("epochs", "number", [_epochs(one) for one in ranked], [one.epochs for one in ranked]),
        *([] if timed else [_time(ranked)]),
        Column(f"test {first.name}", "number", [_four(one.test) for one in ranked], [one.test for one in ranked],
               apart=True, about="chose nothing"),
        Column("runs", "links", [_links(one, out, folder) for one in ranked]),
    ]  # fmt: skip


def rank(place: int, one: Configuration) -> str:
    """The place of a configuration, counted from 1, where it has one."""
    return str(place) if one.placed else NONE if one.mean is None else "few seeds"


def _four(value: float | None) -> str:
    return NONE if value is None else four(value)


def _epochs(one: Configuration) -> str:
    return NONE if one.epochs is None else f"{one.epochs:.3g}"


def _interval(one: Configuration) -> str:
    if one.interval:
        return " to ".join(map(_four, one.interval))
    return "one seed" if one.values else NONE


def _range(ranked: Sequence[Configuration]) -> dict[str, float]:
    """The axis of the dots of all lines: from the median of the seeds to the best of them, so that the best differ."""
    held = sorted(value for one in ranked for value in one.values)
    sign = ranked[0].objectives[0].sign if ranked else 1
    if not held:
        return {"low": 0.0, "high": 1.0}
    middle = held[len(held) // 2]
    return {"low": middle, "high": held[-1]} if sign > 0 else {"low": held[0], "high": middle}


def _seeds(one: Configuration) -> dict[str, Any]:
    """Values of the seeds and the interval of their mean."""
    rounded = [float(f"{v:.5g}") for v in one.values]
    return {"at": rounded, "span": [float(f"{v:.5g}") for v in one.interval]} if one.interval else {"at": rounded}


def _time(ranked: Sequence[Configuration]) -> Column:
    return Column("time", "number", [duration(one.seconds) for one in ranked], [one.seconds for one in ranked])


def _mean(ranked: Sequence[Configuration], name: str) -> Column:
    values = [one.objective(name) for one in ranked]
    form: Callable[[float], str] = duration if name == "seconds" else _four
    title = {"seconds": "training"}.get(name, name)
    return Column(title, "number", [NONE if value is None else form(value) for value in values], values)


def states(one: Configuration) -> str:
    """What became of the trials: "3 done", "2 done, 1 pruned"."""
    names = [row["state"] for row in one.rows]
    told = [f"{names.count(name)} {state(name)}" for name in dict.fromkeys(names)]
    return ", ".join(told) if len(names) > 1 else state(names[0])


def _links(one: Configuration, out: Path, folder: Path) -> list[list[str]]:
    """Trial and address: the report of its run where there is one, else the run's folder."""
    found = []
    for row in [row for row in one.rows if row.get("run")][:LINKS]:
        run = folder / str(row["run"])
        page = run / "report.html" if (run / "report.html").is_file() else run
        found.append([str(row["number"]), quote(os.path.relpath(page, out.parent).replace(os.sep, "/"))])
    return found


def board(table: Sequence[Column]) -> Markup:
    """The first lines, which stand there without the script too; the script sorts, filters and shows the others."""
    heads = (element("th", one.name, element("small", one.about) if one.about else None, scope="col",
                     class_=_class(one), data_name=one.name) for one in table)  # fmt: skip
    count = len(table[0].cells)
    rows = (element("tr", *(element("td", cell(one, place), class_=_class(one)) for one in table))
            for place in range(min(count, SHOWN)))  # fmt: skip
    inner = element("table", element("thead", element("tr", *heads)), element("tbody", *rows), id="board")
    return element("div", inner, class_="scroll", tabindex="0", role="region", aria_label="leaderboard")


def _class(one: Column) -> str | None:
    words = [word for word, wanted in (("number", one.kind == "number"), ("apart", one.apart),
                                       ("what", one.kind == "point")) if wanted]  # fmt: skip
    return " ".join(words) or None


def cell(one: Column, place: int) -> Any:
    """What stands in one cell."""
    value = one.cells[place]
    if one.kind == "dots":
        return dots(value, one.more["low"], one.more["high"])
    if one.kind == "links":
        return joined(element("a", text, href=address) for text, address in value)
    if one.kind == "point":
        told = f"{one.more['start']} {one.more['rest'][place]}".strip()
        return element("details", element("summary", value), element("code", told))
    return value


def dots(value: dict[str, Any], low: float, high: float) -> Markup:
    """Seeds as dots over the interval of their mean, on an axis that is the same for every configuration."""
    across = lambda v: round(4 + min(1.0, max(0.0, (v - low) / ((high - low) or 1.0))) * (WIDE - 8), 1)  # noqa: E731
    middle = HIGH / 2
    parts = [element("line", x1=0, x2=WIDE, y1=middle, y2=middle, class_="grid")]
    if "span" in value:
        left, right = map(across, value["span"])
        parts.append(element("line", x1=left, x2=right, y1=middle, y2=middle, class_="span"))
    parts += [element("circle", cx=across(v), cy=middle, r=3) for v in value["at"]]
    label = ", ".join(f"{v:.4g}" for v in value["at"]) or "none"
    return element("svg", *parts, viewBox=f"0 0 {WIDE} {HIGH}", class_="dots", role="img", aria_label=label)
