"""What trackers are told of a sweep, read back as each keeps it: every ended trial once, over kills and starts."""

import json
import os
import shutil
import sqlite3
import struct

import pytest

from jaxrec.config import Mistake
from jaxrec.sweeps import tracking
from jaxrec.sweeps.options import Sweep
from jaxrec.sweeps.rows import NOTHING
from jaxrec.sweeps.sweep import sweep
from jaxrec.sweeps.tracking import TRACKERS, Tracking
from jaxrec.training.stop import StopSignal

ABOUT = {"created": "2026-11-27T12:00:00+00:00", "space": {}}
READINGS = [{"epoch": epoch, "seconds": 1.0, "values": {"ndcg@10": 0.25 * epoch}} for epoch in (1, 2)]
DONE = NOTHING | {
    "number": 0, "id": "aa-s0", "state": "done", "same_as": None, "seed": 0, "run": "runs/aa-s0", "epochs": 2,
    "point": {"optimizer.lr": 0.5, "model.cell": "gru(hidden=4)", "model.tied": True, "stop.keep": None},
    "valid": {"ndcg@10": 0.5, "loss": None}, "test": {"ndcg@10": 0.125}, "objectives": {"ndcg@10": 0.5},
    "seconds": 3.0, "parameters": 10, "readings": READINGS, "attempts": [{"start": 10.0, "end": 20.0}],
}  # fmt: skip
WAITS = DONE | NOTHING | {"number": 1, "id": "bb-s0", "state": "waiting", "readings": [], "attempts": []}
FAILED = WAITS | {"state": "failed"}


class Rows:
    """A ledger that says what it is given."""

    def __init__(self, *rows):
        self.said = rows

    def tick(self):
        return 1

    def rows(self, since=0):
        return self.said


def tell(out, *rows, names=tuple(TRACKERS)):
    said = []
    with Tracking(names, out, ABOUT, StopSignal(), said.append) as started:
        started.look(Rows(*rows))
    return said


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    """Tracking sets defaults there; a copy keeps them from other tests, and what is set here from these."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "WANDB_"))}
    monkeypatch.setattr(os, "environ", plain)


def events(folder):
    """The summaries in a folder of TensorBoard, by tag, and plugin data by tag."""
    from tensorboardX.proto.event_pb2 import Event

    found, plugins = {}, {}
    [file] = folder.iterdir()
    data = file.read_bytes()
    while data:
        [length] = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]
        for value in event.summary.value:
            if value.metadata.plugin_data.plugin_name == "hparams":
                plugins[value.tag] = value.metadata.plugin_data.content
            else:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found, plugins


def runs(out):
    """The runs of MLflow that are not deleted, by their trial."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{out / 'tracking' / 'mlflow' / 'mlflow.db'}")
    found = client.search_runs([client.get_experiment_by_name(out.name).experiment_id])
    assert len({run.data.tags["jaxrec.trial"] for run in found}) == len(found)
    return {run.data.tags["jaxrec.trial"]: run for run in found}, client


def records(out):
    """What W&B wrote offline: the records of each run, by the run's name. Its files are LevelDB's logs, 7 bytes on."""
    from wandb.proto.wandb_internal_pb2 import Record

    found = {}
    for file in (out / "tracking" / "wandb" / "wandb").glob("offline-run-*/run-*.wandb"):
        data, place, whole, several = file.read_bytes(), 7, b"", []
        while place + 7 <= len(data):
            if (left := 32768 - place % 32768) < 7:
                place += left
                continue
            length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
            whole += data[place + 7 : place + 7 + length]
            place += 7 + length
            if kind in (1, 4):  # whole, or the last part
                several.append(Record.FromString(whole))
                whole = b""
        [run] = [record.run for record in several if record.HasField("run")]
        assert run.display_name not in found
        found[run.display_name] = several
    return found


def test_tensorboard_has_the_point_the_numbers_and_the_series(tmp_path):
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    assert tell(tmp_path, DONE, WAITS, names=("tensorboard",)) == []
    found, plugins = events(tmp_path / "tracking" / "tensorboard" / "0-aa-s0")
    assert found["epochs/ndcg_10"] == [(1, 0.25), (2, 0.5)]
    assert found["valid/ndcg_10"] == found["objective/ndcg_10"] == [(0, 0.5)]
    assert found["test/ndcg_10"] == [(0, 0.125)]
    content = {tag.rpartition("/")[2]: HParamsPluginData.FromString(data) for tag, data in plugins.items()}
    start = content["session_start_info"].session_start_info.hparams
    assert (start["optimizer.lr"].number_value, start["model.cell"].string_value) == (0.5, "gru(hidden=4)")
    assert (start["seed"].number_value, start["state"].string_value) == (0.0, "done")
    assert (start["model.tied"].bool_value, start["stop.keep"].string_value) == (True, "None")
    assert content["session_end_info"].HasField("session_end_info")
    metrics = {metric.name.tag for metric in content["experiment"].experiment.metric_infos}
    assert {"objective/ndcg_10", "valid/ndcg_10", "test/ndcg_10", "seconds"} <= metrics <= set(found)


def test_mlflow_has_the_point_the_numbers_and_the_series(tmp_path):
    assert tell(tmp_path, DONE, FAILED, names=("mlflow",)) == []
    found, client = runs(tmp_path)
    run = found["0"]
    assert run.data.params == {
        "optimizer.lr": "0.5", "model.cell": "gru(hidden=4)", "model.tied": "True", "stop.keep": "None", "seed": "0",
    }  # fmt: skip
    metrics = {"valid/ndcg_at_10": 0.5, "test/ndcg_at_10": 0.125, "objective/ndcg_at_10": 0.5, "epochs/ndcg_at_10": 0.5}
    assert run.data.metrics == metrics | {"seconds": 3.0, "epochs": 2.0, "parameters": 10.0}
    history = client.get_metric_history(run.info.run_id, "epochs/ndcg_at_10")
    assert [(each.step, each.value) for each in history] == [(1, 0.25), (2, 0.5)]
    assert (run.info.start_time, run.info.end_time, run.info.run_name) == (10_000, 20_000, "0-aa-s0")
    assert {run.data.tags["jaxrec.state"]: run.info.status for run in found.values()} == {
        "done": "FINISHED", "failed": "FAILED",
    }  # fmt: skip


def test_wandb_has_the_point_the_numbers_and_the_series(tmp_path):
    assert tell(tmp_path, DONE, FAILED, names=("wandb",)) == []
    found = records(tmp_path)
    assert found.keys() == {"0-aa-s0", "1-bb-s0"}
    config, summary, series = {}, {}, []
    for record in found["0-aa-s0"]:
        for update in [*record.run.config.update, *record.config.update]:
            config[update.key or ".".join(update.nested_key)] = json.loads(update.value_json)
        for update in record.summary.update:
            summary[update.key or ".".join(update.nested_key)] = json.loads(update.value_json)
        row = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        series += [(row["_step"], row["epochs/ndcg@10"])] if row else []
    assert (config["optimizer.lr"], config["model.tied"], config["seed"]) == (0.5, True, 0)
    assert (summary["valid/ndcg@10"], summary["test/ndcg@10"], summary["state"]) == (0.5, 0.125, "done")
    assert series == [(1, 0.25), (2, 0.5)]
    ends = {name: [each.exit.exit_code for each in several if each.HasField("exit")] for name, several in found.items()}
    assert ends == {"0-aa-s0": [0], "1-bb-s0": [1]}


def counts(out):
    boards = [folder for folder in (out / "tracking" / "tensorboard").iterdir() if folder.is_dir()]
    assert all(len(list(folder.iterdir())) == 1 for folder in boards)
    return len(boards), len(runs(out)[0]), len(records(out))


def test_a_trial_is_told_once_over_all_starts_also_where_a_kill_cut_the_telling_short(tmp_path):
    tell(tmp_path, DONE, WAITS)
    files = sorted((tmp_path / "tracking").rglob("*events*"))
    tell(tmp_path, DONE, FAILED)
    assert counts(tmp_path) == (2, 2, 2)
    assert set(files) < set((tmp_path / "tracking").rglob("*events*")), "what was told is not told again"
    for name in TRACKERS:
        memory = tmp_path / "tracking" / name / "told"
        lines = memory.read_text().split("\n")[1:]
        assert len(lines) == len(set(lines)) == 2
        memory.write_text(f"\n{lines[0]}\n{lines[1][:9]}")  # the telling was over, and the line was not
    assert tell(tmp_path, DONE, FAILED) == []
    assert counts(tmp_path) == (2, 2, 2)
    written = [(tmp_path / "tracking" / name / "told").read_text() for name in TRACKERS]
    tell(tmp_path, DONE, FAILED)
    assert written == [(tmp_path / "tracking" / name / "told").read_text() for name in TRACKERS]


def test_a_tracker_that_fails_is_said_once_and_completed_by_the_next_start(tmp_path, monkeypatch):
    tell_one, calls = tracking.TensorBoard.tell, []

    def breaks(self, trial):
        calls.append(trial)
        raise ConnectionError("refused\nat length")

    with monkeypatch.context() as patch:
        patch.setattr(tracking.TensorBoard, "tell", breaks)
        said = tell(tmp_path, DONE, FAILED, names=("tensorboard",))
    [sentence] = said
    assert sentence.startswith(
        "note: --track tensorboard failed (ConnectionError: refused); the sweep goes on, and the"
    )
    assert len(calls) == 1
    monkeypatch.setattr(tracking.TensorBoard, "tell", tell_one)
    assert tell(tmp_path, DONE, FAILED, names=("tensorboard",)) == []
    assert len((tmp_path / "tracking" / "tensorboard" / "told").read_text().split()) == 4


def test_a_server_that_is_not_there_takes_no_minutes(tmp_path, monkeypatch):
    monkeypatch.setitem(os.environ, "MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    [said] = tell(tmp_path, DONE, names=("mlflow",))
    assert said.startswith("note: --track mlflow failed (MlflowException: ")
    assert not (tmp_path / "tracking" / "mlflow" / "told").exists()


def test_a_database_of_mlflow_that_a_kill_left_half_made_is_made_anew(tmp_path):
    half = tmp_path / "tracking" / "mlflow" / "new" / "mlflow.db"
    half.parent.mkdir(parents=True)
    sqlite3.connect(half).execute("CREATE TABLE datasets (number INTEGER)")
    half.with_name("mlflow.db-journal").write_bytes(b"of what was cut short")
    assert tell(tmp_path, DONE, names=("mlflow",)) == []
    assert runs(tmp_path)[0].keys() == {"0"}
    assert not half.parent.exists()


def test_another_store_is_told_everything_too(tmp_path, monkeypatch):
    tell(tmp_path, DONE, names=("mlflow",))
    monkeypatch.setitem(os.environ, "MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'elsewhere.db'}")
    tell(tmp_path, DONE, names=("mlflow",))
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=os.environ["MLFLOW_TRACKING_URI"])
    assert len(client.search_runs([client.get_experiment_by_name(tmp_path.name).experiment_id])) == 1


def test_a_signal_leaves_the_rest_for_the_next_start(tmp_path, monkeypatch):
    stop, told = StopSignal(), []

    class Slow:
        where = ""

        def __init__(self, folder, sweep):
            pass

        def tell(self, trial):
            told.append(trial)
            stop.requested = "SIGTERM"

    monkeypatch.setitem(TRACKERS, "tensorboard", Slow)
    with Tracking(("tensorboard",), tmp_path, ABOUT, stop, print) as started:
        started.look(Rows(DONE, FAILED))
    assert len(told) <= 2
    assert (tmp_path / "tracking" / "tensorboard" / "told").read_text().count("\n") == len(told)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("mlfow", "--track mlfow is not one of tensorboard, mlflow, wandb; did you mean 'mlflow'?"),
        ("wandb", '--track wandb needs nothere, which is not installed; pip install "jaxrec[wandb]"'),
    ],
)
def test_a_tracker_that_is_unknown_or_missing_is_refused(tmp_path, monkeypatch, name, sentence):
    monkeypatch.setitem(tracking.PACKAGES, "wandb", ("nothere",))
    with pytest.raises(Mistake) as mistake:
        tell(tmp_path, DONE, names=(name,))
    assert str(mistake.value) == sentence
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_tells_its_trials_and_a_finished_one_can_be_told_later(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXREC_CACHE", str(tmp_path / "cache"))
    given = {
        "demo.users": 60, "demo.items": 240, "demo.genres": 4, "demo.lag": 2, "epochs": 1, "batch.size": 8,
        "batch.length": 10, "eval.metrics": ["ndcg@10"], "stop.patience": 0, "model.width": "4|6",
    }  # fmt: skip
    out = tmp_path / "sweep"
    for names in (("tensorboard",), tuple(TRACKERS)):
        options = Sweep(out=str(out), search="grid", workers=1, track=names)
        assert sweep(options, given, command=[], say=print)["trials"] == {"done": 2}
    assert counts(out) == (2, 2, 2)
    shutil.rmtree(out / "tracking")
    assert sweep(options, {}, command=[], say=print)["trials"] == {"done": 2}
    assert counts(out) == (2, 2, 2)
