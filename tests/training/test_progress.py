"""What a person, a file and TensorBoard get to see of a training."""

import io
import json
import math
import re
import struct

import numpy as np
from hypothesis import HealthCheck, given, settings, strategies as st
from tensorboardX.proto.event_pb2 import Event

from jaxrec.training.progress import Bar, JsonLines, PlainLines, TensorBoard, console


def trained(step, epoch=0, **others):
    record = {"step": step, "epoch": epoch, "loss": 2.0, "grad_norm": 0.5, "clipped": 0.25, "events": 1000}
    return record | {"seconds": 0.5, "lr": 1e-3} | others


def evaluated(step, epoch, **valid):
    return {"step": step, "epoch": epoch, "seconds": 65.0, "valid": valid or {"hr@10": 0.25, "ndcg@10": 0.125}}


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_for_a_terminal_and_lines_for_a_file(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    watched = console(10, 1, stream=Terminal())
    watched.close()
    assert isinstance(watched, Bar)
    assert isinstance(console(10, 1, stream=io.StringIO()), PlainLines)


def test_plain_lines_come_by_epoch_by_time_and_by_evaluation():
    stream, clock = io.StringIO(), Clock()
    show = PlainLines(40, 2, stream=stream, every=30, clock=clock)
    lines = lambda: stream.getvalue().splitlines()  # noqa: E731
    show(trained(5))
    assert lines() == []
    show(trained(10, loss=8.0, events=3000))
    clock.now = 31
    show(trained(15, grad_norm=3.0))
    assert lines() == ["epoch 1/2  step 15  loss 5.6000  grad 1.00  clip 25%  3.33k ev/s  0:02 left"]
    show(trained(20))
    show(evaluated(20, 1))
    assert lines()[1:] == [
        "epoch 1/2  step 20  loss 2.0000  grad 0.500  clip 25%  2.00k ev/s  0:02 left",
        "epoch 1  step 20  valid in 1:05  hr@10 0.2500  ndcg@10 0.1250",
    ]
    show(trained(25, epoch=1))
    show(trained(30, epoch=2))
    assert lines()[3:] == ["epoch 2/2  step 25  loss 2.0000  grad 0.500  clip 25%  2.00k ev/s  0:02 left"]
    show.close()
    show.close()
    assert len(lines()) == 5


def test_time_left_counts_from_the_step_that_was_resumed():
    stream = io.StringIO()
    show = PlainLines(200, 1, start=100, stream=stream)
    show(trained(110, seconds=60.0))
    show.close()
    assert "9:00 left" in stream.getvalue()


@settings(max_examples=60, deadline=None)
@given(
    loss=st.floats(0, 99, allow_nan=False) | st.just(math.nan),
    norm=st.floats(0, 1e12) | st.just(math.inf),
    clipped=st.floats(0, 1),
    events=st.integers(0, 10**9),
    seconds=st.floats(0, 1e5),
    step=st.integers(1, 999_999),
    metrics=st.integers(1, 30),
)
def test_no_line_is_wider_than_80_columns(loss, norm, clipped, events, seconds, step, metrics):
    stream = io.StringIO()
    show = PlainLines(999_999, 100, stream=stream)
    show(trained(step, 99, loss=loss, grad_norm=norm, clipped=clipped, events=events, seconds=seconds))
    show(evaluated(step, 99, **{f"recall@{number}": 0.5 for number in range(metrics)}))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    pairs = re.findall(r"(recall@\d+) 0.5000", "\n".join(lines))
    assert pairs == [f"recall@{number}" for number in range(metrics)]


def test_the_bar_fits_80_columns_and_shows_what_there_is_to_know(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    show = Bar(400, 20, start=100, stream=stream)
    for step in (132, 164):
        show(trained(step, 4, loss=np.float32(4.5)))
    show(evaluated(164, 5, **{f"recall@{number}": 0.5 for number in range(9)}))
    show.close()
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())
    lines = [line for line in re.split(r"[\r\n]+", plain) if line.strip()]
    assert max(map(len, lines)) <= 80
    assert re.fullmatch(r"epoch 5/20 \S+ loss 4.5000  grad 0.500  clip 25%  2.00k ev/s  0:04\s*", lines[-1])
    assert sum("recall@8 0.5000" in line for line in lines) == 1


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_json_lines_are_strict_json_of_plain_numbers(tmp_path):
    write = JsonLines(tmp_path / "run" / "metrics.jsonl")
    write(trained(np.int64(3), loss=np.float32(0.5), grad_norm=math.nan, clipped=np.float64("inf")))
    write(evaluated(3, 1, ndcg=np.float32(0.25)))
    write.close()
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    first, second = read(tmp_path / "run" / "metrics.jsonl")
    assert first == trained(3, loss=0.5, grad_norm=None, clipped=None)
    assert second == evaluated(3, 1, ndcg=0.25)


def history(steps):
    """Records of a training: steps of 10, an evaluation at every 30th."""
    for step in range(10, steps + 1, 10):
        yield trained(step, (step - 1) // 30, loss=1 / step)
        if step % 30 == 0:
            yield evaluated(step, step // 30, ndcg=step / 1000)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 1), back=st.integers(0, 9))
def test_a_killed_run_leaves_the_lines_of_one_that_was_not(tmp_path, cut, back):
    """Cut the file at any byte, resume at any step that it reached, go on: not a line is lost or repeated."""
    path = tmp_path / "metrics.jsonl"
    path.unlink(missing_ok=True)
    whole = JsonLines(path)
    for record in history(90):
        whole(record)
    whole.close()
    expected = path.read_bytes()
    path.write_bytes(expected[: int(cut * len(expected))])
    reached = [row["step"] for row in map(json.loads, re.findall(rb".*\n", path.read_bytes()))]
    resumed = min(10 * back, max(reached, default=0))
    again = JsonLines(path, step=resumed)
    for record in history(90):
        if record["step"] >= resumed:  # what is done at the very step of the checkpoint may be done again
            again(record)
    again.close()
    assert path.read_bytes() == expected
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.jsonl"]


def events(directory):
    """Scalars in TensorBoard's files: (step, tag, value), after the purges that they ask for."""
    found = []
    for path in sorted(directory.iterdir()):
        content, place = path.read_bytes(), 0
        while place < len(content):
            (size,) = struct.unpack_from("<Q", content, place)
            event = Event.FromString(content[place + 12 : place + 12 + size])
            place += 16 + size
            if event.session_log.status == event.session_log.START:
                found = [one for one in found if one[0] < event.step]
            found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
    return found


def test_tensorboard_gets_every_number_under_its_step(tmp_path):
    write = TensorBoard(tmp_path)
    write(trained(10))
    write(evaluated(10, 1))
    write.close()
    assert sorted(events(tmp_path)) == [
        (10, "train/clipped", 0.25),
        (10, "train/events_per_second", 2000.0),
        (10, "train/grad_norm", 0.5),
        (10, "train/loss", 2.0),
        (10, "train/lr", float(np.float32(1e-3))),
        (10, "valid/hr_10", 0.25),
        (10, "valid/ndcg_10", 0.125),
    ]


def test_tensorboard_forgets_what_lies_after_the_step_that_was_resumed(tmp_path):
    first = TensorBoard(tmp_path)
    for step in (10, 20):
        first(trained(step, loss=1.0))
    first.close()
    (file,) = tmp_path.iterdir()
    file.rename(file.with_name("events.out.tfevents.0"))  # names carry seconds; this one must sort first
    second = TensorBoard(tmp_path, step=10)
    second(trained(20, loss=3.0))
    second.close()
    losses = [(step, value) for step, tag, value in events(tmp_path) if tag == "train/loss"]
    assert losses == [(10, 1.0), (20, 3.0)]
