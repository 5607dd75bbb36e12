"""Workers on a Ray cluster: an actor a slot, wherever Ray finds room, and one beside the sweep with its ledger."""

import os
import signal
import socket
import threading
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.exceptions import ActorUnavailableError, NodeDiedError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from jaxrec.config import Mistake, first_line
from jaxrec.sweeps import far
from jaxrec.sweeps.away import Away
from jaxrec.sweeps.crew import named
from jaxrec.sweeps.desk import Desk
from jaxrec.sweeps.options import Sweep
from jaxrec.sweeps.remote import Carry
from jaxrec.sweeps.sockets import ANSWER
from jaxrec.sweeps.team import Ended, Post

GONE = "its node is gone"
STORE = 100 << 20  # bytes for objects in a Ray of our own: nothing large is put there
SOON = 5.0  # seconds for what the desk answers at once
LOCAL = {"include_dashboard": False, "_node_ip_address": "127.0.0.1", "object_store_memory": STORE}


class Slot:
    """A worker's place in the cluster."""

    def where(self) -> str:
        return ray.get_runtime_context().get_node_id()

    def work(self, out: str, name: str, desk: Any, threads: int | None, environ: Mapping[str, str]) -> tuple[Any, ...]:
        def ask(question: str) -> str:
            try:
                return ray.get(desk.ask.remote(question), timeout=ANSWER)
            except RayActorError as error:
                raise ConnectionError(first_line(error)) from error

        def connect() -> Carry:
            return ask

        return tuple(far.work(Path(out), name, f"node {self.where()[:8]}", connect, threads, environ))


class Working(NamedTuple):
    """What is at a post: the actor, on which node it is, and its work."""

    slot: Any
    where: Any
    work: Any


class Beside:
    """The desk as an actor on the node of this process, where alone the ledger is opened."""

    def __init__(self, out: Path, home: Path):
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        lasting = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
        self.actor = ray.remote(Desk).options(**lasting).remote(out, home)
        self._came: dict[str, int] = {}

    def present(self) -> dict[str, int]:
        with suppress(RayError, TimeoutError):  # it starts, or starts again
            self._came = ray.get(self.actor.present.remote(), timeout=SOON)
        return self._came

    def forget(self, name: str) -> None:
        self.actor.forget.remote(name)

    def dismiss(self, names: Collection[str]) -> None:
        self.actor.dismiss.remote(names)


class RayCrew(Away):
    """The workers of a sweep as actors. One whose node is gone is begun again where there is room."""

    def __init__(self, out: Path, options: Sweep, environ: Mapping[str, str]):
        self.ours = not ray.is_initialized()
        if self.ours:
            connect(options.address)
        try:
            count, self.needs = slots([node["Resources"] for node in ray.nodes() if node["Alive"]], options.workers)
            self.environ = dict(environ)
            super().__init__(out, count, Beside(out, Path.cwd()))
        except BaseException:
            self.close()
            raise

    @property
    def told(self) -> str:
        each = ", ".join(f"{count} {name[4:-1].upper()}" for name, count in self.needs.items() if count)
        nodes, workers = sum(node["Alive"] for node in ray.nodes()), len(self.posts)
        return f"workers on Ray: {workers} with {each} each, nodes: {nodes}"

    def start(self, post: Post) -> Working:
        self.begun(post)
        slot = ray.remote(Slot).options(max_restarts=0, **self.needs).remote()
        threads = self.needs.get("num_cpus")
        work = slot.work.remote(str(self.out), post.name, self.front.actor, threads, self.environ)  # type: ignore[attr-defined]
        return Working(slot, slot.where.remote(), work)

    def over(self, post: Post) -> Ended | None:
        working: Working = post.process
        if not ray.wait([working.work], timeout=0)[0]:
            return None
        try:
            status, log = ray.get(working.work)
            return Ended(post, self.pid(post), status, named(status), log)
        except RayTaskError as error:  # as where jaxrec is not installed there
            return Ended(post, self.pid(post), 1, "an error before it began", str(error).strip().splitlines()[-1:])
        except RayError as error:
            if lost(error, working):
                return Ended(post, self.pid(post), None, GONE, [])
            return Ended(post, self.pid(post), 1, "no exit status, as after SIGKILL", [first_line(error)])
        finally:
            self.end(post)  # else its slot is not free

    def end(self, post: Post) -> None:
        ray.kill(post.process.slot)

    def close(self) -> None:
        if self.ours:
            ray.shutdown()
        elif hasattr(self, "front"):
            ray.kill(self.front.actor)  # type: ignore[attr-defined]


def connect(address: str | None) -> None:
    """Join the cluster at an address, or begin one on this machine that nobody else can reach."""
    if (address or "").startswith("ray://"):
        raise Mistake(
            f"--address {address} is Ray's client, which has no node of its own; start on a node, with host:port"
        )
    if address and address not in ("auto", "local"):
        listening(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=address or "local", logging_level="ERROR", log_to_driver=False, **({} if address else LOCAL)
        )  # fmt: skip
    except (ConnectionError, RuntimeError, ValueError, TimeoutError, RayError) as error:
        raise Mistake(
            f"no Ray cluster can be joined at {address or 'this machine'} ({first_line(error)}); "
            "see to it with: ray status"
        ) from error
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)  # Ray's own ends the process at once


def listening(address: str) -> None:
    """`Mistake` where nobody listens: Ray itself would ask for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise Mistake(
            f"--address {address} is no address of a Ray cluster; give host:port, or auto for one that runs here"
        )
    try:
        socket.create_connection((host, int(port)), timeout=SOON).close()
    except (OSError, OverflowError) as error:
        raise Mistake(
            f"no Ray cluster listens at {address} ({getattr(error, 'strerror', None) or error}); see to it with: "
            "ray status, or start one with: ray start --head"
        ) from error


def slots(nodes: Sequence[Mapping[str, float]], workers: int | None) -> tuple[int, dict[str, int]]:
    """How many workers, and what each needs: a GPU where there are any, else its share of the processor cores."""
    gpus, cores = sum(int(node.get("GPU", 0)) for node in nodes), [int(node.get("CPU", 0)) for node in nodes]
    if gpus:
        return workers or gpus, {"num_gpus": 1, "num_cpus": 0}
    count = workers or sum(cores)
    if not count:
        raise Mistake("the Ray cluster has neither GPUs nor CPUs; start nodes, or say --workers N where it grows")
    fitting = [each for each in range(1, max(cores, default=0) + 1) if sum(had // each for had in cores) >= count]
    return count, {"num_cpus": max(fitting, default=1)}


def lost(error: RayError, working: Working) -> bool:
    """Whether an actor ended with its node and not by itself. Ray needs some seconds to be sure of a node."""
    gone = isinstance(error, ActorUnavailableError | NodeDiedError) or getattr(error, "preempted", False)
    if gone or "node has died" in str(error):
        return True
    with suppress(RayError, TimeoutError):
        node = ray.get(working.where, timeout=0)
        return node not in {each["NodeID"] for each in ray.nodes() if each["Alive"]}
    return False
