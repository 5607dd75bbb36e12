"""What the atlas's figures are drawn on: paper, letters, fields of colour, axes of events, files."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from jaxrec.config import Mistake
from jaxrec.reports import palette
from jaxrec.reports.atlas_columns import ZERO, fewer, logs, median
from jaxrec.reports.atlas_records import Record, Subject, lags, numbers

FIELDS = 96  # of colour in a row
DOTS = 130  # per inch of a PNG
TICKS = (0, 1, 3, 10, 30, 100, 300, 1000, 3000)
MARKERS = {"circle": "o", "square": "s", "triangle": "^", "diamond": "D", "down": "v", "cross": "X", "hexagon": "h",
           "star": "*", "plus": "P"}  # fmt: skip


@dataclass(frozen=True)
class Paper:
    """What a figure is drawn on."""

    face: str
    ink: str
    soft: str
    line: str
    dark: bool = False

    def hue(self, subject: Subject) -> str:
        ink = palette.INKS[palette.known(subject.family)]
        return ink.dark if self.dark else ink.light

    def shape(self, subject: Subject) -> str:
        return MARKERS[palette.INKS[palette.known(subject.family)].shape]


LIGHT = Paper("#ffffff", "#1b1f24", "#57606a", "#d5dae0")
DARK = Paper("#14171b", "#e7eaee", "#a2abb5", "#343b43", dark=True)


@contextmanager
def styled(paper: Paper) -> Iterator[None]:
    """Matplotlib with the page's letters and colours; the same records give the same file."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise Mistake('figures need matplotlib, which is not installed; pip install "jaxrec[figures]"') from None
    style = {
        "figure.facecolor": paper.face, "axes.facecolor": paper.face, "savefig.facecolor": paper.face,
        "text.color": paper.ink, "axes.labelcolor": paper.soft, "xtick.color": paper.soft, "ytick.color": paper.soft,
        "axes.edgecolor": paper.soft, "grid.color": paper.line, "font.size": 9, "axes.spines.top": False,
        "axes.spines.right": False, "font.family": "sans-serif", "svg.fonttype": "none", "svg.hashsalt": "jaxrec",
        "hatch.linewidth": 0.8, "text.parse_math": False, "legend.frameon": False,
    }  # fmt: skip
    with mpl.rc_context(style):
        yield


def save(figure: Any, base: Path) -> list[Path]:
    files = [base.with_name(f"{base.name}.svg"), base.with_name(f"{base.name}.png")]
    try:
        figure.savefig(files[0], bbox_inches="tight", pad_inches=0.12, metadata={"Date": None}, dpi=DOTS)
        figure.savefig(files[1], bbox_inches="tight", pad_inches=0.12, dpi=DOTS)
    except OSError as error:
        raise Mistake(f"{base.parent} cannot be written ({error.strerror}); choose another folder") from None
    return files


def blank(wide: float, tall: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(wide, tall))


def above(axes: Any, inches: float = 0.12) -> Any:
    from matplotlib.transforms import ScaledTranslation

    return axes.transAxes + ScaledTranslation(0, inches, axes.figure.dpi_scale_trans)


def fields(axes: Any, records: Sequence[Record], edges: Sequence[float], ends: tuple[float, float]) -> None:
    """Colours of gradients over lag, a row a record between ``edges``; what is zero or no number has strokes."""
    import numpy as np

    for record, (top, bottom) in zip(records, pairwise(edges), strict=True):
        own = lags(record)
        values = logs(median(record), numbers(record.get("zeros")))
        kept = [at for at in fewer(own, FIELDS) if at < len(values)]
        if len(kept) < 2:
            continue
        places = [math.log1p(own[at]) for at in kept]
        borders = [places[0], *((a + b) / 2 for a, b in pairwise(places)), places[-1]]
        colours = [[palette.channels(colour(values[at], ends)) for at in kept]]
        axes.pcolormesh(borders, [top, bottom], np.array(colours) / 255, rasterized=True)
        struck(axes, [values[at] for at in kept], borders, top, bottom)


def colour(value: int | None, ends: tuple[float, float]) -> str:
    if value is None or value == ZERO:
        return (palette.NOT_A_NUMBER if value is None else palette.ZERO)[0]
    return palette.shade((value / 100 - ends[0]) / (ends[1] - ends[0]))


def struck(axes: Any, values: Sequence[int | None], borders: Sequence[float], top: float, bottom: float) -> None:
    """Strokes over runs of zeros and of what is no number."""
    from matplotlib.patches import Rectangle

    at = 0
    for value, run in groupby(values, key=lambda value: value if value in (None, ZERO) else 0):
        end = at + len(list(run))
        if value in (None, ZERO):
            stroke, hatch = (palette.NOT_A_NUMBER[1], "xxxxx") if value is None else (palette.ZERO[1], "/////")
            box = (borders[at], top), borders[end] - borders[at], bottom - top
            axes.add_patch(Rectangle(*box, fill=False, edgecolor=stroke, hatch=hatch, linewidth=0))
        at = end


def lag_ticks(axes: Any, last: float) -> None:
    kept = [lag for lag in TICKS if lag <= last]
    axes.set_xticks([math.log1p(lag) for lag in kept], [f"{lag:,}" for lag in kept])
    axes.tick_params(length=2, pad=2)


def bar(figure: Any, paper: Paper, where: tuple[float, float, float, float], low: float, high: float) -> None:
    """The scale of colours with the reserved ones."""
    import numpy as np
    from matplotlib.patches import Rectangle

    axes = figure.add_axes(where)
    shades = [[palette.channels(palette.shade(place / 127)) for place in range(128)]]
    axes.pcolormesh([place / 128 for place in range(129)], [0, 1], np.array(shades) / 255, rasterized=True)
    steps = [
        value for value in range(math.ceil(low), math.floor(high) + 1) if value % max(1, round((high - low) / 5)) == 0
    ]
    axes.set(xlim=(0, 1), ylim=(0, 1), yticks=[])
    axes.set_xticks([(value - low) / (high - low) for value in steps], [f"1e{value}" for value in steps], fontsize=7.5)
    axes.tick_params(length=2, pad=1)
    axes.spines[["left", "bottom"]].set_visible(False)
    for x, (face, stroke), hatch, words in (
        (1.08, palette.ZERO, "/////", "exactly 0"), (1.48, palette.NOT_A_NUMBER, "xxxxx", "not a number")
    ):  # fmt: skip
        axes.add_patch(Rectangle((x, 0), 0.07, 1, facecolor=face, edgecolor=stroke, hatch=hatch, linewidth=0,
                                 clip_on=False))  # fmt: skip
        axes.text(x + 0.09, 0.5, words, color=paper.soft, va="center", fontsize=7.5)
    axes.set_title("log10 of the gradient's norm", loc="left", fontsize=8, color=paper.soft, pad=3)


def event_ticks(axes: Any, low: float, high: float) -> None:
    """Round numbers of events on a logarithmic axis, written as they are."""
    from matplotlib.ticker import NullLocator

    axes.set(xscale="log", xlim=(low, high))
    kept = [value for value in (0.3, *TICKS[1:], 10000) if low <= value <= high]
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(kept, [f"{value:,}" for value in kept])
