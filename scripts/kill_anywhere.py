"""Does a run that is killed anywhere end in the bits of one that was not?

Claim     A training killed at any moment (SIGKILL) and started again by the same command ends with the same weights,
          checkpoints, ranks, records and result, bit for bit, wall times aside, and leaves no stray file behind.
          With --signal TERM it also ends by itself with exit status 75, within ten seconds.
Command   python scripts/kill_anywhere.py --moments 100
Time      About six CPU-seconds a moment.
Expect    "100 of 100 moments ended in the same bits", and one row in experiments/results/kills.jsonl.

Every run has a fresh folder and a cache of its own; it is killed a few times, each time started again, then finished
and compared with a run that nothing disturbed. Every second moment is planted: the process kills itself at the n-th
occurrence of an event that names a point (`POINTS`), seen from outside through the interpreter's audit and profile
hooks, so that the product holds no code for it. The others come after a random time, wherever the process then is.

Children are forked from a process that has imported everything and started no device: a start costs no import.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from planting import Point, plant

from jaxrec.bench.timing import append_row
from jaxrec.data.demo import Demo
from jaxrec.runs import machine, run as runs
from jaxrec.runs.options import Batch, Config, Evaluation, Model, Optimizer
from jaxrec.training.stop import AGAIN, Stopped

ROWS = Path(__file__).resolve().parents[1] / "experiments" / "results" / "kills.jsonl"
CONFIG = Config(
    demo=Demo(users=60, items=60, events=10, genres=4, lag=2), epochs=2, checkpoint_seconds=0.0,
    model=Model(width=8, dropout=0.3), batch=Batch(size=4, length=10),
    optimizer=Optimizer(schedule="cosine", warmup=3), eval=Evaluation(metrics=("hr@5", "ndcg@10")),
)  # fmt: skip


WRITTEN = r"[^/ ]*orbax-checkpoint-tmp"  # a directory that is complete; the parts in it are renamed before
POINTS = {
    "claiming the folder": Point("os.rename", r"\.run\.json\.tmp"),
    "preparing: between two arrays": Point("open", r"/\.demo-[^/]*/.*\.npy", (2, 4, 7)),
    "preparing: before the rename": Point("os.rename", r"/\.demo-"),
    "before the first step": Point("call", r"training/loop\.py run_steps$"),
    "between metrics and checkpoint": Point("call", r"runs/fitting\.py save$", (1, 2), r"progress\.py __call__$"),
    "writing a checkpoint": Point("open", r"checkpoints/[^/]*orbax-checkpoint-tmp", (1, 2, 3, 5)),
    "checkpoint written, before its rename": Point("os.rename", rf"checkpoints/{WRITTEN} ", (1, 2, 3)),
    "pruning old checkpoints": Point("shutil.rmtree", r"checkpoints/\d+$", (1, 2)),
    "an old checkpoint half removed": Point("os.rmdir", r".", (1, 2, 3)),
    "validating": Point("call", r"evaluation/ranks\.py ", (3, 20, 40)),
    "validated, before the best is written": Point("call", r"training/checkpoints\.py save_best$", (1, 2)),
    "best written, before its rename": Point("os.rename", rf"checkpoints/best/{WRITTEN} ", (1, 2)),
    "between best and checkpoint": Point("call", r"runs/fitting\.py save$", (1, 2), r"checkpoints\.py save_best$"),
    "replacement written, its place still taken": Point("shutil.rmtree", r"checkpoints/\d+$", (1, 2), r"\.newer$"),
    "replacement written, its place empty": Point("os.rename", r"checkpoints/\d+\.newer ", (1, 2)),
    "testing": Point("call", r"runs/judge\.py baselines$"),
    "ranks written, before their rename": Point("os.rename", r"\.ranks\.npz\.tmp"),
    "writing the bundle": Point("open", r"\.bundle\.tmp/", (1, 2, 3, 5)),
    "bundle written, before its rename": Point("os.rename", r"\.bundle\.tmp"),
    "result written, before its rename": Point("os.rename", r"\.result\.json\.tmp"),
}


class Moment(NamedTuple):
    """When a run dies: at a point, or after some seconds where ``point`` is None."""

    point: str | None
    occurrence: int
    seconds: float


def start(run: Path, moment: Moment | None = None) -> int:
    """Fork a child that trains in ``run``; its process id."""
    process = os.fork()
    if process:
        return process
    status = 70
    try:
        sys.stderr = sys.stdout = (run.parent / f"{run.name}.log").open("a", encoding="utf-8", buffering=1)
        os.dup2(sys.stderr.fileno(), 2)
        os.environ["JAXREC_CACHE"] = str(run.parent / f"{run.name}.cache")
        if moment and moment.point:
            plant(POINTS[moment.point], moment.occurrence)
        runs.train(replace(CONFIG, run=str(run)), say=print)
        status = 0
    except Stopped as stopped:
        print(stopped)
        status = AGAIN
    except BaseException as error:
        print(f"{type(error).__name__}: {error}")
    finally:
        os._exit(status)


def end(process: int, moment: Moment | None = None, number: int = signal.SIGKILL) -> tuple[int, float]:
    """Wait for a child, kill it in time; its exit status (negative: the signal) and the seconds from signal to end."""
    sent = [time.perf_counter()]

    def kill() -> None:
        sent[0] = time.perf_counter()
        os.kill(process, number)

    timer = threading.Timer(moment.seconds, kill) if moment and not moment.point else None
    if timer:
        timer.start()
    status = os.waitpid(process, os.WUNTRACED)[1]
    took = time.perf_counter() - sent[0]
    if timer:
        timer.cancel()
    return os.waitstatus_to_exitcode(status), took


def timeless(value: Any) -> Any:
    """Without wall times and places."""
    if isinstance(value, dict):
        return {name: timeless(inner) for name, inner in value.items() if name not in ("seconds", "run")}
    return [timeless(inner) for inner in value] if isinstance(value, list) else value


def contents(run: Path) -> dict[str, Any]:
    """All that a finished run says, comparable: file names, and what is in them apart from wall times and places."""
    found: dict[str, Any] = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if path.is_dir() or name.startswith("checkpoints/"):
            continue
        found[name] = content(path)
    shelf = run / "checkpoints"
    steps = sorted(int(path.name) for path in shelf.iterdir() if path.name.isdecimal())
    found["stray"] = sorted(path.name for path in shelf.iterdir() if not path.name.isdecimal())
    found["newest"] = steps[-1:], len(steps)  # where the one before lies depends on the clock
    for record in sorted([*(shelf / str(steps[-1])).glob("record/metadata"), *shelf.glob("best/*/record/metadata")]):
        about = timeless(json.loads(record.read_text()))  # each leaf's sha256, and the notes
        found[record.relative_to(run).as_posix()] = {name: about[name] for name in ("leaves", "notes")}
    return found


def content(path: Path) -> Any:
    if path.suffix == ".npz":
        with np.load(path) as file:
            return {name: (str(a.dtype), a.shape, hashlib.sha256(a.tobytes()).hexdigest()) for name, a in file.items()}
    if path.suffix == ".jsonl":
        return [timeless(json.loads(line)) for line in path.read_text().splitlines()]
    if path.suffix == ".json":
        return timeless(json.loads(path.read_text()))
    return None if path.name == ".lock" else path.read_bytes()


def difference(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Names of what is not the same."""
    return sorted(name for name in {*found, *expected} if found.get(name, ...) != expected.get(name, ...))


def moments(count: int, kills: int, seconds: float, seed: int, planted: bool = True) -> list[Moment]:
    """``count`` moments, every second one planted, the points in turn; ``kills`` after each other fall into one run,
    where the points are in the order in which they come. The others are random times.
    """
    draw = random.Random(seed)
    order = list(POINTS)
    names = [name for _ in range(count // len(order) + 1) for name in draw.sample(order, len(order))]
    found = []
    for first in range(0, count, kills):
        number = min(kills, count - first)
        points = sorted((names.pop() for _ in range(-(-number // 2))), key=order.index)
        for place in range(number):
            name = points[place // 2] if planted and place % 2 == 0 else None
            occurrence = draw.choice(POINTS[name].occurrences) if name else 1
            found.append(Moment(name, occurrence, draw.uniform(0.0, 0.8 * seconds)))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=100)
    parser.add_argument("--kills", type=int, default=4, help="moments to a run")
    parser.add_argument("--minutes", type=float, default=120.0, help="begin no run after that; the row says how many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", choices=("KILL", "TERM"), default="KILL", help="TERM comes at random times only")
    parser.add_argument("--no-row", action="store_true", help="print the row instead of adding it to the results")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kills-") as place:
        row = survey(Path(place), options)
    print(f"{row['same']} of {row['moments']} moments ended in the same bits ({row['runs']} runs)")
    for line in (*row["different"], *(f"no run reached: {point}" for point in row["unreached"])):
        print(f"  {line}")
    if options.no_row:
        print(json.dumps(row))
    else:
        append_row(ROWS, row)
    return 0 if row["moments"] and row["same"] == row["moments"] and not row["unreached"] else 1


def survey(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Kill, resume and compare; the row."""
    began = time.perf_counter()
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder / "xla"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    expected, seconds = reference(folder)
    number = signal.Signals[f"SIG{options.signal}"]
    left = moments(options.moments, options.kills, seconds, options.seed, number == signal.SIGKILL)
    killed, missed, different, slowest, runs_made, same = Counter[str](), 0, [], 0.0, 0, 0
    unreached: list[str] = []
    while left and time.perf_counter() - began < 60 * options.minutes:
        run, here = folder / f"run-{runs_made}", []
        while left and len(here) < options.kills:
            moment = left.pop(0)
            status, took = end(start(run, moment), moment, number)
            if status not in (-number, AGAIN):
                missed += status == 0
                if status == 0 and moment.point and moment.occurrence == 1 and not here:
                    unreached.append(moment.point)  # by a whole run
                elif status == 0:
                    left = [Moment(moment.point, 1, moment.seconds / 2), *left]
                break  # the run was over before: the moment comes earlier in the next
            here.append(f"{moment.point or f'{moment.seconds:.2f} s'} ({status})")
            killed[moment.point or "a random time"] += 1
            slowest = max(slowest, took if status == AGAIN else 0.0)
        status, _ = end(start(run))
        changed = difference(contents(run), expected) if status == 0 else [f"the last start ended with {status}"]
        print(f"run {runs_made}, {len(left)} left: {changed or 'same'} after {here}", file=sys.stderr, flush=True)
        same += 0 if changed else len(here)
        if changed:
            different.append(f"run {runs_made}: {changed} after {here}")
            print((folder / f"{run.name}.log").read_text()[-3000:], file=sys.stderr)
        for leftover in folder.glob(f"{run.name}*"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        runs_made += 1
    return {
        "signal": number.name, "moments": killed.total(), "same": same, "points": dict(killed), "runs": runs_made,
        "different": different, "unreached": unreached, "over_before": missed,
        "kills_a_run": options.kills, "seed": options.seed,
        "slowest_exit": round(slowest, 2), "seconds": round(time.perf_counter() - began, 1),
        "machine": machine.card(devices=False),
    }  # fmt: skip


def reference(folder: Path) -> tuple[dict[str, Any], float]:
    """What an undisturbed run says, and the seconds that it takes once programs are compiled."""
    for name in ("cold", "whole"):
        began = time.perf_counter()
        status, _ = end(start(folder / name))
        if status:
            raise SystemExit(f"an undisturbed run ended with {status}: {(folder / f'{name}.log').read_text()[-2000:]}")
    seconds = time.perf_counter() - began
    expected = contents(folder / "whole")
    if changed := difference(contents(folder / "cold"), expected):
        raise SystemExit(f"two undisturbed runs differ: {changed}")
    return expected, seconds


if __name__ == "__main__":
    sys.exit(main())
