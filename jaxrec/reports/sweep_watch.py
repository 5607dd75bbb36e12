"""A live view of a sweep in a terminal: counts, time left, the best so far, who works, failures. It only reads."""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxrec.config import Mistake
from jaxrec.reports.sweep_findings import Sweep, counted, failures, gathered, lane, moment, state
from jaxrec.reports.sweep_options import point_text
from jaxrec.reports.sweep_rows import (
    FAILED,
    OPEN,
    STATES,
    Row,
    duration,
    epochs,
    four,
    is_sweep,
    read_sweep,
    readings,
    seconds,
)  # fmt: skip

TOP = 5  # configurations
RUNNING = 8  # trials
LOST = 3  # kinds of failure
WIDTH = 80
BAR = 40


def watch(
    read: Callable[[], Sequence[Row]], about: Row, stop: Callable[[], bool], *, every: float = 2.0, console: Any = None,
    said: list[str] | None = None,
) -> None:  # fmt: skip
    """Show what ``read`` returns, again and again, until ``stop``; the last view stays on the screen. Sentences that
    appear in ``said`` are taken from there and stand above it.
    """
    from rich.console import Console
    from rich.live import Live

    console = console or Console(stderr=True)
    with Live(console=console, auto_refresh=False) as live:
        while True:
            ended = stop()
            while said:
                live.console.print(said.pop(0), markup=False, highlight=False)
            live.update(view(read(), about, time.time(), min(WIDTH, console.width)), refresh=True)
            if ended:
                return
            until = time.monotonic() + every
            while time.monotonic() < until and not stop():
                time.sleep(min(0.1, every))


@contextmanager
def watching(folder: Path, say: Callable[[str], None]) -> Iterator[Callable[[str], None]]:
    """Show the sweep in ``folder`` while something else runs it. What that has to say goes to the function that this
    gives: it stands above the view, or goes to ``say`` when there is none any more.
    """
    ended, said = threading.Event(), list[str]()

    def look() -> None:
        while not is_sweep(folder) and not ended.wait(0.1):
            pass
        rows: list[Row] = []

        def read() -> list[Row]:
            with contextlib.suppress(Mistake, OSError):  # the rows before are shown once more
                rows[:] = read_sweep(folder)[1]
            return rows

        if is_sweep(folder):
            watch(read, read_sweep(folder)[0], ended.is_set, said=said)

    viewer = threading.Thread(target=look, daemon=True)
    viewer.start()
    try:
        yield said.append
    finally:
        ended.set()
        viewer.join()
        for sentence in said:
            say(sentence)


def view(rows: Sequence[Row], about: Row, now: float, width: int = WIDTH) -> Any:
    """What is shown at the time ``now``, at most ``width`` columns."""
    from rich.console import Group
    from rich.text import Text

    sweep = gathered(about, rows)
    parts: list[Any] = [Text(clean(line)) for line in head(sweep, now)]
    if sweep.best is not None:
        parts.append(grid(("", sweep.first.name, "seeds", "best so far"), best(sweep), width))
    if working := list(running(sweep, now)):
        parts.append(grid(("worker", "trial", "epoch", sweep.first.name, "since"), working, width))
    parts += [Text(clean(line), style="yellow" if line[:1] != " " else "") for line in lost(sweep)]
    return Group(*parts)


def head(sweep: Sweep, now: float) -> Iterator[str]:
    """Counts, a bar and the time left, if that can be said."""
    counts = sweep.counts()
    total = max(int(sweep.about.get("trials") or 0), len(sweep.rows))
    ended = sum(row["state"] not in OPEN for row in sweep.rows)
    told = ", ".join(f"{counts[name]:,} {state(name)}" for name in STATES if counts[name])
    yield f"{counted(total)}: {told or 'none has begun'}"
    full = round(BAR * ended / total) if total else 0
    left = time_left(sweep, total, now)
    rest = "all have ended" if total and ended >= total else "time left: not known yet" if left is None else \
        f"about {duration(left)} left"  # fmt: skip
    yield f"[{'#' * full}{'.' * (BAR - full)}] {ended / total if total else 0:.0%}, {rest}"


def time_left(sweep: Sweep, total: int, now: float) -> float | None:
    """Trials that are left at the mean seconds of those that ended, shared by the workers that run now."""
    ended = [seconds(row) for row in sweep.rows if row["state"] not in OPEN]
    at_work = [now - at for row in sweep.rows if (at := began(row)) is not None]
    if not ended or not at_work:
        return None
    each = math.fsum(ended) / len(ended)
    left = (total - len(ended)) * each - math.fsum(min(spent, each) for spent in at_work)
    return max(0.0, left) / len(at_work)


def began(row: Row) -> float | None:
    """When the attempt that runs now began."""
    if row["state"] != "running" or not row.get("attempts"):
        return None
    return moment(row["attempts"][-1].get("start"))


def best(sweep: Sweep) -> Iterator[tuple[str, ...]]:
    for place, one in enumerate(sweep.ranked[:TOP], start=1):
        if one.mean is not None:
            yield str(place), four(one.mean), str(len(one.values)), point_text(one.point, sweep.options)


def running(sweep: Sweep, now: float) -> Iterator[tuple[str, ...]]:
    """Trials at work, those that began first on top."""
    held = sorted((at, row["number"], row) for row in sweep.rows if (at := began(row)) is not None)
    for at, number, row in held[:RUNNING]:
        last = max(readings(row, sweep.first.name), default=None)
        value = "\N{EN DASH}" if last is None else four(last[1])
        yield lane(row["attempts"][-1]), str(number), f"{epochs(row):g}", value, duration(max(0.0, now - at))


def lost(sweep: Sweep) -> Iterator[str]:
    """Failures by signature with their last line."""
    found = failures(sweep)
    for one in found[:LOST]:
        yield f"{one.attempts:,} x {one.signature} ({state(one.state)}), lately trial {one.trials[-1]['number']}"
        last = next((line for line in reversed(one.log) if line.strip()), one.reason)
        if last:
            yield f"    {last}"
    if len(found) > LOST:
        yield f"and {len(found) - LOST:,} more kind{'s' if len(found) > LOST + 1 else ''} of failure"
    if not found and (ended := sum(row["state"] in FAILED for row in sweep.rows)):
        yield f"{counted(ended)} failed"


def grid(columns: Sequence[str], rows: Any, width: int) -> Any:
    """A table no wider than ``width``; the last column takes what is left."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, width=width)
    for place, name in enumerate(columns):
        table.add_column(
            Text(clean(name)), overflow="ellipsis", no_wrap=True, ratio=1 if place == len(columns) - 1 else None
        )
    for row in rows:
        table.add_row(*(Text(clean(cell)) for cell in row))
    return table


def clean(text: str) -> str:
    """A line without anything that a terminal would obey."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
