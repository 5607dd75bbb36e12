"""Listings are read from the source; what they say must be what importing would find."""

import dataclasses
import inspect
import json
import re
from pathlib import Path

import pytest

from jaxrec.config import Call, squash
from jaxrec.reports.listing import CellEntry, entries
from jaxrec.reports.tables import print_entries


def test_cells_are_those_that_can_be_imported():
    import jaxrec.cells as cells

    found = {name for name, kind in vars(cells).items() if inspect.isclass(kind) and issubclass(kind, cells.Cell)}
    concrete = {name.lower() for name in found if not inspect.isabstract(vars(cells)[name])}
    assert {entry.name for entry in entries("cells")} == concrete >= {"gru", "lstm", "elman"}


def test_losses_and_metrics_are_those_that_can_be_imported():
    import jaxrec.losses as losses
    from jaxrec.metrics.lists import LISTS
    from jaxrec.metrics.ranking import METRICS

    exported = {name: getattr(losses, name) for name in losses.__all__}
    classes = {squash(name): kind for name, kind in exported.items() if inspect.isclass(kind)}
    found = {squash(entry.name): entry for entry in entries("losses")}
    assert found.keys() == classes.keys() >= {"softmax", "bprmax"}
    for name, entry in found.items():  # with the options that it inherits, and its own defaults
        options = {field.name: field.default for field in dataclasses.fields(classes[name])}
        assert Call.parse(entry.call).options == options
    assert {entry.name for entry in entries("metrics")} == {*METRICS, *LISTS}


def test_backends_and_data_are_those_that_can_be_imported():
    from jaxrec.data import read
    from jaxrec.recurrence.backends import BACKENDS

    assert {entry.name for entry in entries("backends")} == set(BACKENDS)
    readers = {name.removeprefix("read_") for name in vars(read) if name.startswith("read_")}
    assert {entry.name for entry in entries("data")} == readers | {"demo"}


def test_every_cell_names_its_family_and_its_paper_with_a_link():
    for entry in entries("cells"):
        assert isinstance(entry, CellEntry)
        assert entry.family
        assert re.fullmatch(r".* (19|20)\d\d", entry.source), entry
        assert entry.link.startswith("https://"), entry
        assert entry.parameters > entry.state > 0
        assert "scan" in entry.backends


@pytest.mark.parametrize("what", ["cells", "losses", "backends", "metrics", "data"])
def test_every_entry_has_a_sentence_and_a_file(what: str):
    for entry in entries(what):
        assert len(entry.sentence) > 10, entry
        assert (Path(__file__).parents[2] / entry.file).is_file()


def test_what_is_written_can_be_given_to_the_command_line():
    for what in ("losses", "backends"):
        for entry in entries(what):
            assert Call.parse(entry.call).name == entry.name


def test_a_new_cell_is_listed_once_it_is_exported(tmp_path: Path):
    cells = tmp_path / "jaxrec" / "cells"
    cells.mkdir(parents=True)
    (cells / "cell.py").write_text(
        "class Cell:\n    pass\n"
        "class Fast(Cell):\n    def __init__(self): ...\n    @abstractmethod\n    def affine(self): ...\n"
    )
    (cells / "tiny.py").write_text(
        "from jaxrec.cells.cell import Fast\n"
        "class Tiny(Fast):\n"
        '    """Tiny unit: one gate.\n\n    More."""\n'
        "    def __init__(self, features, hidden, gate='soft', *, order: int = 2, rngs): ...\n"
    )
    export = cells / "__init__.py"
    export.write_text("from jaxrec.cells.cell import Cell, Fast\n")
    assert entries("cells", tmp_path / "jaxrec") == []
    export.write_text(export.read_text() + "from jaxrec.cells.tiny import Tiny as Tiny\n")
    [entry] = entries("cells", tmp_path / "jaxrec")
    assert (entry.name, entry.call) == ("tiny", "tiny(hidden, gate='soft', order=2)")
    assert (entry.sentence, entry.file) == ("Tiny unit: one gate.", "jaxrec/cells/tiny.py")


def test_tables_fit_eighty_columns_and_json_is_complete(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("COLUMNS", "80")
    print_entries("cells", entries("cells"), as_json=False)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    print_entries("cells", entries("cells"), as_json=True)
    [gru] = [row for row in json.loads(capsys.readouterr().out) if row["name"] == "gru"]
    assert gru["file"] == "jaxrec/cells/gru.py"
    assert "hidden" in gru["call"]
