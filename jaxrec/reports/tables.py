"""What the command line prints: tables for people, JSON for programs. Results go to standard output."""

import dataclasses
import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any, TextIO

from jaxrec.config import Call, Section, to_dict
from jaxrec.reports.listing import CellEntry, Entry


def print_json(value: Any) -> None:
    """One line of JSON; keys keep their order, so that two outputs can be compared line by line."""
    print(json.dumps(value, ensure_ascii=False, default=str))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> None:
    """A table as wide as the terminal; numbers to the right, text wrapped and never cut."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    lines = list(rows)
    wide = None if title is None else min(len(title), Console().width)  # a title is not cut to a narrow table
    table = Table(box=SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False, min_width=wide)
    for place, column in enumerate(columns):
        numbers = bool(lines) and all(is_number(line[place]) for line in lines)
        table.add_column(column, justify="right" if numbers else "left", overflow="fold", no_wrap=place == 0)
    for line in lines:
        table.add_row(*map(Text, line))
    Console().print(table)


def is_number(text: str) -> bool:
    """Whether a cell is a plain number: digits with a point, thousands and a sign."""
    return text.replace(".", "", 1).replace("-", "", 1).replace(",", "").isdigit()


def flat(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and leaves of a nested mapping, in order."""
    for name, value in mapping.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def shown(value: Any) -> str:
    """A value in a cell of a table: floats with four significant digits, lists separated by spaces."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return " ".join(map(shown, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def print_config(section: Section, origins: Mapping[str, str], *, as_json: bool) -> None:
    """Every option, its value and where the value came from."""
    values = dict(flat(to_dict(section)))
    if as_json:
        print_json({key: {"value": value, "origin": origins[key]} for key, value in values.items()})
        return
    print_table(("option", "value", "origin"), [(key, shown(value), origins[key]) for key, value in values.items()])


def print_recommendations(
    histories: Sequence[Sequence[Any]], lists: Sequence[Sequence[tuple[Any, float]]], *, as_json: bool
) -> None:
    """The list for each history, best first; in JSON `{"history": [...], "items": [...], "scores": [...]}` a line."""
    for history, best in zip(histories, lists, strict=True):
        if as_json:
            items, scores = [item for item, _ in best], [float(score) for _, score in best]
            print_json({"history": list(history), "items": items, "scores": scores})
            continue
        rows = [(str(place), str(item), f"{score:.4f}") for place, (item, score) in enumerate(best, start=1)]
        print_table(("rank", "item", "score"), rows, title=f"after {' '.join(map(str, history[-8:])) or 'nothing'}")


def print_scored(found: Mapping[str, Any], out: str, *, as_json: bool) -> None:
    """What `jaxrec score` wrote, and at which rate."""
    if as_json:
        print_json({"out": out, **found})
        return
    rate = f", {found['new'] / found['seconds']:,.0f} a second" if found["new"] else ""
    print(f"{out}: {found['histories']:,} histories, {found['new']:,} of them now in {found['seconds']:.1f} s{rate}")


def print_card(card: Mapping[str, Any], out: str, *, as_json: bool) -> None:
    """The protocol card of prepared data."""
    if as_json:
        print_json(card)
        return
    print_table(("prepared", "value"), [("directory", out), *((key, shown(value)) for key, value in flat(card))])


@contextmanager
def progress(stream: TextIO) -> Iterator[Callable[[str], None] | None]:
    """Where a person watches: writes a line over the one before it, and leaves nothing behind; elsewhere None."""
    if not stream.isatty():
        yield None
        return
    erase = "\r\x1b[K"

    def show(line: str) -> None:
        stream.write(erase + line[: shutil.get_terminal_size().columns - 1])
        stream.flush()

    try:
        yield show
    finally:
        stream.write(erase)
        stream.flush()


LAW = ("name", "passed", "largest", "tolerance", "sentence")


def print_laws(results: Sequence[Any], *, as_json: bool) -> None:
    """One row for each law: kept or broken, the largest difference and what was allowed."""
    if as_json:
        print_json([{name: getattr(result, name) for name in LAW} for result in results])
        return
    rows = [
        ("kept" if r.passed else "BROKEN", r.name, shown(r.largest), shown(r.tolerance), r.sentence) for r in results
    ]
    print_table(("", "law", "largest", "allowed", "meaning"), rows)


def print_entries(what: str, entries: Sequence[Entry], *, as_json: bool) -> None:
    """What there is of one kind: how to write it and what it is."""
    if as_json:
        print_json([dataclasses.asdict(entry) for entry in entries])
        return
    if what == "cells":
        print_cells([entry for entry in entries if isinstance(entry, CellEntry)])
        return
    print_table((what, "as written, with its options", "what it is"), [(e.name, e.call, e.sentence) for e in entries])


def print_backends(cell: Call, found: Mapping[str, Any], *, as_json: bool) -> None:
    """What `jaxrec.recurrence.choice.explain` found: which backends take a cell, and which one runs it when."""
    if as_json:
        print_json(found)
        return
    rows = []
    for e in found["backends"]:
        lengths = ", ".join(span(first, last) for first, last in e["chosen"])
        rows.append((e["name"], "yes" if e["refuses"] is None else f"no: {e['refuses']}", lengths, e["why"]))
    print_table(("backend", "takes it", "chosen for", "because"), rows, f"{cell} on {found['platform']}")


def span(first: int, last: int | None) -> str:
    """From the ``first`` number of events to the ``last``, in words; None has no end."""
    if last is None:
        return "any length" if first == 1 else f"from {first:,} events on"
    return f"up to {last:,} events" if first == 1 else f"{first:,} to {last:,} events"


def print_cells(entries: Sequence[CellEntry]) -> None:
    """Cells by family: kind, size at inputs and ``hidden`` of 128, paper, and backends but those that take all."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    everywhere = set.intersection(*(set(entry.backends) for entry in entries)) if entries else set()
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("cell", "kind", "state", "weights", "backends", "source"):
        numbers = column in ("state", "weights")
        table.add_column(column, justify="right" if numbers else "left", overflow="fold", no_wrap=column == "cell")
    for family, cells in groupby(sorted(entries, key=lambda e: (e.family, e.name)), key=lambda e: e.family):
        table.add_row(family, style="bold")
        for e in cells:
            own = " ".join(name for name in e.backends if name not in everywhere)
            sizes = thousands(e.state), thousands(e.parameters)
            table.add_row(f" {e.name}", e.kind or "", *sizes, own, first_author(e.source))
    Console().print(table)
    print(f"""\
State and weights are numbers at inputs and hidden of 128. Every cell also runs
on {" and ".join(sorted(everywhere))}. --json has options, sentence, link and file.""")


def first_author(source: str) -> str:
    """``Gers & Schmidhuber 2000`` as ``Gers+ 2000``."""
    return re.sub(r"(?: et al\.| &| and |,).* (?=\d{4}$)", "+ ", source)


def thousands(number: int | None) -> str:
    return "" if number is None else f"{number:,}"
