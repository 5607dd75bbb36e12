"""What `jaxrec compare` prints: differences with intervals and tests, then slices, in 80 columns."""

import textwrap
from collections.abc import Mapping
from typing import Any

from jaxrec.reports.tables import print_json, print_table

SURE = 0.05


def print_comparison(found: Mapping[str, Any], *, as_json: bool) -> None:
    """One table a metric, and one of slices a run for the chosen metric."""
    if as_json:
        print_json(found)
        return
    letters = {run["run"]: letter(place) for place, run in enumerate(found["runs"])}
    how = "items of the history left out" if found["reading"] == "masked" else "every item a candidate"
    print(textwrap.fill(f"{found['data']}: {found['targets']:,} test targets of {found['users']:,} users, {how}", 80))
    for run in found["runs"]:
        print(f"  {letters[run['run']]}  {run['run']}  {run['cell']}")
    for metric in found["metrics"]:
        print_metric(found, metric, letters)
    print_slices(found, letters)
    for line in notes(found):
        print(textwrap.fill(line, 80))


def letter(place: int) -> str:
    """A, B, ..., Z, then R27, R28, ..."""
    return chr(ord("A") + place) if place < 26 else f"R{place + 1}"


def print_metric(found: Mapping[str, Any], metric: str, letters: Mapping[str, str]) -> None:
    several = len(found["runs"]) > 2
    rows = []
    for one in found["comparisons"]:
        if one["metric"] == metric:
            interval = f"{one['low']:+.4f} to {one['high']:+.4f}"
            shares = f"{one['wins']:.1%} / {one['losses']:.1%}"
            p = one["p_holm"] if several else one["p"]
            name = f"{letters[one['run']]} - A"
            rows.append((name, f"{one['other']:.4f}", f"{one['delta']:+.4f}", interval, f"{p:.4f}", shares))
    first = next(one["first"] for one in found["comparisons"] if one["metric"] == metric)
    head = "p (Holm)" if several else "p"
    print_table(
        ("", metric, "difference", "95 % interval", head, "better / worse"), rows, title=f"{metric}, A has {first:.4f}"
    )


def print_slices(found: Mapping[str, Any], letters: Mapping[str, str]) -> None:
    """Differences by slice, for the metric that most people quote: NDCG where it is there."""
    metric = next((name for name in found["metrics"] if name.startswith("ndcg")), found["metrics"][0])
    for one in found["comparisons"]:
        if one["metric"] == metric and one["slices"]:
            rows = [
                (name, f"{row['count']:,}", f"{row['first']:.4f}", f"{row['delta']:+.4f}",
                 f"{row['low']:+.4f} to {row['high']:+.4f}")
                for name, row in one["slices"].items()
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
