"""The table at the end of a run: the model beside counting baselines and, on built-in data, the generator's ceiling."""

import shlex
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from jaxrec.reports.tables import print_json, print_table

Result = Mapping[str, Any]
LISTS = ("coverage", "popularity", "gini", "tail", "novelty", "diversity")
NAMES = {
    "popularity": "popularity",
    "recency": "recent items, last first",
    "markov": "Markov, last item",
    "markov3": "Markov, last three items",
    "markov3_shares": "Markov, last three, shares",
    "recent5_markov": "five recent items, then Markov",
}


def print_result(result: Result, *, as_json: bool, run: str, slices: bool = False) -> None:
    """Everything a person needs to judge the numbers, in 80 columns; JSON is ``result.json`` itself."""
    if as_json:
        print_json(result)
        return
    print(textwrap.fill(protocol(result), 80))
    for reading in ("masked", "unmasked"):
        if result["test"][reading] is not None:
            columns, rows = table(result, reading)
            print_table(columns, rows, title=title(result, reading))
    if slices:
        print_slices(result["test"])
    for line in notes(result):
        print(textwrap.fill(line, 80))
    print(following(result, run))


def following(result: Result, run: str) -> str:
    """The command that recommends with this model, with all that it has to be told; long ones go on after a ``\\``."""
    needs = result["model"].get("needs", {})  # which a result from before it was told has not
    features = [f"{name}=VALUE,VALUE" for name in needs.get("context", ())]
    parts = ['--history "ITEM,ITEM"', *(['--times "SECONDS,SECONDS"'] if needs.get("times") else [])]
    parts += ["--user USER"] if needs.get("user") else []
    parts += [f"--context {shlex.join(features)}"] if features else []
    parts += ["--k 10", *(["--allow-code"] if ".py:" in result["model"]["cell"] else [])]
    lines = [f"Next: jaxrec recommend --run {shlex.quote(run)}"]
    for part in parts:
        if len(lines[-1]) + len(part) + 3 > 80:
            lines[-1] += " \\"
            lines.append("     ")
        lines[-1] += f" {part}"
    return "\n".join(lines)


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
    """Columns and rows, best baseline first by the first metric; the share of the ceiling is that of NDCG where it is
    measured.
    """
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
    best = next(iter(result["test"][reading]))
    counters = {NAMES.get(name, name): values[reading] for name, values in result["baselines"].items()}
    yield from sorted(counters.items(), key=lambda row: -row[1][best])
    if result["ceiling"]:
        yield "ceiling (the generator itself)", result["ceiling"][reading]


def print_slices(test: Mapping[str, Any]) -> None:
    """The headline metrics of each slice that has targets."""
    found = test["slices"]
    metrics = [name for name in next(iter(found.values())) if name != "count"]
    rows = [(name, f"{row['count']:,}", *[f"{row[metric]:.4f}" for metric in metrics]) for name, row in found.items()]
    print_table(("test targets", "count", *metrics), rows, title="by kind of target")


def about_intervals(test: Mapping[str, Any], named: str) -> str | None:
    """How far another sample of users could have moved the headline metrics, whose table is so ``named``."""
    found = test.get("intervals")
    if not found:
        return None
    spans = [f"{name} {value[0]:.4f} to {value[1]:.4f}" for name, value in found.items() if isinstance(value, list)]
    return f"{found['level']:.0%} intervals of {named} (bootstrap over {found['over']}): {', '.join(spans)}."


def about_ties(test: Mapping[str, Any]) -> str | None:
    """What the order of equal scores could make of the metrics, where it could change a printed digit."""
    found = test.get("ties") or {"optimistic": {}, "pessimistic": {}}
    spans = [
        f"{name} {low:.4f} to {found['optimistic'][name]:.4f}"
        for name, low in found["pessimistic"].items()
        if found["optimistic"][name] - low >= 5e-5
    ]
    if not spans:
        return None
    return (
        f"Ties: {found['tied_targets']:.1%} of the targets score like another item; the table has the mean over every "
        f"order of equals, which the worst and the best one make {', '.join(spans)}."
    )


def about_sampled(test: Mapping[str, Any]) -> str | None:
    """Metrics among sampled candidates, never in a table with the others."""
    found = ", ".join(f"{name} {value:.4f}" for name, value in test.get("sampled", {}).items())
    return f"Among sampled candidates, not comparable with the table: {found}." if found else None


def about_lists(values: Mapping[str, float]) -> str | None:
    """What the recommended lists look like as a whole."""
    found = {name.partition("@")[0]: value for name, value in values.items() if name.startswith(LISTS)}
    if not found:
        return None
    k = next(name.partition("@")[2] for name in values if name.startswith(LISTS))
    share, events = f"{found['coverage']:.0%}", f"{found['popularity']:,.0f}"
    said = f"Lists of {k}: {share} of the catalogue is recommended; items of {events} events on average"
    if "gini" not in found:  # a result from before these were measured
        return f"{said}."
    more = f"{found['tail']:.0%} of the places go to the tail, {found['novelty']:.1f} bits of novelty"
    apart = f", items of a list {found['diversity']:.2f} apart" if "diversity" in found else ""
    return f"{said}; {more}, Gini index {found['gini']:.2f}{apart}."


def notes(result: Result) -> Iterator[str]:
    """What else a reader should know, a sentence a line."""
    stopped = f", stopped by {result['stopped']}" if result["stopped"] else ""
    seconds = result["seconds"]["train"]
    best = result["valid"]["epoch"]
    yield f"Best validation at epoch {best} of {result['epochs']}{stopped}; {seconds:.0f} s of training."
    test = result["test"]
    spans = about_intervals(test, title(result, result["headline"]))
    said = (spans, about_ties(test), about_sampled(test), about_lists(test[result["headline"]]))
    yield from filter(None, said)
    yield from (f"Warning: {sentence}" for sentence in result["warnings"])
    leaks = result["protocol"].get("leaks")
    if leaks:
        yield f"Protocol: {leaks}."
    if not result["complete"]:
        yield "The run is not complete: the same command, with more --max-seconds, goes on."
