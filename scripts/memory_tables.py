"""Tables of memory tasks for `tables.py`: columns and lines, from rows of results/vanishing_gradients.jsonl."""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]
Table = tuple[list[str], list[list[str]]]


def memory(rows: Sequence[Row]) -> Table:
    """The greatest distance that each cell still solves, by task: no remedy, first seed."""
    found = [row for row in rows if row["remedy"] == "none" and row["seed"] == 0]
    tasks = list(dict.fromkeys(row["task"] for row in found))
    lines = [
        [f"`{cell}`", *(solved([row for row in found if (row["cell"], row["task"]) == (cell, task)]) for task in tasks)]
        for cell in dict.fromkeys(row["cell"] for row in found if "(" not in row["cell"])
    ]
    return ["greatest distance solved (accuracy where it fails)", *tasks], lines


def remedies(rows: Sequence[Row]) -> Table:
    """The same for other starts, clipping and wiring, on the tasks that have them."""
    groups: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        cell = re.sub(r"chrono=\d+", "chrono=reach", row["cell"])  # which is another number at every distance
        groups[cell, row["remedy"], row["task"]].append(row)
    tried = {task for _, remedy, task in groups if remedy != "none"}
    tasks = [task for task in dict.fromkeys(task for *_, task in groups) if task in tried]
    families = {cell.partition("(")[0] for cell, remedy, _ in groups if "(" in cell or remedy != "none"}
    names = sorted({(cell, remedy) for cell, remedy, _ in groups if cell.partition("(")[0] in families})
    lines = [
        [f"`{cell}`", {"none": "clip norm 1"}.get(remedy, remedy), *(solved(groups.get((cell, remedy, task), []))
         for task in tasks)] for cell, remedy in names
    ]  # fmt: skip
    return ["greatest distance solved (accuracy where it fails)", "remedy", *tasks], lines


def solved(found: Sequence[Row]) -> str:
    """The greatest distance solved, and what is reached where it fails."""
    from jaxrec.diagnostics.solve import failed

    ordered = sorted(found, key=distance)
    good = [distance(row) for row in ordered if not failed(row)]
    first = [f" ({row['accuracy']:.2f} at {distance(row)})" for row in ordered if failed(row)][:1]
    return (str(max(good)) if good else "none" if found else "") + "".join(first)


def distance(row: Row) -> int:
    return int(row["distance"])
