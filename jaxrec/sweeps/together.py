"""Trainings that differ in traced numbers only, in one compiled program: each is a run with its own folder.

The decisions of a training (records, validations, early stopping, checkpoints) are those of a run alone; only the
arithmetic between them is shared. A member that ends makes its slot free for a waiting one, and nothing is compiled
again.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import jax
import numpy as np

from jaxrec.config import Mistake
from jaxrec.evaluation.ranks import Ranks, evaluate_members
from jaxrec.models.recommender import Recommender
from jaxrec.parallel.programs import free_memory
from jaxrec.runs import judge
from jaxrec.runs.build import rows_a_step
from jaxrec.runs.options import Config
from jaxrec.runs.run import Say, again, begin, remember_compilations
from jaxrec.sweeps.member import Job, Member, Plans, drawn
from jaxrec.sweeps.probe import Report, fastest, sentence
from jaxrec.training import source
from jaxrec.training.loop import RECORD, informed
from jaxrec.training.population import Executor, Members, executors, put, stack, take
from jaxrec.training.step import Metrics, State
from jaxrec.training.stop import Stopped, StopSignal

WRITERS = 8  # threads that write what members leave
T = TypeVar("T")


class Jobs(Protocol):
    """Who has trainings to do."""

    def more(self, count: int) -> Sequence[Job]:
        """At most so many that wait, all of one bucket (`sweeps.buckets`)."""

    def ask(self, job: Any, epoch: int, seconds: float, values: dict[str, float]) -> bool:
        """Whether to give a training up after a validation."""

    def ended(self, job: Any, outcome: dict[str, Any] | Exception) -> None:
        """A training's result, or why it has none."""


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
            if pool.signal.requested:
                raise Stopped(f"{pool.signal.requested}: what was saved stands; the same command goes on from there")
        finally:
            for member in filter(None, [*pool.members, *pool.waiting]):
                member.close()
            pool.plans.close()
    return pool.report


def refuse_apart(config: Config) -> None:
    """`Mistake` where a training wants what one of many in a program cannot have."""
    if config.shards > 1:
        raise Mistake(f"shards={config.shards}: trainings that run together have whole tables; use one shard")
    if config.events_on == "disk":
        raise Mistake("events_on = disk: trainings that run together share all events on the device; leave it out")
    if config.trace:
        raise Mistake("trace: trainings that run together have one program; trace one of them with jaxrec train")


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
                    refuse_apart(job.config)
                    words, ask = again(job.config), self.asked(job)
                    one = begin(job.config, command=words, say=self.say, ask=ask, draw=drawn)
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
            if need <= (limit := free_memory()) or count <= whole:
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
        """Give free slots to trainings that wait, and judge those of which nothing is left to train."""
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
                    member.state, member.trained = self.held(number), True
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
        found = evaluate_members(self.state.judged, fitting.prepared, "valid", users=fitting.users)
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
        best: list[tuple[Member, Recommender, dict[str, Any], Ranks]] = []
        for member, chosen in self.writing(members, Member.chosen):
            with self.ending(member.job, member):
                best.append((member, *chosen()))
        known = self.tested([(member, model) for member, model, _, _ in best])
        rest = {one[0]: (*one[1:], ranks) for one, ranks in zip(best, known, strict=True)}
        for member, result in self.writing(list(rest), lambda member: member.result(*rest[member])):
            with self.ending(member.job, member):
                found = result()
                member.close()
                self.jobs.ended(member.job, found)

    def writing(
        self, members: Sequence[Member], what: Callable[[Member], T]
    ) -> Iterator[tuple[Member, Callable[[], T]]]:
        """What is to be done for every member, which is files above all, by some threads; in the members' order."""
        with ThreadPoolExecutor(WRITERS) as threads:
            futures = [(member, threads.submit(what, member)) for member in members]
            for member, future in futures:
                yield member, future.result

    def tested(self, best: Sequence[tuple[Member, Recommender]]) -> list[Ranks | None]:
        """Ranks of the best weights on the test targets in one pass, where there are enough of them."""
        count, models = len(best), [model for _, model in best]
        if 2 * count <= len(self.members):
            return [None] * count
        models += models[:1] * (len(self.members) - count)  # always so many: nothing is compiled again
        fitting = best[0][0].fitting
        shown = judge.shown(fitting.prepared, fitting.config.eval.metrics, "test")
        found = evaluate_members(stack(models), fitting.prepared, "test", k=shown)
        return [ranks if isinstance(ranks, Ranks) else None for ranks in found[:count]]


def batch_shape(config: Config) -> tuple[int, int]:
    """Rows and events of what one step sees."""
    return rows_a_step(config), config.batch.length


def until_broken(metrics: Metrics) -> Metrics:
    """The metrics of steps up to one that is not finite, after which none ran."""
    if metrics.finite.all():
        return metrics
    last = int(np.argmin(metrics.finite)) + 1
    return jax.tree.map(lambda leaf: leaf[:last], metrics)
