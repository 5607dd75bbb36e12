"""The pictures of experiments/bench_recurrence.py: `python scripts/recurrence_page.py [--rows FILE] [--out PAGE.html]`,
and with --picture the top of the page as experiments/results/recurrence.png.

One page without script or outside resource, for every place that rows come from (a device and its options): how much
faster each backend is than scan, with the largest difference in values and gradients in the same square; time against
length and against width; and the roofline. Of rows about the same thing the last counts. Nothing is drawn by hand.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pictures import page_of_rows

from jaxrec.reports.charts import Axis, Series, line_chart
from jaxrec.reports.html import Markup, charts, page, section, table

GATES = {"GRU": 3, "LSTM": 4}  # of which the roofline knows the work
Row = dict[str, Any]


def rows(path: Path) -> list[Row]:
    """The last row about each candidate of each group."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        found[tuple(row[name] for name in ("place", "cell", "shape", "pass", "candidate"))] = row
    return list(found.values())


def seconds(row: Row) -> float | None:
    """What counts on the row's device; None for a candidate that could not run."""
    return row.get("cpu_seconds" if row["place"].startswith("cpu") else "seconds")


def matrix(found: list[Row], way: str) -> Markup:
    """Speed-up over scan and the largest difference from it, for every cell at every shape."""
    times = {(r["cell"], r["shape"], r["candidate"]): r for r in found if r["pass"] == way and seconds(r)}
    names = list(dict.fromkeys(r["candidate"] for r in found if r["pass"] == way and r["candidate"] != "scan"))
    lines = []
    for cell, shape in dict.fromkeys((cell, shape) for cell, shape, name in times if name == "scan"):
        scan = times[cell, shape, "scan"]
        lines.append(
            [cell, shape, f"{1e3 * seconds(scan):.4g}", *(square(times.get((cell, shape, n)), scan) for n in names)]
        )
    return table(["cell", "shape", "scan, ms", *names], lines, caption=f"Times faster than scan, {way}")


def square(row: Row | None, scan: Row) -> str:
    if row is None:
        return "\N{EN DASH}"
    apart = f" ({row['difference']:.0e})" if "difference" in row else ""
    return f"{seconds(scan) / seconds(row):.2f}{apart}"


def against(found: list[Row], axis: str, fixed: tuple[str, str]) -> list[Markup]:
    """Time against length or width wherever rows differ in nothing else at three places or more."""
    groups: dict[tuple[Any, ...], dict[str, list[tuple[int, float]]]] = {}
    for row in found:
        if row["shape"] and seconds(row):
            key = (row["cell"], row["pass"], *(row[name] for name in fixed))
            groups.setdefault(key, {}).setdefault(row["candidate"], []).append((row[axis], seconds(row)))
    drawn = []
    for (cell, way, *values), lines in groups.items():
        series = [Series(name, *zip(*sorted(points), strict=True)) for name, points in lines.items() if len(points) > 2]
        if series:
            at = ", ".join(f"{name} {value}" for name, value in zip(fixed, values, strict=True))
            across, up = Axis("events" if axis == "time" else axis, log=True), Axis("seconds", log=True)
            drawn.append(line_chart(f"{cell}, {way}, {at}", series, across, up))
    return drawn


def work(row: Row) -> tuple[float, float]:
    """Operations of the products of a pass, and the least bytes that it must move: weights, inputs, outputs, slopes."""
    width, events = row["width"], row["batch"] * row["time"]
    passes = 3 if row["pass"] == "forward and backward" else 1
    weights = 2 * GATES[row["cell"]] * width**2
    moved = 2 * events * width + weights
    return passes * 2.0 * events * weights, 4.0 * moved * (2 if passes == 3 else 1)


def roofline(found: list[Row]) -> list[Markup]:
    """What is reached, between what a large copy and a large product reach on the same machine."""
    roof = next((row for row in reversed(found) if row["candidate"] == "roof"), None)
    known = [row for row in found if row["cell"] in GATES and seconds(row)]
    if roof is None or not known:
        return []
    peak, stream = roof["flops_per_second"], roof["bytes_per_second"]
    names = list(dict.fromkeys(row["candidate"] for row in known))
    points = []
    for name in names:
        done = sorted(
            (work(row)[0] / work(row)[1], work(row)[0] / seconds(row)) for row in known if row["candidate"] == name
        )
        points.append(Series(name, *zip(*done, strict=True)))
    places = sorted({x for one in points for x in one.x} | {peak / stream, 1.0})
    line = Series("roof", places, [min(peak, stream * x) for x in places])
    x, y = Axis("operations per byte", log=True), Axis("operations per second", log=True)
    return [line_chart("Roofline", [line, *points], x, y, note="lines join one candidate's shapes")]


def place_section(place: str, found: list[Row]) -> Markup:
    ways = dict.fromkeys(row["pass"] for row in found if row["shape"])
    refused = sorted({(r["candidate"], r["cell"], r["skipped"]) for r in found if "skipped" in r})
    parts: Iterable[Markup] = [
        charts(
            *roofline(found), *against(found, "time", ("batch", "width")), *against(found, "width", ("batch", "time"))
        ),
        *(matrix(found, way) for way in ways),
        *([table(["candidate", "cell", "why it did not run"], refused)] if refused else []),
    ]
    return section(place, *parts, wide=True)


def made(path: Path) -> str:
    """The page of a file of rows."""
    found = rows(path)
    places = dict.fromkeys(row["place"] for row in found)
    parts = [place_section(place, [row for row in found if row["place"] == place]) for place in places]
    lead = "Medians of rounds in which all candidates of a group took turns; CPU time on a CPU."
    return str(page("Recurrences", lead, *parts, made_by="python scripts/recurrence_page.py"))


if __name__ == "__main__":
    sys.exit(page_of_rows(__doc__, "recurrence", made))
