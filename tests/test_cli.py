"""The command line: help, mistakes in one sentence, configuration with origins, and what each verb hands on."""

import io
import json
import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from jaxrec.cli import VERBS, main
from jaxrec.config import Call, keys
from jaxrec.runs.__main__ import main as by_schedulers
from jaxrec.runs.options import Config
from jaxrec.training.stop import Stopped

DEMO = ["--demo.users", "100", "--demo.items", "240"]


def test_overview_shows_an_example_of_every_verb(capsys: pytest.CaptureFixture[str]):
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    for verb in VERBS:
        assert f"\n  {verb} " in printed
        assert f"\n             jaxrec {verb} " in printed
    assert max(map(len, printed.splitlines())) <= 80
    assert main([]) == 0
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize("words", [["train", "--run"], ["prepare", "--out"]])
def test_a_place_that_cannot_be_is_one_sentence(words, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main([words[0], *DEMO, words[1], str(tmp_path / "file" / "x")]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("jaxrec: ")
    assert "file" in said


@pytest.mark.parametrize("verb", VERBS)
def test_help_fits_eighty_columns(verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    printed = capsys.readouterr().out
    assert ended.value.code == 0
    assert max(map(len, printed.splitlines())) <= 80
    assert "--json" in printed


def test_help_of_train_has_every_option(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    words = set(capsys.readouterr().out.replace(",", " ").split())
    assert not {"--" + key.replace("_", "-") for key in keys(Config)} - words


@pytest.mark.parametrize(
    "argv",
    [["--help"], ["--version"], *(["list", what] for what in ("cells", "data", "losses", "metrics", "backends")),
     ["prepare", *DEMO, "--out", "prepared"], ["inspect", "demo", *DEMO], ["train", "--print-config"]],
    ids=" ".join,
)  # fmt: skip
def test_these_never_import_jax(argv: list[str], tmp_path: Path):
    code = (
        "import sys, jaxrec; assert 'jaxrec.config' not in sys.modules\n"
        "from jaxrec.cli import main\n"
        f"assert main({argv!r}) == 0\n"
        "heavy = {'jax', 'jaxlib', 'flax', 'optax', 'orbax', 'tensorflow_datasets', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["trian"], "'trian' is not a verb; did you mean 'train'?"),
        (["train", "--modl.cell", "gru"], "'--modl.cell' is not an option; did you mean '--model.cell'?"),
        (["train", "--optimizer.wieght-decay=0"], "did you mean '--optimizer.weight-decay'?"),
        (["train", "--config", "nowhere.toml"], "nowhere.toml: cannot be read"),
        (["recommend", "--run", "r", "--history", "1", "--histories", "f"], "keep one"),
        (["prepare", "--data", "nowhere.csv", "--out", "o"], "nowhere.csv does not exist"),
        (["prepare", "--data", "a.csv", "--onto", "nowhere", "--out", "o"], "nowhere is not a prepared directory"),
        (["prepare", "--replace", "--out", "o", "--out-format", "tfds"], "--onto and --replace are for arrays"),
        (["train", "--model.cell", "gru("], "--model.cell: 'gru(' is not a call: expected"),
        (["train", "--model.width", "0"], "width = 0 is out of range"),
        (["train", "--model.width", "wide"], "--model.width: 'wide' is not a whole number"),
        (["train", "--optimizer.lr", "1,3"], "--optimizer.lr: '1,3' is not a number"),
        (["train", "--max-seconds", "soon"], "--max-seconds: 'soon' is not a number"),
        (["train", "--split", "tme"], "'last-n', 'time', 'given'); jaxrec train --help shows what it takes"),
        (["train", "--epochs"], "Missing value for argument '--epochs'"),
        (["train", "7"], "Unrecognized options: 7"),
        (["list"], "Missing from jaxrec list: {cells,data,losses,metrics,backends}"),
        (["evaluate"], "--run is missing; jaxrec evaluate --help"),
        (["compare", "runs/a"], "1 run is nothing to compare"),
        (["compare", "runs/a", "runs/b"], "runs/a holds no finished run"),
        (["inspect"], "Missing from jaxrec inspect: STR"),
        (["inspect", "nowhere.csv"], "nowhere.csv does not exist"),
        (["report", "nowhere"], "nowhere holds no finished run"),
    ],
)
def test_a_mistake_is_one_sentence(
    argv: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JAXREC_TRACEBACK", raising=False)
    assert main(argv) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("jaxrec: ")
    assert sentence in printed.err
    assert printed.err.count("\n") == 1
    monkeypatch.setenv("JAXREC_TRACEBACK", "1")
    with pytest.raises(ValueError, match=r".+"):
        main(argv)


def test_config_shows_where_each_value_came_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "study.toml"
    file.write_text('epochs = 3\n[model]\nwidth = 32\ncell = "lstm(hidden=8)"\nbias = false\n[optimizer]\nlr = 1\n')
    flags = [
        "--model.cell",
        "gru(hidden=16)",
        "--model.no-tied",
        "--optimizer.weight_decay=0.1",
        "--eval.metrics",
        "hr@5",
        "mrr",
    ]
    assert main(["train", "--config", str(file), *flags, "--print-config", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert list(shown) == keys(Config)
    expected = {
        "epochs": (3, "study.toml"), "model.width": (32, "study.toml"), "model.bias": (False, "study.toml"),
        "optimizer.lr": (1.0, "study.toml"), "model.cell": ("gru(hidden=16)", "flag"), "model.tied": (False, "flag"),
        "optimizer.weight_decay": (0.1, "flag"), "eval.metrics": (["hr@5", "mrr"], "flag"),
    }  # fmt: skip
    changed = {key: (entry["value"], entry["origin"]) for key, entry in shown.items() if entry["origin"] != "default"}
    assert changed == expected


def test_config_table_reads_well(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["train", "--print-config", "--seed", "7", "--max-seconds", "none"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["seed", "7", "flag"] in rows
    assert ["k_core", "0", "default"] in rows
    assert ["model.tied", "true", "default"] in rows
    assert ["max_seconds", "none", "flag"] in rows


def test_a_list_that_is_empty_is_none_in_help_and_on_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert "(default: )" not in capsys.readouterr().out
    assert main(["train", "--features", "none", "--model.context", "a", "b", "--print-config", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["features"]["value"], shown["model.context"]["value"]) == ([], ["a", "b"])


RESULT = {"run": "runs/a", "test": {"masked": {"hr@10": 0.25}}}


def fake(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> None:
    module = types.ModuleType(name)
    module.__dict__.update(members)
    monkeypatch.setitem(sys.modules, name, module)


def test_train_hands_on_the_configuration(monkeypatch: pytest.MonkeyPatch):
    calls: list[dict[str, Any]] = []
    printed: list[tuple[dict[str, Any], bool, str]] = []

    def train(config: Config, **rest: Any) -> dict[str, Any]:
        calls.append({"config": config, **rest})
        return RESULT

    def print_result(result: dict[str, Any], *, as_json: bool, run: str) -> None:
        printed.append((result, as_json, run))

    fake(monkeypatch, "jaxrec.runs.run", train=train)
    fake(monkeypatch, "jaxrec.reports.results", print_result=print_result)
    assert main(["train", "--model.width", "8", "--run", "runs/a"]) == 0
    [call] = calls
    assert type(call["config"]) is Config
    assert (call["config"].model.width, call["config"].run) == (8, "runs/a")
    assert call["explicit"] == ["model.width", "run"]
    assert call["command"] == ["jaxrec", "train", "--model.width", "8", "--run", "runs/a"]
    assert printed == [(RESULT, False, "runs/a")]
    assert main(["train", "--json"]) == 0
    assert printed[1:] == [(RESULT, True, "runs/a")]


def test_a_run_that_was_stopped_asks_to_be_tried_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def train(config: Config, **rest: Any) -> None:
        raise Stopped("SIGTERM: saved after step 3")

    fake(monkeypatch, "jaxrec.runs.run", train=train)
    assert main(["train"]) == 75
    assert capsys.readouterr().err == "jaxrec: SIGTERM: saved after step 3\n"


class Law(NamedTuple):
    name: str
    passed: bool
    largest: float
    tolerance: float
    sentence: str


@pytest.mark.parametrize(("passed", "status", "word"), [(True, 0, "kept"), (False, 1, "BROKEN")])
def test_check_ends_with_one_when_a_law_is_broken(
    passed: bool, status: int, word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    asked: list[Call] = []

    def check(call: Call, say: Callable[[str], None] | None) -> list[Law]:
        asked.append(call)
        if say is not None:
            say(f"law 1 of 2: {'long ' * 40}")
        return [Law("jit", True, 0.0, 1e-5, "same"), Law("resets", passed, 0.1, 1e-5, "forgets")]

    fake(monkeypatch, "jaxrec.recurrence.laws", check=check)
    assert main(["check", "my_cell.py:MyCell(hidden=64)"]) == status
    assert asked == [Call("MyCell", options={"hidden": 64}, file="my_cell.py")]
    assert word in capsys.readouterr().out
    assert main(["check", "gru", "--json"]) == status
    assert json.loads(capsys.readouterr().out)[1]["passed"] is passed


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_check_says_what_it_does_where_a_person_watches_and_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("COLUMNS", "80")

    def check(call: Call, say: Callable[[str], None] | None) -> list[Law]:
        if say is not None:
            say(f"law 1 of 2: {'long ' * 40}")
        return [Law("jit", True, 0.0, 1e-5, "same")]

    fake(monkeypatch, "jaxrec.recurrence.laws", check=check)
    assert main(["check", "gru"]) == 0
    piped = capsys.readouterr()
    assert piped.err == ""
    watched = Terminal()
    monkeypatch.setattr(sys, "stderr", watched)
    assert main(["check", "gru"]) == 0
    assert capsys.readouterr().out == piped.out
    shown, left = watched.getvalue().removeprefix("\r\x1b[K").split("\r\x1b[K")
    assert shown.startswith("law 1 of 2: long")
    assert len(shown) < 80
    assert left == ""


def test_sentences_are_wrapped_where_a_person_watches_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("COLUMNS", "120")
    long = ["train", "--model.cell", "gru(" + "hidden=8, " * 12]
    assert main(long) == 2
    [line] = capsys.readouterr().err.splitlines()
    watched = Terminal()
    monkeypatch.setattr(sys, "stderr", watched)
    assert main(long) == 2
    lines = watched.getvalue().splitlines()
    assert len(lines) > 1
    assert max(map(len, lines)) <= 80
    assert " ".join(lines) == line


@pytest.mark.parametrize("cause", [True, False])
def test_a_signal_that_a_library_made_another_error_of_is_still_a_signal(
    cause: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def verb(argv: list[str]) -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        except BaseException as error:
            if cause:
                raise ImportError("cut off") from error
            raise ImportError("cut off")  # noqa: B904
        return 0

    monkeypatch.setitem(VERBS, "list", verb)
    assert main(["list"]) == 75
    assert capsys.readouterr().err == (
        "jaxrec: SIGTERM: no file is left half written; the same command does it again\n"
    )


def test_an_error_without_a_signal_is_not_hidden(monkeypatch: pytest.MonkeyPatch):
    def verb(argv: list[str]) -> int:
        raise ImportError("cut off")

    monkeypatch.setitem(VERBS, "list", verb)
    with pytest.raises(ImportError, match="cut off"):
        main(["list"])


def test_options_that_nothing_reads_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    ignored = ["--last", "4", "--user-column", "who", "--split", "leave-one-out"]
    note = "note: {} was set, but nothing in this configuration reads it"
    assert main(["prepare", *DEMO, *ignored, "--out", str(tmp_path / "p"), "--ties", "file"]) == 0
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if line.startswith("note")] == [note.format("user_column"), note.format("last")]
    assert main(["inspect", "demo", *DEMO, "--user-column", "who", "--mask-seen", "none", "--k-core", "2"]) == 0
    said = capsys.readouterr().err.splitlines()
    notes = [line for line in said if line.startswith("note")]
    assert notes == [
        "note: mask_seen was set, and looking at the file does not depend on it",
        note.format("user_column"),
    ]


def test_prepare_writes_what_can_be_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from jaxrec.data.prepared import load

    assert main(["prepare", *DEMO, "--out", str(tmp_path / "p"), "--json"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert load(tmp_path / "p").card["fingerprint"] == card["fingerprint"]


@pytest.mark.long
def test_from_nothing_to_a_recommendation(tmp_path: Path):
    def jaxrec(*words: str, typed: str = "") -> str:
        command = [sys.executable, "-m", "jaxrec", *words]
        done = subprocess.run(
            command, cwd=tmp_path, input=typed, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    result = json.loads(jaxrec("train", *DEMO, "--model.width", "8", "--epochs", "1", "--run", "runs/a", "--json"))
    again = json.loads(jaxrec("evaluate", "--run", "runs/a", "--json"))
    assert again["test"] == result["test"]
    lines = jaxrec("recommend", "--run", "runs/a", "--k", "3", "--exclude-seen", "--json", typed="g0-i000 g1-i001\n")
    best = json.loads(lines)
    assert len(best["items"]) == 3
    assert not {"g0-i000", "g1-i001"} & set(best["items"])


@pytest.mark.parametrize("entry", [main, by_schedulers])
def test_one_of_many_processes_waits_for_none_of_them_when_it_ends(
    entry: Callable[[list[str]], int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def gone(status: int) -> None:
        raise SystemExit(status)

    assert entry(["nonsense", "too"]) == 2
    monkeypatch.setenv("JAXREC_PROCESSES", "2")
    monkeypatch.setattr(os, "_exit", gone)
    with pytest.raises(SystemExit) as left:
        entry(["nonsense", "too"])
    assert left.value.code == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first == second
