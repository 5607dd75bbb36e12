"""The page of a sweep: who won and how sure that is, what was tried, what it cost, what failed."""

import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jaxrec.reports.html import Markup, code, element, facts, note, page, section, tiles, write
from jaxrec.reports.sweep_columns import data, script_text
from jaxrec.reports.sweep_commands import command as train_command
from jaxrec.reports.sweep_drawings import history, importance, slices, together, tradeoffs, workers
from jaxrec.reports.sweep_findings import (
    Failure,
    Importance,
    Sweep,
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
from jaxrec.reports.sweep_rows import FAILED, Row, duration, epochs, four, seconds
from jaxrec.reports.sweep_table import NONE, SHOWN, board, columns

SCRIPTS = ("plots.js", "sweep_base.js", "sweep_charts.js", "sweep_parallel.js", "sweep_board.js")
GALLERY = 40  # signatures of failures that are shown
AGAIN = 5  # trials of a failure that are named


def write_page(
    out: Path, about: Row, rows: Sequence[Row], command: Sequence[str], *, importances: Sequence[Importance] = (),
    judged: str = "", folder: Path | None = None,
) -> Sweep:  # fmt: skip
    """Write the page of a sweep whose runs lie in ``folder``, that of ``out`` unless told; returns what it says.

    ``importances`` are (option, share, low, high); without them the axes keep the order of the space. ``judged`` is
    what a test over the seeds says of the winner.
    """
    sweep = gathered(about, rows, importances, judged)
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
        made_by=command, style=asset("plots.css") + asset("sweep.css"),
        script="(() => {\n" + "".join(map(asset, SCRIPTS)) + "})();\n",
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
    box = element("input", id="filter", type="search", placeholder="cell gru, width 64")
    tools = element(
        "div", element("label", "Filter ", box), element("span", id="shown", aria_live="polite"),
        element("button", "show 50 more", id="more", type="button"), class_="tools", id="tools", hidden="hidden",
    )  # fmt: skip
    rest = len(sweep.ranked) - SHOWN
    more = element("noscript", element("p", f"{rest:,} more in trials.jsonl.", class_="small")) if rest > 0 else None
    return section("Leaderboard", element("p", about, class_="small"), tools, board(lines), more, wide=True)


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
