"""Training inside a run: resume, checkpoints, early stopping, records; everything that the loop leaves to callbacks."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax

from jaxrec.config import Mistake
from jaxrec.data.batches import Rows
from jaxrec.data.prepared import Prepared
from jaxrec.evaluation.ranks_file import Ranks
from jaxrec.evaluation.summary import headline
from jaxrec.metrics import parse
from jaxrec.metrics.sampled import ranked
from jaxrec.models.pieces import in_pieces
from jaxrec.models.recommender import Recommender
from jaxrec.parallel import team
from jaxrec.runs import judge, planner
from jaxrec.runs.ancestry import Start
from jaxrec.runs.build import rows_a_step
from jaxrec.runs.epochs import plan
from jaxrec.runs.options import Config
from jaxrec.runs.sampling import Sampler
from jaxrec.runs.tracing import Trace
from jaxrec.training.autopsy import explain
from jaxrec.training.loop import Clock, Held, Loop, NotFinite, informed
from jaxrec.training.optimisers import Hyper
from jaxrec.training.progress import JsonLines, TensorBoard, console
from jaxrec.training.shared_checkpoints import SharedCheckpoints
from jaxrec.training.source import AnySource, Events, load, slabs
from jaxrec.training.spread import Spread, shape
from jaxrec.training.step import State, Step
from jaxrec.training.stop import Interrupted, Stopped, StopSignal

Answer = tuple[Ranks, dict[str, Any]]
GIVEN_UP = "given up"
Ask = Callable[[int, float, dict[str, float]], bool]  # epoch, seconds, validation numbers -> give this training up?


class Diverged(Mistake):
    """A training whose gradient stopped being a number, more often than it may."""


class GivenUp(Exception):
    """A training that whoever asked for it gave up after a validation; its checkpoint stands."""


@dataclass
class Progress:
    """What a checkpoint remembers besides the state: where the run is, and what early stopping has seen."""

    clock: Clock = field(default_factory=Clock)
    seconds: float = 0.0
    best: float | None = None
    best_epoch: int = 0
    waited: int = 0
    done: bool = False
    stopped: str | None = None  # why it is done before its last epoch

    @classmethod
    def from_notes(cls, notes: dict[str, Any]) -> "Progress":
        return cls(**(notes | {"clock": Clock(**notes["clock"])}))


class Fitting:
    """One training under way. ``stopped`` says why it ended before its last epoch: None, "patience", "max_seconds"
    or a signal.
    """

    def __init__(
        self,
        config: Config,
        prepared: Prepared,
        directory: Path,
        step: Step,
        hyper: Hyper,
        steps: int,
        say: Callable[[str], None],
        first: Rows | None = None,
        ask: Ask | None = None,
    ):
        self.config, self.prepared, self.directory, self.say = config, prepared, directory, say
        self.step, self.hyper, self.steps = step, hyper, steps
        self.first = first  # the plan of epoch 0, where somebody has made it already
        self.ask = ask
        measured = {parse(name): name for name in ranked(config.eval.metrics)}
        if parse(config.stop.metric) not in measured:
            raise Mistake(
                f"stop.metric = {config.stop.metric!r} is not measured; "
                f"add it to eval.metrics ({', '.join(measured.values())})"
            )
        self.metric = measured[parse(config.stop.metric)]
        self.spread = planner.spread_out(step, config)
        self.feed = planner.feed(config, prepared)
        # read here, not when first needed: what nobody has read by the first step is reported as ignored
        self.every, self.patience, self.keep = config.eval.every, config.stop.patience, config.stop.keep
        self.users, self.limit, self.interval = config.eval.users, config.max_seconds, config.checkpoint_seconds
        self.tensorboard = config.tensorboard
        self.sampler = self.looking(config)
        self.trace = Trace(directory / "trace") if config.trace else None
        self.skips = config.nan_limit if config.on_nan == "rollback" else 0
        self.checkpoints = SharedCheckpoints(directory / "checkpoints", say=say)
        self.progress = Progress()
        self.signal = StopSignal()
        self.start: Start | None = None  # where it begins, unless afresh
        self.stopped: str | None = None
        self.warnings: list[str] = []
        self.looked = False
        self.began = self.ticked = time.perf_counter()
        self.callbacks: list[Any] = []
        self.alone = True  # or one of many in a program: quiet, and sparing with checkpoints
        self.ready: Answer | None = None  # the next judgement, where somebody has made it already
        self.kept: tuple[int, Recommender, dict[str, Any]] | None = None  # the best weights, before they are written
        self.champion: tuple[int, Recommender] | None = None  # the best weights, where many train and memory has them
        self.answer: Answer | None = None  # the judgement of the best weights, where this process made it

    def fit(self, state: State, data: AnySource) -> State:
        """Go on from the newest checkpoint, or from ``state``, to the end, a limit or a signal."""
        state = self.resumed(state)
        if self.over:
            return state
        run, data = self.spread, informed(self.step, data, self.hyper)
        with self.signal, self.training(data if self.feed is None else self.feed.reading(data.known)):
            placed, state = run.place(state, data, self.hyper), jax.tree.map(shape, run.form(state))  # held once
            planner.foretell(self, placed, state, data)
            if self.sampler is not None and not self.progress.clock.step:
                self.look(lambda: run.whole(placed[0]), self.progress.clock)
            state = self.loop(run).fit(*placed, epochs=self.config.epochs, clock=self.progress.clock)
            self.signal.heard()
            self.ended(state)  # inside: a signal must not cut it
        return state

    def events(self) -> AnySource:
        """What `fit` is given: all events on the device, or none where they stay on disk."""
        if self.feed is None:
            return load(self.prepared, user=self.config.model.user)
        return self.feed.data.bare()

    def loop(self, run: Spread | None) -> Loop:
        """The loop over this training's epochs, its records and decisions made here; whoever follows its course needs
        no ``run``.
        """
        cut = slabs if self.feed is None or run is None else partial(self.feed.slabs, lay=run.lay)
        return Loop(
            run=run, plans=self.plan, size=rows_a_step(self.config), record=self.record, slabs=cut,
            pause=self.pause, epoch_end=self.epoch_end, skip=self.skip, whole=self.spread.whole, common=team.agreed,
        )  # fmt: skip

    @contextmanager
    def training(self, data: Events) -> Iterator[None]:
        """Open what hears of the training; a gradient that is not finite ends it with a sentence."""
        self.batches, self.data = self.progress.clock.batch, data
        self.callbacks = self.listeners(self.progress.clock.step)
        if self.sampler is not None:
            self.sampler.begin(data, self.progress.clock.step)
        try:
            yield
        except NotFinite as bad:
            self.save(bad.state)
            raise Diverged(f"{self.explained(bad)}; {self.remedy()}") from None
        finally:
            for callback in filter(None, [*self.callbacks, self.sampler, self.trace]):
                callback.close()

    def ended(self, state: State) -> None:
        """Save the state after which nothing more is trained for now."""
        clock = self.progress.clock
        if self.sampler is not None and self.sampler.last != clock.step:
            self.look(lambda: state, clock)
        self.progress.done = self.stopped in (None, "patience")
        self.save(state)
        self.progress.seconds, self.began = self.seconds(), time.perf_counter()

    def refuse_unfinished(self) -> None:
        """Raise `Stopped` after a signal, `GivenUp` where somebody did: there is nothing to judge yet."""
        clock = self.progress.clock
        if self.signal.requested:
            raise Stopped(
                f"{self.signal.requested}: saved after step {clock.step}; "
                "the same command, without --fresh, goes on from there"
            )
        if self.stopped == GIVEN_UP:
            raise GivenUp(f"given up after epoch {clock.epoch}; its checkpoint stands")

    def looking(self, config: Config) -> Sampler | None:
        """Who looks at the gradient flow, where that is asked for."""
        if not config.diagnose:
            return None
        seen = partial(plan, config, self.prepared, 0)
        rows, length, every = rows_a_step(config), config.batch.length, config.diagnose_every
        return Sampler(self.directory, self.prepared, self.step, self.hyper, seen, rows, length, every)

    def look(self, held: Held, clock: Clock) -> None:
        """Look at the gradient flow; the time it takes is none of the training's."""
        assert self.sampler is not None
        began = time.perf_counter()
        self.sampler(held, clock.step, clock.epoch)
        took = time.perf_counter() - began
        self.began, self.ticked = self.began + took, self.ticked + took

    def plan(self, epoch: int) -> Rows:
        first, self.first = self.first, None
        return first if first is not None and epoch == 0 else plan(self.config, self.prepared, epoch)

    def resumed(self, fresh: State) -> State:
        """The newest checkpoint's state, or ``fresh`` where there is none; training is ``over`` where that was the
        last.
        """
        step = self.checkpoints.latest()
        self.checkpoints.forget_best_after(-1 if step is None else step)
        if step is not None:
            fresh, notes = self.checkpoints.restore(step, self.spread.form(fresh))
            self.progress = Progress.from_notes(notes)
            self.say(f"resuming {self.directory} after step {step}")
        elif (self.directory / "metrics.jsonl").exists():
            self.say(f"{self.directory} was trained before and has no checkpoint that can be read: it begins anew")
        if step is None and self.start is not None:
            fresh, self.progress.clock = self.start(self.spread.whole(fresh))
        self.began = self.ticked = self.saved = time.perf_counter()
        progress = self.progress
        self.over = progress.done and bool(progress.stopped or progress.clock.epoch >= self.config.epochs)
        self.stopped = progress.stopped if self.over else None
        progress.done = self.over
        return fresh

    def listeners(self, step: int) -> list[Any]:
        """Who hears of every record; what earlier attempts wrote after ``step`` is taken back."""
        found: list[Any] = [JsonLines(self.directory / "metrics.jsonl", step)]
        if self.alone and team.leads():
            found.append(console(self.steps, self.config.epochs, step))
        if self.tensorboard:
            found.append(TensorBoard(self.directory / "tensorboard", step))
        return found

    def tell(self, record: dict[str, Any]) -> None:
        """Send a record to everybody, with the seconds since the last one."""
        now = time.perf_counter()
        record["seconds"], self.ticked = now - self.ticked, now
        for callback in self.callbacks:
            callback(record)

    def record(self, record: dict[str, Any]) -> None:
        rate = self.step.optimiser.rate(record["step"] - 1, self.hyper.get("steps"))
        self.tell(record | {"lr": float(self.hyper["lr"] * rate) * self.progress.clock.rate})

    def skip(self, bad: NotFinite, clock: Clock) -> bool:
        """Whether the batch of a step that is not finite is left out, as often as ``nan_limit`` allows."""
        if clock.skipped >= self.skips:
            return False
        count, step = clock.skipped + 1, int(bad.state.step)
        what = f"step {step + 1} is not finite" if self.looked else self.explained(bad)  # looking takes seconds
        self.looked = True
        self.say(
            f"{what}; went back to the state before it, left the batch out and halved the learning "
            f"rate, {count} of {self.skips} times"
        )
        self.tell({"step": step, "epoch": clock.epoch, "skipped": count})
        return True

    def left_out(self) -> str | None:
        """A sentence about batches that were skipped, None without any."""
        clock = self.progress.clock
        if not clock.skipped:
            return None
        return (
            f"{clock.skipped} batches had a gradient that was not finite and were left out; the learning rate is "
            f"{clock.rate:g} of optimizer.lr since"
        )

    def explained(self, bad: NotFinite) -> str:
        return explain(self.step, bad, self.data, self.hyper, self.prepared)

    def remedy(self) -> str:
        saved = "the state before that step is saved"
        if self.skips:
            return f"{saved}; {self.skips} batches were left out before (nan_limit): look at the model and the data"
        return f"{saved}; lower optimizer.lr or optimizer.clip, look at these rows, or go on with --on-nan rollback"

    def pause(self, held: Held, clock: Clock) -> bool:
        """Between dispatches: stop for a signal or the time limit, and save now and then."""
        self.batches = clock.batch
        if self.trace is not None:
            self.trace()
        if self.sampler is not None and self.sampler.due(clock.step):
            self.look(held, clock)
        late = self.limit is not None and self.seconds() > self.limit
        signal, late, due = self.told(late, time.perf_counter() - self.saved > self.interval)
        if signal:
            self.signal.heard()
            self.stopped = signal
        elif late:
            self.stopped = "max_seconds"
        elif due:
            self.save(held())
        return self.stopped is not None

    def told(self, *first: bool) -> tuple[Any, ...]:
        """The signal that came, if only to one of many processes, and what the first of them says."""
        said = team.united([self.signal.requested, *first])
        signal = next((came for came, *_ in said if came), None)
        self.signal.requested = signal or self.signal.requested  # one that came meanwhile is for the next time
        return signal, *said[0][1:]

    def seconds(self) -> float:
        """Training time so far, earlier attempts included."""
        return self.progress.seconds + time.perf_counter() - self.began

    def epoch_end(self, held: Held, clock: Clock) -> bool:
        """Validate, keep the best, decide whether to go on."""
        if not self.due(clock.epoch):
            return False
        state = held()
        try:
            with self.signal.raising() if team.size() == 1 else nullcontext():  # nobody leaves while others wait
                answer = self.judged(state.judged)
        except Interrupted as signal:  # the epoch is trained, its judgement is still to come
            self.stopped = str(signal)
            clock.epoch, clock.batch = clock.epoch - 1, self.batches
            return True
        values = answer[1][headline(self.prepared)]
        self.tell({"step": clock.step, "epoch": clock.epoch, "valid": values})
        value, progress = values[self.metric], self.progress
        if progress.best is None or value > progress.best:
            progress.best, progress.best_epoch, progress.waited = value, clock.epoch, 0
            self.kept, self.answer = (clock.step, state.judged, {"epoch": clock.epoch, self.metric: value}), answer
            self.champion = None if self.alone else (clock.epoch, state.judged)
        else:
            progress.waited += 1
        if self.ask is not None and self.ask(clock.epoch, self.seconds(), values):
            self.stopped = GIVEN_UP
        elif self.patience and progress.waited >= self.patience:
            self.stopped = progress.stopped = "patience"
            progress.done = True
        if self.alone or time.perf_counter() - self.saved > self.interval:  # processes of a team are alone, each
            self.save(state)
        self.stopped = self.stopped or self.told()[0]
        return self.stopped is not None

    def due(self, epoch: int) -> bool:
        """Whether the model is validated after so many epochs."""
        return not epoch % self.every or epoch >= self.config.epochs

    def judged(self, model: Recommender) -> Answer:
        (ready, self.ready), names = (self.ready, None), self.config.eval.metrics
        return ready or judge.model(self.laid(model), self.prepared, names, "valid", users=self.users)

    def laid(self, model: Recommender) -> Recommender:
        """The model as it is judged: in pieces, where it is trained so."""
        pieces = self.config.shards
        return model if pieces == 1 else in_pieces(model, team.ours(self.spread.devices)[:pieces])

    def save(self, state: State) -> None:
        """Write a checkpoint from which the run goes on bit for bit."""
        if self.kept is not None:
            self.checkpoints.save_best(*self.kept)
            self.kept = None
        notes = asdict(self.progress) | {"seconds": self.seconds()}
        self.checkpoints.save(self.progress.clock.step, state, notes)
        self.saved = time.perf_counter()

    def chosen(self, state: State) -> tuple[Recommender, dict[str, Any], Ranks]:
        """The best weights, their validation numbers and ranks; the current ones where those are asked for, where
        training ended before any validation, or where it was cut short and they beat them.
        """
        best, where = self.best(state)
        known = self.keep == "best" and where == self.progress.best_epoch
        ranks, valid = self.answer if known and self.answer is not None else self.judged(best)
        if self.stopped == "max_seconds" and self.progress.clock.batch and self.keep == "best":
            now_ranks, now = self.judged(state.judged)
            reading = headline(self.prepared)
            if now[reading][self.metric] >= valid[reading][self.metric]:
                clock = self.progress.clock
                return state.judged, now | {"epoch": clock.epoch, "step": clock.step}, now_ranks
        return best, valid | {"epoch": where}, ranks

    def best(self, state: State) -> tuple[Recommender, int]:
        """The weights of the best validation and its epoch; the current ones where those are asked for, or where there
        was none.
        """
        current = state.judged
        if self.keep == "last":
            return current, self.progress.clock.epoch
        best, where, wanted = current, self.progress.clock.epoch, self.progress.best_epoch
        if self.champion is not None:
            return self.champion[1], wanted
        if self.checkpoints.best() is not None:
            best, notes = self.checkpoints.restore_best(current)
            where = notes["epoch"]
        if wanted and where != wanted:
            self.warnings.append(
                f"the best weights, of epoch {wanted}, are damaged; those of epoch {where} are judged instead"
            )
            self.say(self.warnings[-1] + "; --fresh trains the run again")
        return best, where
