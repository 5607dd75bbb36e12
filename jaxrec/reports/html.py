"""One self-contained page: no outside resource, light and dark, readable on a phone and on paper.

A page has no script unless it brings one; then its policy lets that one run, no other, and nothing be fetched.
Everything that is not `Markup` is text and gets escaped, so that an item called `<script>` is only a name.
"""

import base64
import hashlib
import html
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jaxrec.config import Mistake
from jaxrec.data.replacing import replacing
from jaxrec.reports.tables import is_number

VOID = {"meta", "br", "hr", "input"}


class Markup(str):
    """Text that is markup already; only `element` and `raw` make it."""

    __slots__ = ()


def escaped(value: Any) -> Markup:
    """Markup as it is, anything else as escaped text; characters that XML forbids become U+FFFD."""
    if isinstance(value, Markup):
        return value
    text = "".join(c if c in "\t\n\r" or (c >= " " and not "\ud800" <= c <= "\udfff") else "\ufffd" for c in str(value))
    return Markup(html.escape(text))


def element(tag: str, *children: Any, **attributes: Any) -> Markup:
    """`<tag name="value">children</tag>`; a trailing `_` of a name is dropped, inner ones become `-`, None is left out.

    None among the children is left out too.
    """
    words = [
        f' {name.rstrip("_").replace("_", "-")}="{escaped(value)}"'
        for name, value in attributes.items()
        if value is not None
    ]
    start = f"<{tag}{''.join(words)}>"
    if tag in VOID:
        return Markup(start)
    return Markup(f"{start}{joined(children)}</{tag}>")


def joined(children: Iterable[Any]) -> Markup:
    """Children one after the other, escaped where they are text."""
    return Markup("".join(escaped(child) for child in children if child is not None))


def section(title: str, *children: Any, wide: bool = False) -> Markup:
    """A part of a page under a heading; its charts stand side by side where there is room."""
    return element("section", element("h2", title), *children, class_="wide" if wide else None)


def charts(*figures: Markup) -> Markup:
    """Figures side by side where there is room, else one below the other."""
    return element("div", *figures, class_="charts")


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, caption: str | None = None) -> Markup:
    """A table whose columns of numbers stand to the right; wide ones scroll inside their own frame."""
    lines = [[*row] for row in rows]
    right = [bool(lines) and all(_numeric(row[place]) for row in lines) for place in range(len(columns))]
    kinds = ["number" if numeric else None for numeric in right]
    head = element("tr", *(element("th", c, scope="col", class_=k) for c, k in zip(columns, kinds, strict=True)))
    body = (
        element("tr", *(element("td", cell, class_=k) for cell, k in zip(row, kinds, strict=True))) for row in lines
    )
    about = element("caption", caption) if caption else None
    inner = element("table", about, element("thead", head), element("tbody", *body))
    return element("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption or columns[0])


def _numeric(cell: Any) -> bool:
    text = str(cell).strip().rstrip("%").replace("\N{EN DASH}", "0")
    return not isinstance(cell, Markup) and (text == "" or is_number(text.lstrip("+-\N{MINUS SIGN}")))


def facts(pairs: Iterable[tuple[str, Any]], *, compact: bool = False) -> Markup:
    """Names and values, a line each; `compact` for short values, which then stand to the right."""
    lines = (element("div", element("dt", name), element("dd", value), class_="fact") for name, value in pairs)
    return element("dl", *lines, class_="compact" if compact else None)


def tiles(pairs: Iterable[tuple[str, Any, Any]]) -> Markup:
    """A few large numbers: (value, what it is, what to hold it against)."""
    boxes = [
        element("div", element("strong", value), element("span", name), element("small", beside), class_="tile")
        for value, name, beside in pairs
    ]
    return element("div", *boxes, class_="tiles")


def note(sentence: Any, remedy: Any = None, *, kind: str = "warning") -> Markup:
    """A sentence in a box; `kind` is "warning", "good" or "plain" and is also said by the mark in front of it."""
    mark = {"warning": "!", "good": "\N{CHECK MARK}", "plain": "i"}[kind]
    fix = element("span", "\N{RIGHTWARDS ARROW} ", remedy, class_="remedy") if remedy else None
    parts = element("span", mark, class_="mark", aria_hidden="true"), element("span", sentence, fix)
    return element("p", *parts, class_=f"note {kind}")


def code(text: str) -> Markup:
    """A command or a text as it is, wrapped rather than cut."""
    return element("pre", element("code", text))


def page(title: str, lead: Any, *parts: Markup, made_by: str, style: str = "", script: str = "") -> str:
    """The whole page; `lead` is the sentence below the title, `made_by` the command that makes it again.

    `style` is added to that of every page, `script` runs when the page stands.
    """
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    head = joined(
        [
            element("meta", charset="utf-8"),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("meta", name="color-scheme", content="light dark"),
            element("meta", http_equiv="Content-Security-Policy", content=policy(script)) if script else None,
            element("title", title),
            element("style", Markup(STYLE + style)),
        ]
    )
    end = element("footer", "Made ", now, " by ", element("code", made_by))
    main = element("main", element("h1", title), element("p", lead, class_="lead"), *parts, end)
    run = element("script", Markup(script)) if script else None
    body = element("body", main, run)
    return "<!doctype html>\n" + element("html", element("head", head), body, lang="en") + "\n"


def policy(script: str) -> str:
    """What a browser may do with the page: run this script, as it is, and fetch nothing."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def write(path: Path, text: str) -> None:
    """Write a page, whole or not at all. Mistake when the place cannot be written."""
    try:
        with replacing(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise Mistake(f"{path} cannot be written ({error.strerror}); choose another place for the page") from None


# Series colours: Okabe and Ito, "Color Universal Design" (2008), in two sets that keep 3:1 against their background;
# every series has a dash and a label of its own as well.
STYLE = """
:root { --paper: #fff; --ink: #1b1f24; --soft: #57606a; --line: #d5dae0; --face: #f5f7f9; --warn: #b35900;
  --warn-face: #fff5e6; --good: #00704f; --good-face: #e8f6f0; --c0: #0072b2; --c1: #c04f00; --c2: #008a64;
  --c3: #b0568c; --c4: #8f6f00; --c5: #2583bd; --c6: #57606a; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --ink: #e7eaee; --soft: #a2abb5; --line: #343b43;
  --face: #1d2127; --warn: #f2a65a; --warn-face: #2b2218; --good: #4cc9a0; --good-face: #16271f; --c0: #56b4e9;
  --c1: #f08a3c; --c2: #2fc598; --c3: #dd8fbf; --c4: #e3c33a; --c5: #7fb8ff; --c6: #a2abb5; } }
@media print { :root { --paper: #fff; --ink: #000; --soft: #444; --line: #bbb; --face: #fff; --warn: #8a4400;
  --warn-face: #fff; --good: #00543b; --good-face: #fff; --c0: #0072b2; --c1: #c04f00; --c2: #008a64; --c3: #b0568c;
  --c4: #8f6f00; --c5: #2583bd; --c6: #444; } body { font-size: 10pt; } .scroll { overflow: visible; }
  section, figure, tr, .note, .tile { break-inside: avoid; } section.wide { break-inside: auto; }
  h2 { break-after: avoid; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5;
  font-family: system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; -webkit-text-size-adjust: 100%; }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; padding-top: .7rem; border-top: 1px solid var(--line); }
p { margin: .5rem 0; max-width: 48rem; overflow-wrap: anywhere; }
.lead { font-size: 1.15rem; }
.small, small, figcaption span, footer { color: var(--soft); font-size: .85rem; }
.tiles { display: grid; gap: .7rem; grid-template-columns: repeat(auto-fit, minmax(8.8rem, 1fr)); margin: 1rem 0; }
.tile { background: var(--face); border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .8rem; }
.tile strong { display: block; font-size: 1.45rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.tile span, .tile small { display: block; }
.charts { display: grid; gap: 1.2rem 1.5rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 25rem), 1fr)); }
figure { margin: .5rem 0; min-width: 0; max-width: 36rem; }
figcaption { font-weight: 600; font-size: .95rem; }
figcaption span { display: block; font-weight: 400; }
svg { display: block; width: 100%; height: auto; font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans",
  sans-serif; }
svg text { fill: var(--soft); } svg .strong { fill: var(--ink); }
svg .grid { stroke: var(--line); stroke-width: 1; } svg .axis { stroke: var(--soft); stroke-width: 1; }
svg .line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
svg .band { fill: var(--soft); opacity: .16; }
.scroll { overflow-x: auto; margin: .6rem 0; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); font-size: .85rem; padding-bottom: .2rem; }
th, td { padding: .28rem .7rem .28rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { font-weight: 600; border-bottom-width: 2px; } .number { text-align: right; white-space: nowrap; }
td { overflow-wrap: break-word; max-width: 30rem; } td ol { margin: 0; padding-left: 1.3rem; }
dl { margin: .6rem 0; } .fact { display: grid; grid-template-columns: 11rem 1fr; gap: .2rem 1rem; padding: .22rem 0;
  border-bottom: 1px solid var(--line); } dt { color: var(--soft); }
.compact { max-width: 36rem; } .compact .fact { grid-template-columns: 1fr auto; } .compact dd { text-align: right;
  font-variant-numeric: tabular-nums; } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 40rem) { dl:not(.compact) .fact { grid-template-columns: 1fr; gap: 0; } h1 { font-size: 1.4rem; } }
.note { display: flex; gap: .6rem; border-left: 4px solid var(--soft); background: var(--face); padding: .5rem .7rem;
  border-radius: 0 .4rem .4rem 0; } .note.warning { border-color: var(--warn); background: var(--warn-face); }
.note.good { border-color: var(--good); background: var(--good-face); }
.mark { font-weight: 700; color: var(--soft); width: 1rem; flex: none; text-align: center; }
.warning .mark { color: var(--warn); } .good .mark { color: var(--good); }
.remedy { display: block; color: var(--soft); }
pre { background: var(--face); border: 1px solid var(--line); border-radius: .4rem; padding: .6rem .8rem;
  white-space: pre-wrap; overflow-wrap: anywhere; font-size: .88rem; margin: .5rem 0; }
code { font-family: ui-monospace, "SF Mono", "DejaVu Sans Mono", monospace; }
footer { margin-top: 2.5rem; } summary { cursor: pointer; color: var(--soft); margin: .8rem 0; }
"""
