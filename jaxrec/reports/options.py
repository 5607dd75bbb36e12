"""What the verbs that print or draw what there is may be told."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from jaxrec.config import Call, Section, Within
from jaxrec.data.options import Preparation


@dataclass(frozen=True, kw_only=True)
class Inspect(Preparation):
    """Look at a file of events: columns, counts, ties, filters, splits, warnings."""

    data: str = field()  # required here: without a default it is written without its name
    """file of events, directory or pattern of them, prepared directory, tfds:NAME, or 'demo'"""
    html: str | None = None
    """also write one self-contained page to this file"""
    json: bool = False
    """print JSON instead of tables"""


@dataclass(frozen=True, kw_only=True)
class Report(Section):
    """Write the page of a finished run, sweep or atlas; say it in one sentence."""

    run: str
    """directory of the run, of the sweep, or of what `jaxrec diagnose` wrote"""
    out: str | None = None
    """file to write the page to; none: report.html in that directory"""
    rounds: Annotated[int, Within(1)] = 1000
    """bootstrap samples behind each interval; of a run"""
    examples: Annotated[int, Within(0)] = 10
    """example histories with their top 5; 0 shows none and never imports jax; of a run"""
    titles: str | None = None
    """table with an item's id and its title, for the examples, such as ml-100k.item"""
    allow_code: bool = False
    """run the copy of a user's cell file that lies in the run directory, for the examples"""
    json: bool = False
    """print the data of the page as JSON"""


@dataclass(frozen=True, kw_only=True)
class Listing(Section):
    """List what there is, without importing it."""

    what: Literal["cells", "data", "losses", "metrics", "backends"]
    """what to list"""
    cell: Call | None = None
    """with backends: which of them take this cell, which is chosen on this machine, and why; imports jax"""
    json: bool = False
    """print JSON instead of a table"""


@dataclass(frozen=True, kw_only=True)
class Check(Section):
    """Hold a cell against the laws of every cell; status 1 where it breaks one."""

    cell: Call
    """the cell, as in gru(hidden=64) or my_cell.py:MyCell(hidden=64)"""
    json: bool = False
    """print JSON instead of a table"""
