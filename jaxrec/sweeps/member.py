"""One training among many in a program: its own decisions, folder and records; its arithmetic is done elsewhere."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import Any, Protocol

import jax

from jaxrec.config import fingerprint, to_dict
from jaxrec.data.batches import Rows
from jaxrec.data.prepared import Prepared
from jaxrec.evaluation.ranks_file import Ranks
from jaxrec.models.recommender import Recommender
from jaxrec.runs import build, judge
from jaxrec.runs.epochs import plan
from jaxrec.runs.folder import mendable
from jaxrec.runs.options import Config, Model
from jaxrec.runs.run import Begun, conclude
from jaxrec.training.loop import Course, Held, answered
from jaxrec.training.population import level
from jaxrec.training.source import Slab, Source
from jaxrec.training.step import Metrics, State, Step
from jaxrec.training.stop import StopSignal

AHEAD, MEMORY = 256, 2**29  # plans that are kept, and about how many bytes of them


class Job(Protocol):
    """One training that is asked for: what the caller knows it by besides its configuration is the caller's."""

    @property
    def config(self) -> Config: ...


class Member:
    """One training in a slot: its decisions, and where its course stands."""

    def __init__(self, job: Job, begun: Begun, signal: StopSignal):
        self.job, self.begun, self.fitting = job, begun, begun.fitting
        self.fitting.alone, self.fitting.signal = False, signal
        self.owned, self.listening = ExitStack(), ExitStack()
        self.owned.enter_context(begun.folder)
        self.owned.enter_context(mendable(begun.folder.path))
        first = initial(self.fitting.step, begun.lanes)
        key = jax.random.key(self.fitting.config.seed)
        self.state = self.fitting.resumed(first(begun.recommender, self.fitting.hyper, key))  # until it is in a slot
        self.hyper = level(self.fitting.hyper)
        self.question: tuple[Slab, int] | None = None
        self.trained = False  # to its end in this process, and not saved yet

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

    def chosen(self) -> tuple[Recommender, dict[str, Any], Ranks]:
        """Save what was trained, and take the best weights; raises where there is nothing to judge yet."""
        if self.trained:
            self.fitting.ended(self.state)
        self.fitting.refuse_unfinished()
        return self.fitting.chosen(self.state)

    def result(self, model: Recommender, valid: dict[str, Any], ranks: Ranks, known: Ranks | None) -> dict[str, Any]:
        """Judge the best weights on the test targets, whose ranks may be known, and write everything down."""
        began, fitting = time.perf_counter(), self.fitting
        judged = judge.on_test(model, fitting.prepared, fitting.config.eval.metrics, known)
        return conclude(self.begun, model, valid, ranks, judged, time.perf_counter() - began)

    def close(self) -> None:
        self.listening.close()
        self.owned.close()


@lru_cache(maxsize=16)
def initial(step: Step, lanes: int) -> Callable[..., State]:
    """`Step.init` as one program: what is small is made by hundreds of calls to a device otherwise."""
    return jax.jit(lambda model, hyper, key: step.init(model, hyper, key, lanes))


def drawn(options: Model, offer: build.Offer, *, seed: int) -> Recommender:
    """`build.model` as one program for all seeds, up to the last bit of what is drawn; a user's cell that cannot be
    traced is built as it is.
    """
    key = fingerprint({"model": to_dict(options), "offer": repr(offer)})
    if seed >= 2**31 or _DRAWN.get(key, ...) is None:
        return build.model(options, offer, seed=seed)
    if key not in _DRAWN:
        if len(_DRAWN) >= 16:
            _DRAWN.clear()
        _DRAWN[key] = jax.jit(lambda number: build.model(options, offer, seed=number))
    try:
        return _DRAWN[key](seed)  # type: ignore[no-any-return,misc]
    except Exception:
        _DRAWN[key] = None
        return build.model(options, offer, seed=seed)  # and says what is wrong, if anything is


_DRAWN: dict[str, Callable[[int], Recommender] | None] = {}


class Plans:
    """Plans of epochs, made once for all members of a seed, as trainings of one bucket pack alike, and ahead, while the
    device works.
    """

    def __init__(self) -> None:
        self.made: dict[tuple[int, int], Future[Rows]] = {}
        self.thread = ThreadPoolExecutor(1, "jaxrec-plans")

    def of(self, config: Config, prepared: Prepared, epoch: int) -> Rows:
        found = self.asked(config, prepared, epoch)
        if epoch + 1 < config.epochs:
            self.asked(config, prepared, epoch + 1)
        return found.result()

    def asked(self, config: Config, prepared: Prepared, epoch: int) -> "Future[Rows]":
        key = (config.seed, epoch)
        if key not in self.made:
            while len(self.made) > max(2, min(AHEAD, MEMORY // (6 * len(prepared.items) + 1))):
                self.made.pop(next(iter(self.made)))
            self.made[key] = self.thread.submit(plan, config, prepared, epoch)
        return self.made[key]

    def close(self) -> None:
        self.thread.shutdown(cancel_futures=True)
