"""One training among many in a program: its own decisions, folder and records; its arithmetic is done elsewhere."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

from jaxrec.data.batches import Rows
from jaxrec.data.prepared import Prepared
from jaxrec.evaluation.ranks_file import Ranks
from jaxrec.models.recommender import Recommender
from jaxrec.runs import judge
from jaxrec.runs.fitting import plan
from jaxrec.runs.folder import mendable
from jaxrec.runs.options import Config
from jaxrec.runs.run import Begun, conclude
from jaxrec.training.loop import Course, Held, answered
from jaxrec.training.population import level
from jaxrec.training.source import Slab, Source
from jaxrec.training.step import Metrics
from jaxrec.training.stop import StopSignal


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
        self.state = self.fitting.resumed(begun.fresh())  # until it is in a slot
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
