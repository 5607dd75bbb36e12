"""What `jaxrec recommend` is told: histories, and what a model needs of them beside their items."""

import io
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from jaxrec.cli import main
from jaxrec.serving.histories import One, events


def fake(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> None:
    module = types.ModuleType(name)
    module.__dict__.update(members)
    monkeypatch.setitem(sys.modules, name, module)


class Model:
    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def unknown(self, history: list[str]) -> list[str]:
        return [item for item in history if item == "x"]

    def notes(self, histories: list[list[str]], users: list[str | None] | None) -> list[str]:
        return [f"{history} is odd" for history in histories if self.unknown(history)]

    def recommend(
        self, histories: list[list[str]], *, k: int, exclude_seen: bool | None, times: Any, **others: Any
    ) -> list[list[tuple[int, float]]]:
        self.asked.append((histories, k, exclude_seen, times))
        self.others = others
        return [[(7, 0.5), (8, 0.25)][:k] for _ in histories]


@pytest.mark.parametrize(
    ("flags", "typed", "histories", "exclude_seen", "times"),
    [
        (["--history", "1, 2,3"], "", [["1", "2", "3"]], None, None),
        (["--history", "1 2", "--exclude-seen"], "", [["1", "2"]], True, None),
        (["--history", "", "--no-exclude-seen"], "", [[]], False, None),
        (["--histories", "h.txt"], "", [["a", "b"], [], ["c"]], None, None),
        ([], "4,5\r\n6\n", [["4", "5"], ["6"]], None, None),
        (["--history", '["a,b", 7]'], "", [["a,b", "7"]], None, None),
        (["--history", "[odd] 7"], "", [["[odd]", "7"]], None, None),
        (
            [],
            '[["a", 1700000000], [7, 1700000060.5]]\n\n[]\n',
            [["a", "7"], [], []],
            None,
            [[1.7e9, 1.7e9 + 60.5], [], []],
        ),
    ],
)
def test_recommend_reads_histories(
    flags: list[str], typed: str, histories: list[list[str]], exclude_seen: bool | None, times: Any,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    model = Model()
    fake(monkeypatch, "jaxrec.serving", load=lambda path, allow_code: model)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed, newline=""))
    Path("h.txt").write_text("a\tb\n\nc\n")
    assert main(["recommend", "--run", "r", "--k", "1", "--json", *flags]) == 0
    assert model.asked == [(histories, 1, exclude_seen, times)]
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [{"history": history, "items": [7], "scores": [0.5]} for history in histories]


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ('[["a", 1], "b"]', '"b" is not an item and its time'),
        ('[["a", "1"]]', '["a", "1"] is not an item and its time'),
        ('[["a", NaN]]', '["a", NaN] is not'),
        ('[["a", 1, 2]]', "write each event as [item, seconds]"),
        ('[["a", 1]]\n[["b", true]]', '["b", true] is not'),
        ('[["a", 1]]\na,b', "history 2 has no times and others have"),
    ],
)
def test_recommend_refuses_half_written_times(
    typed: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    fake(monkeypatch, "jaxrec.serving", load=lambda path, allow_code: Model())
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    assert main(["recommend", "--run", "r"]) == 2
    assert words in capsys.readouterr().err


def test_recommend_names_unknown_items_and_prints_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    fake(monkeypatch, "jaxrec.serving", load=lambda path, allow_code: Model())
    assert main(["recommend", "--run", "r", "--history", "1,x"]) == 0
    printed = capsys.readouterr()
    assert printed.err == "note: ['1', 'x'] is odd\n"
    assert ["2", "8", "0.2500"] in [line.split() for line in printed.out.splitlines()]


@pytest.mark.parametrize(
    ("flags", "typed", "expected"),
    [
        (["--times", "1700000000, 1700000060.5"], "", {"times": [[1.7e9, 1.7e9 + 60.5]]}),
        (["--times", "[0, 60]", "--user", "u7"], "", {"times": [[0.0, 60.0]], "users": ["u7"]}),
        (["--context", "rating=4,", "tag=a b,c"], "",
         {"contexts": [[{"rating": "4", "tag": "a b"}, {"rating": None, "tag": "c"}]]}),
        (["--context", 'tag=["a,b", "c"]'], "", {"contexts": [[{"tag": "a,b"}, {"tag": "c"}]]}),
        (None, '{"history": ["1", 2], "times": [0, 60], "user": 7, "contexts": [{"r": 4}, {"r": null}]}',
         {"times": [[0.0, 60.0]], "users": ["7"], "contexts": [[{"r": 4}, {"r": None}]]}),
        (None, '{"history": [["1", 0], [2, 60]], "starts": [true, false]}\n[]\n',
         {"times": [[0.0, 60.0], []], "starts": [[True, False], None]}),
    ],
)  # fmt: skip
def test_recommend_is_told_what_the_model_needs(
    flags: list[str] | None, typed: str, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    model = Model()
    fake(monkeypatch, "jaxrec.serving", load=lambda path, allow_code: model)
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    more = [] if flags is None else ["--history", "1,2", *flags]
    assert main(["recommend", "--run", "r", *more]) == 0
    [(histories, _, _, times)] = model.asked
    assert histories[0] == ["1", "2"]
    assert {name: value for name, value in (model.others | {"times": times}).items() if value is not None} == expected


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--times", "1,2"], "--times says something of --history, which is not given"),
        (["--user", "u", "--histories", "f"], "--user says something of --history"),
        (["--history", "a,b", "--times", "1,soon"], "time 'soon' is not a number of seconds"),
        (["--history", "a,b", "--context", "rating=4"], "'rating=4' has 1 values for 2 events; give one an event"),
        (["--history", "a,b", "--context", "rating"], "'rating' has no =; write NAME=VALUE,VALUE"),
        (["--history", '[["a", 1]]', "--times", "1"], "the times of --history are given twice"),
        (["--history", '{"histroy": ["a"]}'], "a history has no 'histroy'"),
        (["--history", '{"history": "a"}'], 'history of a history is "a"; give a list'),
        (["--history", "a", "--exclude-seen", "--no-exclude-seen"], "are both given; keep one"),
    ],
)
def test_recommend_refuses_what_does_not_fit_the_history(
    argv: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    fake(monkeypatch, "jaxrec.serving", load=lambda path, allow_code: Model())
    assert main(["recommend", "--run", "r", *argv]) == 2
    printed = capsys.readouterr().err
    assert words in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "items"),
    [
        ("a,b, c", ["a", "b", "c"]),
        ("Toy Story, Heat", ["Toy Story", "Heat"]),
        ("12 7\t31", ["12", "7", "31"]),
        ('["Kolya, \\"DVD\\"", 7]', ['Kolya, "DVD"', "7"]),
        ("[a] [b]", ["[a]", "[b]"]),
        ("", []),
    ],
)
def test_a_history_is_read_as_it_was_meant(line: str, items: list[str]):
    assert events(line) == One(items)
