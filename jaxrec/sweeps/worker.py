"""`python -m jaxrec.sweeps.worker DIR`: one process that trains what a sweep's ledger has waiting, run after run.

A sweep starts its workers itself. One that is started by hand helps, and leaves when nothing waits any more.
"""

import argparse
import gc
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxrec.config import Mistake, from_dict
from jaxrec.runs.options import Config
from jaxrec.sweeps import logs
from jaxrec.sweeps.heart import Heart, orphaned
from jaxrec.sweeps.ledger import ENDS, Lease, Ledger
from jaxrec.sweeps.pasts import Pasts
from jaxrec.sweeps.presence import Worker
from jaxrec.sweeps.pruning import pruner, spared
from jaxrec.sweeps.rebuilding import note
from jaxrec.sweeps.remote import Books, Remote
from jaxrec.sweeps.verdicts import Lost, disk, ends, row, verdict
from jaxrec.training.stop import AGAIN, Stopped, StopSignal, interruption

DISK, QUARANTINED = 74, 69  # exit statuses: no place to write, as EX_IOERR; not to be started again, EX_UNAVAILABLE
IDLE = 0.2  # seconds between two looks for work
BUCKETS = 16  # for which a process keeps its programs
FAR = 1.0  # and of a worker on another machine, of which there may be many


@dataclass(frozen=True)
class Job:
    """A leased trial as a run takes it."""

    lease: Lease
    config: Config


class Shift:
    """What one process does for a sweep. It is also who `sweeps.together` asks for trainings and tells of them."""

    def __init__(self, out: Path, ledger: Books, worker: Worker, compiled: "Compiled"):
        self.out, self.ledger, self.worker, self.compiled = out, ledger, worker, compiled
        self.about, self.options = given(ledger), ledger.options
        self.pasts = Pasts(self.about["objectives"])
        self.together = int(self.options.get("together", 1))
        self.bucket: str | None = None
        self.several = False
        self.ready: list[Lease] = []
        self.compiled_for: set[str] = set()
        self.marked: set[int] = set()  # trials whose folder has their number

    def work(self, stop: StopSignal, stay: bool) -> None:
        """Train until told to stop; without ``stay`` until nothing waits."""
        while not stop.requested:
            self.ready = self.ledger.lease(self.worker, self.together)
            if self.ready:
                self.bucket, self.several = self.ready[0].bucket, len(self.ready) > 1
                self.make_room(self.bucket)
                self.train_all()
            elif self.worker.name in self.ledger.quarantined():
                raise SystemExit(QUARANTINED)
            elif not stay:
                return
            else:
                time.sleep(FAR if isinstance(self.ledger, Remote) else IDLE)
        stop.heard()

    def make_room(self, bucket: str) -> None:
        """Let go of what is compiled once it is of many buckets: 50 programs held 3 GB. The cache on disk has it."""
        if bucket not in self.compiled_for and len(self.compiled_for) >= BUCKETS:
            forget()
            self.compiled_for.clear()
        self.compiled_for.add(bucket)

    def train_all(self) -> None:
        """Train what is ready; what is left of it when that ends goes back, or has failed with the whole program."""
        try:
            self.train()
        except Exception as error:
            if ends(error):
                raise
            traceback.print_exception(error)
            found = verdict(error)
            self.release("failed", found.reason, found.signature)
        finally:
            self.release("waiting", "it had not begun, or stopped with another")

    def train(self) -> None:
        """Train what is ready: a lone trial as it is, several in one program."""
        if len(self.ready) == 1:
            self.alone(self.more(1)[0])
            return
        from jaxrec.sweeps import together

        together.train(self, slots=len(self.ready), say=say)

    def alone(self, job: Job) -> None:
        from jaxrec.runs.run import again, train

        def ask(epoch: int, seconds: float, values: dict[str, float]) -> bool:
            return self.ask(job, epoch, seconds, values)

        try:
            self.ended(job, train(job.config, command=again(job.config), say=say, ask=ask))
        except BaseException as error:
            self.ended(job, error)

    def more(self, count: int) -> list[Job]:
        """At most so many trials of the bucket at hand; others follow while a program with several runs."""
        if len(self.ready) < count and self.several:
            self.ready += self.ledger.lease(self.worker, count - len(self.ready), self.bucket)
        taken, self.ready = self.ready[:count], self.ready[count:]
        found = []
        for lease in taken:
            print(f"{logs.MARK}{lease.number}, attempt {lease.attempt}", file=sys.stderr, flush=True)
            here = {"run": str(self.out / "runs" / lease.id), "fresh": False}
            if "parent" in lease.notes:  # wherever the sweep's folder is by now
                here["start_from"] = str(self.out / "runs" / Path(lease.config["start_from"]).name)
            found.append(Job(lease, from_dict(Config, lease.config | here, f"trial {lease.number}")))
        return found

    def ask(self, job: Job, epoch: int, seconds: float, values: dict[str, float]) -> bool:
        """Write a validation down; whether to give the trial up."""
        plain = {name: float(value) for name, value in values.items()}
        self.noted(job, "running")
        if not self.ledger.read(job.lease.attempt, {"epoch": epoch, "seconds": seconds, "values": plain}):
            raise Lost(f"trial {job.lease.number} was taken from {self.worker.name}")
        return epoch < job.config.epochs and self.hopeless(job)

    def hopeless(self, job: Job) -> bool:
        """Whether the sweep's pruner gives a trial up, from what all trials have read so far."""
        if self.about["prune"] == "none":
            return False
        first, epochs = self.about["objectives"][0], job.config.epochs
        least = min(spared(self.about, epochs), epochs)
        judge = pruner(self.about["prune"], direction=first["direction"], least=least, most=epochs)
        self.pasts.look(self.ledger)
        return judge(self.pasts.trials(), self.pasts.trial(job.lease.number))

    def ended(self, job: Job, outcome: dict[str, Any] | BaseException) -> None:
        """Write down how a trial ended. What no other trial will fare better with is raised again."""
        lease, seconds = job.lease, self.compiled.taken()
        if not isinstance(outcome, BaseException):
            kept = row(outcome, self.about["objectives"])
            self.noted(job, "done")
            self.ledger.end(lease.attempt, "done", result=kept, log=self.log(), compile_seconds=seconds)
            return
        found = verdict(outcome)
        if found.again:
            traceback.print_exception(outcome)
        say(f"trial {lease.number}: {found.state}: {found.reason}")
        if found.state in ENDS[1:] and not found.again:
            self.noted(job, found.state, found.reason)
        self.ledger.end(
            lease.attempt, found.state, reason=found.reason, signature=found.signature, again=found.again,
            log=self.log(), compile_seconds=seconds,
        )  # fmt: skip
        if ends(outcome):
            raise outcome

    def log(self) -> list[str]:
        return logs.tail(logs.place(self.out, self.worker.name))

    def noted(self, job: Job, state: str, reason: str = "") -> None:
        """Let the run folder say which trial it is, once it is there, and how it ended."""
        if state != "running" or job.lease.number not in self.marked:
            self.marked.add(job.lease.number)
            note(Path(str(job.config.run)), job.lease, state, reason)

    def release(self, state: str, reason: str, signature: str = "") -> None:
        """End in one way whatever is still held. Memory that ran out for many at once says nothing of one."""
        for number, attempt in enumerate(self.ledger.held(self.worker.name, self.worker.pid)):
            counts, log = number == 0, self.log()
            self.ledger.end(attempt, state, reason=reason, signature=signature, counts=counts, log=log)
        self.ready = []


def forget() -> None:
    """Free what this process holds compiled."""
    import jax

    from jaxrec.training.population import together
    from jaxrec.training.spread import whole_tables

    for cache in (together, whole_tables):
        cache.cache_clear()
    jax.clear_caches()
    gc.collect()


def given(ledger: Books) -> dict[str, Any]:
    """The sweep's definition; `Mistake` where there is none yet."""
    if ledger.about is None:
        raise Mistake(f"{ledger.path} holds no sweep yet; begin one with: jaxrec sweep")
    return ledger.about


class Compiled:
    """Seconds that this process compiled for, since last asked."""

    def __init__(self) -> None:
        from jax import monitoring

        self.seconds = 0.0
        monitoring.register_event_duration_secs_listener(self.heard)

    def heard(self, event: str, duration_secs: float, **_: Any) -> None:
        if event.endswith("backend_compile_duration"):
            self.seconds += duration_secs

    def taken(self) -> float:
        seconds, self.seconds = self.seconds, 0.0
        return round(seconds, 3)


def device() -> str:
    """What this process trains on."""
    import jax

    found = jax.local_devices()
    which = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(str(each.id) for each in found)
    platform = found[0].platform
    return platform if platform == "cpu" else f"{platform}:{which} {found[0].device_kind}"


def code() -> str:
    """The commit that runs, with "-dirty" where files differ from it; the version where this is no checkout."""
    from jaxrec.runs.machine import card

    found = card(devices=False)
    if "commit" not in found:
        return f"jaxrec {found['jaxrec']}"
    return found["commit"] + ("-dirty" if found["dirty"] else "")


def say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def serve(out: Path, name: str, parent: int | None) -> int:
    """Work for the sweep in ``out``, which this machine holds; the exit status."""
    from jaxrec.runs.run import remember_compilations

    stop = StopSignal()
    with stop:
        ledger = Ledger(out / "ledger.sqlite")
        remember_compilations()
        worker = Worker.here(name, device(), code())
        every = float(ledger.options["lease_seconds"]) / 6
        with Heart(ledger, worker, lambda _: orphaned(parent), every):
            Shift(out, ledger, worker, Compiled()).work(stop, stay=parent is not None)
    return AGAIN if stop.requested else 0


def left(work: Callable[[], int]) -> int:
    """The exit status of some work, also where it ends with what a person can mend or asked for."""
    try:
        return work()
    except BaseException as error:
        if isinstance(error, Stopped | KeyboardInterrupt) or interruption(error):
            say(f"jaxrec: {error}")
            return AGAIN
        if isinstance(error, Mistake):
            say(f"jaxrec: {error}")
            return DISK if disk(error) else 2
        raise


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m jaxrec.sweeps.worker", description=__doc__)
    parser.add_argument("out", type=Path, help="folder of the sweep")
    parser.add_argument("--name", default=f"by-hand-{os.getpid()}", help="what the ledger calls this worker")
    parser.add_argument("--parent", type=int, help="leave when this process is no longer the parent")
    options = parser.parse_args(argv)

    def work() -> int:
        if not (options.out / "ledger.sqlite").exists():
            raise Mistake(f"{options.out} holds no sweep (no ledger.sqlite); begin one with: jaxrec sweep")
        with early, early.raising():
            pass
        return serve(options.out, options.name, options.parent)

    early = StopSignal(signal.SIGTERM)  # imports take seconds
    return left(work)


if __name__ == "__main__":
    sys.exit(main())
