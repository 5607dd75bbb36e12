"""Which backend runs when none is demanded, from a table, and how that is told."""

from typing import Any

import jax
import pytest
from flax import nnx

from jaxrec.cells import GRU, LRU, AffineCell, Cell
from jaxrec.cli import main
from jaxrec.config import Call
from jaxrec.recurrence import BACKENDS, choice
from jaxrec.recurrence.backends import choose
from jaxrec.recurrence.choice import Crossover, explain, winner

CPU = jax.default_backend()


class Refuses:
    def refuses(self, cell: Cell) -> str:
        return "it is a test"


class Takes:
    def refuses(self, cell: Cell) -> None:
        return None


WAYS: dict[str, type[Any]] = {"first": Takes, "second": Takes, "never": Refuses, "scan": Takes}


def chosen(monkeypatch: pytest.MonkeyPatch, rows: list[Crossover], cell: Cell, length: int | None) -> str:
    monkeypatch.setattr(choice, "TABLE", tuple(rows))
    return winner(cell, WAYS, length)[0]


@pytest.mark.parametrize(
    ("rows", "length", "name"),
    [
        ([], 9, "scan"),
        ([(Cell, CPU, 1, "first")], 9, "first"),
        ([(Cell, None, 1, "first")], None, "first"),
        ([(Cell, CPU, 10, "first")], 9, "scan"),
        ([(Cell, CPU, 10, "first")], None, "scan"),
        ([(Cell, CPU, 5, "first"), (Cell, CPU, 9, "second")], 9, "second"),
        ([(Cell, CPU, 5, "first"), (Cell, CPU, 9, "never")], 9, "first"),
        ([(AffineCell, CPU, 1, "first"), (Cell, CPU, 9, "second")], 9, "first"),
        ([(Cell, "abacus", 1, "first")], 9, "scan"),
        ([(GRU, CPU, 1, "first")], 9, "scan"),
        ([(Cell, CPU, 1, "elsewhere")], 9, "scan"),
    ],
)
def test_the_nearest_kind_and_then_the_greatest_length_win(
    monkeypatch: pytest.MonkeyPatch, rows: Any, length: int | None, name: str
) -> None:
    given = [Crossover(*row, why="measured") for row in rows]
    assert chosen(monkeypatch, given, LRU(2, 3, rngs=nnx.Rngs(0)), length) == name


def test_every_row_names_a_backend_that_takes_some_cell_and_says_why() -> None:
    for row in choice.TABLE:
        assert row.backend in BACKENDS
        assert row.length >= 0
        assert row.why.endswith(tuple("abcdefghijklmnopqrstuvwxyz0123456789)%"))


def test_spans_of_lengths_cover_all_numbers_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Crossover(Cell, CPU, 10, "adjoint", "fast"), Crossover(Cell, CPU, 30, "scan", "small")
    monkeypatch.setattr(choice, "TABLE", rows)
    found = {entry["name"]: entry for entry in explain(Call.parse("gru"))["backends"]}
    assert found["adjoint"]["chosen"] == [[10, 29]]
    assert found["scan"]["chosen"] == [[1, 9], [30, None]]
    assert found["adjoint"]["why"] == "fast"
    assert type(choose(GRU(2, 3, rngs=nnx.Rngs(0)), None, 29)) is BACKENDS["adjoint"]


def test_listing_backends_for_a_cell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["list", "backends", "--cell", "gru(hidden=8)"]) == 0
    printed = capsys.readouterr().out
    assert f"gru(hidden=8) on {CPU}" in printed
    assert "scan" in printed
    assert "adjoint" in printed
    assert main(["list", "cells", "--cell", "gru"]) == 2
    assert "write list backends --cell, or leave it out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ((), ["any length"]),
        ((10,), ["up to 9 events", "from 10 events on"]),
        ((10, 3000), ["10 to 2,999 events", "up to 9 events, from 3,000 events on"]),
    ],
)
def test_lengths_are_said_in_words(
    rows: tuple[int, ...], words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    names = ["adjoint", "scan"]
    table = tuple(Crossover(Cell, CPU, row, name, "so") for row, name in zip(rows, names, strict=False))
    monkeypatch.setattr(choice, "TABLE", table)
    assert main(["list", "backends", "--cell", "gru(hidden=8)"]) == 0
    printed = capsys.readouterr().out
    for phrase in words:
        assert phrase in printed
