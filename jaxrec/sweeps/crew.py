"""The workers of a sweep as processes of this machine, each with its share of it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from jaxrec.config import Mistake
from jaxrec.sweeps import logs
from jaxrec.sweeps.team import PATIENCE, Ended, Post, Team

LOOK = "import jax; found = jax.local_devices(); print(found[0].platform, len(found))"
FLAG, DEVICES = "--xla_cpu_multi_thread_eigen", "--xla_force_host_platform_device_count"


class Machine(NamedTuple):
    """What there is to share: processor cores, and accelerators where there are any."""

    cores: int
    platform: str
    devices: int


def machine(environ: Mapping[str, str] = os.environ) -> Machine:
    """Ask JAX in a process of its own: this one must not take hold of a device."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if environ.get("JAX_PLATFORMS") == "cpu":
        return Machine(cores, "cpu", 1)
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise Mistake(f"JAX finds no device ({said}); set JAX_PLATFORMS=cpu, or mend its installation")
    platform, devices = done.stdout.split()[-2:]
    return Machine(cores, platform, int(devices))


def shares(
    machine: Machine, workers: int | None, environ: Mapping[str, str] = os.environ, *, together: int = 1
) -> list[dict[str, str]]:
    """What each worker's environment adds: its accelerator, or how many threads of the processor it may use; a lone
    worker that trains several together has a device on every core.
    """
    if machine.platform == "cpu":
        count = workers or machine.cores
        if count == 1 and together > 1 and DEVICES not in (flags := environ.get("XLA_FLAGS", "")):
            return [{"XLA_FLAGS": f"{flags} {DEVICES}={machine.cores} {FLAG}=false".strip(), "OMP_NUM_THREADS": "1"}]
        threads = max(1, machine.cores // count)
        return [computing(threads, environ) for _ in range(count)] if count > 1 else [{}]
    count = workers or machine.devices
    if machine.platform not in ("gpu", "cuda", "rocm"):
        if count > 1:
            raise Mistake(f"a {machine.platform} serves one process at a time; use --workers 1, and --together")
        return [{}]
    visible = environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    names = visible if len(visible) == machine.devices and visible[0] else [str(n) for n in range(machine.devices)]
    crowd = -(-count // machine.devices)
    memory = {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{0.9 / crowd:.3f}"} if crowd > 1 else {}
    return [{"CUDA_VISIBLE_DEVICES": names[number % machine.devices], **memory} for number in range(count)]


def computing(count: int, environ: Mapping[str, str]) -> dict[str, str]:
    """So many threads for computing: XLA sizes its pool by NPROC. A worker is bound to no core: others may be busy."""
    found = {"NPROC": str(count), "OMP_NUM_THREADS": str(count)}
    flags = environ.get("XLA_FLAGS", "")
    if count == 1 and FLAG not in flags:
        found["XLA_FLAGS"] = f"{flags} {FLAG}=false".strip()
    return found


def shared(machine: Machine, shares: Sequence[Mapping[str, str]]) -> str:
    """How the workers share the machine, in a few words."""
    count = len(shares)
    many = f"{count} worker{'s' if count > 1 else ''}"
    if DEVICES in shares[0].get("XLA_FLAGS", ""):
        return f"{many}, with a device on each of {machine.cores} cores"
    if machine.platform != "cpu":
        return f"{many} on {machine.devices} {machine.platform} device{'s' if machine.devices > 1 else ''}"
    threads = max(1, machine.cores // count)
    return f"{many}, {threads} thread{'s' if threads > 1 else ''} each on {machine.cores} cores"


@dataclass
class Crew(Team):
    """The workers of the sweep in ``out`` as processes of this machine, each with its share of it."""

    out: Path
    shares: list[dict[str, str]]
    posts: list[Post] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.out / "workers").mkdir(parents=True, exist_ok=True)
        self.posts = [Post(f"w{number}") for number in range(len(self.shares))]

    @property
    def children(self) -> list[int]:
        return [post.process.pid for post in self.posts if post.process is not None]

    def start(self, post: Post) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "jaxrec.sweeps.worker", str(self.out), "--name", post.name]
        command += ["--parent", str(os.getpid())]
        with logs.place(self.out, post.name).open("ab") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=os.environ | self.shares[self.posts.index(post)],
                start_new_session=True,  # ctrl-C is for the sweep, which tells its workers
            )  # fmt: skip

    def over(self, post: Post) -> Ended | None:
        status = post.process.poll()
        if status is None:
            return None
        return Ended(post, post.process.pid, status, named(status), logs.tail(logs.place(self.out, post.name)))

    def stop(self, patience: float = PATIENCE) -> None:
        self.signal(signal.SIGTERM)
        deadline = time.monotonic() + patience
        try:
            for post in self.posts:
                if post.process is not None:
                    post.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            pass
        finally:
            self.signal(signal.SIGKILL)

    def kill(self, which: Callable[[str, int], bool]) -> None:
        for post in self.posts:
            if post.process is not None and which(post.name, post.process.pid):
                post.process.kill()

    def signal(self, number: signal.Signals) -> None:
        for post in self.posts:
            if post.process is not None and post.process.poll() is None:
                post.process.send_signal(number)


def named(status: int) -> str:
    """An exit status in words: the signal, where there was one."""
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"
