"""Every cell on every backend that takes it obeys every law. Cells, backends and their choices are found.

One cell of each kind obeys all of them on every backend; every other cell, as it is by default, obeys on the plain scan
those that its own code can break. All choices of all cells on all backends run with --long, and by
experiments/law_matrix.py.
"""

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from jaxrec.cells import Cell, find, kinds
from jaxrec.cells.find import ours
from jaxrec.config import Call
from jaxrec.recurrence import variants
from jaxrec.recurrence.backends import named
from jaxrec.recurrence.cases import Case
from jaxrec.recurrence.laws import LAWS, Law, examine

FEATURES, HIDDEN = 3, 4


@functools.lru_cache(maxsize=1)
def case(cell: Call, backend: Call) -> Case:
    return Case(lambda rngs: find(cell, FEATURES, hidden=HIDDEN, rngs=rngs), FEATURES, backend=backend)


# one cell of each kind, and one whose state is complex: these meet every backend here, the others with --long
REPRESENTATIVES = {"GRU", "IndRNN", "MinGRU", "LRU", "CausalConv", "QRNN", "MLSTM"}
CELLS, RUNS = variants.cells(), variants.backends()


# what the plain scan does not already promise for whatever cell of one example it is given
CORE = {"contract", "jit", "owners", "gradients", "alive", "streaming"}


def examined() -> Iterator[Any]:
    for run, cell in itertools.product(RUNS, CELLS):
        for law in LAWS:
            if law.concerns(run):
                marks = [] if always(run, cell, law) else [pytest.mark.long]
                yield pytest.param(cell, run, law, id=f"{cell}-{run}-{law.name}", marks=marks)


def always(run: Call, cell: Call, law: Law) -> bool:
    """Whether it is examined without --long: all that has no cached program must take minutes, not hours."""
    if run.name == "newton":
        return str(cell) in ("GRU", "IndRNN")  # one of its ways for dense cells, one for the others
    if str(cell) in REPRESENTATIVES:
        return run != Call.parse("scan(hoist=false)")  # which on a CPU is scan
    return run == Call("scan") and not cell.options and law.name in CORE


@pytest.mark.parametrize(("cell", "backend", "law"), list(examined()))
def test_law(cell: Call, backend: Call, law: Law) -> None:
    if (reason := named(backend).refuses(case(cell, backend).fresh)) is not None:
        pytest.skip(reason)
    result = examine(law, case(cell, backend))
    assert result.passed, result.sentence


def test_every_kind_is_represented() -> None:
    of = {name: kind for name, kind in ours().items() if name in REPRESENTATIVES}
    assert set(of) == REPRESENTATIVES
    bases = {kind for kind in vars(kinds).values() if isinstance(kind, type) and issubclass(kind, Cell)}
    nearest = {next(base for base in kind.__mro__ if base in bases) for kind in of.values()}
    assert nearest == bases


def test_choices_are_found() -> None:
    cells = ["GRU", "LSTM", 'GRU(reset="before")', 'Elman(activation="relu")']
    assert {Call.parse(text) for text in cells} <= set(CELLS)
    assert {Call.parse(text) for text in ("scan", "scan(hoist=true)", "scan(hoist=false)")} <= set(RUNS)
