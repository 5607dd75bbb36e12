"""The atlas as files for papers and READMEs: SVG and PNG by matplotlib, in the page's own colours.

`atlas` and `atlas-dark` are the strips that the page begins with; `atlas-heat`, `atlas-curves`, `atlas-horizon` and
`atlas-tasks` are left out where they have no records.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxrec.reports.atlas_columns import span
from jaxrec.reports.atlas_findings import Reach, Row, four, rows, shown
from jaxrec.reports.atlas_page import ordered
from jaxrec.reports.atlas_panels import curves, heat, horizon, memory
from jaxrec.reports.atlas_paper import DARK, LIGHT, Paper, above, bar, blank, fields, lag_ticks, save, styled
from jaxrec.reports.atlas_records import Atlas, Record, gathered, lags


def figures(records: Sequence[Record], folder: Path) -> list[Path]:
    """Write every figure that the records have, as SVG and as PNG; returns the files."""
    atlas = gathered(records)
    made: list[tuple[str, Paper, Callable[[Atlas, Paper], Any]]] = [
        ("atlas", LIGHT, strips), ("atlas-dark", DARK, strips), ("atlas-heat", LIGHT, heat),
        ("atlas-curves", LIGHT, curves), ("atlas-horizon", LIGHT, horizon), ("atlas-tasks", LIGHT, memory),
    ]  # fmt: skip
    files: list[Path] = []
    for name, paper, draw in made:
        with styled(paper):
            figure = draw(atlas, paper)
            if figure is not None:
                files += save(figure, folder / name)
    return files


def strips(atlas: Atlas, paper: Paper) -> Any:
    """A strip a cell, with its half-life, 1 %, information horizon, and its numbers beside it."""
    found = ordered(atlas, shown(atlas, rows(atlas)))
    if not found:
        return None
    figure = blank(9.4, 0.34 * len(found) + 1.25)
    tall = figure.get_figheight()
    axes = figure.add_axes((0.17, 0.75 / tall, 0.45, 0.34 * len(found) / tall))
    last = max(lag for row in found for lag in lags(row.record) or [1.0])
    for place, row in enumerate(found):
        strip(axes, paper, row, place, span(atlas))
        beside(axes, paper, row, place)
    axes.set(xlim=(0, math.log1p(last)), ylim=(len(found) - 0.5, -0.5), yticks=[])
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.xaxis.tick_top()
    lag_ticks(axes, last)
    for x, words in ((1.03, "half-life"), (1.19, "1 % left"), (1.35, "events used"), (1.58, "NDCG@10")):
        axes.text(x, 1, words, transform=above(axes), color=paper.soft, va="bottom", fontsize=8.5)
    axes.text(0, 1, "events back", transform=above(axes, 0.3), color=paper.soft, va="bottom", fontsize=8.5)
    bar(figure, paper, (0.17, 0.38 / tall, 0.24, 0.11 / tall), *span(atlas))
    words = "line: half is left; dashed: 1 %;\ndiamond: information horizon, 95 %"
    figure.text(0.66, 0.49 / tall, words, color=paper.soft, fontsize=8, va="top")
    return figure


def strip(axes: Any, paper: Paper, row: Row, place: int, ends: tuple[float, float]) -> None:
    fields(axes, [row.record], [place - 0.3, place + 0.12], ends)
    if row.label not in ("exploding", "zero"):
        for name, dash in (("half_life", "-"), ("one_percent", (0, (2, 1)))):
            value = row.horizons[name].value
            if value is not None:
                for colour, wide, look in (("white", 3, "-"), ("black", 1.4, dash)):
                    x = math.log1p(value)
                    axes.plot([x, x], [place - 0.38, place + 0.2], color=colour, lw=wide, ls=look)
    uses = row.uses if row.matters else Reach()
    if uses.value is not None:
        low, high = (math.log1p(one if one is not None else uses.value) for one in (uses.low, uses.high))
        axes.plot([low, high], [place + 0.3] * 2, color=paper.ink, lw=1.4, solid_capstyle="butt")
        axes.plot([math.log1p(uses.value)], [place + 0.3], marker="D", ms=4.6, color=paper.ink, mec=paper.face)


def beside(axes: Any, paper: Paper, row: Row, place: int) -> None:
    """The name with the mark of its family on the left, numbers on the right."""
    at = axes.get_yaxis_transform()
    name = row.subject.name if len(row.subject.name) <= 18 else row.subject.name[:17] + "\N{HORIZONTAL ELLIPSIS}"
    look = {"marker": paper.shape(row.subject), "color": paper.hue(row.subject), "ms": 6, "clip_on": False}
    axes.plot([-0.035], [place], transform=at, **look)
    axes.text(-0.06, place, name, transform=at, ha="right", va="center", weight="bold")
    uses = "nothing" if not row.matters else row.uses.text
    between = f"  {row.uses.between}" if row.matters and row.uses.between else ""
    grows = row.label == "exploding"
    half, one = ("grows" if grows else row.horizons[name].text for name in ("half_life", "one_percent"))
    for x, words in ((1.03, half), (1.19, one), (1.35, uses), (1.58, four(row.ndcg[0]))):
        axes.text(x, place, words, transform=at, va="center")
    axes.text(1.405, place, between, transform=at, va="center", color=paper.soft, fontsize=7.5)
