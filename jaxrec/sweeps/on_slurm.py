"""Workers as Slurm's jobs, by way of submitit: a job a place, begun again as long as there is work."""

import os
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import submitit

from jaxrec.config import Mistake, first_line
from jaxrec.sweeps import far
from jaxrec.sweeps.away import Away
from jaxrec.sweeps.crew import named
from jaxrec.sweeps.desk import Desk
from jaxrec.sweeps.options import Sweep
from jaxrec.sweeps.sockets import Open, carrier
from jaxrec.sweeps.team import Ended, Post

FILE = "desk.json"  # in the sweep's folder: where its desk is
LOOK = 1.0  # seconds between two looks at a job
SEEN = 15.0  # seconds until what a job has written on another machine must be seen on this one
SHARED = (
    "name",
    "timeout_min",
    "mem_gb",
    "cpus_per_task",
    "gpus_per_node",
)  # words that all of submitit's engines know
DEFAULT = {"name": "jaxrec", "timeout_min": 1440}
STOPPED = ("PREEMPTED", "TIMEOUT", "CANCELLED", "NODE_FAIL", "BOOT_FAIL", "DEADLINE", "REVOKED", "REQUEUED")


class Answering:
    """The desk in this process."""

    def __init__(self, out: Path, host: str):
        self.desk = Desk(out, Path.cwd())
        self.present, self.forget, self.dismiss = self.desk.present, self.desk.forget, self.desk.dismiss
        try:
            self.open = Open(self.desk, host, out / FILE)
        except OSError as error:
            raise Mistake(f"this machine cannot listen at {host} ({error.strerror}); say --address NAME") from error


class SlurmCrew(Away):
    """The workers of a sweep as jobs."""

    def __init__(self, out: Path, options: Sweep, environ: Mapping[str, str]):
        found = words(options.slurm)
        cluster = found.pop("cluster", "slurm")
        self.executor = executor(out / "workers" / "slurm", str(cluster), found)
        self.threads, self.environ = found.get("cpus_per_task"), dict(environ)
        self.answering = Answering(out, options.address or host(cluster))
        self._looked_at: dict[str, float] = {}
        super().__init__(out, options.workers or 1, self.answering)
        many = "1 job" if len(self.posts) == 1 else f"{len(self.posts)} jobs at a time"
        self.told = f"{many} of {'this machine' if cluster == 'local' else 'Slurm'}"

    def start(self, post: Post) -> Any:
        self.begun(post)
        try:
            return self.executor.submit(work, str(self.out), post.name, self.threads, self.environ)
        except (OSError, RuntimeError, submitit.core.utils.FailedJobError) as error:
            raise Mistake(f"Slurm takes no job ({first_line(error)}); mend --slurm, or see: sinfo") from error

    def over(self, post: Post) -> Ended | None:
        now, job = time.monotonic(), post.process
        if now - self._looked_at.get(post.name, 0.0) < LOOK:
            return None
        self._looked_at[post.name] = now
        if not job.done():
            return None
        if job.paths.result_pickle.exists():
            return self._told(post)
        state = str(job.state).upper().split()[0]
        if state == "COMPLETED" and self._since(job) < SEEN:
            return None
        if state in STOPPED:
            return Ended(post, self.pid(post), None, f"its job was stopped ({state})", [])
        said = "no exit status, as after SIGKILL" if state in ("FINISHED", "COMPLETED") else f"Slurm's {state}"
        return Ended(post, self.pid(post), 1, said, [])

    def _told(self, post: Post) -> Ended:
        """What the job returned; an error there, as where jaxrec cannot be imported, is one before it began."""
        try:
            status, log = post.process.result()
        except submitit.core.utils.FailedJobError as error:
            return Ended(post, self.pid(post), 1, "an error before it began", str(error).strip().splitlines()[-1:])
        return Ended(post, self.pid(post), status, named(status), log)

    def _since(self, job: Any) -> float:
        """Seconds since a job was first seen to be over."""
        job.seen = getattr(job, "seen", time.monotonic())
        return time.monotonic() - job.seen

    def end(self, post: Post) -> None:
        post.process.cancel(check=False)

    def close(self) -> None:
        self.answering.open.close()


def work(out: str, name: str, threads: int | None, environ: Mapping[str, str]) -> tuple[Any, ...]:
    """What a job runs. Slurm's notice before it takes the machine away is as good as SIGTERM."""
    notice = getattr(signal, "SIG" + os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2"))
    signal.signal(notice, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    number = submitit.JobEnvironment().job_id
    return tuple(far.work(Path(out), name, f"job {number}", lambda: carrier(Path(out) / FILE), threads, environ))


def words(given: Sequence[str]) -> dict[str, str | int]:
    """``name=value`` for each of the words, which may also be several in one text."""
    found: dict[str, str | int] = {}
    for word in " ".join(given).split():
        name, equals, value = word.partition("=")
        if not equals or not value:
            raise Mistake(f"--slurm {word} says no value; write name=value, as in partition=gpu timeout_min=120")
        found[name.replace("-", "_")] = int(value) if value.isdigit() else value
    return found


def host(cluster: str | int | None) -> str:
    """The name by which jobs reach this machine."""
    if cluster == "local":
        return "127.0.0.1"
    name = socket.getfqdn()
    try:
        number = socket.gethostbyname(name)
    except OSError as error:
        raise Mistake(
            f"this machine's name, {name}, leads nowhere; say --address with one that the nodes know"
        ) from error
    if number.startswith("127."):
        raise Mistake(
            f"{name} leads to {number}, where no job reaches it; say --address with a name that the nodes know"
        )
    return name


def executor(folder: Path, cluster: str, found: Mapping[str, str | int]) -> Any:
    """Who takes the jobs; `Mistake` for words that submitit does not know."""
    several = [name for name in ("nodes", "tasks_per_node", "ntasks") if found.get(name, 1) != 1]
    if several:
        raise Mistake(
            f"--slurm {several[0]}={found[several[0]]}: a worker is one task of one node; say --workers instead"
        )
    named = {name if name in SHARED else f"slurm_{name}": value for name, value in found.items()}
    try:
        made = submitit.AutoExecutor(folder=folder, cluster=cluster)
        made.update_parameters(**DEFAULT | named)
    except (AssertionError, NameError, RuntimeError, ValueError) as error:
        asked = " ".join(f"{name}={value}" for name, value in found.items())
        raise Mistake(f"--slurm {asked} is refused by submitit: {first_line(error)}") from error
    return made
