"""The drawn sections of a sweep's page: figures that its script fills, their legends, and the tables beside them."""

from collections.abc import Iterator
from typing import Any

from jaxrec.reports.charts import Axis, interval_dots
from jaxrec.reports.html import Markup, charts, element, joined, note, section, table
from jaxrec.reports.sweep_columns import ENDS, FOCUS, LANES, LINES
from jaxrec.reports.sweep_findings import Sweep, alarms, state
from jaxrec.reports.sweep_options import Option, point_text
from jaxrec.reports.sweep_rows import FAILED, ORDERLY, duration, four
from jaxrec.reports.sweep_table import NONE, rank

SLICES = 12  # options that are shown before one asks for the others
FRONT = 20  # members of the front in the table
MARKS = {
    "best": '<circle cx="9" cy="6" r="3" fill="var(--c0)"/>',
    "rest": '<circle cx="9" cy="6" r="3" fill="var(--soft)"/>',
    "pruned": '<circle cx="9" cy="6" r="2.7" fill="none" stroke="var(--soft)" stroke-width="1.5" opacity=".6"/>',
    "diverged": '<path d="M9 2l4 4-4 4-4-4z" fill="none" stroke="var(--c1)" stroke-width="1.5"/>',
    "out of memory": '<path d="M9 2l4 7H5z" fill="none" stroke="var(--c3)" stroke-width="1.5"/>',
    "failed": '<path d="M5 2l8 8m0-8l-8 8" fill="none" stroke="var(--c1)" stroke-width="1.5"/>',
    "line": '<path d="M0 6h18" stroke="var(--c1)" stroke-width="2"/>',
    "focus": '<path d="M0 6h18" stroke="var(--c0)" stroke-width="2"/>',
    "others": '<path d="M0 6h18" stroke="var(--soft)" opacity=".6"/>',
    "knee": '<circle cx="9" cy="6" r="4.5" fill="none" stroke="var(--c1)" stroke-width="2"/>',
    "bar done": '<path d="M0 2h18v8H0z" fill="var(--c0)"/>',
    "bar pruned": '<path d="M0 2h18v8H0z" fill="var(--soft)" opacity=".55"/>',
    "bar compiling": '<path d="M0 2h18v8H0z" fill="var(--c0)"/>'
    '<path d="M0 8l6-6M4 10l8-8M10 10l8-8" stroke="var(--paper)" stroke-width="1.6"/>',
    "bar diverged": '<path d="M0 2h18v8H0z" fill="var(--c4)"/>',
    "bar memory": '<path d="M0 2h18v8H0z" fill="var(--c3)"/>',
    "bar running": '<path d="M0 2h18v8H0z" fill="var(--c2)"/>',
    "bar stopped": '<path d="M0 2h18v8H0z" fill="var(--c5)"/>',
    "bar failed": '<path d="M0 2h18v8H0z" fill="var(--c1)"/>',
    "cross": '<path d="M5 2l8 8m0-8l-8 8" fill="none" stroke="var(--ink)" stroke-width="1.8"/>',
}


def key(*entries: tuple[str, str]) -> Markup:
    """What marks mean: (mark, words)."""
    marks = (element("li", element("svg", Markup(MARKS[mark]), viewBox="0 0 18 12", aria_hidden="true"), words)
             for mark, words in entries)  # fmt: skip
    return element("ul", *marks, class_="key")


def drawing(title: str, kind: str, label: str, *, place: int | None = None, about: Any = None, legend: Any = None,
            full: bool = False) -> Markup:  # fmt: skip
    """A figure that the script draws."""
    canvas = element("canvas", role="img", aria_label=label, tabindex="0" if kind != "parallel" else None)
    holder = element("div", canvas, class_="plot", data_chart=kind, data_place=place)
    caption = element("figcaption", title, element("span", about) if about else None)
    return element("figure", caption, legend, holder, class_="full" if full else None)


def thinned(count: int) -> str:
    """What a legend adds where not every line is drawn."""
    return f" (of many, an even {LINES:,} are drawn)" if count > LINES else ""


def tenth(sweep: Sweep) -> str:
    return f"best {FOCUS:.0%} of configurations, or those brushed"


def history(sweep: Sweep) -> Iterator[Markup]:
    """Every trial in order, and what it read on the way."""
    if not sweep.rows:
        return
    name, counts = sweep.first.name, sweep.counts()
    ends = [(state(one), state(one)) for one in FAILED if counts[one]]
    pruned = [("pruned", "pruned: the fainter, the sooner")] if counts["pruned"] else []
    dots = key(("line", "best trial so far"), ("best", tenth(sweep)), ("rest", "other finished trials"), *pruned, *ends)
    lines = key(
        ("focus", tenth(sweep)), ("others", f"other trials; a dot where one was given up{thinned(len(sweep.rows))}")
    )
    figures = [
        drawing(f"{name} of every trial", "history", f"{name} of {len(sweep.rows):,} trials in order", legend=dots,
                about="A dot a trial, at what it came to; point at one for its epochs."),
    ]  # fmt: skip
    if any(row.get("readings") for row in sweep.rows):
        figures.append(drawing("Learning curves", "curves", f"{name} after every epoch that was validated",
                               about="A line a trial, a reading after each validation.", legend=lines))  # fmt: skip
    yield section("How it went", charts(*figures), wide=True)


def tradeoffs(sweep: Sweep) -> Iterator[Markup]:
    """The Pareto front: a picture for each further objective, and its members in a table."""
    if len(sweep.sought) < 2:
        return
    if not sweep.front.members:
        yield section("Trade-offs", note("No finished configuration has a number in every objective.", kind="plain"))
        return
    first, others = sweep.first, sweep.sought[1:]
    knee = [] if sweep.front.knee is None else [("knee", "knee")]
    legend = key(("best", "on the front: nothing is better in everything"), ("rest", "others"), *knee)
    figures = [drawing(f"{first.name} against {one.unit}", "front", f"{first.name} against {one.unit}, a dot a "
                       "configuration", place=place, legend=legend) for place, one in enumerate(others)]  # fmt: skip
    rows = []
    for place in sweep.front.members[:FRONT]:
        one = sweep.ranked[place]
        mark = ", knee" if place == sweep.front.knee else ""
        rows.append([rank(place + 1, one) + mark, point_text(one.point, sweep.options),
                     *(shown(goal.name, one.objective(goal.name)) for goal in sweep.sought)])  # fmt: skip
    about = (
        "The knee is where giving up a little of one objective begins to cost much of another: the member of the front "
        "with the largest sum when every objective is scaled to the front's range."
    )
    more = len(sweep.front.members) - FRONT
    rest = element("p", f"{more:,} more on the front.", class_="small") if more > 0 else None
    heads = ("place", "configuration", *(goal.name for goal in sweep.sought))
    yield section("Trade-offs", element("p", about, class_="small"), charts(*figures),
                  table(heads, rows, caption="the Pareto front"), rest, wide=True)  # fmt: skip


def shown(name: str, value: float | None) -> str:
    if value is None:
        return NONE
    return f"{value:,.0f}" if name in ("seconds", "parameters") else four(value)


def together(sweep: Sweep) -> Iterator[Markup]:
    """Parallel coordinates."""
    if sweep.best is None or not sweep.options:
        return
    finished = sum(one.mean is not None for one in sweep.ranked)
    order = "the most important option first" if sweep.importances else "in the order of the space"
    about = (
        f"A line a configuration ({finished:,} with a number), an axis an option, {order}; n/a: the option does not "
        "apply. Drag along an axis, or press a choice, to keep what crosses there; press it again to let go. By "
        "keyboard, arrows move a band, with shift widen it, escape clears it. The leaderboard and the charts follow."
    )
    rest = f"In focus: the best {FOCUS:.0%}"
    tools = element(
        "div", element("span", rest, id="brushed", aria_live="polite", data_rest=rest),
        element("button", "clear", id="unbrush", type="button", hidden="hidden"), class_="tools",
    )  # fmt: skip
    legend = key(("line", "best in focus"), ("focus", tenth(sweep)), ("others", f"others{thinned(finished)}"))
    figure = drawing("All options at once", "parallel", "parallel coordinates of the configurations", about=about,
                     legend=joined([legend, tools]), full=True)  # fmt: skip
    yield section("Options together", figure, wide=True)


def importance(sweep: Sweep) -> Markup:
    if not sweep.importances:
        finished = sum(one.mean is not None for one in sweep.ranked)
        why = "too few configurations have finished" if finished < 10 else "no importances were computed for this page"
        return section("Which options matter", note(f"Not known: {why}; the axes keep the order of the space.",
                                                    kind="plain"))  # fmt: skip
    label = {one.name: one.label for one in sweep.options}
    rows = sorted(sweep.importances, key=lambda one: -one[1])
    dots = [(label.get(name, name), value, low, high) for name, value, low, high in rows]
    about = (
        f"Each option's share of what tells the best configurations by {sweep.first.name} from all of them, beyond "
        "chance, with the interval of the estimate. It says what mattered in this space, not in another."
    )
    axis = Axis("share of what can be explained", form=lambda value: f"{value:.0%}", low=0)
    return section("Which options matter", element("p", about, class_="small"),
                   interval_dots("Importance", dots, axis))  # fmt: skip


def slices(sweep: Sweep) -> Iterator[Markup]:
    """An option at a time, with the alarm where the best five sit on a bound."""
    if not sweep.options or not sweep.rows:
        return
    ends = {option.name: end for option, end in alarms(sweep)}
    about = "A dot a trial at what it came to, pruned ones faint; the line is the median of the finished ones."
    order = sorted(enumerate(sweep.options), key=lambda pair: pair[1].name not in ends)  # alarms are not put away
    figures = [_slice(sweep, place, one, ends.get(one.name)) for place, one in order]
    legend = key(("best", tenth(sweep)), ("rest", "other trials"), ("line", "median"))
    shown, rest = (element("div", *some, class_="slices") for some in (figures[:SLICES], figures[SLICES:]))
    more = element("details", element("summary", f"the other {len(figures) - SLICES}"), rest)
    yield section("One option at a time", element("p", about, class_="small"), legend, shown,
                  more if len(figures) > SLICES else None, wide=True)  # fmt: skip


def _slice(sweep: Sweep, place: int, one: Option, end: str | None) -> Markup:
    missing = sum(one.name not in config.point for config in sweep.ranked)
    told = f"does not apply to {missing:,} of {len(sweep.ranked):,} configurations" if missing else None
    alarm = (
        element("span", f"the best five sit on the {end} bound of {one.label}: widen", class_="alarm") if end else ""
    )
    label = f"{sweep.first.name} against {one.name}"
    return drawing(
        one.name, "slice", label, place=place, about=joined([part for part in (told, alarm) if part]) or None
    )


def workers(sweep: Sweep) -> Iterator[Markup]:
    """A lane a worker."""
    began = [one for row in sweep.rows for one in row.get("attempts") or () if one.get("start") is not None]
    if not began:
        return
    seen = {one.get("state") for one in began}
    ends = [("bar done", "done"), ("bar compiling", "compiling")]
    ends += [(f"bar {mark}", words) for mark, words, name in (
        ("pruned", "pruned", "pruned"), ("diverged", "diverged", "diverged"),
        ("memory", "out of memory", "out_of_memory"), ("running", "running", "running"),
        ("stopped", "stopped in order", "stopped")) if name in seen]  # fmt: skip
    if seen - {*ENDS} or "failed" in seen:
        ends.append(("bar failed", "failed or lost"))
    if seen - {*ORDERLY}:
        ends.append(("cross", "where one failed"))
    compiling, spent = (sum(one.get(name) or 0 for one in began) for name in ("compile_seconds", "seconds"))
    names = {(one.get("worker"), one.get("host")) for one in began}
    share = f" Compiling took {duration(compiling)}, {compiling / spent:.0%} of the work." if spent else ""
    cut = f" The first {LANES} are drawn." if len(names) > LANES else ""
    many = f"{len(names):,} worker{'s' if len(names) != 1 else ''}"
    yield section("Workers", drawing("Attempts by worker", "lanes", f"attempts of {many} over time", full=True,
                                     about=f"{many}, {len(began):,} attempts.{share}{cut}", legend=key(*ends)),
                  wide=True)  # fmt: skip
