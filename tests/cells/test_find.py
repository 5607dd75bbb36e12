"""Cells by name and from a user's own file."""

from pathlib import Path

import jax
import pytest
from flax import nnx

from jaxrec.cells import GRU, LSTM, Cell, Elman, Event, find
from jaxrec.config import Call, Mistake
from jaxrec.recurrence import unroll

MGU = '''
"""Minimal gated unit."""
import jax, jax.numpy as jnp
from jaxrec.cells import Cell, weight, orthogonal, Event, GRU

class MGU(Cell):
    def __init__(self, features: int, hidden: int, *, slope: float = 1.0, rngs):
        self.wf, self.wn = weight(rngs, features, hidden), weight(rngs, features, hidden)
        self.uf, self.un = orthogonal(rngs, hidden), orthogonal(rngs, hidden)
        self.hidden, self.slope = hidden, slope
    def initial_state(self): return jnp.zeros(self.hidden)
    def project(self, event): return event.x @ self.wf, event.x @ self.wn
    def step(self, h, u):
        f = jax.nn.sigmoid(self.slope * u[0] + h @ self.uf)
        return h + f * (jnp.tanh(u[1] + (f * h) @ self.un) - h)
'''


def build(text: str, **options: bool) -> Cell:
    return find(Call.parse(text), 3, hidden=4, rngs=nnx.Rngs(0), **options)


@pytest.fixture
def my_cell(tmp_path: Path) -> Path:
    file = tmp_path / "my_cell.py"
    file.write_text(MGU, encoding="utf-8")
    return file


def test_names_are_squashed_and_hidden_is_given_or_said() -> None:
    gru, lstm = build("g-R_u"), build("LSTM(hidden=7)")
    assert isinstance(gru, GRU)
    assert (gru.features, gru.hidden, gru.reset) == (3, 4, "after")
    assert isinstance(lstm, LSTM)
    assert lstm.hidden == 7


def test_options_reach_the_cell() -> None:
    assert build('gru(reset="before")').reset == "before"
    assert build("gru(reset=before)").reset == "before"  # a bare word where text is expected
    assert build("elman(6, activation=relu)").hidden == 6
    assert build("lstm(forget_bias=2)").bf[...].tolist() == [2.0] * 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("grru", "did you mean 'GRU'"),
        ("transformer", "jaxrec list cells shows them"),
        ("gru(hiden=3)", "did you mean 'hidden'"),
        ("gru(rngs=3)", "no option 'rngs'"),
        ("gru(features=3)", "no option 'features'"),
        ("gru(reset=befor)", "after, before"),
        ("gru(hidden=0)", "hidden=0"),
        ("gru(hidden=2.5)", "hidden=2.5 is not int"),
        ("gru(hidden=true)", "hidden=True is not int"),
        ("lstm(forget_bias=big)", "forget_bias"),
        ("gru(3, hidden=4)", "'hidden' twice"),
        ("gru(3, 4)", "1 arguments by place"),
        ("nowhere.py:MGU", "cannot be read"),
    ],
)
def test_a_mistake_is_one_sentence_that_says_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(Mistake) as caught:
        build(text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_users_file_gives_a_cell(my_cell: Path) -> None:
    cell = build(f"{my_cell}:mgu(hidden=5, slope=2)")
    assert type(cell).__name__ == "MGU"
    assert (cell.hidden, cell.slope) == (5, 2.0)
    _, outputs = unroll(cell, Event(jax.numpy.ones((2, 3, 3))))
    assert outputs.shape == (2, 3, 5)


def test_a_users_file_is_loaded_once_per_content(my_cell: Path) -> None:
    first, again = build(f"{my_cell}:MGU"), build(f"{my_cell.parent}/../{my_cell.parent.name}/my_cell.py:MGU")
    assert type(first) is type(again)
    assert jax.tree.structure(first) == jax.tree.structure(again)  # or every build would compile anew
    my_cell.write_text(MGU + "\n# changed\n", encoding="utf-8")
    assert type(build(f"{my_cell}:MGU")) is not type(first)


def test_a_users_file_offers_only_its_own_cells(my_cell: Path) -> None:
    with pytest.raises(Mistake, match="it has MGU"):  # GRU is imported there, not written there
        build(f"{my_cell}:GRU")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "is a file, and no cell of it is named (it has MGU); write {file}:MGU"),
        (":Half", "Half in {file} is abstract (it has MGU); define initial_state"),
        (":Table", "Table in {file} is a class and no cell (it has MGU); a cell is a class with Cell as base"),
        (":jnp", "jnp in {file} is a module and no cell"),
        (":Cell", "Cell is imported into {file}, not written there"),
        (":MGV", "has no cell 'MGV' (it has MGU); did you mean 'MGU'?"),
    ],
)
def test_what_a_users_file_has_instead_of_the_cell_is_said(my_cell: Path, name: str, words: str) -> None:
    my_cell.write_text(
        MGU + "\nclass Half(Cell):\n    def step(self, h, u): return h\nclass Table: pass\n", encoding="utf-8"
    )
    for text in (f"{my_cell}{name}", f"latentcross({my_cell}{name})"):
        with pytest.raises(Mistake) as caught:
            build(text)
        assert words.format(file=my_cell) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_file_with_options_and_no_name_is_asked_for_the_name() -> None:
    with pytest.raises(Mistake, match="expected ':' and the name of something in that file"):
        Call.parse("cells/my.py(hidden=3)")


def test_a_users_file_runs_only_when_allowed(my_cell: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    my_cell.write_text(f"open({str(mark)!r}, 'w').close()\n" + MGU, encoding="utf-8")
    with pytest.raises(Mistake, match="would run code"):
        build(f"{my_cell}:MGU", allow_code=False)
    assert not mark.exists()
    build(f"{my_cell}:MGU", allow_code=True)
    assert mark.exists()


def test_a_syntax_error_names_file_and_line(my_cell: Path) -> None:
    my_cell.write_text("x = 1\ndef broken(:\n", encoding="utf-8")
    with pytest.raises(Mistake, match=r"my_cell\.py:2: "):
        build(f"{my_cell}:MGU")


def test_a_cell_inside_a_cell(tmp_path: Path) -> None:
    file = tmp_path / "wrap.py"
    file.write_text(
        "from jaxrec.cells import Cell\n"
        "class Doubled(Cell):\n"
        "    def __init__(self, cell: Cell, times: float = 2.0): self.cell, self.times = cell, times\n"
        "    def initial_state(self): return self.cell.initial_state()\n"
        "    def project(self, event): return self.cell.project(event)\n"
        "    def step(self, state, projected): return self.cell.step(state, projected)\n"
        "    def read(self, state, projected): return self.times * self.cell.read(state, projected)\n",
        encoding="utf-8",
    )
    cell = build(f"{file}:doubled(elman(hidden=6), times=3)")
    assert isinstance(cell.cell, Elman)
    assert (cell.cell.hidden, cell.times) == (6, 3.0)
    with pytest.raises(Mistake, match="needs 'cell'"):
        build(f"{file}:doubled")


@pytest.mark.parametrize("base", ["Cell", "Wrapper", "AffineCell"])
def test_a_base_class_is_not_a_cell_to_choose(base: str) -> None:
    with pytest.raises(Mistake, match=f"no cell '{base}'"):
        build(base)
