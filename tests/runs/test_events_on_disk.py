"""The main law: a training whose events stay on disk is the one whose events lie on the device, bit for bit."""

import json
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from jaxrec.config import Call, Mistake
from jaxrec.data.prepare import prepare
from jaxrec.runs import planner
from jaxrec.runs.fitting import Diverged, Fitting
from jaxrec.runs.options import Batch, Config, Evaluation, Model, Optimizer, Stopping
from jaxrec.runs.run import train
from jaxrec.sweeps.together import refuse_apart
from jaxrec.training.feed import Mapped

USERS, EVENTS, ITEMS = 40, 14, 7


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    draw, path = np.random.default_rng(0), tmp_path_factory.mktemp("log") / "log.csv"
    lines = ["user,item,time,way,price"]
    for user in range(USERS):
        time = 1_400_000_000 + 1000 * user
        for _ in range(EVENTS - user % 5):
            time += int(draw.exponential(1200))
            way = "up" if draw.integers(2) else "down"
            lines.append(f"u{user},i{draw.integers(ITEMS)},{time},{way},{draw.exponential():.3f}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXREC_CACHE", str(tmp_path / "cache"))


def config(log, run, layout="packed", **changes):
    """A model that reads all that an event can have; an epoch is more than one slab."""
    cells = {"packed": "latentcross(tlstm)", "windows": "hierarchicalrnn", "lanes": "latentcross(usergru)"}
    context = () if layout == "windows" else ("way", "price", "@hour")
    return replace(
        Config(
            data=str(log), features=("way", "price", "@hour"), sequence="user", session_gap=15.0, epochs=2,
            model=Model(cell=Call.parse(cells[layout]), width=8, dropout=0.3, user=True, context=context),
            batch=Batch(size=2, length=4, layout=layout), optimizer=Optimizer(lr=0.02, schedule="cosine", warmup=3),
            stop=Stopping(patience=0, metric="hr@5"), eval=Evaluation(metrics=("hr@5",), users=10),
            checkpoint_seconds=1e9, run=str(run),
        ), **changes,
    )  # fmt: skip


def go(*given, say=lambda sentence: None, **changes):
    return train(config(*given, **changes), say=say)


def trained(run):
    """What a training leaves: the numbers of every record, and the weights."""
    lines = [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]
    records = [{name: value for name, value in line.items() if name != "seconds"} for line in lines]
    with np.load(Path(run) / "bundle" / "weights.npz") as file:
        return records, {name: array.tobytes() for name, array in file.items()}


def no_thread_is_left():
    return not [thread for thread in threading.enumerate() if thread.name.startswith("jaxrec-")]


class Killed(Exception):
    pass


def killed_after(step, *given, **changes):
    """Train until a step between two dispatches of an epoch, where the state is saved and the process dies."""

    def dies(self, held, clock):
        if clock.step >= step:
            self.save(held())
            raise Killed
        return False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Fitting, "pause", dies)
        with pytest.raises(Killed):
            go(*given, **changes)


@pytest.mark.parametrize("layout", ["packed", "windows", "lanes"])
def test_it_is_the_same_training_however_often_and_where_it_is_cut(log, tmp_path, layout):
    device, disk = tmp_path / "device", tmp_path / "disk"
    wanted = go(log, device, layout, events_on="device")
    found = go(log, disk, layout, events_on="disk", readers=3)
    assert found["steps"] > 70
    assert trained(disk) == trained(device)
    assert (found["run_id"], found["test"]) == (wanted["run_id"], wanted["test"])
    cut = tmp_path / "cut"
    for step, where in ((5, "disk"), (35, "device"), (50, "disk")):
        killed_after(step, log, cut, layout, events_on=where)
    go(log, cut, layout, events_on="disk")
    assert trained(cut) == trained(device)
    assert no_thread_is_left()


@pytest.mark.parametrize(
    ("devices", "shards", "mode"),
    [
        (2, 1, "jit"),
        (2, 2, "shard_map"),
        pytest.param(2, 1, "pmap", marks=pytest.mark.long),
        pytest.param(4, 2, "jit", marks=pytest.mark.long),
    ],
)
def test_on_several_devices_it_is_what_these_devices_train(log, tmp_path, devices, shards, mode):
    few = {"devices": devices, "shards": shards, "parallel": mode, "epochs": 1, "batch": Batch(size=4, length=4)}
    for where in ("device", "disk"):
        go(log, tmp_path / where, events_on=where, **few)
    assert trained(tmp_path / "disk") == trained(tmp_path / "device")


def test_a_shuffle_over_windows_is_another_order_wherever_the_events_lie(log, tmp_path):
    few = {"epochs": 1, "batch": Batch(size=2, length=4, shuffle_over=100)}
    device, disk = (go(log, tmp_path / where, events_on=where, **few) for where in ("device", "disk"))
    assert trained(tmp_path / "disk") == trained(tmp_path / "device")
    plain = go(log, tmp_path / "plain", events_on="device", epochs=1)
    assert device["run_id"] == disk["run_id"] != plain["run_id"]


@pytest.mark.long
def test_what_looks_at_a_training_sees_the_same(log, tmp_path):
    looked = []
    for where in ("device", "disk"):
        go(log, tmp_path / where, epochs=1, events_on=where, diagnose=True, diagnose_every=40)
        lines = map(json.loads, (tmp_path / where / "diagnostics.jsonl").read_text().splitlines())
        looked.append([{name: value for name, value in line.items() if name != "seconds"} for line in lines])
    assert looked[0] == looked[1]
    assert looked[0]


def test_a_training_that_diverges_says_the_same_of_its_rows_and_leaves_no_thread(log, tmp_path):
    said = []
    for where in ("device", "disk"):
        with pytest.raises(Diverged, match="with rows of user") as found:
            go(log, tmp_path / where, events_on=where, optimizer=Optimizer(lr=1e20, clip=0.0))
        said.append(str(found.value))
    assert said[0] == said[1]
    assert no_thread_is_left()


def test_auto_leaves_on_disk_what_would_take_too_much_of_the_device(log, tmp_path, monkeypatch):
    prepared = prepare(config(log, tmp_path), lambda sentence: None)
    bytes_ = 4 * len(prepared.items) * 3 + len(prepared.items)  # items, gaps, users; starts
    monkeypatch.setattr(planner, "free_memory", lambda: 2.0 * bytes_)
    assert planner.feed(config(log, tmp_path), prepared) is None
    monkeypatch.setattr(planner, "free_memory", lambda: 2.0 * bytes_ - 2)
    feed = planner.feed(config(log, tmp_path, readers=3), prepared)
    assert (feed.readers, feed.data.prepared) == (3, prepared)
    assert not feed.data.beyond
    monkeypatch.setattr(planner, "free_of_machine", lambda: bytes_ - 1.0)
    assert planner.feed(config(log, tmp_path), prepared).data.beyond
    assert planner.feed(config(log, tmp_path, events_on="device"), prepared) is None


def test_memory_is_counted_for_the_slabs_that_are_on_the_device(log, tmp_path):
    said = []
    few = {"epochs": 1, "model": Model(width=8), "max_seconds": 0.0}
    go(log, tmp_path / "a", events_on="disk", readers=2, say=said.append, **few)
    (line,) = [sentence for sentence in said if sentence.startswith("memory: ")]
    assert line.endswith("(the rest of it stays on disk)")
    prepared = prepare(config(log, tmp_path, **few), lambda sentence: None)
    slab, slots = planner.blank(Mapped(prepared, False), rows=2, length=4), 32 * 2 * 4
    own, plan = 2 * (4 + 4 + 1), 4 + 1  # two events a slot, each with item, gap and start; number and reset
    assert planner.slab_bytes(SimpleNamespace(devices=[1, 2], pieces=1), slab) == own * slots + plan * slots // 2


def test_a_full_device_is_told_of_the_disk(log, tmp_path, monkeypatch):
    small = {"model": Model(width=4), "batch": Batch(size=1, length=1)}  # a slab is less than all events
    first = next(planner.changes(config(log, tmp_path, **small), disk=False))
    assert first[1].events_on == "disk"
    assert not [words for words, _ in planner.changes(config(log, tmp_path), disk=True) if "--events-on" in words]
    monkeypatch.setattr(planner, "free_memory", lambda: 0.0)
    monkeypatch.setattr(planner, "changes", lambda config, disk: [first])
    with pytest.raises(Mistake, match="--events-on disk would need"):
        go(log, tmp_path / "a", events_on="device", **small)


def test_trainings_that_run_together_have_their_events_on_the_device(log, tmp_path):
    with pytest.raises(Mistake, match="events_on = disk: trainings that run together"):
        refuse_apart(config(log, tmp_path, events_on="disk"))
    refuse_apart(config(log, tmp_path))
