"""What is wrong with a cell's or a loss's name is said before anything is trained, and nothing stays behind."""

import json

import pytest

from jaxrec.cli import main
from jaxrec.config import Mistake
from jaxrec.sweeps.rehearsal import rehearse
from jaxrec.sweeps.space import parse

MINE = """from jaxrec.cells import GRU

class Mine(GRU):
    pass

class Rated(GRU):
    def __init__(self, features, hidden, *, rate=1.0, rngs):
        pass
"""


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "broken.py").write_text("class Mine(:\n")
    return tmp_path / "mine.py"


@pytest.mark.parametrize(
    ("space", "part"),
    [
        ({"model.cell": "gru|lstn"}, "model.cell = 'lstn': .*did you mean 'LSTM'"),
        ({"model.cell": "lru(head={1|2})"}, r"model.cell = 'lru\(head=1\)': LRU has no option 'head'"),
        ({"model.cell": "latentcross(gru(hiden={8|16}))"}, "GRU has no option 'hiden'"),
        ({"loss": "softmax|bprmaxx(negatives=4)"}, "loss = 'bprmaxx"),
        ({"loss": "sampled_softmax(negatives=int(4, 8))"}, "negatives"),
        ({"loss": "sampled_softmax(temperature={uniform(-1, 1)})"}, "temperature"),
        ({"model.cell": "FILE:Rated(rat={log(0.01, 1)})"}, "Rated has no option 'rat' .it has hidden, rate.; did you"),
        ({"model.cell": "FILE:Mien"}, "no cell 'Mien' .it has Mine, Rated.; did you mean 'Mine'"),
        ({"model.cell": "gru|nowhere.py:Mine"}, "nowhere.py: cannot be read .No such file"),
    ],
)
def test_a_value_that_can_never_be_trained_is_named_at_once(space, part, mine):
    space = {name: text.replace("FILE", str(mine)) for name, text in space.items()}
    with pytest.raises(Mistake, match=part):
        rehearse(parse(space))


def test_a_file_with_an_error_is_said_without_running_it(mine):
    with pytest.raises(Mistake, match=r"broken.py: .*correct the file"):
        rehearse(parse({"model.cell": f"{mine.parent / 'broken.py'}:Mine|gru"}))
    mine.write_text("raise SystemExit('run')\n" + MINE)
    rehearse(
        parse({"model.cell": f"{mine}:mine|gru|lru(r_min={{0.1|0.2}})", "loss": "softmax|bpr_max(negatives={4|8})"})
    )


def test_a_refused_sweep_leaves_nothing_behind(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("JAXREC_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "sweep"
    words = ["--out", str(out), "--demo.users", "60", "--demo.items", "240", "--trials", "2"]
    assert main(["sweep", *words, "--model.cell", "grru|lstm"]) == 2
    assert "grru" in capsys.readouterr().err
    assert not out.exists()
    out.mkdir()
    assert main(["sweep", *words, "--model.cell", "grru|lstm"]) == 2
    assert list(out.iterdir()) == []


def test_a_refused_number_of_trials_is_not_kept(tmp_path, monkeypatch, capsys):
    """The data has changed: the sweep may not go on, and what it was asked for stays what it was."""
    monkeypatch.setenv("JAXREC_CACHE", str(tmp_path / "cache"))
    data, out = tmp_path / "events.csv", tmp_path / "sweep"
    lines = [f"u{user},i{(user + step) % 7},{step}" for user in range(30) for step in range(6)]
    data.write_text("\n".join(["user,item,time", *lines]))
    words = ["--out", str(out), "--data", str(data), "--model.width", "4|8", "--epochs", "1", "--workers", "1"]
    assert main(["sweep", *words, "--trials", "1"]) == 0
    data.write_text("\n".join(["user,item,time", *lines, "u0,i3,9"]))
    assert main(["sweep", *words, "--trials", "2"]) == 2
    assert f"{data} has changed since this sweep began" in capsys.readouterr().err
    assert json.loads((out / "sweep.json").read_text())["trials"] == 1
    data.write_text("\n".join(["user,item,time", *lines]))
    assert main(["sweep", *words, "--trials", "1"]) == 0
