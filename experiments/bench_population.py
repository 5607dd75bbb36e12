"""How many trainings a minute does each way of running many of them do?

Claim     On an accelerator 64 trainings of hidden size 64 in one program are at least 20 times as fast as one at a
          time; on CPU cores one program over all of them is as fast as a process each.
Command   python experiments/bench_population.py                     (on a CPU: 8 trainings a way)
          python experiments/bench_population.py --trials 64 --hidden 64 --ways vmap --again      (on an accelerator;
          the same with --epochs 25)
Time      About ten minutes on two CPU cores.
Expect    One row a hidden size in experiments/results/bench_population.jsonl: trainings a minute of each way, and
          member-steps a second of the programs alone.

A training is a whole run of `jaxrec train` (GRU, MovieLens 100K's size from the built-in generator, validations,
early stopping, judgement, checkpoint, files), and trainings differ in seed and rate. One at a time: `train` in one
process, after one that is not counted, so that nothing is compiled in it. Together: `jaxrec.sweeps.together.train`,
compilation from the cache included. Processes: as many as CPU cores, each with its part of the trainings, from when
all have trained one that is not counted; not on an accelerator, which one process holds.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# every core is a device and a device is one thread; the last of these words would end the others
os.environ["XLA_FLAGS"] = (
    f"--xla_force_host_platform_device_count={os.cpu_count()} --xla_cpu_multi_thread_eigen=false "
    "intra_op_parallelism_threads=1"
)

import jax

from jaxrec.bench.timing import append_row
from jaxrec.config import resolve
from jaxrec.runs.machine import card
from jaxrec.runs.options import Config
from jaxrec.runs.run import train
from jaxrec.sweeps import together
from jaxrec.training.population import Executor

CORES = os.cpu_count() or 1
ROWS = Path(__file__).parent / "results" / "bench_population.jsonl"
DATA: dict[str, Any] = {"demo.users": 943, "demo.items": 1680, "demo.events": 100}
FIXED: dict[str, Any] = {"batch.size": 32, "batch.length": 50, "stop.patience": 0, "eval.users": 500}


def config(hidden: int, number: int, epochs: int, folder: str) -> Config:
    """One of the trainings that are to be done."""
    own = {"seed": number, "optimizer.lr": 1e-3 * 1.1 ** (number % 16), "epochs": epochs, "run": f"{folder}/{number}"}
    return resolve(Config, flags=DATA | FIXED | {"model.width": hidden} | own).section


class Queue:
    """Trainings for one program, and what became of them."""

    def __init__(self, configs: list[Config]):
        self.left = [Job(one) for one in configs]
        self.results: list[Any] = []

    def more(self, count: int) -> list["Job"]:
        given, self.left = self.left[:count], self.left[count:]
        return given

    def ask(self, *heard: Any) -> bool:
        return False

    def ended(self, job: "Job", outcome: Any) -> None:
        if isinstance(outcome, Exception):
            raise outcome
        self.results.append(outcome)


class Job:
    def __init__(self, config: Config):
        self.config = config


def quiet(sentence: str) -> None:
    """Nobody reads along."""


def alone(configs: list[Config]) -> float:
    """Seconds of one after another."""
    began = time.perf_counter()
    for one in configs:
        train(one, say=quiet)
    return time.perf_counter() - began


def in_one_program(configs: list[Config], executor: Executor | None) -> tuple[float, together.Report]:
    """Seconds of all in one program, and how they ran."""
    queue, began = Queue(configs), time.perf_counter()
    report = together.train(queue, slots=len(configs), say=quiet, executor=executor)
    assert report is not None
    assert len(queue.results) == len(configs)
    return time.perf_counter() - began, report


def processes(hidden: int, trials: int, epochs: int, folder: str) -> float:
    """Seconds of as many processes as cores, each with its part, started together when all are warm."""
    words = [sys.executable, __file__, "--part", f"{hidden},{trials // CORES},{epochs}", "--folder"]
    found = [
        subprocess.Popen([*words, f"{folder}/p{n}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for n in range(CORES)
    ]
    for one in found:  # each says that it is warm
        assert one.stdout is not None
        assert one.stdout.readline() == "warm\n"
    began = time.perf_counter()
    for one in found:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    for one in found:
        if one.wait():
            raise SystemExit("a process of trainings failed")
    return time.perf_counter() - began


def part(given: str, folder: str) -> None:
    """What one of the processes does."""
    hidden, count, epochs = map(int, given.split(","))
    train(config(hidden, 1000, epochs, folder), say=quiet)
    print("warm", flush=True)
    sys.stdin.readline()
    alone([config(hidden, number, epochs, folder) for number in range(count)])


def executors(trials: int) -> dict[str, Executor | None]:
    """The ways of one program; None lets the probe choose."""
    found: dict[str, Executor | None] = {"map": Executor(1), "vmap": Executor(trials), "probe": None}
    if (devices := jax.local_device_count()) > 1:
        found |= {"shard_map(map)": Executor(1, devices), "shard_map(vmap)": Executor(trials // devices, devices)}
    return found


def measure(
    hidden: int, trials: int, epochs: int, sequential: int, names: list[str], again: bool
) -> dict[str, Any]:  # fmt: skip
    """One row."""
    ways = {name: way for name, way in executors(trials).items() if name in (names or executors(trials))}
    a_minute: dict[str, float] = {}
    reports: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:

        def some(name: str, count: int, first: int = 0) -> list[Config]:
            return [config(hidden, first + number, epochs, f"{folder}/{name}") for number in range(count)]

        alone(some("warm", 1, 1000))
        a_minute["one at a time"] = 60 * sequential / alone(some("alone", sequential))
        print(f"after a first one: {a_minute}", file=sys.stderr, flush=True)
        for name, executor in ways.items():
            seconds, report = in_one_program(some(name, trials), executor)
            a_minute[name] = 60 * trials / seconds
            if again:
                seconds, _ = in_one_program(some(f"{name} again", trials), executor)
                a_minute[f"{name} again"] = 60 * trials / seconds
            print(f"{name}: {a_minute}", file=sys.stderr, flush=True)
            reports[name] = {"executor": str(report.executor), "bytes": report.bytes} | (
                {"member_steps_a_second": {str(way): speed for way, speed in report.probed.items()}}
                if report.probed else {}
            )  # fmt: skip
        if jax.default_backend() == "cpu":
            a_minute[f"{CORES} processes"] = 60 * trials / processes(hidden, trials, epochs, folder)
    return {
        "hidden": hidden, "trials": trials, "sequential": sequential, "epochs": epochs, "data": DATA,
        "settings": FIXED, "trials_a_minute": a_minute,
        "times_one_at_a_time": {name: speed / a_minute["one at a time"] for name, speed in a_minute.items()},
        "programs": reports, "machine": card(),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", nargs="+", type=int, default=[16, 64, 128])
    parser.add_argument("--trials", type=int, default=8, help="trainings of each way")
    parser.add_argument("--sequential", type=int, default=4, help="trainings that are timed one at a time")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--ways", nargs="+", default=[], metavar="WAY", help="map, vmap, probe, ...; all unless given")
    parser.add_argument("--again", action="store_true", help="each way a second time, when nothing is compiled in it")
    parser.add_argument("--rows", type=Path, default=ROWS, help="file to append to")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        part(options.part, options.folder)
        return
    for hidden in options.hidden:
        row = measure(hidden, options.trials, options.epochs, options.sequential, options.ways, options.again)
        append_row(options.rows, row)
        speeds = "; ".join(f"{name} {speed:.1f}" for name, speed in row["trials_a_minute"].items())
        print(f"hidden {hidden}, {options.trials} trainings, a minute: {speeds}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
