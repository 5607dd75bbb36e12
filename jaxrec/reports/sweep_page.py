"""The page of a sweep: who won and how sure that is, what was tried, what it cost, what failed."""

import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jaxrec.reports.charts import Axis, interval_dots
from jaxrec.reports.html import Markup, charts, code, element, facts, joined, note, page, section, table, tiles, write
from jaxrec.reports.sweep_columns import ENDS, FOCUS, LANES, LINES, data, script_text
from jaxrec.reports.sweep_commands import command as train_command
from jaxrec.reports.sweep_findings import (
    Failure,
    Importance,
    Sweep,
    alarms,
    counted,
    failures,
    gathered,
    notes,
    savings,
    sentence,
    state,
    wall_seconds,
    warnings,
)
from jaxrec.reports.sweep_options import Option, point_text
from jaxrec.reports.sweep_rows import FAILED, ORDERLY, Row, duration, epochs, four, seconds
from jaxrec.reports.sweep_table import NONE, SHOWN, board, columns

SCRIPTS = ("sweep_base.js", "sweep_charts.js", "sweep_parallel.js", "sweep_board.js")
GALLERY = 40  # signatures of failures that are shown
AGAIN = 5  # trials of a failure that are named
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


def write_page(
    out: Path, about: Row, rows: Sequence[Row], command: Sequence[str], *, importances: Sequence[Importance] = (),
    folder: Path | None = None,
) -> Sweep:  # fmt: skip
    """Write the page of a sweep whose runs lie in ``folder``, that of ``out`` unless told; returns what it says.

    ``importances`` are (option, share, low, high); without them the axes keep the order of the space.
    """
    sweep = gathered(about, rows, importances)
    write(out, sweep_page(sweep, shlex.join(command), out=out, folder=folder or out.parent))
    return sweep


def sweep_page(sweep: Sweep, command: str, *, out: Path, folder: Path) -> str:
    """One self-contained page."""
    lines = columns(sweep, out, folder)
    numbers = element("script", Markup(script_text(data(sweep, lines))), type="application/json", id="sweep")
    missing = element(
        "noscript", note("The charts and the whole leaderboard need the page's own script.", kind="plain")
    )
    return page(
        title(sweep, folder), sentence(sweep), headline(sweep), missing, believed(sweep), leaderboard(sweep, lines),
        *history(sweep), *tradeoffs(sweep), *together(sweep), importance(sweep), *slices(sweep), *workers(sweep),
        saved(sweep), *gallery(sweep), again(sweep), numbers,
        made_by=command, style=asset("sweep.css"), script="(() => {\n" + "".join(map(asset, SCRIPTS)) + "})();\n",
    )  # fmt: skip


def asset(name: str) -> str:
    return (files("jaxrec.reports") / "assets" / name).read_text(encoding="utf-8")


def title(sweep: Sweep, folder: Path) -> str:
    name = str(sweep.about.get("name") or folder.resolve().name)
    return f"Sweep {name}"


def headline(sweep: Sweep) -> Markup:
    """The winner's two numbers, the trials, the time, what pruning saved."""
    best, counts, first = sweep.best, sweep.counts(), sweep.first
    boxes: list[tuple[Any, Any, Any]] = []
    if best is not None and best.mean is not None:
        sure = " to ".join(map(four, best.interval)) if best.interval else "one seed, no interval"
        boxes.append((four(best.mean), f"{first.name}, validation", f"{sure}; the best of the sweep"))
        boxes.append((NONE if best.test is None else four(best.test), f"{first.name}, test", "not used to select"))
    failed = sum(counts[name] for name in FAILED)
    rest = [f"{counts[name]:,} {name}" for name in ("pruned", "running", "waiting") if counts[name]]
    boxes.append((f"{counts['done']:,}", f"of {counted(len(sweep.rows))} done",
                  ", ".join([*rest, *([f"{failed:,} failed"] if failed else [])])))  # fmt: skip
    work = sum(map(seconds, sweep.rows))
    wall = wall_seconds(sweep)
    boxes.append((duration(wall or work), "from start to end" if wall else "of work", f"{duration(work)} of work"))
    if (spared := savings(sweep)) is not None:
        share = spared.epochs / ((spared.spent_epochs + spared.epochs) or 1)
        boxes.append((f"{share:.0%}", "of the epochs saved", f"{duration(spared.seconds)} by pruning, at most"))
    return tiles(boxes)


def believed(sweep: Sweep) -> Markup:
    told = [note(one, remedy or None) for one, remedy in warnings(sweep)]
    told += [note(one, kind="plain") for one in notes(sweep)]
    return section("Before you believe it", *(told or [note("Nothing to object to.", kind="good")]))


def leaderboard(sweep: Sweep, lines: Sequence[Any]) -> Markup:
    if not sweep.ranked:
        return section("Leaderboard", note("There is no trial yet.", kind="plain"))
    about = (
        f"A line a configuration: {sweep.first.name} on the validation targets, mean over seeds, 95% interval of the "
        "mean by Student's t, every seed a dot on one axis from the median of all to the best. The test number chose "
        "nothing."
    )
    tools = element(
        "div", element("label", "Filter ", element("input", id="filter", type="search", placeholder="gru 0.003")),
        element("span", id="shown", aria_live="polite"), element("button", "show 50 more", id="more", type="button"),
        class_="tools", id="tools", hidden="hidden",
    )  # fmt: skip
    rest = len(sweep.ranked) - SHOWN
    more = element("noscript", element("p", f"{rest:,} more in trials.jsonl.", class_="small")) if rest > 0 else None
    return section("Leaderboard", element("p", about, class_="small"), tools, board(lines), more, wide=True)


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
        mark = "knee" if place == sweep.front.knee else ""
        rows.append([place + 1, point_text(one.point, sweep.options),
                     *(shown(goal.name, one.objective(goal.name)) for goal in sweep.sought), mark])  # fmt: skip
    about = (
        "The knee is where giving up a little of one objective begins to cost much of another: the member of the front "
        "with the largest sum when every objective is scaled to the front's range."
    )
    more = len(sweep.front.members) - FRONT
    rest = element("p", f"{more:,} more on the front.", class_="small") if more > 0 else None
    heads = ("place", "configuration", *(goal.unit for goal in sweep.sought), "")
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
        "apply. Drag along an axis to keep what crosses there, click it to let go; by keyboard, arrows and shift move "
        "and widen a band, escape clears it. The leaderboard and the charts follow."
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
        f"How much of the spread of {sweep.first.name} each option explains, of all that options explain; the lines "
        "are the error of the estimate. It says what mattered in this space, not what would matter in another."
    )
    axis = Axis("share of the spread", form=lambda value: f"{value:.0%}", low=0)
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


def saved(sweep: Sweep) -> Markup:
    """What pruning did not spend, and on what assumption."""
    found = savings(sweep)
    if found is None:
        pruned = sweep.counts()["pruned"]
        why = "no trial has finished to compare with" if pruned else "no trial was pruned"
        return section("What pruning saved", note(f"Nothing that can be said: {why}.", kind="plain"))
    rows = [
        ("pruned trials", f"{found.pruned:,} of {len(sweep.rows):,}"),
        ("epochs spent", f"{found.spent_epochs:,.0f}"),
        ("epochs not spent", f"{found.epochs:,.0f}"),
        ("time spent", duration(found.spent_seconds)),
        ("time not spent", duration(found.seconds)),
    ]
    about = (
        f"On the assumption that every pruned trial would have run {found.usual:g} epochs, as the finished ones do in "
        "the middle, each at its own speed. Pruned trials tend to be worse ones and might have stopped early by "
        "themselves: read it as an upper bound."
    )
    return section("What pruning saved", element("p", about, class_="small"), facts(rows, compact=True))


def gallery(sweep: Sweep) -> Iterator[Markup]:
    """Failures by signature, the most frequent first."""
    found = failures(sweep)
    if not found:
        return
    kinds = f"{len(found):,} kinds of" if len(found) > 1 else "One kind of"
    about = (
        f"{kinds} failure in {sum(one.attempts for one in found):,} attempts. Divergence and lack of memory are "
        "results: the trial is not repeated."
    )
    rest = len(found) - GALLERY
    more = element("p", f"{rest:,} more kinds are in trials.jsonl.", class_="small") if rest > 0 else None
    yield section("Failures", element("p", about, class_="small"), *map(failure, found[:GALLERY]), more, wide=True)


def failure(one: Failure) -> Markup:
    numbers = ", ".join(str(row["number"]) for row in one.trials[:AGAIN])
    numbers += f" and {len(one.trials) - AGAIN:,} more" if len(one.trials) > AGAIN else ""
    times = f"{one.attempts:,} attempt{'s' if one.attempts > 1 else ''}"
    hosts = ", ".join(one.workers[:AGAIN]) + (
        f" and {len(one.workers) - AGAIN:,} more" if len(one.workers) > AGAIN else ""
    )
    rows = [("Trials", numbers), ("Workers", hosts), ("Ended as", state(one.state))]
    rows += [("Reason", one.reason)] if one.reason else []
    rows += [("Since then", f"{one.recovered:,} of these trials finished or were pruned")] if one.recovered else []
    log = code("\n".join(one.log)) if one.log else element("p", "No log lines were kept.", class_="small")
    return element("details", element("summary", element("b", times), f" \N{MIDDLE DOT} {one.signature}"), facts(rows),
                   element("p", "Last log lines:", class_="small"), log,
                   element("p", f"To repeat trial {one.trials[0]['number']}:", class_="small"),
                   code(train_command(one.trials[0])), class_="failure")  # fmt: skip


def again(sweep: Sweep) -> Markup:
    """The command, the space, the code."""
    about = sweep.about
    codes = sorted({str(row["code"]) for row in sweep.rows if row.get("code")})
    goals = ", ".join(f"{one.name} ({'most' if one.maximize else 'least'})" for one in sweep.sought)
    rows = [
        ("Objectives", goals),
        ("Search", f"{about.get('search', 'unknown')}, seed {about.get('seed', 'unknown')}"),
        ("Trials", f"{len(sweep.rows):,}, {sum(map(epochs, sweep.rows)):,.0f} epochs"),
        ("Created", about.get("created") or "unknown"),
        ("Code", ", ".join(codes) or "unknown"),
    ]
    told = about.get("command") or ""
    line = told if isinstance(told, str) else shlex.join(map(str, told))
    space = json.dumps(about.get("space"), ensure_ascii=False, indent=1, default=str)
    best = sweep.best
    return section(
        "To make it again", code(line) if line else None, facts(rows), *winner(best.rows[0] if best else None),
        element("details", element("summary", "the space"), code(space)) if about.get("space") else None,
    )  # fmt: skip


def winner(row: Row | None) -> Iterable[Markup]:
    if row is not None:
        yield element("p", "The best configuration alone:", class_="small")
        yield code(train_command(row))
