"""The gradient-flow atlas: how far each cell reaches, and whether that matters, on one self-contained page."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxrec.reports import palette
from jaxrec.reports.atlas_columns import LEVELS, Limits, data, fewer, median, picked, span
from jaxrec.reports.atlas_drawings import GLYPHS, labels, lag_axis, mark, patterns, scale, strip, told
from jaxrec.reports.atlas_findings import Row, definitions, four, lead, notes, rows, sentence, shown
from jaxrec.reports.atlas_records import Atlas, Record, gathered, lags, numbers
from jaxrec.reports.atlas_sections import cells, gates, inside, matters, person, spectra, tasks, together
from jaxrec.reports.atlas_tables import tables
from jaxrec.reports.html import Markup, code, element, facts, joined, note, page, section, write
from jaxrec.reports.sweep_columns import script_text
from jaxrec.reports.sweep_page import asset

SCRIPTS = ("uplot.js", "plots.js", "atlas_base.js", "atlas_lines.js", "atlas_maps.js", "atlas_start.js")
STYLES = ("uplot.css", "plots.css", "atlas.css")
LARGEST = 2_900_000  # bytes of a page; it is thinned until it fits
POINTS = 32  # of a curve in what is returned
SENTENCES = 6  # cells whose sentences are not put away


def write_atlas(records: Sequence[Record], out: Path, command: Sequence[str]) -> Record:
    """Write the page of records; returns what it says: its rows, sentences and notes."""
    atlas = gathered(records)
    text, limits = fitting(atlas, shlex.join(command))
    write(out, text)
    return summary(atlas) | {"page": str(out), "bytes": len(text.encode()), "lags": limits.lags}


def summary(atlas: Atlas) -> Record:
    """What the atlas says, as plain numbers and sentences."""
    found = rows(atlas)
    return {
        "sentence": lead(atlas, shown(atlas, found)),
        "sentences": [sentence(row, of(row, found)) for row in shown(atlas, found)],
        "notes": notes(atlas, found), "rows": [row.plain() | {"curve": thin(row.record)} for row in found],
    }  # fmt: skip


def thin(record: Record) -> Record:
    """A few points of a curve."""
    own, zeros = lags(record), numbers(record.get("zeros"))
    places = fewer(own, POINTS)
    return {"lags": [own[at] for at in places], "log10": picked(median(record), places),
            "zeros": picked(zeros, places)}  # fmt: skip


def fitting(atlas: Atlas, command: str) -> tuple[str, Limits]:
    """The fullest page that is small enough, and to what it was thinned."""
    for limits in LEVELS:
        text = atlas_page(atlas, command, limits)
        if len(text.encode()) <= LARGEST:
            break
    return text, limits


def atlas_page(atlas: Atlas, command: str, limits: Limits) -> str:
    """One self-contained page."""
    found = rows(atlas)
    embedded = element("script", Markup(script_text(data(atlas, found, limits))), type="application/json", id="atlas")
    missing = element("noscript", note("The curves and maps below need the page's own script.", kind="plain"))
    return page(
        "Gradient-flow atlas", lead(atlas, shown(atlas, found)), patterns(), missing, *sentences(atlas, found),
        *reach(atlas, found), *tools(atlas), *together(atlas, found), *cells(atlas, found), *matters(atlas, found),
        *tasks(atlas), *person(atlas), *gates(atlas), *spectra(atlas), *inside(atlas), *tables(atlas, found),
        believed(atlas, found, limits), *again(command), embedded, made_by=command,
        style="".join(map(asset, STYLES)) + palette.style(),
        script="(() => {\n" + "".join(map(asset, SCRIPTS)) + "})();\n",
    )  # fmt: skip


def of(row: Row, found: Sequence[Row]) -> list[Row]:
    """The rows of the same subject."""
    return [one for one in found if one.subject is row.subject]


def sentences(atlas: Atlas, found: Sequence[Row]) -> Iterator[Markup]:
    """What each cell reaches, in words."""
    told = [
        element("li", mark(row.subject.family), element("span", _parted(sentence(row, of(row, found)))),
                data_subject=atlas.subjects.index(row.subject))
        for row in shown(atlas, found)
    ]  # fmt: skip
    if len(told) <= 1:
        return
    rest = element("details", element("summary", f"and {len(told) - SENTENCES:,} more"),
                   element("ul", *told[SENTENCES:], class_="said"))  # fmt: skip
    yield section("In a sentence each", element("ul", *told[:SENTENCES], class_="said"),
                   rest if len(told) > SENTENCES else None)  # fmt: skip


def _parted(text: str) -> Markup:
    name, _, rest = text.partition(": ")
    return joined([element("b", name), ": ", rest])


def reach(atlas: Atlas, found: Sequence[Row]) -> Iterator[Markup]:
    """A strip for each cell, the farthest of each family first, and its numbers."""
    main = shown(atlas, found)
    if not main:
        return
    last = max((lag for row in main for lag in lags(row.record)), default=1.0)
    heads = (
        "cell",
        joined(["events back", lag_axis(last)]),
        "half-life",
        "1 % left",
        "events used",
        "NDCG@10",
        "label at",
    )
    head = element("tr", *(element("th", one, scope="col") for one in heads))
    body = [_row(atlas, row, of(row, found), last) for row in ordered(atlas, main)]
    table = element("table", element("thead", head), element("tbody", *body), id="reach")
    about = (
        f"Colour: log10 of the gradient's norm in rows of {atlas.main:,} events, one scale for all. Line: half of the "
        "gradient is left; dashed: 1 %. Diamond: information horizon, how many last events the model uses, with its "
        "95 % interval. Intervals stand below the numbers."
    )
    glyphs = element("ul", *(element("li", f"{glyph} {name}") for name, glyph in GLYPHS.items()), class_="key")
    yield section("How far each cell reaches", element("p", about, class_="small"), scale(*span(atlas)), table, glyphs,
                  wide=True)  # fmt: skip


def ordered(atlas: Atlas, main: Sequence[Row]) -> list[Row]:
    families = [family for family, _ in atlas.families]
    return sorted(main, key=lambda row: (families.index(row.subject.family), -(row.horizons["half_life"].place or 0)))


def _row(atlas: Atlas, row: Row, every: Sequence[Row], last: float) -> Markup:
    place = atlas.subjects.index(row.subject)
    name = element("button", row.subject.name, type="button", data_only=place, title=f"show {row.subject.cell} alone")
    value, low, high = row.ndcg
    between = element("small", f"{four(low)} to {four(high)}") if low is not None and high is not None else None
    uses = told(row.uses) if row.matters else element("span", "nothing", element("small", "that could be measured"))
    half, one = row.horizons["half_life"], row.horizons["one_percent"]
    grows = element("span", "grows") if row.label == "exploding" else None
    cells = [
        ("cell", joined([mark(row.subject.family), element("span", name, element("small", row.subject.family))])),
        (None, strip(row, last, *span(atlas))),
        ("half-life", grows or told(half)), ("1 % left", grows or told(one)),
        ("events used", uses if row.information else "\N{EN DASH}"),
        ("NDCG@10", element("span", four(value), between)), ("label at", labels(every)),
    ]  # fmt: skip
    return element("tr", *(element("td", cell, data_name=name) for name, cell in cells), data_subject=place)


def tools(atlas: Atlas) -> Iterator[Markup]:
    """What is chosen holds for everything below: cells, length, layer, and how it is drawn."""
    if not atlas.subjects:
        return
    boxes = [_family(atlas, family) for family, _ in atlas.families]
    few = len(atlas.subjects) <= 12
    heading = element("summary", "Cells: ", element("span", id="chosen", aria_live="polite"))
    alone = "hidden" if len(atlas.subjects) == 1 else None
    picked = element("details", heading, *boxes, id="cells", open="open" if few else None, hidden=alone)
    layers = sorted({layer for subject in atlas.subjects for layer in subject.layers})
    choices = [
        choice("length", "rows of", [(str(one), f"{one:,} events") for one in atlas.lengths], str(atlas.main)),
        choice("layer", "layer", [(str(one), str(one)) for one in layers], ""),
        choice("relative", "gradient", [("norm", "as it is"), ("relative", "against lag 0")], "norm"),
        choice("even", "lags", [("log", "logarithmic"), ("even", "even")], "log"),
    ]
    every = element("button", "show all cells", id="every", type="button", hidden="hidden")
    yield element("div", picked, *(one for one in choices if one), every, class_="tools scripted", id="tools",
                  hidden="hidden")  # fmt: skip


def _family(atlas: Atlas, family: str) -> Markup:
    boxes = [
        element("label", element("input", type="checkbox", value=place, checked="checked"), subject.name)
        for place, subject in enumerate(atlas.subjects)
        if subject.family == family
    ]
    name = element("button", family, type="button", data_family=family, title="only this family")
    return element("div", mark(family), name, *boxes, class_="boxes")


def choice(name: str, words: str, options: Sequence[tuple[str, str]], chosen: str) -> Markup | None:
    """A list to choose from; none where there is nothing to choose."""
    if len(options) < 2:
        return None
    made = [
        element("option", text, value=value, selected="selected" if value == chosen else None)
        for value, text in options
    ]
    return element("label", words, " ", element("select", *made, id=name))


def believed(atlas: Atlas, found: Sequence[Row], limits: Limits) -> Markup:
    """Definitions, and what to beware of."""
    kinds = {one["kind"] for subject in atlas.subjects for one in subject.records}
    longest = max((len(lags(row.record)) for row in found), default=0)
    thin = [] if longest <= limits.lags else [
        f"Curves hold at most {limits.lags} lags, even in the logarithm, to keep the page small; the records hold all."
    ]  # fmt: skip
    lines: list[Any] = [note(one, kind="plain") for one in [*notes(atlas, found), *thin]]
    if "gradient" not in kinds:
        lines.append(note("There are no gradients among the records.", kind="plain"))
    return section("What the words mean, and what to beware of", facts(definitions(atlas)), *lines)


def again(command: str) -> Iterator[Markup]:
    if command:
        yield section("To make it again", code(command))
