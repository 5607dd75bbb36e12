"""What a sweep's page says: counts, the sentence, warnings, what pruning saved, failures by signature.

Plain values from plain rows; nothing is drawn here.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any

from jaxrec.reports.sweep_options import Option, edge_alarms, options, point_text
from jaxrec.reports.sweep_ranking import Configuration, Front, configurations, front
from jaxrec.reports.sweep_rows import (
    FAILED,
    OPEN,
    ORDERLY,
    STATES,
    WORDS,
    Objective,
    Row,
    duration,
    epochs,
    four,
    number,
    objectives,
    own,
    seconds,
    value_of,
)
from jaxrec.sweeps.selection import of_population

Importance = tuple[str, float, float | None, float | None]


@dataclass(frozen=True)
class Sweep:
    """A sweep, read once: its trials in order of their number, and what was made of them."""

    about: Row
    rows: Sequence[Row]
    known: int  # proposals answered from trials that were there
    importances: Sequence[Importance]
    sought: Sequence[Objective]
    options: Sequence[Option]
    ranked: Sequence[Configuration]
    front: Front
    judged: str  # what a test over the seeds says of the winner; empty where none was made

    @property
    def first(self) -> Objective:
        return self.sought[0]

    @property
    def best(self) -> Configuration | None:
        return self.ranked[0] if self.ranked and self.ranked[0].mean is not None else None

    def counts(self) -> Counter[str]:
        return Counter(row["state"] for row in self.rows)


def gathered(about: Row, rows: Sequence[Row], importances: Sequence[Importance] = (), judged: str = "") -> Sweep:
    """Everything that is worked out once; the most important options come first, the others as they were declared."""
    trials = sorted(own(rows), key=lambda row: row["number"])
    sought = objectives(about, trials)
    importances = importances or [(*one,) for one in about.get("importances") or ()]  # type: ignore[misc]
    weight = {name: value for name, value, *_ in importances}
    varied = sorted(options(about, trials), key=lambda one: -weight.get(one.name, -math.inf))
    ranked = configurations(trials, sought)
    best = front(ranked, sought) if len(sought) > 1 else Front((), None)
    return Sweep(about, trials, len(rows) - len(trials), importances, sought, varied, ranked, best, judged)


def state(name: str) -> str:
    return WORDS.get(name, name)


def sentence(sweep: Sweep) -> str:
    """The outcome: the best configuration, its numbers, what became of the trials, how long it took."""
    best, began = sweep.best, f"{counted(len(sweep.rows))}{_taken(sweep)}"
    if best is None or best.mean is None:
        return f"{began}: {_ends(sweep)}; none has a number yet." if sweep.rows else "There is no trial yet."
    name = sweep.first.name
    sure = f"{four(best.interval[0])} to {four(best.interval[1])}, " if best.interval else ""
    seeds = f"{len(best.values)} seeds" if best.interval else "one seed, so without an interval"
    test = f", and {four(best.test)} on the test targets" if best.test is not None else ""
    which = point_text(best.point, sweep.options) or "the one there is"
    where = {"seconds": " of training", "parameters": ""}.get(name, " on the validation targets")
    won = f"The best configuration, {which}, reaches {name} {four(best.mean)} ({sure}{seeds}){where}{test}"
    return f"{won}; {began}: {_ends(sweep)}."


def counted(count: int) -> str:
    return "1 trial" if count == 1 else f"{count:,} trials"


def _taken(sweep: Sweep) -> str:
    wall = wall_seconds(sweep)
    return f" in {duration(wall)}" if wall else ""


def _ends(sweep: Sweep) -> str:
    counts = sweep.counts()
    told = [f"{counts[name]:,} {state(name)}" for name in (*STATES, *sorted(set(counts) - {*STATES})) if counts[name]]
    return ", ".join(told)


def moment(value: Any) -> float | None:
    """A time in seconds; a text is read as ISO 8601."""
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value).timestamp()
        except ValueError:
            return None
    return number(value)


def wall_seconds(sweep: Sweep) -> float:
    """From the first start of an attempt to the last end."""
    held = [attempt for row in sweep.rows for attempt in row.get("attempts") or ()]
    starts = [at for one in held if (at := moment(one.get("start"))) is not None]
    ends = [at for one in held if (at := moment(one.get("end"))) is not None]
    return max(0.0, max(ends) - min(starts)) if starts and ends else 0.0


def warnings(sweep: Sweep) -> Iterator[tuple[str, str]]:
    """Sentence and remedy of what somebody should know before believing the winner."""
    for option, end in alarms(sweep):
        yield f"The best five sit on the {end} bound of {option.name} ({option.bound(end)}): widen.", ""
    best = sweep.best
    if any(of_population(row) for row in sweep.rows):
        line = "A line is a member of a population after a generation. It went on from another member"
        yield f"{line}: nobody gets there who trains its numbers from the start, and no line repeats another.", ""
    elif best is not None and not any(len(one.values) > 1 for one in sweep.ranked):
        yield "Every configuration has one seed: nothing says how much of a difference is luck.", "--seeds 3"
    if not sweep.judged and (beside := within(sweep)) > 0:
        lie = f"{beside:,} other configuration{'s lie' if beside > 1 else ' lies'} within the interval of the best"
        yield f"{lie}: the seeds do not tell them apart.", "more seeds for the first few"
    lost = sum(r["state"] == "done" and value_of(r, sweep.first.name) is None for r in sweep.rows)
    if lost:
        have = "has" if lost == 1 else "have"
        yield f"{counted(lost)} finished without a finite {sweep.first.name} and {have} no place.", ""
    failed = sum(row["state"] in FAILED for row in sweep.rows)
    if failed > 0.1 * len(sweep.rows):
        holes = "where they did, the picture has holes"
        yield f"{failed:,} of {counted(len(sweep.rows))} failed; {holes}.", "see the failures below"
    codes = {row.get("code") for row in sweep.rows if row.get("code")}
    if len(codes) > 1:
        yield f"The trials come from {len(codes)} versions of the code.", "--strict-code trains them again"


def within(sweep: Sweep) -> int:
    """Configurations beside the best whose mean lies in its interval."""
    best = sweep.best
    if best is None or best.interval is None:
        return 0
    low, high = best.interval
    return sum(one.placed and one.mean is not None and low <= one.mean <= high for one in sweep.ranked[1:])


def alarms(sweep: Sweep) -> list[tuple[Option, str]]:
    """Options whose bound the best five sit on; none where the best five are no better than the middle."""
    ranked = [one for one in sweep.ranked if one.placed]
    if len(ranked) < 6 or ranked[4].mean == ranked[len(ranked) // 2].mean:
        return []
    return edge_alarms([one.point for one in ranked], sweep.options)


def notes(sweep: Sweep) -> Iterator[str]:
    """What is true of every sweep, in its own numbers."""
    tried = sum(one.placed for one in sweep.ranked)
    if sweep.judged:
        yield sweep.judged[:1].upper() + sweep.judged[1:].rstrip(".") + "."
    elif tried > 1:
        won = f"The best of {tried:,} configurations was chosen by its validation number"
        yield f"{won}, which is too good for that reason; the test number chose nothing."
    few = sum(one.mean is not None and not one.placed for one in sweep.ranked)
    if few:
        who = f"{few:,} configuration{'s' if few > 1 else ''} with fewer than {sweep.ranked[0].seeds} finished seeds"
        yield f"{who} ha{'ve' if few > 1 else 's'} no place: fewer seeds are more luck."
    if sweep.known:
        yield f"{sweep.known:,} proposals were known already and answered from their trial."
    waiting = sum(row["state"] in OPEN for row in sweep.rows)
    if waiting:
        do = "runs or waits" if waiting == 1 else "run or wait"
        yield f"{counted(waiting)} still {do}: the page shows what is there so far."


@dataclass(frozen=True)
class Savings:
    """What pruned trials would have cost more, had they run as long as the finished ones do in the middle."""

    pruned: int
    usual: float  # median epochs of the finished trials
    epochs: float
    seconds: float
    spent_epochs: float
    spent_seconds: float


def savings(sweep: Sweep) -> Savings | None:
    """None where nothing was pruned or nothing finished to compare with."""
    pruned = [row for row in sweep.rows if row["state"] == "pruned"]
    done = [row for row in sweep.rows if row["state"] == "done" and epochs(row) > 0]
    if not pruned or not done:
        return None
    usual, pace = median(map(epochs, done)), median(seconds(row) / epochs(row) for row in done)
    more = [(max(0.0, usual - epochs(row)), seconds(row) / epochs(row) if epochs(row) else pace) for row in pruned]
    return Savings(len(pruned), usual, math.fsum(n for n, _ in more), math.fsum(n * each for n, each in more),
                   math.fsum(map(epochs, sweep.rows)), math.fsum(map(seconds, sweep.rows)))  # fmt: skip


@dataclass(frozen=True)
class Failure:
    """Attempts that ended alike."""

    signature: str
    state: str
    reason: str
    attempts: int
    trials: tuple[Row, ...]
    recovered: int  # of those trials, finished or pruned by now
    workers: tuple[str, ...]
    log: tuple[str, ...]  # of the last one


def failures(sweep: Sweep) -> list[Failure]:
    """Failed attempts by signature, the most frequent first."""
    groups: dict[str, list[tuple[Row, Row]]] = {}
    for row in sweep.rows:
        for attempt in row.get("attempts") or ({"state": row["state"]},):
            if attempt.get("state") not in (*ORDERLY, None):
                key = attempt.get("signature") or f"{attempt.get('state')}: {_line(attempt.get('reason'))}"
                groups.setdefault(str(key), []).append((row, attempt))
    found = [_failure(name, some) for name, some in groups.items()]
    return sorted(found, key=lambda one: (-one.attempts, one.signature))


def _line(text: Any) -> str:
    return str(text or "").strip().partition("\n")[0]


def _failure(signature: str, some: Sequence[tuple[Row, Row]]) -> Failure:
    trials = {row["number"]: row for row, _ in some}
    _, last = max(some, key=lambda pair: moment(pair[1].get("end")) or 0.0)
    workers = sorted({lane(attempt) for _, attempt in some})
    mended = sum(row["state"] in ("done", "pruned") for row in trials.values())
    log = last.get("log") or ()
    return Failure(signature, str(last.get("state")), str(last.get("reason") or ""), len(some), tuple(trials.values()),
                   mended, tuple(workers), tuple(map(str, [log] if isinstance(log, str) else log)))  # fmt: skip


def lane(attempt: Row) -> str:
    """Who did an attempt: the worker, with its host where it has one."""
    return " on ".join(str(attempt[key]) for key in ("worker", "host") if attempt.get(key) not in (None, "")) or "?"
