"""What a training tells the outside: callbacks that take one record each.

A training record is a dict with `step` (steps done), `epoch` (epochs complete before these steps), `loss` (mean per
event), `grad_norm` (before clipping), `clipped` (share of steps), `lr`, and `events` and `seconds` since the training
record before. An evaluation is a record with `step`, `epoch` (epochs complete), `valid: {metric: value}` and the
`seconds` that it took. A batch left out because its gradient was not finite is one with `step` (steps done before
it), `epoch` and `skipped` (how many so far).
"""

import json
import math
import sys
import textwrap
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TextIO

from jaxrec.data.replacing import replacing

Record = Mapping[str, Any]
COLUMNS = 80


class Callback(Protocol):
    """Called with every record, closed at the end whatever the end was."""

    def __call__(self, record: Record, /) -> None: ...

    def close(self) -> None: ...


def console(steps: int, epochs: int, start: int = 0, stream: TextIO | None = None) -> "Bar | PlainLines":
    """A bar where a person watches, plain lines where a file does (`stream`, standard error unless told).

    `steps` is the length of the whole training, `start` the step that it resumes at.
    """
    stream = stream or sys.stderr
    kind = Bar if stream.isatty() else PlainLines
    return kind(steps, epochs, start, stream)


class _Window:
    """Means and rates over the last `size` training records; loss, norm and clipped share are weighted by events."""

    def __init__(self, start: int, size: int | None = None):
        self._records: deque[Record] = deque(maxlen=size)
        self._before = start  # the step from which the oldest record counts

    def add(self, record: Record) -> None:
        if self._records and len(self._records) == self._records.maxlen:
            self._before = self._records[0]["step"]
        self._records.append(record)

    def clear(self) -> None:
        if self._records:
            self._before = self.last["step"]
        self._records.clear()

    def __bool__(self) -> bool:
        return bool(self._records)

    @property
    def last(self) -> Record:
        return self._records[-1]

    def mean(self, name: str) -> float:
        events = sum(float(record["events"]) for record in self._records)
        total = sum(float(record[name]) * float(record["events"]) for record in self._records if record["events"])
        return total / events if events else math.nan

    def per_second(self) -> float:
        seconds = sum(float(record["seconds"]) for record in self._records)
        return sum(float(record["events"]) for record in self._records) / seconds if seconds else math.nan

    def seconds_left(self, steps: int) -> float:
        """At the pace of the window."""
        done = self.last["step"] - self._before
        seconds = sum(float(record["seconds"]) for record in self._records)
        return max(steps - self.last["step"], 0) * seconds / done if done > 0 else math.nan


def _clock(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "-:--"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 100:
        return f"{min(hours // 24, 9999)}d"
    return f"{hours}h{minutes:02}" if hours else f"{minutes}:{seconds:02}"


def _short(number: float) -> str:
    """Three digits in at most five characters where there are three: 0.034, 1.25, 950, 18.2k, 1.25M."""
    if not math.isfinite(number) or abs(number) < 999.5:
        return f"{number:#.3g}".rstrip(".") if abs(number) >= 0.1 else f"{number:.3f}"
    if abs(number) >= 999.5e9:
        return f"{number:.0e}"
    power = 1 if abs(number) < 999.5e3 else 2 if abs(number) < 999.5e6 else 3
    return f"{number / 1000**power:#.3g}".rstrip(".") + " kMG"[power]


def _summary(window: _Window) -> str:
    return (
        f"loss {window.mean('loss'):.4f}  grad {_short(window.mean('grad_norm'))}  "
        f"clip {window.mean('clipped'):.0%}  {_short(window.per_second())} ev/s"
    )


def _fitted(line: str) -> str:
    return line if len(line) <= COLUMNS else line.replace("  ", " ")


def _valid(record: Record) -> list[str]:
    """The metrics of an evaluation, in lines of at most 80 columns."""
    head = f"epoch {record['epoch']}  step {record['step']}  valid in {_clock(record['seconds'])}"
    joint = "\N{NO-BREAK SPACE}"  # keeps a name and its value on one line
    values = [f"{name}{joint}{float(value):.4f}" for name, value in record["valid"].items()]
    lines = textwrap.wrap("  ".join([head, *values]), COLUMNS, subsequent_indent="  ", break_on_hyphens=False)
    return [line.replace(joint, " ") for line in lines]


class PlainLines:
    """One line an epoch, one every `every` seconds in between, and one for every evaluation, in 80 columns."""

    def __init__(
        self,
        steps: int,
        epochs: int,
        start: int = 0,
        stream: TextIO | None = None,
        every: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._steps, self._epochs, self._every, self._clock = steps, epochs, every, clock
        self._stream = stream or sys.stderr
        self._window, self._printed = _Window(start), clock()

    def __call__(self, record: Record) -> None:
        if self._window and record["epoch"] != self._window.last["epoch"]:
            self._flush()
        if "loss" in record:
            self._window.add(record)
        if "valid" in record:
            self._flush()
            self._print(*_valid(record))
        elif self._clock() - self._printed >= self._every:
            self._flush()

    def close(self) -> None:
        self._flush()

    def _flush(self) -> None:
        if self._window:
            last, left = self._window.last, self._window.seconds_left(self._steps)
            place = f"epoch {last['epoch'] + 1}/{self._epochs}  step {last['step']}"
            self._print(_fitted(f"{place}  {_summary(self._window)}  {_clock(left)} left"))
            self._window.clear()

    def _print(self, *lines: str) -> None:
        print(*lines, sep="\n", file=self._stream, flush=True)
        self._printed = self._clock()


class Bar:
    """A line that redraws itself on a terminal: events per second, loss, gradient norm, clipped share, time left."""

    def __init__(self, steps: int, epochs: int, start: int = 0, stream: TextIO | None = None):
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._steps, self._epochs, self._window = steps, epochs, _Window(start, size=20)
        self._progress = Progress(
            TextColumn("{task.fields[place]}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[summary]}"),
            console=Console(file=stream or sys.stderr),
            expand=True,
        )
        self._task = self._progress.add_task("", total=steps, completed=start, place="compiling", summary="")
        self._progress.start()

    def __call__(self, record: Record) -> None:
        if "loss" in record:
            self._window.add(record)
            self._progress.update(
                self._task,
                completed=record["step"],
                place=f"epoch {record['epoch'] + 1}/{self._epochs}",
                summary=f"{_summary(self._window)}  {_clock(self._window.seconds_left(self._steps))}",
            )
        if "valid" in record:
            self._progress.console.print("\n".join(_valid(record)), markup=False, highlight=False)

    def close(self) -> None:
        self._progress.stop()


def _plain(value: Any) -> Any:
    """Strict JSON: array scalars become numbers, what is not finite becomes null."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


class JsonLines:
    """Every record as one line of strict JSON, appended to `path`.

    A run that resumes at `step` first drops the lines of later steps and a last line that was cut short, and then
    skips a record that is there already, so that a run that was killed leaves the lines of one that was not.
    """

    def __init__(self, path: Path | str, step: int = 0):
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        rows = [(line, row) for line in lines if (row := _row(line)) is not None and row["step"] <= step]
        self._present = {_identity(row) for _, row in rows if row["step"] == step}
        if len(rows) < len(lines):
            with replacing(path) as file:
                file.writelines(line for line, _ in rows)
        self._file = path.open("a", encoding="utf-8")

    def __call__(self, record: Record) -> None:
        if _identity(record) not in self._present:
            self._file.write(json.dumps(_plain(record), allow_nan=False) + "\n")
            self._file.flush()

    def close(self) -> None:
        self._file.close()


def _row(line: bytes) -> dict[str, Any] | None:
    """The record on a line, None for one that was cut short."""
    try:
        row = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return row if isinstance(row, dict) and "step" in row else None


def _identity(record: Record) -> tuple[int, bool, bool, int]:
    return int(record["step"]), "loss" in record, "valid" in record, int(record.get("skipped", 0))


class TensorBoard:
    """The numbers of every record as scalars under `train/` and `valid/`; what lies after `step` is purged."""

    def __init__(self, directory: Path | str, step: int = 0):
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(directory), purge_step=step + 1 if step else None)

    def __call__(self, record: Record) -> None:
        scalars = {f"valid/{name}": value for name, value in record.get("valid", {}).items()}
        for name in ("loss", "grad_norm", "clipped", "lr"):
            if name in record:
                scalars[f"train/{name}"] = record[name]
        if record.get("events") and record.get("seconds"):
            scalars["train/events_per_second"] = float(record["events"]) / float(record["seconds"])
        for name, value in scalars.items():
            self._writer.add_scalar(name, float(value), int(record["step"]))

    def close(self) -> None:
        self._writer.close()
