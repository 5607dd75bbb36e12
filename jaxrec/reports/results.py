"""The table at the end of a run: the model beside counting baselines and, on built-in data, the generator's ceiling."""

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from jaxrec.reports.tables import print_json, print_table

Result = Mapping[str, Any]
LISTS = ("coverage", "popularity")
NAMES = {"popularity": "popularity", "markov": "Markov, last item", "markov3": "Markov, last three items"}


def print_result(result: Result, *, as_json: bool, run: str) -> None:
    """Everything a person needs to judge the numbers, in 80 columns; JSON is ``result.json`` itself."""
    if as_json:
        print_json(result)
        return
    print(protocol(result))
    for reading in ("masked", "unmasked"):
        if result["test"][reading] is not None:
            columns, rows = table(result, reading)
            print_table(columns, rows, title=title(result, reading))
    for line in notes(result):
        print(textwrap.fill(line, 80))
    print(f'Next: jaxrec recommend --run {run} --history "ITEM,ITEM" --k 10')


def protocol(result: Result) -> str:
    """One sentence: data, split, targets, catalogue, unknown targets."""
    card = result["protocol"]
    counts = card["counts"]
    candidates = counts["items"] if card["catalogue"] == "all" else counts["known_items"]
    unknown = counts["unknown_test_targets"]
    lost = f", {unknown:,} of them unknown in training ({card['unknown_targets']})" if unknown else ""
    split = card["split"]["name"] if isinstance(card["split"], Mapping) else card["split"]
    targets = f"{counts['test_targets']:,} test targets{lost}"
    return f"{card['name']}: {split} split, {targets}, each ranked against {candidates:,} items"


def title(result: Result, reading: str) -> str:
    if result["test"]["masked"] is None:
        return "test"
    return "test, items of the history left out" if reading == "masked" else "test, every item a candidate"


def table(result: Result, reading: str) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows, best baseline first; the share of the ceiling is that of NDCG where it is measured."""
    metrics = [name for name in result["test"][reading] if not name.startswith(LISTS)]
    top = result["ceiling"] and result["ceiling"][reading]
    share = next((name for name in metrics if name.startswith("ndcg")), metrics[0])
    rows = []
    for name, values in lines(result, reading):
        cells = [f"{values[metric]:.4f}" for metric in metrics]
        cells += [f"{values[share] / top[share]:.0%}"] if top else []
        rows.append((name, *cells))
    return ("", *metrics, *(["of ceiling"] if top else [])), rows


def lines(result: Result, reading: str) -> Iterator[tuple[str, Mapping[str, float]]]:
    yield result["model"]["cell"], result["test"][reading]
    for name in reversed(NAMES):
        if name in result["baselines"]:
            yield NAMES[name], result["baselines"][name][reading]
    if result["ceiling"]:
        yield "ceiling (the generator itself)", result["ceiling"][reading]


def about_lists(values: Mapping[str, float]) -> str | None:
    """What the recommended lists look like as a whole."""
    found = {name.partition("@")[0]: value for name, value in values.items() if name.startswith(LISTS)}
    if not found:
        return None
    k = next(name.partition("@")[2] for name in values if name.startswith(LISTS))
    share, events = f"{found['coverage']:.0%}", f"{found['popularity']:,.0f}"
    return f"Lists of {k}: {share} of the catalogue is recommended; items of {events} events on average."


def notes(result: Result) -> Iterator[str]:
    """What else a reader should know, a sentence a line."""
    stopped = f", stopped by {result['stopped']}" if result["stopped"] else ""
    seconds = result["seconds"]["train"]
    best = result["valid"]["epoch"]
    yield f"Best validation at epoch {best} of {result['epochs']}{stopped}; {seconds:.0f} s of training."
    if about := about_lists(result["test"][result["headline"]]):
        yield about
    yield from (f"Warning: {sentence}" for sentence in result["warnings"])
    leaks = result["protocol"].get("leaks")
    if leaks:
        yield f"Protocol: {leaks}."
    if not result["complete"]:
        yield "The run is not complete: the same command, with more --max-seconds, goes on."
