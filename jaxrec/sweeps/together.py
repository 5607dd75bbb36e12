"""Trainings that differ in traced numbers only, in one compiled program: each is a run with its own folder.

The decisions of a training (records, validations, early stopping, checkpoints) are those of a run alone; only the
arithmetic between them is shared. A member that ends makes its slot free for a waiting one, and nothing is compiled
again.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec.config import fingerprint, to_dict
from jaxrec.data.batches import Rows
from jaxrec.data.prepared import Prepared
from jaxrec.evaluation.ranks import Ranks, evaluate_members
from jaxrec.runs import build, judge
from jaxrec.runs.fitting import GIVEN_UP, GivenUp, plan, rows_a_step
from jaxrec.runs.folder import mendable
from jaxrec.runs.options import Config
from jaxrec.runs.run import Begun, Say, begin, conclude, remember_compilations
from jaxrec.training import source
from jaxrec.training.loop import RECORD, Course, Held, answered, informed
from jaxrec.training.population import Executor, Members, Together, executors, level, put, stack, take, together
from jaxrec.training.source import Slab, Source
from jaxrec.training.step import Metrics, State, Step
from jaxrec.training.stop import Stopped, StopSignal

# what may differ between members: numbers that a step takes traced, and what only the host decides by
OWN = (
    "seed", "epochs", "run", "fresh", "max_seconds", "checkpoint_seconds", "on_nan", "nan_limit", "tensorboard", "eval",
    "stop", "loss", "verify",
)  # fmt: skip
TRACED = {
    "optimizer": ("lr", "weight_decay", "clip", "momentum"),
    "model": ("dropout", "embedding_dropout", "state_dropout"),
}


class Job(Protocol):
    """One training that is asked for: what the caller knows it by besides its configuration is the caller's."""

    @property
    def config(self) -> Config: ...


class Jobs(Protocol):
    """Who has trainings to do."""

    def more(self, count: int) -> Sequence[Job]:
        """At most so many that wait, all of one `bucket`."""

    def ask(self, job: Job, epoch: int, seconds: float, values: dict[str, float]) -> bool:
        """Whether to give a training up after a validation."""

    def ended(self, job: Job, outcome: dict[str, Any] | Exception) -> None:
        """A training's result, or why it has none."""


def bucket(config: Config) -> str:
    """What trainings must share to run in one program, as a short hash."""
    static = {name: value for name, value in to_dict(config).items() if name not in OWN}
    for section, names in TRACED.items():
        static[section] = {name: value for name, value in static[section].items() if name not in names}
    loss, model = build.loss(config.loss), config.model
    dropped = model.dropout or model.embedding_dropout
    # at zero these are left out of the program
    static["with"] = [bool(on) for on in (config.optimizer.momentum, model.state_dropout, dropped, loss.propensity)]
    static["loss"] = repr(Step(loss).plain().loss)
    return fingerprint(static)


class Member:
    """One training in a slot: its decisions, and where its course stands."""

    def __init__(self, job: Job, begun: Begun, signal: StopSignal):
        self.job, self.begun, self.fitting = job, begun, begun.fitting
        self.fitting.alone, self.fitting.signal = False, signal
        self.owned, self.listening = ExitStack(), ExitStack()
        self.owned.enter_context(begun.folder)
        self.owned.enter_context(mendable(begun.folder.path))
        self.state = self.fitting.resumed(begun.fresh())  # until it is in a slot
        self.hyper = level(self.fitting.hyper)
        self.question: tuple[Slab, int] | None = None

    def start(self, held: Held, data: Source, plans: "Plans") -> None:
        """Open the course; its first question waits, None where nothing is left to train."""
        fitting = self.fitting
        if fitting.over:
            return
        self.listening.enter_context(fitting.training(data))
        loop = fitting.loop(None)  # the population runs it
        loop.plans = lambda epoch: plans.of(fitting.config, fitting.prepared, epoch)
        self.course: Course = loop.course(held, fitting.config.epochs, fitting.progress.clock)
        with self.hearing():
            self.question = next(self.course, None)

    def told(self, metrics: Metrics) -> None:
        """Decide what follows on some steps."""
        with self.hearing():
            self.question = answered(self.course, metrics)

    @contextmanager
    def hearing(self) -> Iterator[None]:
        """The course's records go where they belong as long as nothing fails."""
        with self.listening.pop_all() as listening:
            yield
            self.listening = listening.pop_all()

    def judges_after(self, end: int) -> bool:
        """Whether this member validates when its slab has run to ``end``."""
        assert self.question is not None
        slab, fitting = self.question[0], self.fitting
        return slab.last and end == slab.count and fitting.due(fitting.progress.clock.epoch + 1)

    def close(self) -> None:
        self.listening.close()
        self.owned.close()


class Plans:
    """Plans of epochs, made once for all members of a seed: trainings of one bucket pack alike."""

    def __init__(self) -> None:
        self.made: dict[tuple[int, int], Rows] = {}

    def of(self, config: Config, prepared: Prepared, epoch: int) -> Rows:
        key = (config.seed, epoch)
        if key not in self.made:
            if len(self.made) > 64:
                self.made.clear()
            self.made[key] = plan(config, prepared, epoch)
        return self.made[key]


class Report(NamedTuple):
    """How trainings ran together: the executor, member-steps a second of each that was tried, members at one time, and
    the bytes that the program needs.
    """

    executor: Executor
    probed: dict[Executor, float]
    slots: int
    bytes: int


def train(jobs: Jobs, *, slots: int, say: Say = print, executor: Executor | None = None) -> Report | None:
    """Train all that ``jobs`` has of one bucket, ``slots`` at a time; None where there was nothing to train.

    ``executor`` demands a way; without one a short measured probe chooses.
    """
    remember_compilations()
    pool = Pool(jobs, say)
    with pool.signal:
        first = pool.begin(slots)
        if not first:
            return None
        pool.compose(first, executor)
        try:
            while any(pool.members):
                pool.round()
                pool.refill()
            pool.conclude(pool.waiting)  # a signal came before they had a slot
        finally:
            for member in filter(None, [*pool.members, *pool.waiting]):
                member.close()
    return pool.report


class Pool:
    """The slots of one program and who is in them."""

    def __init__(self, jobs: Jobs, say: Say):
        self.jobs, self.say = jobs, say
        self.signal, self.plans = StopSignal(), Plans()
        self.members: list[Member | None] = []
        self.waiting: list[Member] = []  # begun, and without a slot
        self.pace = 1

    def begin(self, count: int) -> list[Member]:
        """Trainings that begin, at most so many; those that cannot, or are complete already, are ended here."""
        begun: list[Member] = []
        while len(begun) < count and not self.signal.requested and (jobs := self.jobs.more(count - len(begun))):
            for job in jobs:
                with self.ending(job):
                    one = begin(job.config, say=self.say, ask=self.asked(job))
                    if one.done is None:
                        begun.append(Member(job, one, self.signal))
                    else:
                        one.folder.release()
                        self.jobs.ended(job, one.done)
        return begun

    def asked(self, job: Job) -> Any:
        return lambda epoch, seconds, values: self.jobs.ask(job, epoch, seconds, values)

    @contextmanager
    def ending(self, job: Job, member: Member | None = None) -> Iterator[None]:
        """A training that fails ends, and the others go on."""
        try:
            yield
        except Exception as error:
            if member is not None:
                member.question = None
                member.close()
            self.jobs.ended(job, error)

    def compose(self, members: list[Member], executor: Executor | None) -> None:
        """Choose how so many members run and how many fit into memory, and put them into slots; the others wait."""
        first = members[0]
        self.step = first.fitting.step
        self.data = source.load(first.fitting.prepared, user=first.fitting.config.model.user)
        count, need = len(members), 0
        while True:
            whole = executor.at_once * executor.devices if executor else 1
            count = -(-count // whole) * whole
            self.fill(members, count)
            ways = [executor] if executor else list(executors(count, jax.local_device_count()))
            self.run, probed = fastest(self.step, ways, self.given(self.state), self.data)
            need = self.run.bytes(self.given(self.state), self.data)
            if need <= (limit := memory()) or count <= whole:
                break
            count = max(whole, min(count - 1, int(count * 0.9 * limit / need)))
        self.report = Report(self.run.executor, probed, count, need)
        self.say(sentence(self.report))
        self.waiting = members
        self.refill()

    def fill(self, members: list[Member], count: int) -> None:
        """Stacks for ``count`` slots, which the first member stands in until somebody enters."""
        first = members[0]
        self.state = stack([first.state] * count)
        self.known = stack([self.informed(first)] * count)
        self.hyper = {name: np.full(count, value, np.float32) for name, value in first.hyper.items()}
        self.members = [None] * count
        slab = np.zeros((count, RECORD, *batch_shape(first.fitting.config)), np.int32)
        self.index, self.reset, self.bounds = slab, slab.astype(bool), np.zeros((count, 2), np.int32)

    def given(self, state: State) -> Members:
        """What the program is called with."""
        return Members(state, self.index, self.reset, self.bounds, self.hyper, self.known)  # type: ignore[arg-type]

    def held(self, number: int) -> State:
        """The state of the member in a slot, on one device."""
        found = take(self.state, number)
        return found if self.run.executor.devices == 1 else jax.device_put(found, jax.local_devices()[0])  # type: ignore[no-any-return]

    def informed(self, member: Member) -> Any:
        return informed(self.step, self.data, member.hyper).known

    def refill(self) -> None:
        """Give free slots to trainings that wait. None is compiled for."""
        free = [number for number, member in enumerate(self.members) if member is None]
        if len(self.waiting) < len(free) and not self.signal.requested:
            self.waiting += self.begin(len(free) - len(self.waiting))
        over = []
        while free and self.waiting:
            member = self.waiting.pop(0)
            with self.ending(member.job, member):
                if self.enter(free[0], member):
                    free.pop(0)
                else:
                    over.append(member)
        self.conclude(over)

    def enter(self, number: int, member: Member) -> bool:
        """Put a training into a slot; False where nothing is left of it to train."""
        self.state = put(self.state, number, member.state)
        self.known = put(self.known, number, self.informed(member))
        for name, values in self.hyper.items():
            values[number] = member.hyper[name]
        member.start(lambda: self.held(number), self.data, self.plans)
        if member.question is None:
            return False
        self.members[number] = member
        return True

    def round(self) -> None:
        """Some steps of every member, and what each decides on them."""
        began = time.perf_counter()
        here = [(number, member) for number, member in enumerate(self.members) if member is not None]
        ends = {number: self.lay(number, member) for number, member in here}
        self.state, metrics = self.run(self.given(self.state), self.data)
        metrics = jax.tree.map(np.asarray, metrics)
        longest = max(end - self.bounds[number, 0] for number, end in ends.items())
        self.pace = max(1, min(RECORD, 2 * longest, int(longest / max(time.perf_counter() - began, 1e-6))))
        self.judge([(number, member) for number, member in here if member.judges_after(ends[number])])
        finished = []
        for number, member in here:
            part = slice(self.bounds[number, 0], ends[number])
            with self.ending(member.job, member):
                member.told(until_broken(jax.tree.map(lambda leaf, n=number, part=part: leaf[n, part], metrics)))
                if member.question is None:
                    member.state = self.held(number)
                    member.fitting.ended(member.state)
                    finished.append(member)
            if member.question is None:
                self.members[number] = None
                self.bounds[number] = 0
        self.share(time.perf_counter() - began, [member for _, member in here])
        self.conclude(finished)

    def lay(self, number: int, member: Member) -> int:
        """Write a member's next steps into its slot; where they end."""
        assert member.question is not None
        slab, done = member.question
        end = min(done + self.pace, slab.count)
        self.index[number], self.reset[number] = slab.index, slab.reset
        self.bounds[number] = done, end
        self.hyper["lr"][number] = member.hyper["lr"] * member.fitting.progress.clock.rate
        return end

    def judge(self, due: list[tuple[int, Member]]) -> None:
        """Validate members in one pass, where most of them are due; a lone one judges itself."""
        if 2 * len(due) <= len(self.members) or len({member.fitting.users for _, member in due}) > 1:
            return
        fitting = due[0][1].fitting
        found = evaluate_members(self.state.model, fitting.prepared, "valid", users=fitting.users)
        for number, member in due:
            if isinstance(ranks := found[number], Ranks):
                numbers = judge.numbers(fitting.prepared, ranks, member.fitting.config.eval.metrics)
                member.fitting.ready = ranks, numbers

    def share(self, seconds: float, members: list[Member]) -> None:
        """A member's time is its part of the round, not all of it."""
        for member in members:
            member.fitting.began += seconds * (1 - 1 / len(members))
            member.fitting.ready = None  # of a state that is no more

    def conclude(self, members: list[Member]) -> None:
        """Judge what trained to its end on the test targets, and write everything down."""
        best = []
        for member in members:
            with self.ending(member.job, member):
                if self.signal.requested:
                    raise Stopped(f"{self.signal.requested}: saved; the same command goes on from there")
                if member.fitting.stopped == GIVEN_UP:
                    raise GivenUp(f"given up after epoch {member.fitting.progress.clock.epoch}; its checkpoint stands")
                best.append((member, *member.fitting.chosen(member.state)))
        for (member, model, valid, ranks), known in zip(best, self.tested(best), strict=True):
            with self.ending(member.job, member):
                began = time.perf_counter()
                fitting = member.fitting
                judged = judge.on_test(model, fitting.prepared, fitting.config.eval.metrics, known)
                result = conclude(member.begun, model, valid, ranks, judged, time.perf_counter() - began)
                member.close()
                self.jobs.ended(member.job, result)

    def tested(self, best: Sequence[tuple[Any, ...]]) -> list[Ranks | None]:
        """Ranks of the best weights on the test targets in one pass, where there are enough of them."""
        if 2 * len(best) <= len(self.members):
            return [None] * len(best)
        models = [model for _, model, _, _ in best]
        models += models[:1] * (len(self.members) - len(models))  # always so many: nothing is compiled again
        fitting = best[0][0].fitting
        shown = judge.shown(fitting.prepared, fitting.config.eval.metrics, "test")
        found = evaluate_members(stack(models), fitting.prepared, "test", k=shown)
        return [ranks if isinstance(ranks, Ranks) else None for ranks in found[: len(best)]]


def batch_shape(config: Config) -> tuple[int, int]:
    """Rows and events of what one step sees."""
    return rows_a_step(config), config.batch.length


def until_broken(metrics: Metrics) -> Metrics:
    """The metrics of steps up to one that is not finite, after which none ran."""
    if metrics.finite.all():
        return metrics
    last = int(np.argmin(metrics.finite)) + 1
    return jax.tree.map(lambda leaf: leaf[:last], metrics)


def fastest(
    step: Step, ways: Sequence[Executor], given: Members, data: Source
) -> tuple[Together, dict[Executor, float]]:
    """The executor that ran most member-steps a second in a short probe, and what each did; a lone one is not tried."""
    runs = [together(step, way) for way in ways]
    if len(runs) == 1:
        return runs[0], {}
    speeds = {run.executor: speed(run, given, data) for run in runs}
    best = max(runs, key=lambda run: speeds[run.executor])
    return best, speeds


def speed(run: Together, given: Members, data: Source, steps: int = 4) -> float:
    """Member-steps a second, compilation apart: the better of two short turns."""
    seconds = []
    for end in (1, steps, steps):
        bounds = np.zeros_like(given.bounds)
        bounds[:, 1] = end
        copy = given._replace(state=jax.tree.map(jnp.copy, given.state), bounds=bounds)  # calls consume their state
        began = time.perf_counter()
        jax.block_until_ready(run(copy, data))
        seconds.append(time.perf_counter() - began)
    return len(given.bounds) * steps / min(seconds[1:])


def sentence(report: Report) -> str:
    tried = ", ".join(f"{name} {speed:,.0f}" for name, speed in report.probed.items())
    measured = f"; member-steps a second: {tried}" if tried else ""
    return f"{report.slots} trainings at a time by {report.executor}, {report.bytes / 2**20:,.0f} MiB{measured}"


def memory() -> float:
    """Bytes that are free of a device's memory, or of the machine's where the device has none of its own."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return float(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * float(next(line.split()[1] for line in lines if line.startswith("MemAvailable")))
    except (OSError, StopIteration):
        return float("inf")
