"""The picture of experiments/bench_catalogue.py: `python scripts/catalogue_page.py [--rows FILE] [--out PAGE.html]`,
and with --picture the top of the page as experiments/results/catalogue.png.

Time and memory of a step against the size of the catalogue, from the rows; of rows about the same thing the last
counts. Nothing is drawn by hand.
"""

import json
import sys
from pathlib import Path
from typing import Any

from pictures import page_of_rows

from jaxrec.reports.charts import Axis, Series, line_chart
from jaxrec.reports.html import Markup, charts, page, section, table

Row = dict[str, Any]


def rows(path: Path) -> dict[str, list[Row]]:
    """The last row of each way at each size, by way and in order of size."""
    found: dict[str, dict[int, Row]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        found.setdefault(row["way"], {})[row["items"]] = row
    return {way: [by_size[items] for items in sorted(by_size)] for way, by_size in found.items()}


def drawn(found: dict[str, list[Row]]) -> list[Markup]:
    """Two charts: milliseconds and bytes of a step."""
    steps = {way: [row for row in some if "step_ms" in row] for way, some in found.items() if way != "update"}
    items = Axis("items", log=True)
    time = [Series(way, sizes(some), [row["step_ms"]["median"] for row in some]) for way, some in steps.items()]
    memory = [Series(way, sizes(some), [held(row) / 1e6 for row in some]) for way, some in steps.items()]
    widest = max(steps.values(), key=len)
    memory.append(Series("the table alone", sizes(widest), [row["table_bytes"] / 1e6 for row in widest]))
    return [
        line_chart("CPU time of a step", time, items, Axis("milliseconds", log=True)),
        line_chart("Memory of a step: state, data, temporary", memory, items, Axis("megabytes", log=True)),
    ]


def sizes(some: list[Row]) -> list[int]:
    return [row["items"] for row in some]


def held(row: Row) -> float:
    """Bytes that the program holds: what goes in, what is donated included, and what it needs on the way."""
    return float(row["memory_bytes"]["arguments"] + row["memory_bytes"]["temporary"])


def lines(found: dict[str, list[Row]]) -> list[list[str]]:
    made = []
    for row in (row for some in found.values() for row in some):
        if "skipped" in row:
            made.append([row["way"], f"{row['items']:,}", row["skipped"], *["\N{EN DASH}"] * 4])
            continue
        step, over = row["step_ms"], row["over_small"]
        made.append(
            [
                row["way"], f"{row['items']:,}", f"{step['median']:.2f} ({step['low']:.2f} to {step['high']:.2f})",
                f"{over['median']:.2f}", f"{row['dispatch_ms']['median']:.2f}", f"{held(row) / 1e6:,.0f}",
                "\N{EN DASH}" if row["resident_bytes"] is None else f"{row['resident_bytes'] / 1e6:,.0f}",
            ]
        )  # fmt: skip
    return made


def made(path: Path) -> str:
    """The page of a file of rows."""
    found = rows(path)
    columns = ["way", "items", "ms a step", "times 10,000 items", "ms a dispatch", "MB by XLA", "MB resident"]
    lead = "One training step of a GRU of 64 on 512 positions, one CPU thread, as the catalogue grows."
    step = section("A step", charts(*drawn(found)), table(columns, lines(found)), wide=True)
    return str(page("Catalogues", lead, step, made_by="python scripts/catalogue_page.py"))


if __name__ == "__main__":
    sys.exit(page_of_rows(__doc__, "catalogue", made))
