"""Signals, damage, a full disk and numbers that break: nothing is lost, and what goes on ends in the same bits."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec import cli
from jaxrec.config import Mistake
from jaxrec.data import prepare as preparing
from jaxrec.data.demo import Demo
from jaxrec.runs import fitting, judge
from jaxrec.runs.options import Batch, Config, Evaluation, Model, Optimizer, Stopping
from jaxrec.runs.run import train
from jaxrec.training.spread import whole_tables
from jaxrec.training.step import Step
from jaxrec.training.stop import Stopped

ROOT = Path(__file__).resolve().parents[2]
TINY = Config(
    demo=Demo(users=60, items=60, events=10, genres=4, lag=2), epochs=2, checkpoint_seconds=0.0,
    model=Model(width=8, dropout=0.3), batch=Batch(size=4, length=10), stop=Stopping(patience=0),
    optimizer=Optimizer(warmup=3), eval=Evaluation(metrics=("hr@5", "ndcg@10")),
)  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXREC_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a run says that nothing disturbed."""
    place = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXREC_CACHE", str(place / "cache"))
        go(place / "run")
    return outcome(place / "run")


def go(run, config=TINY, **changes):
    said: list[str] = []
    return train(replace(config, run=str(run), **changes), say=said.append), said


def timeless(value):
    if isinstance(value, dict):
        return {name: timeless(inner) for name, inner in value.items() if name not in ("seconds", "run")}
    return value


def outcome(run):
    """Result, records, and the bytes of every weight."""
    with np.load(run / "bundle" / "weights.npz") as file:
        weights = {name: array.tobytes() for name, array in file.items()}
    records = [timeless(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return timeless(json.loads((run / "result.json").read_text())), records, weights


def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("moment", ["preparing", "validating", "after validating", "testing", "between the files"])
def test_sigterm_anywhere_stops_in_order_and_the_same_command_ends_in_the_same_bits(
    tmp_path, moment, monkeypatch, whole
):
    place, name, said = {
        "preparing": (preparing, "content_fingerprint", "what was saved stands"),
        "validating": (judge, "model", "saved after step 11"),
        "after validating": (fitting.SharedCheckpoints, "save_best", "saved after step 11"),
        "testing": (judge, "baselines", "what was saved stands"),
        "between the files": (judge, "ceiling", "what was saved stands"),
    }[moment]
    work = getattr(place, name)

    def interrupted(*given, **named):
        send()
        time.sleep(0.01)
        return work(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(place, name, interrupted)
        with pytest.raises(Stopped, match=f"SIGTERM: {said}"):
            go(tmp_path / "run")
    assert not (tmp_path / "run" / "result.json").exists()
    go(tmp_path / "run")
    assert outcome(tmp_path / "run") == whole


STUCK = """
import hashlib, os, signal, sys, threading, time
from jaxrec.training import stop
stop.PATIENCE = 1.0
def busy(rounds):  # one call that lets other threads run; Python's handlers wait for its end
    hashlib.pbkdf2_hmac("sha256", b"", b"", rounds)
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
with stop.StopSignal() as asked:
    busy(400_000_000) if sys.argv[1] == "stuck" else time.sleep(0.5)
    asked.heard()
    busy(5_000_000)
print(asked.requested)
"""


def test_a_long_call_that_keeps_python_from_its_handlers_does_not_keep_the_process():
    began = time.perf_counter()
    stuck, saving = (
        subprocess.run(
            [sys.executable, "-c", STUCK, how], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False
        )
        for how in ("stuck", "saving")
    )
    assert stuck.returncode == 75
    assert stuck.stderr.startswith("jaxrec: SIGTERM: ")
    assert time.perf_counter() - began < 30
    assert (saving.returncode, saving.stdout) == (0, "SIGTERM\n"), "who acts on it may take longer"


def test_the_exit_statuses_are_those_of_the_readme(tmp_path, monkeypatch, capsys):
    command = ["train", "--run", str(tmp_path / "run"), "--epochs", "2", "--batch.size", "4", "--batch.length", "10"]
    command += ["--demo.users", "60", "--demo.items", "60", "--demo.events", "10", "--demo.genres", "4"]
    command += ["--model.width", "8", "--demo.lag", "2"]
    pause, seen = fitting.Fitting.pause, set()

    def signalled(*numbers):
        def paused(self, state, clock):
            for number in numbers:
                send(number)
                time.sleep(0.01)
            return pause(self, state, clock)

        monkeypatch.setattr(fitting.Fitting, "pause", paused)
        return cli.main(command)

    for expected, numbers in ((75, [signal.SIGINT]), (130, [signal.SIGINT] * 2), (75, [signal.SIGTERM] * 2)):
        assert signalled(*numbers) == expected
        seen.add(expected)
    assert "the same command, without --fresh, goes on" in capsys.readouterr().err
    seen.add(signalled())
    assert (tmp_path / "run" / "result.json").exists()
    seen.add(cli.main([*command, "--model.width", "4"]))
    monkeypatch.setattr("jaxrec.recurrence.laws.check", lambda cell, say=None: [type("Law", (), LAW)])
    seen.add(cli.main(["check", "gru", "--json"]))
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("| exit status |")[2].partition("\n\n")[0]
    assert seen == set(map(int, re.findall(r"^\| (\d+) \|", table, flags=re.MULTILINE)))


LAW = {"name": "planted", "passed": False, "largest": 1.0, "tolerance": 0.0, "sentence": ""}


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


def damage(step):
    """Flip a bit in every file that holds arrays of a checkpoint."""
    for path in (step / "leaves").rglob("*"):
        if path.is_file():
            flip(path)


def newest(folder):
    return max((path for path in folder.iterdir() if path.name.isdecimal()), key=lambda path: int(path.name))


def test_a_run_goes_on_from_before_a_damaged_checkpoint_to_the_same_bits(tmp_path, monkeypatch, whole):
    with monkeypatch.context() as patch:
        patch.setattr(fitting.Fitting, "chosen", lambda self, state: send())
        patch.setattr(fitting.Loop, "adapt", lambda self, count, seconds: None)
        with pytest.raises(Stopped):
            go(tmp_path / "run")
    shelf = tmp_path / "run" / "checkpoints"
    assert newest(shelf).name == "22"
    damage(newest(shelf))
    shutil.rmtree(shelf / "best")  # saved again on the way
    _, said = go(tmp_path / "run")
    assert any("checkpoint 22" in line and line.endswith("trying the one before") for line in said)
    assert any(line.startswith("resuming") and line.endswith("step 21") for line in said)
    assert outcome(tmp_path / "run")[1:] == whole[1:]


def test_damaged_best_weights_are_replaced_by_the_best_before_with_a_warning(tmp_path, monkeypatch, whole):
    assert whole[0]["valid"]["epoch"] == 2, "both epochs were the best when they ended"
    with monkeypatch.context() as patch:
        patch.setattr(fitting.Fitting, "chosen", lambda self, state: send())
        with pytest.raises(Stopped):
            go(tmp_path / "run")
    damage(newest(tmp_path / "run" / "checkpoints" / "best"))
    result, said = go(tmp_path / "run")
    sentence = "the best weights, of epoch 2, are damaged; those of epoch 1 are judged instead"
    assert sentence in result["warnings"]
    assert any(line.startswith(sentence) for line in said)
    assert result["valid"]["epoch"] == 1


def test_damaged_prepared_data_is_prepared_again_with_a_sentence(tmp_path):
    cache = tmp_path / "cache"
    first = preparing.prepare_cached(TINY, cache, say=lambda sentence: None)
    left = first.path.with_name(f".{first.path.name}.0123abcd")
    for damage in ("cut", "missing", "flip", "card", "manifest"):
        victim = first.path / {"card": "card.json", "manifest": "manifest.json"}.get(damage, "items.npy")
        if damage == "cut":
            victim.write_bytes(victim.read_bytes()[:-1])
        elif damage == "missing":
            victim.unlink()
        else:
            flip(victim)
        left.mkdir(exist_ok=True)  # by a writer that was killed
        said: list[str] = []
        again = preparing.prepare_cached(replace(TINY, verify=damage == "flip"), cache, say=said.append)
        assert again.card["fingerprint"] == first.card["fingerprint"]
        assert said[0].endswith("prepare the data again: done now, from the source"), damage
        assert victim.name in said[0]
        assert not left.exists()
    said = []
    preparing.prepare_cached(replace(TINY, verify=True), cache, say=said.append)
    assert said == [f"{first.path}: prepared before"]


@contextmanager
def small_files(size: int) -> Iterator[None]:
    """No file may grow beyond ``size`` bytes: the system refuses the write, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_refused_write_ends_the_run_in_one_sentence_with_the_last_good_state_intact(tmp_path, monkeypatch, whole):
    save, done = fitting.SharedCheckpoints.save, []

    def full(self, step, tree, notes):
        if step < 12:
            return save(self, step, tree, notes)
        with small_files(1000):
            return save(self, step, tree, notes)

    monkeypatch.setattr(fitting.SharedCheckpoints, "save", full)
    with pytest.raises(Mistake, match=r"checkpoints/\d+: File too large; free some space there, and the same command"):
        go(tmp_path / "run")
    assert {path.name for path in (tmp_path / "run" / "checkpoints").iterdir() if not path.name.isdecimal()} == {"best"}
    monkeypatch.undo()
    monkeypatch.setenv("JAXREC_CACHE", str(tmp_path / "cache"))
    _, said = go(tmp_path / "run")
    done += [line for line in said if line.startswith("resuming")]
    assert done[0].endswith("after step 11")
    assert outcome(tmp_path / "run") == whole


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, to fill."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=150k", "tmpfs", str(place)]
    if os.getuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs rights that this process has not")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_ends_the_run_in_one_sentence_and_a_larger_one_lets_it_go_on(small_disk, whole):
    with pytest.raises(Mistake, match=rf"{small_disk}/run.*: No space left on device; free some space there"):
        go(small_disk / "run")
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    go(small_disk / "run")
    assert outcome(small_disk / "run") == whole


def test_other_data_in_an_old_folder_is_refused_by_what_changed_in_it(tmp_path):
    lines = [f"u{n // 6} i{n % 7}\n" for n in range(120)]
    file = tmp_path / "log.txt"
    file.write_text("".join(lines))
    config = replace(TINY, data=str(file), epochs=1)
    go(tmp_path / "run", config)
    file.write_text("".join([*lines, "u19 i3\n"]))
    with pytest.raises(Mistake) as refused:
        go(tmp_path / "run", config)
    assert "data.counts.events: 120 -> 121" in str(refused.value)
    assert "data.source.sha256" in str(refused.value)
    assert "--fresh" in str(refused.value)
    file.write_text("".join(lines))
    with pytest.raises(Mistake, match=r"min_item_events: 0 -> 2; .*data\.filters\.min_item_events: 0 -> 2"):
        go(tmp_path / "run", replace(config, min_item_events=2))


def test_more_epochs_end_in_the_run_that_had_them_from_the_start(tmp_path, whole):
    short, _ = go(tmp_path / "run", epochs=1)
    assert short["complete"]
    longer, said = go(tmp_path / "run")
    assert any(line.startswith("resuming") for line in said)
    assert outcome(tmp_path / "run") == whole
    assert longer["run_id"] != short["run_id"]
    with pytest.raises(Mistake, match=r"epochs: 2 -> 1\): a run may get more epochs, not fewer"):
        go(tmp_path / "run", epochs=1)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"optimizer": Optimizer(schedule="cosine")}, "under a cosine schedule the last epoch decides"),
        ({"eval": Evaluation(every=2)}, r"epoch 1 was validated, which the longer run would not do \(eval.every = 2\)"),
    ],
)
def test_more_epochs_are_refused_where_the_longer_run_would_have_been_another(tmp_path, changes, why):
    go(tmp_path / "run", epochs=1, **changes)
    with pytest.raises(Mistake, match=why):
        go(tmp_path / "run", epochs=3, **changes)


def test_options_that_do_not_decide_the_result_may_change_when_a_run_goes_on(tmp_path, monkeypatch, whole):
    with monkeypatch.context() as patch:
        patch.setattr(judge, "model", lambda *given, **named: send())
        with pytest.raises(Stopped, match="saved after step 11"):
            go(tmp_path / "run", max_seconds=1e6)
    _, said = go(tmp_path / "run", max_seconds=2e6, checkpoint_seconds=7.0, tensorboard=True, verify=True)
    assert any(line.startswith("resuming") for line in said)
    assert outcome(tmp_path / "run") == whole


@pytest.fixture
def poison(monkeypatch):
    """The loss of every batch that begins with an item of the form 4 n + 3 is no number."""
    total = Step.total

    def poisoned(self, network, rows, batch, *rest):
        loss, carry = total(self, network, rows, batch, *rest)
        return loss + jnp.where(batch.item[0, 0] % 4 == 3, jnp.nan, 0.0), carry

    monkeypatch.setattr(Step, "total", poisoned)
    whole_tables.cache_clear()  # a step that was compiled before is not looked at again
    yield
    whole_tables.cache_clear()


def poisoned_batches(run):
    """How many batches of a run's epochs are poisoned, from its plans alone."""
    prepared = preparing.prepare_cached(TINY, os.environ["JAXREC_CACHE"], say=lambda sentence: None)
    plans = [fitting.plan(TINY, prepared, epoch).index for epoch in range(2)]
    return sum(int((np.asarray(prepared.items)[index[:: TINY.batch.size, 0]] % 4 == 3).sum()) for index in plans)


class Killed(Exception):
    pass


def test_rollback_leaves_bad_batches_out_at_a_lower_rate_and_a_kill_changes_nothing(tmp_path, poison, monkeypatch):
    result, said = go(tmp_path / "whole", on_nan="rollback")
    count = poisoned_batches(tmp_path / "whole")
    assert result["skipped"] == count > 1
    assert sum("left the batch out and halved the learning rate" in line for line in said) == count
    assert f"the learning rate is {0.5**count:g} of optimizer.lr" in result["warnings"][0]
    expected = outcome(tmp_path / "whole")
    records = expected[1]
    assert [row["skipped"] for row in records if "skipped" in row] == list(range(1, count + 1))
    assert records[-2]["lr"] == pytest.approx(TINY.optimizer.lr * 0.5**count)
    assert result["steps"] == 22 - count
    pause = fitting.Fitting.pause

    def dies(self, state, clock):
        stop = pause(self, state, clock)
        if clock.skipped:
            raise Killed
        return stop

    with monkeypatch.context() as patch:
        patch.setattr(fitting.Fitting, "pause", dies)
        patch.setattr(fitting.Loop, "adapt", lambda self, count, seconds: None)  # one step a dispatch
        with pytest.raises(Killed):
            go(tmp_path / "cut", on_nan="rollback")
    _, said = go(tmp_path / "cut", on_nan="rollback")
    assert any(line.startswith("resuming") for line in said)
    assert outcome(tmp_path / "cut") == expected


def test_rollback_gives_up_after_as_many_batches_as_it_may_leave_out(tmp_path, poison):
    with pytest.raises(Mistake, match=r"is not finite: .*; 1 batches were left out before \(nan_limit\)"):
        go(tmp_path / "run", on_nan="rollback", nan_limit=1)
    with pytest.raises(Mistake, match=r"is not finite: .*or go on with --on-nan rollback"):
        go(tmp_path / "other")
