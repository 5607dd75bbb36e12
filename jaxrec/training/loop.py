"""The training loop: compiled runs of steps, and callbacks for everything else."""

import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrec.data.batches import Rows
from jaxrec.losses.negatives import Popularity
from jaxrec.models.tables import Shards
from jaxrec.training.optimisers import Hyper
from jaxrec.training.source import AnySource, Slab, Slabs, Source, slabs
from jaxrec.training.step import Metrics, State, Step

RECORD = 32  # steps a record covers, and the most that one dispatch runs


S = TypeVar("S", bound=AnySource)
Held = Callable[[], State]  # where a state is one of many, it is taken out only when somebody looks at it
Course = Generator[tuple[Slab, int], Metrics, None]


class NotFinite(ArithmeticError):
    """The loss or its gradient stopped being a number; ``state`` is the last good one, ``batch`` the plan of the bad
    step.
    """

    def __init__(self, state: State, index: np.ndarray, reset: np.ndarray):
        super().__init__(f"step {int(state.step) + 1}: the gradient is not finite")
        self.state, self.index, self.reset = state, index, reset


def informed(step: Step, source: S, hyper: Hyper) -> S:
    """The source with what the step's loss must know of its counts: many passes over them, so once a run."""
    return source._replace(known=known(step, source.counts, hyper))  # type: ignore[return-value]


@partial(jax.jit, static_argnums=0)
def known(step: Step, counts: Array | None, hyper: Hyper) -> Popularity | None:
    """`Step.know` as a program that equal steps share."""
    return step.know(counts, hyper)


def run_steps(
    step: Step,
    state: State,
    source: AnySource,
    index: Any,
    reset: Array,
    bounds: Array,
    hyper: Hyper,
    axis: str | None = None,
    shards: Shards | None = None,
) -> tuple[State, Metrics]:
    """Steps ``bounds[0]`` to ``bounds[1]`` of a slab in one compiled loop, up to one that is not finite.

    ``index, reset (steps, batch, time)``, of a `Bare` source a `Batch` of such in place of ``index``; the metrics have
    ``(steps,)`` leaves; the source is `informed`. The bounds are traced: however a run is cut into dispatches it is the
    same program, hence the same bits.
    """
    blank = jnp.zeros(reset.shape[0])
    metrics = Metrics(blank, blank.astype(jnp.int32), blank, blank.astype(bool), blank.astype(bool))

    def go(carry: tuple) -> Array:
        i, _, _, fine = carry
        return (i < bounds[1]) & fine

    def one(carry: tuple) -> tuple:
        i, state, metrics, _ = carry
        batch = source.batch(*jax.tree.map(lambda leaf: leaf[i], (index, reset)))
        state, now = step(state, batch, hyper, axis, source.known, shards)
        metrics = jax.tree.map(lambda all_, this: all_.at[i].set(this.astype(all_.dtype)), metrics, now)
        return i + 1, state, metrics, now.finite

    _, state, metrics, _ = jax.lax.while_loop(go, one, (bounds[0], state, metrics, jnp.ones((), bool)))
    return state, metrics


@dataclass
class Clock:
    """Where a run is. All of it goes into a checkpoint: a run that is cut anywhere goes on with the next batch."""

    epoch: int = 0
    batch: int = 0  # batches of this epoch that are done
    step: int = 0
    partial: list[list[float]] = field(default_factory=list)  # metrics of steps that no record covers yet
    skipped: int = 0  # batches left out because their gradient was not finite

    @property
    def rate(self) -> float:
        """What the learning rate is multiplied with: every batch left out has halved it (exact in floating point)."""
        return 0.5**self.skipped


@dataclass
class Loop:
    """Epochs over plans. Records go to ``record`` every ``RECORD`` steps, always for the same steps however a run was
    cut.

    ``run(state, source, index, reset, bounds, hyper)`` is ``run_steps`` compiled; ``plans(epoch)`` gives an
    epoch's index plan; ``pause(held, clock)`` is asked between dispatches whether to stop now (signals, time limits,
    checkpoints); ``epoch_end(held, clock)`` whether to stop for good; ``skip(bad, clock)`` whether a batch whose
    gradient is not finite may be left out: training then goes on from the state before it at half the rate.
    """

    run: Callable[..., tuple[State, Metrics]] | None
    plans: Callable[[int], Rows]
    size: int
    record: Callable[[dict[str, Any]], None]
    pause: Callable[[Held, Clock], bool]
    epoch_end: Callable[[Held, Clock], bool]
    skip: Callable[[NotFinite, Clock], bool] = lambda bad, clock: False
    slabs: Callable[..., Slabs] = slabs  # or with the events of each: `training.feed`
    whole: Callable[[State], State] = lambda state: state  # of a state in pieces, what everybody else may see
    common: Callable[[int], int] = lambda count: count  # of many processes, what the first has decided
    seconds: float = 1.0  # aim for one dispatch, so that signals are heard

    def fit(self, state: State, source: AnySource, hyper: Hyper, *, epochs: int, clock: Clock) -> State:
        """Train until ``epochs`` are done or a callback says stop."""

        def held() -> State:
            return self.whole(state)

        assert self.run is not None
        with closing(self.course(held, epochs, clock)) as course:
            ask = next(course, None)
            while ask is not None:
                slab, done = ask
                end = min(done + self.pace, slab.count)
                began = time.perf_counter()
                bounds = np.array([done, end], np.int32)
                state, metrics = self.run(state, *slab.read(source), bounds, slower(hyper, clock.rate))
                metrics = jax.tree.map(lambda leaf, part=slice(done, end): np.asarray(leaf)[part], metrics)
                self.adapt(end - done, time.perf_counter() - began)
                ask = answered(course, metrics)
        return held()

    def course(self, held: Held, epochs: int, clock: Clock) -> Course:
        """All that a training decides, and none of its arithmetic.

        Yields a slab and how many of its steps are done; whoever runs it sends back the metrics of some more (host
        arrays; the last step is not finite where they stopped at one). ``held()`` is the state after all that ran.
        """
        while clock.epoch < epochs:
            plan = self.plans(clock.epoch)
            slabs = self.slabs(plan, size=self.size, steps=RECORD, begin=clock.batch)
            del plan  # the next one is made while nobody holds this one
            with closing(slabs):
                for slab in slabs:
                    if (yield from self.steps(slab, held, clock)):
                        return
            clock.epoch, clock.batch = clock.epoch + 1, 0
            if self.epoch_end(held, clock):
                return

    def steps(self, slab: Slab, held: Held, clock: Clock) -> Generator[tuple[Slab, int], Metrics, bool]:
        """The part of a course that is one slab; whether it stops there."""
        done = 0
        while done < slab.count:
            metrics = yield slab, done
            good, bad = finite(metrics, held, slab, done)
            skipped = bad is not None and self.skip(bad, clock)
            if skipped:
                clock.batch, clock.skipped = clock.batch + 1, clock.skipped + 1
            self.collect(good, clock)
            done += len(good.loss) + skipped
            if clock.batch == slab.end:  # before a pause, or the record would cover other steps after it
                self.flush(clock)
            if self.pause(held, clock):
                return True
            if bad is not None and not skipped:
                raise bad  # the clock stays with the state
        return False

    pace: int = 1

    def adapt(self, count: int, seconds: float) -> None:
        """Steps for the next dispatch; at most twice as many as this one, so that the first, which compiles,
        misleads little.
        """
        self.pace = self.common(max(1, min(RECORD, 2 * count, int(self.seconds * count / max(seconds, 1e-6)))))

    def collect(self, metrics: Metrics, clock: Clock) -> None:
        count = len(metrics.loss)
        clock.batch, clock.step = clock.batch + count, clock.step + count
        clock.partial += np.stack([np.asarray(leaf, np.float64) for leaf in metrics], axis=1).tolist()

    def flush(self, clock: Clock) -> None:
        """Turn the steps since the last record into one."""
        if not clock.partial:
            return
        loss, events, norm, clipped, _ = np.asarray(clock.partial).T
        clock.partial = []
        self.record(
            {
                "step": clock.step, "epoch": clock.epoch, "loss": float(loss.sum() / max(events.sum(), 1)),
                "grad_norm": float(norm.mean()), "clipped": float(clipped.mean()), "events": int(events.sum()),
            }
        )  # fmt: skip


def answered(course: Course, metrics: Metrics) -> tuple[Slab, int] | None:
    """What a course asks for after an answer; None at its end."""
    try:
        return course.send(metrics)
    except StopIteration:
        return None


def finite(metrics: Metrics, held: Held, slab: Slab, done: int) -> tuple[Metrics, NotFinite | None]:
    """The metrics of the steps before one that is not finite, and that one."""
    if metrics.finite.all():
        return metrics, None
    good = int(np.argmin(metrics.finite))
    bad = NotFinite(held(), slab.index[done + good], slab.reset[done + good])
    return jax.tree.map(lambda leaf: leaf[:good], metrics), bad


def slower(hyper: Hyper, rate: float) -> Hyper:
    """``hyper`` with its learning rate multiplied; the very same where there is nothing to multiply."""
    return hyper if rate == 1.0 else hyper | {"lr": hyper["lr"] * np.float32(rate)}


def compile_run(step: Step, **jit: Any) -> Callable[..., tuple[State, Metrics]]:
    """``run_steps`` for one device, the old state's memory reused for the new one."""

    def run(
        state: State, source: Source, index: Array, reset: Array, bounds: Array, hyper: Hyper
    ) -> tuple[State, Metrics]:
        return run_steps(step, state, source, index, reset, bounds, hyper)

    return jax.jit(run, donate_argnums=0, **jit)
