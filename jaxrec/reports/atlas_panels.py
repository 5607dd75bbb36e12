"""The atlas's figures of many parts: maps over training, curves, horizon against accuracy, memory tasks."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from jaxrec.reports.atlas_columns import median, span, tasks
from jaxrec.reports.atlas_findings import Reach, Row, rows, shown
from jaxrec.reports.atlas_paper import Paper, bar, blank, event_ticks, fields, lag_ticks
from jaxrec.reports.atlas_records import Atlas, Record, Subject, lags, part, phase, step

STAGES = {"start": (0, (1, 1.5)), "middle": (0, (5, 2)), "end": "-"}
DASHES = ("-", (0, (6, 2)), (0, (2, 2)), (0, (8, 2, 2, 2)), (0, (4, 1)), (0, (1, 2)))
NAMED = 12  # marks, up to which each has its name


def multiples(atlas: Atlas, kept: Sequence[Subject], tall: float) -> tuple[Any, Iterator[tuple[Subject, Any]]]:
    """A figure with axes for each subject; families have rows of their own unless each has one cell."""
    known = {id(one) for one in kept}
    lines = [[one for one in some if id(one) in known] for _, some in atlas.families]
    wide = min(5, max(map(len, lines)))
    if wide == 1:
        lines, wide = [list(kept)], min(4, len(kept))
    cut = [line[at : at + wide] for line in lines for at in range(0, len(line), wide)]
    figure = blank(0.6 + 2.35 * wide, 0.5 + tall * len(cut))
    grid = figure.subplots(len(cut), wide, squeeze=False)
    figure.subplots_adjust(hspace=0.62, wspace=0.3, top=1 - 0.7 / figure.get_figheight())
    for axes in grid.flat:
        axes.set_visible(False)
    return figure, ((one, grid[r][c]) for r, line in enumerate(cut) for c, one in enumerate(line))


def titled(axes: Any, paper: Paper, subject: Subject, words: str) -> None:
    axes.set_visible(True)
    name = subject.name if len(subject.name) <= 28 else subject.name[:27] + "\N{HORIZONTAL ELLIPSIS}"
    axes.set_title(name, loc="left", color=paper.hue(subject), fontsize=9, weight="bold", pad=12 if words else 4)
    axes.text(0, 1.03, words, transform=axes.transAxes, color=paper.soft, fontsize=7.5, va="bottom")


def explained(figure: Any, paper: Paper, words: str) -> None:
    figure.text(0.125, 1 - 0.1 / figure.get_figheight(), words, color=paper.soft, fontsize=8.5)


def heat(atlas: Atlas, paper: Paper) -> Any:
    """Steps back by training step, on one scale."""
    kept = [one for one in atlas.subjects if len(followed(one, atlas.main)) > 1]
    if not kept:
        return None
    figure, places = multiples(atlas, kept, 1.85)
    for subject, axes in places:
        records = followed(subject, atlas.main)
        titled(axes, paper, subject, "")
        fields(axes, records, [place - 0.5 for place in range(len(records) + 1)], span(atlas))
        for name, dash in (("half_life", "-"), ("one_percent", (0, (2, 1)))):
            line = [Reach.of(part(record, "horizons", name)).value for record in records]
            points = [(math.log1p(value), at) for at, value in enumerate(line) if value is not None]
            if points:
                axes.plot(*zip(*points, strict=True), color="white", lw=1.4, ls=dash)
        last = max(lag for record in records for lag in lags(record) or [1.0])
        axes.set(xlim=(0, math.log1p(last)), ylim=(len(records) - 0.5, -0.5))
        ends = sorted({0, len(records) // 2, len(records) - 1})
        axes.set_yticks(ends, [f"{step(records[at]):,}" for at in ends], fontsize=7.5)
        lag_ticks(axes, last)
    tall, wide = figure.get_figheight(), figure.get_figwidth()
    bar(figure, paper, (0.125, -0.32 / tall, 2.3 / wide, 0.11 / tall), *span(atlas))
    rest = f"rows of {atlas.main:,} events; lines: half and 1 % left"
    explained(figure, paper, f"events back (across) by training step (down), {rest}")
    return figure


def followed(subject: Subject, main: int) -> list[Record]:
    """A first layer's gradients over training, one a step."""
    records = subject.of("gradient", length=main, layer=(subject.layers or [0])[0])
    return list({step(one): one for one in records}.values())


def curves(atlas: Atlas, paper: Paper) -> Any:
    """The gradient over lag at the start, the middle and the end, with half-lives."""
    kept = [one for one in atlas.subjects if followed(one, atlas.shown(one))]
    if not kept:
        return None
    figure, places = multiples(atlas, kept, 1.9)
    for subject, axes in places:
        records = followed(subject, atlas.shown(subject))
        titled(axes, paper, subject, f"rows of {atlas.shown(subject):,} events")
        for name, record in stages(records).items():
            curve(axes, paper, subject, record, name)
        last = max(lags(records[-1]) or [1.0])
        axes.set(ylim=span(atlas), xlim=(0, math.log1p(last)))
        axes.grid(axis="y", lw=0.6)
        lag_ticks(axes, last)
    words = (
        "log10 of the gradient's norm against events back; dotted: before training, dashed: halfway, solid: at the end"
    )
    explained(figure, paper, words if len(kept) > 1 else words.replace("; ", "\n", 1))
    return figure


def stages(records: Sequence[Record]) -> dict[str, Record]:
    """The records at the start, nearest to the middle, and at the end."""
    last = records[-1]
    between = [one for one in records if phase(one) == "during" and one is not last]
    first = next((one for one in records if phase(one) == "start" and one is not last), None)
    middle = min(between, key=lambda one: abs(step(one) - step(last) / 2), default=None)
    found = {"start": first, "middle": middle, "end": last}
    return {name: one for name, one in found.items() if one is not None}


def curve(axes: Any, paper: Paper, subject: Subject, record: Record, stage: str) -> None:
    """A line, a dot at its half-life, and the number of that at the end."""
    own, values = lags(record), median(record)
    points = [(math.log1p(lag), value) for lag, value in zip(own, values, strict=False) if value is not None]
    if not points:
        return
    colour = paper.hue(subject)
    axes.plot(*zip(*points, strict=True), color=colour, ls=STAGES[stage], lw=1.9 if stage == "end" else 1.2)
    half = Reach.of(part(record, "horizons", "half_life")).value
    if half is None or record.get("label") == "exploding":
        return
    _, level = min(points, key=lambda point: abs(point[0] - math.log1p(half)))
    axes.plot([math.log1p(half)], [level], marker="o", ms=4, color=colour, mec=paper.face)
    if stage == "end":
        words = f"half-life {Reach(half).text}"
        axes.annotate(words, (math.log1p(half), level), (4, 6), textcoords="offset points", fontsize=7.5)


def horizon(atlas: Atlas, paper: Paper) -> Any:
    """NDCG@10 against the half-life and the information horizon."""
    found = [row for row in shown(atlas, rows(atlas)) if row.ndcg[0] is not None]
    if len(found) < 2:
        return None
    figure = blank(8.6, 3.5)
    sides = figure.subplots(1, 2, sharey=True)
    against(sides[0], paper, [(row, row.horizons["half_life"]) for row in found], "half-life of the gradient, events")
    uses = [(row, row.uses if row.matters else Reach()) for row in found]
    against(sides[1], paper, uses, "information horizon, events")
    sides[0].set_ylabel("NDCG@10")
    families_of(figure, paper, [row.subject for row in found])
    figure.subplots_adjust(wspace=0.08)
    return figure


def against(axes: Any, paper: Paper, found: Sequence[tuple[Row, Reach]], words: str) -> None:
    ends = [value for _, reach in found for value in (reach.low, reach.place, reach.high) if value is not None]
    event_ticks(axes, max(0.8 * min(ends, default=1), 0.25), 1.9 * max(ends, default=10))
    axes.set_xlabel(words)
    axes.grid(axis="y", lw=0.6)
    for row, reach in found:
        dot(axes, paper, row, reach)
    if len(found) <= NAMED:
        named(axes, [(reach.place, row.ndcg[0], row.subject.name[:24]) for row, reach in found])


def dot(axes: Any, paper: Paper, row: Row, reach: Reach) -> None:
    """A cell with both intervals; an arrow where it reaches farther than was measured."""
    value, low, high = row.ndcg
    if reach.place is None or value is None:
        return
    x, colour = max(reach.place, 0.3), paper.hue(row.subject)
    if low is not None and high is not None:
        axes.plot([x, x], [low, high], color=colour, lw=0.9, alpha=0.6)
    if reach.value is None:
        axes.annotate("", (1.35 * x, value), (x, value), arrowprops={"arrowstyle": "->", "color": colour})
    elif reach.low is not None and reach.high is not None:
        axes.plot([max(reach.low, 0.3), reach.high], [value, value], color=colour, lw=0.9, alpha=0.6)
    axes.plot([x], [value], marker=paper.shape(row.subject), ms=6.5, color=colour, mec=paper.face)


def named(axes: Any, points: Sequence[tuple[float | None, float | None, str]]) -> None:
    """Names beside their marks; on the left where another mark is close on the right."""
    known = [(max(x, 0.3), y, name) for x, y, name in points if x is not None and y is not None]
    levels = [y for _, y, _ in known] or [0.0]
    near = (max(levels) - min(levels)) / 14
    for x, y, name in known:
        close = any(1 <= a / x < 1.6 and abs(b - y) <= near and other != name for a, b, other in known)
        side = "right" if close else "left"
        axes.annotate(name, (x, y), (-5 if close else 5, 4), textcoords="offset points", fontsize=7.5, ha=side)


def families_of(figure: Any, paper: Paper, subjects: Sequence[Subject]) -> None:
    """A mark a family, below the figure."""
    from matplotlib.lines import Line2D

    kept = {one.family: one for one in subjects}
    marks = [
        Line2D([], [], ls="", marker=paper.shape(one), color=paper.hue(one), label=name[:20])
        for name, one in kept.items()
    ]
    figure.legend(handles=marks, loc="upper center", bbox_to_anchor=(0.5, -0.04), ncols=min(len(marks), 9), fontsize=8)


def memory(atlas: Atlas, paper: Paper) -> Any:
    """Accuracy against distance, a panel a task."""
    told = [(one, tasks(one)) for one in atlas.subjects]
    names = list(dict.fromkeys(point["task"] for _, some in told for point in some))
    if not names:
        return None
    deep, wide = -(-len(names) // 2), min(len(names), 2)
    figure = blank(4.3 * wide, 3.1 * deep)
    grid = figure.subplots(deep, wide, squeeze=False, sharey=True)
    for axes in grid.flat[len(names) :]:
        axes.set_visible(False)
    for axes, name in zip(grid.flat, names, strict=False):
        one_task(axes, paper, atlas, name, [(one, [p for p in some if p["task"] == name]) for one, some in told])
    grid[0][0].set_ylabel("accuracy")
    families_of(figure, paper, [one for one, some in told if some])
    figure.subplots_adjust(hspace=0.55, wspace=0.08)
    return figure


def one_task(axes: Any, paper: Paper, atlas: Atlas, name: str, told: Sequence[tuple[Subject, list[Record]]]) -> None:
    every = [point for _, some in told for point in some]
    reach = [point["distance"] for point in every]
    event_ticks(axes, max(0.9 * min(reach), 0.3), 1.1 * max(reach))
    axes.set(xlabel="events between cue and answer", ylim=(0, 1.03))
    axes.set_title(name[:40], loc="left", weight="bold", fontsize=9)
    axes.grid(axis="y", lw=0.6)
    chance = max((point["chance"] for point in every if point["chance"]), default=None)
    if chance is not None:
        axes.axhline(chance, color=paper.soft, lw=0.9, ls=(0, (4, 3)))
        at = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        axes.annotate("chance", (0.01, chance), (0, 2), color=paper.soft, fontsize=7.5, **at)
    for subject, points in told:
        place = next(some.index(subject) for _, some in atlas.families if subject in some)
        x, y = ([point[key] for point in points] for key in ("distance", "accuracy"))
        axes.plot(x, y, color=paper.hue(subject), ls=DASHES[place % len(DASHES)], lw=1.6, marker=".", ms=5)
