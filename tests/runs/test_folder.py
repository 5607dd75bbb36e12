"""A run's folder is whole, is one run's, and is one process's at a time."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from jaxrec.config import Mistake
from jaxrec.data.replacing import replacing
from jaxrec.runs.change import differences
from jaxrec.runs.folder import Folder, mendable, read_json, write_json

CONFIG = {"epochs": 5, "model": {"cell": "gru", "width": 64}}


def everything(path):
    return sorted(str(entry.relative_to(path)) for entry in path.rglob("*") if entry.name != ".lock")


def populate(folder):
    """All that a run may leave behind, and a file of somebody else."""
    folder.path.mkdir(parents=True, exist_ok=True)
    for file in (folder.command, folder.machine, folder.metrics, folder.ranks, folder.result):
        file.write_text("{}")
    for directory in (folder.checkpoints, folder.bundle, folder.tensorboard):
        (directory / "deep").mkdir(parents=True)
        (directory / "deep" / "file").write_text("x")
    (folder.path / "notes.md").write_text("mine")


def test_a_new_folder_becomes_the_run_and_the_same_run_resumes(tmp_path):
    path = tmp_path / "runs" / "one"
    with Folder(path) as folder:
        assert folder.claim("id-1", CONFIG) is False
    assert read_json(path / "run.json")["of"] == CONFIG
    populate(Folder(path))
    before = everything(path)
    with Folder(path) as folder:
        assert folder.claim("id-1", CONFIG | {"epochs": 9}) is True
    assert everything(path) == before
    assert read_json(path / "run.json")["of"]["epochs"] == 9


def test_another_run_is_refused_with_what_differs(tmp_path):
    with Folder(tmp_path) as folder:
        folder.claim("id-1", CONFIG)
    other = {"epochs": 5, "model": {"cell": "lstm", "width": 64, "depth": 2}}
    with pytest.raises(Mistake) as refusal, Folder(tmp_path) as folder:
        folder.claim("id-2", other)
    sentence = str(refusal.value)
    assert '(model.cell: "gru" -> "lstm"; model.depth: (absent) -> 2)' in sentence
    assert "--run" in sentence
    assert "--fresh" in sentence
    with pytest.raises(Mistake, match="same configuration, other data"), Folder(tmp_path) as folder:
        folder.claim("id-2", CONFIG)
    many = {f"k{number}": number for number in range(8)}
    with pytest.raises(Mistake, match="; and 5 more"), Folder(tmp_path) as folder:
        folder.claim("id-2", many)
    assert read_json(tmp_path / "run.json")["of"] == CONFIG


def test_fresh_removes_the_files_of_the_run_and_no_others(tmp_path):
    with Folder(tmp_path) as folder:
        folder.claim("id-1", CONFIG)
    populate(Folder(tmp_path))
    with Folder(tmp_path) as folder:
        assert folder.claim("id-2", {"epochs": 1}, fresh=True) is False
    assert everything(tmp_path) == ["notes.md", "run.json"]
    assert (tmp_path / "notes.md").read_text() == "mine"
    assert read_json(tmp_path / "run.json")["of"] == {"epochs": 1}


def test_a_removal_that_was_cut_short_is_finished_not_resumed(tmp_path, monkeypatch):
    with Folder(tmp_path) as folder:
        folder.claim("id-1", CONFIG)
    populate(Folder(tmp_path))

    def killed(path):
        raise SystemExit

    monkeypatch.setattr("shutil.rmtree", killed)
    with pytest.raises(SystemExit), Folder(tmp_path) as folder:
        folder.claim("id-1", CONFIG, fresh=True)
    monkeypatch.undo()
    assert (tmp_path / "checkpoints").exists()
    with Folder(tmp_path) as folder:
        assert folder.claim("id-1", CONFIG) is False
    assert everything(tmp_path) == ["notes.md", "run.json"]


@pytest.mark.parametrize("fresh", [False, True])
def test_what_is_not_a_run_is_not_touched(tmp_path, fresh):
    (tmp_path / "thesis.tex").write_text("years")
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(Mistake, match="is not a run, and holds 'checkpoints'; choose another --run"):
        Folder(tmp_path).claim("id-1", CONFIG, fresh)
    assert everything(tmp_path) == ["checkpoints", "thesis.tex"]
    assert not (tmp_path / ".lock").exists()
    with pytest.raises(Mistake, match="is a file"):
        Folder(tmp_path / "thesis.tex").claim("id-1", CONFIG, fresh)


HOLD = """
import sys
from jaxrec.data.replacing import replacing
from jaxrec.runs.folder import Folder
Folder(sys.argv[1]).claim("id-1", {})
print("held", flush=True)
sys.stdin.read()
"""


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    other = subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"held\n"
        for fresh in (False, True):
            with pytest.raises(Mistake, match=f"is being trained by process {other.pid}; wait"):
                Folder(tmp_path).claim("id-1", {}, fresh)
    finally:
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
    with Folder(tmp_path) as folder:  # a lock dies with its process, however that died
        assert folder.claim("id-1", {}) is True
        assert folder.claim("id-1", {}) is True
        with pytest.raises(Mistake, match=f"process {os.getpid()}"):
            Folder(tmp_path).claim("id-1", {})


def test_a_refused_claim_lets_go_of_the_folder(tmp_path):
    with Folder(tmp_path) as folder:
        folder.claim("id-1", CONFIG)
    refused = Folder(tmp_path)
    with pytest.raises(Mistake, match="another run"):
        refused.claim("id-2", {})
    with Folder(tmp_path) as folder:
        assert folder.claim("id-1", CONFIG) is True


def test_a_write_that_fails_changes_nothing(tmp_path):
    path = tmp_path / "result.json"
    write_json(path, {"ndcg": 0.5})
    with pytest.raises(TypeError):
        write_json(path, {"ndcg": object()})
    with replacing(path) as file:
        file.write(b'{"ndcg": 0.25')
        file.flush()
        assert read_json(path) == {"ndcg": 0.5}
        file.write(b"}")
    assert read_json(path) == {"ndcg": 0.25}
    with contextlib.suppress(RuntimeError), replacing(path) as file:
        file.write(b"half of it")
        raise RuntimeError
    assert read_json(path) == {"ndcg": 0.25}
    assert everything(tmp_path) == ["result.json"]


def test_reading_tells_absent_from_broken(tmp_path):
    with pytest.raises(Mistake, match=r"does not exist; is .* the folder of a run"):
        read_json(tmp_path / "config.json")
    (tmp_path / "config.json").write_text('{"epochs": 5')
    with pytest.raises(Mistake, match=r"is not JSON .*--fresh"):
        read_json(tmp_path / "config.json")


def test_other_errors_of_the_system_keep_their_traceback(tmp_path):
    with pytest.raises(BlockingIOError), mendable(tmp_path):
        raise BlockingIOError(11, "busy")


json_values = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
configs = st.recursive(
    st.dictionaries(st.sampled_from("abc"), json_values),
    lambda inner: st.dictionaries(st.sampled_from("abc"), json_values | inner),
    max_leaves=6,
)


@given(before=configs, after=configs)
def test_differences_are_none_exactly_when_nothing_changed(before, after):
    found = differences(before, after)
    same = json.dumps(before, sort_keys=True) == json.dumps(after, sort_keys=True)
    assert (found == []) == same
    assert len(found) == len(differences(after, before)) == len(set(found))
