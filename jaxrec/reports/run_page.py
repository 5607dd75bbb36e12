"""The page of a run and the sentence that `jaxrec report` prints."""

import json
import shlex
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrec.reports.charts import Axis, Series, interval_dots, line_chart, percent, short
from jaxrec.reports.html import Markup, charts, code, element, facts, joined, note, page, section, table, tiles, write
from jaxrec.reports.results import (
    NAMES,
    about_lists,
    about_sampled,
    about_ties,
    table as result_table,
    title as result_title,
)
from jaxrec.reports.run_findings import best_counter
from jaxrec.reports.tables import flat, print_json, shown

Found = dict[str, Any]
POINTS = 300  # of a curve at most
FAMILIES = ("history", "popularity", "never in training", "repeat", "new", "tied", "untied")


def print_report(found: Found, *, as_json: bool) -> None:
    """The sentence, the warnings and where the page is; or the data of the page."""
    if as_json:
        print_json(found)
        return
    print(textwrap.fill(found["sentence"], 80))
    for one in found["warnings"]:
        print(textwrap.fill(f"Warning: {one['sentence']}", 80, break_on_hyphens=False))
    for told in found["notes"]:
        print(textwrap.fill(f"Note: {told}", 80, break_on_hyphens=False, break_long_words=False))
    print(f"Page: {found['page']}")


def write_page(found: Found, command: Sequence[str]) -> None:
    """Write the page to where it belongs, whole or not at all."""
    write(Path(found["page"]), run_page(found, shlex.join(command)))


def run_page(found: Found, command: str) -> str:
    """One self-contained page."""
    result = found["result"]
    return page(
        f"{result['model']['cell']} on {result['protocol']['name']}", found["sentence"], headline(found),
        warnings(found), *measured(found), training(found), *sliced(found), *examples(found), protocol(found),
        again(found), made_by=command,
    )  # fmt: skip


def headline(found: Found) -> Markup:
    boxes = []
    for row in found["metrics"]:
        name, best = best_counter(row)
        half = f"{row['low']:.4f} to {row['high']:.4f}"
        boxes.append((f"{row['value']:.4f}", row["metric"], f"{half}; {name}: {best:.4f}"))
    result = found["result"]
    minutes = result["seconds"]["train"] / 60
    weights = sum(result["model"]["parameters"].values())
    boxes.append((f"{minutes:.1f} min", "of training", f"{result['epochs']} epochs, best {result['valid']['epoch']}"))
    boxes.append((short(weights), "parameters", f"{result['model']['parameters']['tables']:,} in tables"))
    return tiles(boxes)


def warnings(found: Found) -> Markup:
    told = [note(one["sentence"], one["remedy"] or None) for one in found["warnings"]]
    told += [note(one, kind="plain") for one in found["notes"]]
    return section("Warnings", *(told or [note("Nothing to object to.", kind="good")]))


def measured(found: Found) -> Iterator[Markup]:
    """Numbers beside counters, with intervals; the other reading; hits at every list length."""
    result = found["result"]
    figures = []
    for row in found["metrics"]:
        counters = sorted(row["counters"].items(), key=lambda pair: -pair[1])
        lines: list[tuple[str, float | None, float | None, float | None]] = [
            (result["model"]["cell"], row["value"], row["low"], row["high"]),
            *((NAMES.get(name, name), value, None, None) for name, value in counters),
        ]
        lines += [("ceiling", row["ceiling"], None, None)] if row["ceiling"] is not None else []
        figures.append(interval_dots(row["metric"], lines, Axis("mean over the test targets", low=0), exact=four))
    rates = found["hit_rates"]
    figures.append(
        line_chart("Hits at every length of list", [Series("this model", rates["k"], rates["hr"]),
                   Series("a random order", rates["k"], rates["random"])], Axis("length of the list", log=True),
                   Axis("targets in the list", form=percent, low=0, high=1))
    )  # fmt: skip
    readings = [reading for reading in ("masked", "unmasked") if result["test"][reading] is not None]
    tables = [table(*result_table(result, reading), caption=result_title(result, reading)) for reading in readings]
    test = result["test"]
    more = [about_ties(test), about_sampled(test), about_lists(test[result["headline"]])]
    about = "Lines are 95% bootstrap intervals of the mean over test targets, whole people drawn again and again."
    yield section(
        "How well it recommends", element("p", about, class_="small"), charts(*figures), *tables,
        *(element("p", told) for told in more if told), wide=True,
    )  # fmt: skip


def four(value: float) -> str:
    return f"{value:.4f}"


def training(found: Found) -> Markup:
    """Loss, validation metric, gradient norm by epochs; speed by time with compiling shaded."""
    curves, result = found["curves"], found["result"]
    train, valid = thinned(curves["train"]), curves["valid"]
    if not train:
        return section("Training", note("There are no training records (metrics.jsonl).", kind="plain"))
    an_epoch = max(1, result["steps"] / max(result["epochs"], 1))
    epochs = [record["step"] / an_epoch for record in train]
    best = [(float(result["valid"]["epoch"]), "best epoch")] if valid else []
    names = [row["metric"] for row in found["metrics"]]
    figures = [
        line_chart("Training loss", [Series("loss", epochs, [r["loss"] for r in train])], Axis("epoch", low=0),
                   Axis("mean loss of an event"), marks=best),
        line_chart("Validation", [Series(name, [r["epoch"] for r in valid], [r[name] for r in valid])
                   for name in names if valid and name in valid[0]], Axis("epoch", low=0),
                   Axis("mean over validation targets", low=0), marks=best),
        line_chart("Gradient norm", [Series("norm", epochs, [r["grad_norm"] for r in train])], Axis("epoch", low=0),
                   Axis("global norm before clipping", log=True)),
        speed(train, curves["compile_seconds"]),
    ]  # fmt: skip
    return section("Training", charts(*figures))


def speed(train: list[Found], compiling: float) -> Markup:
    """Events per second over time; each value stands at the end of the time that it is the mean of."""
    rate = [r["events"] / r["seconds"] if r["seconds"] else None for r in train]
    usual = np.median([value for value in rate if value]) if any(rate) else 0
    told = f"median {usual:,.0f}; the first dispatch holds {compiling:.1f} s of compiling"
    shade = (0.0, compiling, "compiling") if compiling > 0 else None
    line = Series("speed", [r["at"] for r in train], rate)
    return line_chart("Speed", [line], Axis("seconds since the start", low=0), Axis("events a second", low=0),
                      note=told if compiling > 0 else None, shade=shade)  # fmt: skip


def thinned(records: list[Found]) -> list[Found]:
    """At most POINTS records, evenly spaced, the first and the last among them."""
    if len(records) <= POINTS:
        return records
    return [records[int(n)] for n in np.linspace(0, len(records) - 1, POINTS).round()]


def sliced(found: Found) -> Iterator[Markup]:
    """The first metric of every slice as dots, all of them as a table."""
    rows, metrics = found["slices"], [row["metric"] for row in found["metrics"]]
    if not rows:
        return
    figures = []
    for place, metric in enumerate(metrics[:2]):
        dots = [(f"{r['slice']} ({r['targets']:,})", *(r["metrics"][metric][key] for key in ("value", "low", "high")))
                for r in rows]  # fmt: skip
        whole = found["metrics"][place]["value"]
        axis = Axis("mean over the slice", low=0)
        figures.append(
            interval_dots(f"{metric} by kind of target", dots, axis, reference=(whole, "all targets"), exact=four)
        )
    cells = [
        [r["slice"], f"{r['targets']:,}", f"{r['share']:.1%}", *(with_interval(r["metrics"][m]) for m in metrics)]
        for r in rows
    ]
    about = (
        "Popularity deciles: tenths of the items by training events, 1 the most popular. No interval below 20 targets."
    )
    yield section(
        "Who is served well", element("p", about, class_="small"), charts(*figures),
        table(("slice", "targets", "share", *metrics), cells), wide=True,
    )  # fmt: skip


def with_interval(value: Found) -> str:
    if value["low"] is None:
        return f"{value['value']:.4f}"
    return f"{value['value']:.4f} ({value['low']:.4f} to {value['high']:.4f})"


def examples(found: Found) -> Iterator[Markup]:
    if not found["examples"]:
        return
    rows = []
    for one in found["examples"]:
        earlier = one["events"] - len(one["history"])
        more = [element("small", f"{earlier:,} earlier")] if earlier else []
        lines = [*more, *map(named, one["history"])]
        history = joined(joined([element("br") if n else None, part]) for n, part in enumerate(lines))
        rows.append([one["user"], history, ranked(one["top"]), truth(one)])
    about = (
        "Evenly spaced among the people tested, each at the last test target; lists and ranks as in the evaluation. "
        "A check mark is the item that came next."
    )
    columns = ("who", "history, oldest first", "the model's first five", "what came next")
    yield section("Examples", element("p", about, class_="small"), table(columns, rows), wide=True)


def named(item: Found) -> str:
    if not item["item"]:
        return "(not in the catalogue)"
    return f"{item['title']} ({item['item']})" if item["title"] else item["item"]


def ranked(top: list[Found]) -> Markup:
    lines = [
        element("li", element("b", f"{named(item)} \N{CHECK MARK}") if item["hit"] else named(item)) for item in top
    ]
    return element("ol", *lines)


def truth(one: Found) -> Markup:
    rank = "cannot be found" if one["rank"] is None else f"rank {one['rank']:,g}"
    return joined([named(one["truth"]), element("br"), element("small", rank)])


MASKED = {
    "none": "every item can be recommended, seen or not",
    "history": "items of the history cannot be recommended",
    "history_except_target": "items of the history cannot be recommended, but for the target",
}


def protocol(found: Found) -> Markup:
    """The protocol card in words."""
    card = found["result"]["protocol"]
    n, source, ties, kind = card["counts"], card["source"], card["ties"], card["sequence"]
    gone, files = n["removed"], ", ".join(source["files"]) or "the built-in generator"
    removed = f"removed {gone['events']:,} events, {gone['sequences']:,} {kind}s, {gone['items']:,} items"
    columns = ", ".join(f"{role} = {name}" for role, name in (source["columns"] or {}).items())
    split = ", ".join(value if key == "name" else f"{key} {shown(value)}" for key, value in flat(card["split"]))
    unknown = f"{n['unknown_test_targets']:,} of the latter never occur in training ({card['unknown_targets']})"
    tied = "no times"
    if ties["events_tied_share"] is not None:
        shares = f"{ties['events_tied_share']:.1%} of events, {ties['users_tied_last_share']:.1%} of last ones"
        tied = f"{ties['policy']}; {shares}"
    rows = [
        ("Data", f"{card['name']}: {files} ({source['format']}); {source['time'] or 'no time'}"),
        ("Columns", columns or "generated"),
        ("Size", f"{n['events']:,} events, {n['sequences']:,} {kind}s, {n['items']:,} items"),
        ("Filters", removed if any(gone.values()) else "nothing was removed"),
        ("Split", split),
        ("Leaks", card["leaks"]),
        ("Training", f"{n['train_events']:,} events, {n['known_items']:,} distinct items"),
        ("Targets", f"{n['valid_targets']:,} validation, {n['test_targets']:,} test; {unknown}"),
        ("Candidates", f"{n['items']:,} items ({card['catalogue']}); {MASKED[card['mask_seen']]}"),
        ("Ties of time", tied),
        ("Ties of score", "a target among equals gets the mean over every order of them"),
        ("Fingerprint", "; ".join([card["fingerprint"], *(f"sha256 {one}" for one in source["sha256"])])),
    ]
    return section("Protocol", facts(rows))


def again(found: Found) -> Markup:
    """The command, the machine, and every option."""
    machine, result = found["machine"], found["result"]
    packages = ", ".join(f"{name} {version}" for name, version in machine.get("packages", {}).items())
    cores = f"{machine.get('cores_usable')} of {machine.get('cores')} cores, {machine.get('memory_gib')} GiB"
    rows = [
        ("Run", f"{found['run']} ({result['run_id']}), seed {result['seed']}"),
        ("Stopped by", result["stopped"] or "the last epoch"),
        ("Machine", f"{machine.get('cpu')}, {cores}; {', '.join(machine.get('devices', []))}"),
        ("Versions", f"jaxrec {machine.get('jaxrec')}, Python {machine.get('python')}, {packages}"),
        ("Commit", f"{machine.get('commit', 'unknown')}{' with changes' if machine.get('dirty') else ''}"),
    ]
    options = json.dumps(found["config"], ensure_ascii=False, indent=1)
    return section(
        "To make it again", code(found["command"]), facts(rows if machine else rows[:2]),
        element("details", element("summary", "every option"), code(options)),
    )  # fmt: skip
