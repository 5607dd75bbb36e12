"""Does a sweep whose processes are killed anywhere end in the table of one that nothing disturbed?

Claim     A sweep of four workers, killed with SIGKILL again and again (the sweep itself or one of its workers) and
          started again by the same command, loses no trial, trains none twice to its end, and ends with the rows of an
          undisturbed one, times aside: for grid, random and Sobol search, also where a worker trains several in one
          program.
Command   python scripts/kill_sweep.py --kills 30; then the same with --together 2
Time      About half an hour on two cores for each.
Expect    "30 kills: same table, none lost, none twice" for each search, and a row each in
          experiments/results/kill_sweep.jsonl.

Kills come in pairs: one at a random time, and one at a planted point (`WORKER`, `SWEEP`) of the process that takes the
place of the killed one, so that half of them fall between ledger and checkpoint, after a temporary file is written and
before its rename, inside a transaction of the ledger, and so on.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from planting import Point, lay, site

from jaxrec.bench.timing import append_row
from jaxrec.runs import machine
from jaxrec.sweeps.ledger import Ledger
from jaxrec.sweeps.rows import timeless
from jaxrec.training.stop import AGAIN

ROOT = Path(__file__).resolve().parents[1]
ROWS = ROOT / "experiments" / "results" / "kill_sweep.jsonl"
SPACE = [
    *("--demo.users", "60", "--demo.items", "240", "--demo.genres", "4", "--demo.lag", "2", "--epochs", "2"),
    *("--batch.size", "8", "--batch.length", "10", "--stop.patience", "0", "--checkpoint-seconds", "0"),
    *("--eval.metrics", "hr@5", "ndcg@10", "--model.width", "4|6", "--model.dropout", "0.0|0.2"),
]
GRID, RANGE = ["--optimizer.lr", "log(1e-3, 1e-1, n={n})"], ["--optimizer.lr", "log(1e-3, 1e-1)"]
TEMPORARY = r"[^/ ]*orbax-checkpoint-tmp"
WORKER = {
    "leasing: inside the transaction": Point("call", r"sweeps/ledger\.py _leased$", (1, 2)),
    "between lease and training": Point("call", r"runs/run\.py begin$", (1, 2)),
    "claiming the run's folder": Point("os.rename", r"\.run\.json\.tmp", (1, 2)),
    "reading: inside the transaction": Point("call", r"ledger\.py _tick$", (1, 2), r"ledger\.py read$"),
    "between ledger and checkpoint": Point("call", r"runs/fitting\.py save$", (1, 2), r"sweeps/ledger\.py read$"),
    "checkpoint written, before its rename": Point("os.rename", rf"checkpoints/{TEMPORARY} ", (1, 2)),
    "between checkpoint and the next epoch": Point("call", r"fitting\.py plan$", (1, 2), r"checkpoints\.py save$"),
    "result written, before its rename": Point("os.rename", r"\.result\.json\.tmp", (1, 2)),
    "between result and ledger": Point("call", r"sweeps/ledger\.py end$", (1, 2)),
    "the trial's note written, before its rename": Point("os.rename", r"\.trial\.json\.tmp", (1, 2)),
    "ending: inside the transaction": Point("call", r"sweeps/ledger\.py _judge$", (1, 2)),
}
TOGETHER = {  # of a program of several: two trials are cut at once, one between what the other has done
    "between two trainings' decisions": Point("call", r"sweeps/member\.py told$", (2, 4)),
    "between two trainings' ends": Point("call", r"sweeps/together\.py conclude$", (1, 2), r"sweeps/ledger\.py end$"),
    "giving a slot": Point("call", r"sweeps/together\.py enter$", (2, 3)),
}
SWEEP = {
    "beginning": Point("call", r"sweeps/ledger\.py begin$"),
    "definition written, before its rename": Point("os.rename", r"\.sweep\.json\.tmp"),
    "starting: inside the transaction": Point("call", r"sweeps/ledger\.py missing$"),
    "starting workers": Point("call", r"sweeps/crew\.py start$", (1, 2, 4)),
    "table written, before its rename": Point("os.rename", r"\.trials\.jsonl\.tmp", (1, 2)),
}
PATIENCE = 120.0


class Disturbed:
    """One sweep under fire: its process, what is planted, and what was killed so far."""

    def __init__(self, place: Path, command: list[str], draw: random.Random):
        self.out, self.plants, self.draw = place / "sweep", place / "plants", draw
        self.plants.mkdir()
        self.env = os.environ | site(self.plants)
        self.command = [*command, "--out", str(self.out)]
        self.log = (place / "log").open("ab")
        self.points, self.random, self.starts = Counter[str](), Counter[str](), 0
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        self.starts += 1
        return subprocess.Popen(self.command, cwd=ROOT, env=self.env, stdout=self.log, stderr=self.log)

    def over(self) -> bool:
        """Whether the sweep has come to its end; a killed one is started again."""
        status = self.process.poll()
        if status in (-signal.SIGKILL, AGAIN):
            self.process = self.start()
        elif status:
            raise SystemExit(f"the sweep ended with {status}: {Path(self.log.name).read_text()[-3000:]}")
        return status == 0

    def running(self) -> list[int]:
        """Processes at work on a trial."""
        if not (self.out / "ledger.sqlite").exists():
            return []
        ledger = Ledger(self.out / "ledger.sqlite")
        pids = {row["pid"] for row in ledger.attempts() if row["state"] == "running"}
        ledger.close()
        return sorted(pid for pid in pids if alive(pid))

    def until(self, condition: Any) -> bool:
        """Wait; False where the sweep is over, or it takes too long."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if condition():
                return True
            if self.over():
                return False
            time.sleep(0.05)
        return False

    def pair(self, role: str, name: str, point: Point) -> bool:
        """Kill a process of a role at a random time, and the one that takes its place at a point."""
        if not self.until(self.running):
            return False
        fired = lay(self.plants, role, point, self.draw.choice(point.occurrences))
        time.sleep(self.draw.uniform(0.0, 2.0))
        pids = self.running()
        if self.over() or not pids:
            fired.with_suffix(".json").unlink(missing_ok=True)
            return False
        os.kill(self.process.pid if role == "sweep" else self.draw.choice(pids), signal.SIGKILL)
        self.random[role] += 1
        if self.until(fired.exists):
            self.points[f"{role}: {name}"] += 1
            return True
        fired.with_suffix(".json").unlink(missing_ok=True)
        return False

    @property
    def kills(self) -> int:
        return self.points.total() + self.random.total()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def table(out: Path) -> list[dict[str, Any]]:
    return [timeless(json.loads(line)) for line in (out / "trials.jsonl").read_text().splitlines()]


def command(search: str, trials: int, workers: int, together: int) -> list[str]:
    values = [word.format(n=-(-trials // 4)) for word in (GRID if search == "grid" else RANGE)]
    rest = ["--search", search, "--trials", str(trials), "--retries", "1000"]
    rest += ["--workers", str(workers), "--together", str(together)]
    return [sys.executable, "-m", "jaxrec", "sweep", *SPACE, *values, *rest]


def survey(place: Path, search: str, options: argparse.Namespace) -> dict[str, Any]:
    """Sweeps under fire until there were so many kills, each held against an undisturbed one; the row."""
    began, draw = time.perf_counter(), random.Random(f"{options.seed} {search}")
    words = command(search, options.trials, options.workers, options.together)
    whole = place / "whole"
    done = subprocess.run([*words, "--out", str(whole)], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"an undisturbed sweep ended with {done.returncode}: {done.stderr[-3000:]}")
    expected, turns = table(whole), schedule(draw, options.kills, options.together > 1)
    row: dict[str, Any] = {"search": search, "together": options.together}
    row |= dict.fromkeys(("kills", "sweeps", "starts", "at_once", "lost", "twice", "stray", "different"), 0)
    points, at_random = Counter[str](), Counter[str]()
    while row["kills"] < options.kills:
        (place / f"sweep-{row['sweeps']}").mkdir()
        fire = Disturbed(place / f"sweep-{row['sweeps']}", words, draw)
        while turns and row["kills"] + fire.kills < options.kills:
            fire.pair(*turns[0])
            if fire.process.poll() == 0:
                break
            turns.append(turns.pop(0))
        while not fire.over():
            time.sleep(0.1)
        found, attempts = table(fire.out), Ledger(fire.out / "ledger.sqlite").attempts()
        ends = Counter(each["number"] for each in attempts if each["state"] == "done")
        cut = Counter((each["worker"], each["pid"]) for each in attempts if each["state"] in ("failed", "died"))
        row["kills"] += fire.kills
        row["sweeps"], row["starts"] = row["sweeps"] + 1, row["starts"] + fire.starts
        row["at_once"] += sum(count > 1 for count in cut.values())  # processes killed with several trials in hand
        row["lost"] += sum(not ends[each["number"]] for each in found) + len(expected) - len(found)
        row["twice"] += sum(count > 1 for count in ends.values())
        row["stray"] += len([*fire.out.rglob(".*.tmp"), *fire.out.rglob("*orbax-checkpoint-tmp*")])
        row["different"] += found != expected
        points, at_random = points + fire.points, at_random + fire.random
        print(f"{search}: {row['kills']} kills, {row['different']} tables differ", file=sys.stderr, flush=True)
    return row | {
        "points": dict(points), "random": dict(at_random), "trials": options.trials, "workers": options.workers,
        "seed": options.seed, "seconds": round(time.perf_counter() - began, 1), "machine": machine.card(devices=False),
    }  # fmt: skip


def schedule(draw: random.Random, kills: int, several: bool) -> list[tuple[str, str, Point]]:
    """A role and a point for every pair of kills, two of workers for one of the sweep; the points in turn."""
    points = WORKER | (TOGETHER if several else {})
    workers, sweeps = (draw.sample(sorted(names), len(names)) for names in (points, SWEEP))
    found = []
    for number in range(-(-kills // 2)):
        if number % 3 == 0:
            name = sweeps[number // 3 % len(sweeps)]
            found.append(("sweep", name, SWEEP[name]))
        else:
            name = workers[(number - number // 3 - 1) % len(workers)]
            found.append(("worker", name, points[name]))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="kills for each search")
    parser.add_argument("--trials", type=int, default=24, help="trials of a sweep, a multiple of 4")
    parser.add_argument("--search", nargs="+", default=["grid", "random", "sobol"])
    parser.add_argument("--workers", type=int, default=4, help="workers of a sweep")
    parser.add_argument("--together", type=int, default=1, help="trials that a worker trains in one program")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-row", action="store_true", help="print the rows instead of adding them to the results")
    options = parser.parse_args()
    good = True
    for search in options.search:
        with tempfile.TemporaryDirectory(prefix="kill-sweep-") as place:
            row = survey(Path(place), search, options)
        fine = not (row["lost"] or row["twice"] or row["stray"] or row["different"])
        good = good and fine
        said = "same table, none lost, none twice" if fine else "NOT the same"
        print(f"{search}: {row['kills']} kills: {said}")
        if options.no_row:
            print(json.dumps(row))
        else:
            append_row(ROWS, row)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
