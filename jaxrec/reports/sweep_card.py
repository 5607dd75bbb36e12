"""`jaxrec report` on the folder of a sweep: write the page of its rows, say the outcome."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxrec.reports.options import Report
from jaxrec.reports.sweep_findings import Importance, notes, sentence, warnings
from jaxrec.reports.sweep_page import write_page
from jaxrec.reports.sweep_rows import Row
from jaxrec.reports.tables import print_json

Found = dict[str, Any]


def sweep_card(
    options: Report, about: Row, rows: Sequence[Row], command: Sequence[str], *,
    importances: Sequence[Importance] = (), judged: str = "",
) -> Found:  # fmt: skip
    """Write the page of the sweep in ``options.run``; returns what it says: sentence, warnings, notes, best, page."""
    folder = Path(options.run)
    out = Path(options.out) if options.out else folder / "report.html"
    sweep = write_page(out, about, rows, command, importances=importances, judged=judged, folder=folder)
    best = sweep.best
    return {
        "sweep": options.run,
        "page": str(out),
        "sentence": sentence(sweep),
        "trials": dict(sweep.counts()),
        "best": best and {"point": dict(best.point), "valid": best.mean, "interval": best.interval, "test": best.test,
                          "seeds": best.values, "trials": [row["number"] for row in best.done]},
        "warnings": [{"sentence": told, "remedy": remedy} for told, remedy in warnings(sweep)],
        "notes": list(notes(sweep)),
    }  # fmt: skip


def print_sweep(found: Found, *, as_json: bool) -> None:
    """The sentence, the warnings and where the page is; or all of it as JSON."""
    if as_json:
        print_json(found)
        return
    told = [found["sentence"], *(f"Warning: {one['sentence']}" for one in found["warnings"])]
    for line in (*told, *(f"Note: {one}" for one in found["notes"])):
        print(textwrap.fill(line, 80, break_on_hyphens=False, break_long_words=False))
    print(f"Page: {found['page']}")
