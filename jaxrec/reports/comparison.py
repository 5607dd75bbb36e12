"""What `jaxrec compare` prints: differences with intervals and tests, then slices, in 80 columns."""

import textwrap
from collections.abc import Mapping
from typing import Any

from jaxrec.reports.tables import print_json, print_table

SURE = 0.05


def print_comparison(found: Mapping[str, Any], *, as_json: bool) -> None:
    """Differences in every metric, and by slice in one of them."""
    if as_json:
        print_json(found)
        return
    letters = {run["run"]: letter(place) for place, run in enumerate(found["runs"])}
    how = "items of the history left out" if found["reading"] == "masked" else "every item a candidate"
    print(textwrap.fill(f"{found['data']}: {found['targets']:,} test targets of {found['users']:,} users, {how}", 80))
    for run in found["runs"]:
        print(f"  {letters[run['run']]}  {run['run']}  {run['cell']}")
    print_differences(found, letters)
    print_slices(found, letters)
    for line in notes(found):
        print(textwrap.fill(line, 80))


def letter(place: int) -> str:
    """A, B, ..., Z, then R27, R28, ..."""
    return chr(ord("A") + place) if place < 26 else f"R{place + 1}"


def print_differences(found: Mapping[str, Any], letters: Mapping[str, str]) -> None:
    """Two runs in one table, a row a metric; more runs in a table a metric, a row for each run but the first."""
    if len(found["runs"]) == 2:
        rows = [(one["metric"], f"{one['first']:.4f}", *cells(one, "p")) for one in found["comparisons"]]
        print_table(("", "A", "B", "B - A", "95 % interval", "p", "wins/losses"), rows)
        return
    for metric in found["metrics"]:
        held = [one for one in found["comparisons"] if one["metric"] == metric]
        rows = [(f"{letters[one['run']]} - A", *cells(one, "p_holm")) for one in held]
        columns = ("", metric, "difference", "95 % interval", "p (Holm)", "wins/losses")
        print_table(columns, rows, title=f"{metric}, A has {held[0]['first']:.4f}")


def cells(one: Mapping[str, Any], p: str) -> tuple[str, ...]:
    interval = f"{one['low']:+.4f}, {one['high']:+.4f}"
    shares = f"{one['wins']:.1%}/{one['losses']:.1%}".replace("%/", "/")
    return f"{one['other']:.4f}", f"{one['delta']:+.4f}", interval, f"{one[p]:.4f}", shares


def print_slices(found: Mapping[str, Any], letters: Mapping[str, str]) -> None:
    """Differences by slice, for the metric that most people quote: NDCG where it is there. A slice that holds every
    target says nothing new.
    """
    metric = next((name for name in found["metrics"] if name.startswith("ndcg")), found["metrics"][0])
    for one in found["comparisons"]:
        if one["metric"] == metric and one["slices"]:
            rows = [
                (name, f"{row['count']:,}", f"{row['first']:.4f}", f"{row['delta']:+.4f}",
                 f"{row['low']:+.4f} to {row['high']:+.4f}")
                for name, row in one["slices"].items()
                if row["count"] < found["targets"]
            ]  # fmt: skip
            title = f"{metric} by slice, {letters[one['run']]} - A"
            print_table(("", "targets", "A", "difference", "95 % interval"), rows, title=title)


def notes(found: Mapping[str, Any]) -> list[str]:
    """How to read the numbers, and whether anything can be told apart at all."""
    sure = [one for one in found["comparisons"] if one["p_holm"] < SURE]
    told = f"{len(sure)} of {len(found['comparisons'])} differences are significant (p < {SURE:g})."
    how = (
        f"Intervals: paired bootstrap over users. p: permutation test, {found['rounds']:,} rounds"
        + (", corrected for the number of runs (Holm)." if len(found["runs"]) > 2 else ".")
        + " One run each: another seed moves the numbers too."
    )
    return [told, how, *(f"Note: {sentence}." for sentence in found["notes"])]
