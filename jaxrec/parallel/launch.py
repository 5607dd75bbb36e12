"""Start the processes of one training, or one judgement, on this machine, watch them, and end all when one dies.

Needs no JAX: what a process must know of the others it gets in its environment (see `jaxrec.parallel.team`).
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import IO, Annotated

from jaxrec.config import Mistake, Section, Within

GRACE = 10.0  # seconds in which the others may end by themselves after one has failed
TOGETHER = {"train": "goes on from the last checkpoint", "evaluate": "does it again"}  # after a death
MISTAKE = 2  # the status of a process that has said what to mend
SHOWN = 15  # last lines of a process that failed where nobody saw it

Positive = Annotated[int, Within(1)]
Count = Annotated[int, Within(0)]


@dataclass(frozen=True, kw_only=True)
class Launch(Section):
    """Train with several processes as one: jaxrec launch -n 4 -- train ...

    After -- stands train or evaluate with its own options: --data, --run, --json.

    Each process takes --devices of its own devices; a batch is cut over all.

    The run is that of one process: it goes on with any number of them.

    jaxrec launch -n 4 -- evaluate ...: each judges its share of the sequences.

    On several machines: the same on each, with --nodes, --node, --coordinator.

    Slurm, Open MPI, Kubernetes and Cloud TPU start a process each: --auto.
    """

    n: Positive = 1
    """processes on this machine"""
    nodes: Positive = 1
    """machines, each with as many processes"""
    node: Count = 0
    """which of the machines this is, from 0"""
    coordinator: str | None = None
    """host:port of machine 0 that all can reach; none: this machine and a free port"""
    auto: bool = False
    """be one process with one device, and let jax.distributed ask the cluster which"""
    gpus_each: Positive | None = None
    """give process i of this machine the i-th so many GPUs; none: every process sees all"""


def launch(options: Launch, words: Sequence[str], say: Callable[[str], None]) -> int:
    """Run ``jaxrec WORDS`` in every process; the exit status of the first that failed, else 0."""
    refuse(options, words)
    if options.auto:
        os.environ["JAXREC_PROCESSES"] = "auto"
        os.execv(sys.executable, [sys.executable, "-m", "jaxrec", *words])
    with started(options, words) as children, forwarding(children):
        return watched(children, options.n * options.nodes, TOGETHER[words[0]], say)


def refuse(options: Launch, words: Sequence[str]) -> None:
    verb = next(iter(words), "nothing")
    if verb not in TOGETHER:
        raise Mistake(f"launch runs `train` or `evaluate`, not {verb!r}; write jaxrec launch -n 4 -- train ...")
    if options.node >= options.nodes:
        raise Mistake(f"node={options.node} of nodes={options.nodes}; they count from 0, to {options.nodes - 1}")
    if options.nodes > 1 and options.coordinator is None:
        raise Mistake(
            f"nodes={options.nodes} need a --coordinator host:port, an address of machine 0 that the others can reach"
        )


@dataclass
class Child:
    """A process, its number among all, and where its complaints are kept; the first's are seen."""

    number: int
    process: subprocess.Popen
    kept: IO[bytes] | None

    def last_words(self) -> str:
        if self.kept is None:
            return ""
        self.kept.seek(0)
        lines = self.kept.read().decode(errors="replace").splitlines()
        return "\n".join(f"  [{self.number}] {line}" for line in lines[-SHOWN:])

    def end(self) -> str:
        code = self.process.returncode
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}"


@contextmanager
def started(options: Launch, words: Sequence[str]) -> Iterator[list[Child]]:
    """The processes of this machine; whatever happens, none outlives the context."""
    where = options.coordinator or f"127.0.0.1:{free_port()}"
    children: list[Child] = []
    with ExitStack() as files:
        try:
            for place in range(options.n):
                number = options.node * options.n + place
                kept = files.enter_context(tempfile.TemporaryFile()) if number else None
                children.append(Child(number, start(options, words, where, place, number, kept), kept))
            yield children
        finally:
            kill(children)


def start(
    options: Launch, words: Sequence[str], where: str, place: int, number: int, kept: IO[bytes] | None
) -> subprocess.Popen:
    told = {
        "JAXREC_PROCESSES": str(options.n * options.nodes), "JAXREC_PROCESS": str(number), "JAXREC_COORDINATOR": where,
    }  # fmt: skip
    if options.gpus_each is not None:
        told["CUDA_VISIBLE_DEVICES"] = ",".join(gpus(place, options.gpus_each, options.n))
    return subprocess.Popen(
        [sys.executable, "-m", "jaxrec", *words], env=os.environ | told, stdin=subprocess.DEVNULL,
        stdout=None if kept is None else subprocess.DEVNULL, stderr=kept, start_new_session=True,
    )  # fmt: skip


def gpus(place: int, each: int, processes: int) -> list[str]:
    """The GPUs of a process: its part of those that this machine may use."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = [str(number) for number in range(each * processes)] if named is None else named.split(",")
    if len(found) < each * processes:
        raise Mistake(
            f"gpus-each={each} for {processes} processes needs {each * processes} GPUs, and CUDA_VISIBLE_DEVICES has "
            f"{len(found)}; use fewer"
        )
    return found[place * each : (place + 1) * each]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def forwarding(children: Sequence[Child]) -> Iterator[None]:
    """SIGTERM and ctrl-C are for the processes: they save, agree and leave."""
    before = {}

    def pass_on(number: int, frame: object) -> None:
        for child in running(children):
            child.process.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        before[number] = signal.signal(number, pass_on)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def watched(children: Sequence[Child], total: int, again: str, say: Callable[[str], None]) -> int:
    """Wait for all; after a first failure `GRACE` seconds longer. ``again`` is what the same command does."""
    first, deadline = None, float("inf")
    while (left := running(children)) and time.monotonic() < deadline:
        if first is None and (first := failed(children)):
            deadline = time.monotonic() + GRACE
        time.sleep(0.1)
    first = failed(children) or first
    if first is None:
        return 0
    alike = not left and len({child.process.returncode for child in children}) == 1
    kill(children)
    told = first.number == 0 and first.process.returncode == MISTAKE
    if not (alike or told):
        if said := first.last_words():
            say(said)
        others = ("the other was", "the others were")[total > 2]
        say(
            f"process {first.number} of 0 to {total - 1} ended ({first.end()}), so {others} ended too; the same "
            f"command {again}, also with another -n"
        )
    return max(first.process.returncode, 1)


def running(children: Sequence[Child]) -> list[Child]:
    return [child for child in children if child.process.poll() is None]


def failed(children: Sequence[Child]) -> Child | None:
    """The one that has failed; of several one that was killed, for then the others fail as well, else one that has said
    what to mend: JAX aborts those that still wait for it.
    """

    def rank(child: Child) -> tuple[int, int]:
        code = child.process.returncode
        order = {MISTAKE: 1, -signal.SIGABRT: 2}
        return order.get(code, 0 if code < 0 else 3), child.number

    return min((child for child in children if child.process.poll()), key=rank, default=None)


def kill(children: Sequence[Child]) -> None:
    for child in children:
        if child.process.poll() is None:
            child.process.kill()
        child.process.wait()
