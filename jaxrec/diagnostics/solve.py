"""How far a cell's memory reaches once it is trained for it: a task at a distance, solved or not."""

import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from jaxrec.config import Call, Mistake, Section, Within, to_dict
from jaxrec.diagnostics.problem import Task
from jaxrec.diagnostics.student import Student, flat, student
from jaxrec.diagnostics.tasks import named
from jaxrec.training.optimisers import Hyper, Optimiser, clip

Positive = Annotated[int, Within(1)]
Count = Annotated[int, Within(0)]
Rate = Annotated[float, Within(0.0, above=True)]
Amount = Annotated[float, Within(0.0)]
Share = Annotated[float, Within(0.0, 1.0, above=True)]
Record = dict[str, Any]

CONFIDENT = 1.96  # standard deviations either side


@dataclass(frozen=True, kw_only=True)
class Recipe(Section):
    """How a task is learnt. Every remedy against gradients that vanish or explode is an option here, or one of the
    cell, as in ``lstm(chrono=200)``.
    """

    cell: Call = Call("gru")
    """recurrent cell with its options"""
    width: Positive = 64
    """size of the vectors, and of the cell's state unless it says otherwise"""
    depth: Positive = 1
    """blocks"""
    feedforward: Count = 0
    """width of the feed-forward after a cell, in multiples of `width`; 0 for none"""
    norm: bool = True
    """a layer norm before every cell"""
    residual: bool = True
    """every cell adds to its input"""
    backend: Call | None = None
    """how cells run over time; scan(truncate=50) lets no gradient flow back over every 50th step"""
    batch: Positive = 64
    """sequences of a step"""
    accumulate: Positive = 1
    """parts that a step's sequences are computed in, one after the other"""
    optimizer: Literal["adam", "adamw"] = "adam"
    lr: Rate = 3e-3
    weight_decay: Amount = 0.0
    """of adamw"""
    clip: Rate = 1.0
    """bound of the gradient's norm over all parameters; inf for none"""
    clip_value: Rate = math.inf
    """bound of every number of the gradient, before its norm's"""
    steps: Positive = 2000
    """at most so many"""
    every: Positive = 100
    """steps compiled as one loop, after each of which it is checked"""
    sequences: Positive = 512
    """fresh ones that it is judged on; half as many at every check"""
    enough: Share = 0.99
    """accuracy at which it stops"""
    seconds: Rate = math.inf
    """time limit, compilation included"""
    seed: Count = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch % self.accumulate:
            raise Mistake(f"accumulate = {self.accumulate} does not divide batch = {self.batch}; give a divisor of it")
        if self.weight_decay and self.optimizer == "adam":
            raise Mistake(f"weight_decay = {self.weight_decay} has no effect on adam; choose adamw, or leave it out")


class Rule(NamedTuple):
    """What is compiled into a loop of steps; numbers arrive in ``hyper``."""

    optimiser: Optimiser
    batch: int
    parts: int


class Training(NamedTuple):
    """Everything a step changes, and the key that its data comes from: those of step n are ``fold_in(key, n)``."""

    step: Array
    student: Student
    optimiser: Any
    key: Array


class Measured(NamedTuple):
    """Of every step: loss, norm of the gradient before it is clipped, whether it was, and whether it was finite."""

    loss: Array
    norm: Array
    clipped: Array
    finite: Array


class Learnt(NamedTuple):
    """A student before and after, and the record of what happened between."""

    before: Student
    after: Student
    record: Record


def mean_gradient(student: Student, task: Task, key: Array, rule: Rule) -> tuple[Array, Student]:
    """Loss and gradient over a step's sequences, one part after the other."""

    def part(key: Array) -> tuple[Array, Student]:
        problem = task.draw(key, rule.batch // rule.parts)
        return jax.value_and_grad(lambda student: student.loss(problem))(student)

    if rule.parts == 1:
        return part(key)

    def one(total: Any, key: Array) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, part(key)), None

    keys = jax.random.split(key, rule.parts)
    total, _ = lax.scan(one, part(keys[0]), keys[1:])
    return jax.tree.map(lambda leaf: leaf / rule.parts, total)


@functools.partial(jax.jit, static_argnames=("task", "rule", "steps"))
def train(training: Training, hyper: Hyper, *, task: Task, rule: Rule, steps: int) -> tuple[Training, Measured]:
    """So many steps on fresh sequences. One whose gradient is not finite changes no parameter."""

    def one(training: Training, _: None) -> tuple[Training, Measured]:
        step, student, state, key = training
        loss, grads = mean_gradient(student, task, jax.random.fold_in(key, step), rule)
        grads, norm, clipped = clip(grads, hyper["clip"], hyper["clip_value"])
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        updates, after = rule.optimiser.transform(hyper, step).update(grads, state, student)
        changed = optax.apply_updates(student, updates), after
        student, state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), changed, (student, state))
        return Training(step + 1, student, state, key), Measured(loss, norm, clipped, finite)

    return lax.scan(one, training, length=steps)


@functools.partial(jax.jit, static_argnames=("task", "size", "parts"))
def judge(student: Student, key: Array, *, task: Task, size: int, parts: int) -> tuple[Array, Array]:
    """Share of right answers and mean loss over ``parts`` batches of ``size`` fresh sequences."""

    def part(key: Array) -> tuple[Array, Array, Array]:
        problem = task.draw(key, size)
        outputs, target = flat(student(problem), problem.target)
        asked, losses = problem.mask.reshape(-1), task.losses(outputs, target)
        return (asked & task.right(outputs, target)).sum(), jnp.where(asked, losses, 0).sum(), asked.sum()

    right, loss, asked = jax.tree.map(jnp.sum, lax.map(part, jax.random.split(key, parts)))
    return right / asked, loss / asked


def wilson(share: float, count: int) -> tuple[float, float]:
    """The interval (Wilson 1927) in which a share among ``count`` lies, 19 times in 20."""
    square = CONFIDENT**2 / count
    middle = (share + square / 2) / (1 + square)
    half = math.sqrt(square * (share * (1 - share) + square / 4)) / (1 + square)
    return min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half))


class Fit(NamedTuple):
    """How a training ended."""

    training: Training
    measured: Measured  # of all steps
    stopped: str  # "solved", "steps" or "seconds"
    first: float  # seconds that the first loop of steps took, compilation included
    rest: float  # and those after it


def fit(training: Training, task: Task, recipe: Recipe, key: Array) -> Fit:
    """Train until a check says that it is solved, steps run out or time does; checks draw from ``key``."""
    rule, hyper = rule_of(recipe), hyper_of(recipe)
    began, first, stopped, done = time.perf_counter(), 0.0, "steps", 0
    measured: list[Measured] = []
    while done < recipe.steps and stopped == "steps":
        count = min(recipe.every, recipe.steps - done)
        training, found = train(training, hyper, task=task, rule=rule, steps=count)
        measured.append(jax.device_get(found))
        done += count
        parts = -(-recipe.sequences // (2 * recipe.batch))
        share, _ = judge(training.student, jax.random.fold_in(key, done), task=task, size=recipe.batch, parts=parts)
        first = first or time.perf_counter() - began
        if share >= recipe.enough:
            stopped = "solved"
        elif time.perf_counter() - began > recipe.seconds:
            stopped = "seconds" if done < recipe.steps else stopped
    whole = jax.tree.map(lambda *leaves: np.concatenate(leaves), *measured)
    return Fit(training, whole, stopped, first, time.perf_counter() - began - first)


def rule_of(recipe: Recipe) -> Rule:
    return Rule(Optimiser(name=recipe.optimizer), recipe.batch, recipe.accumulate)


def hyper_of(recipe: Recipe) -> Hyper:
    return {name: jnp.float32(getattr(recipe, name)) for name in ("lr", "weight_decay", "clip", "clip_value")}


def learn(task: Task, recipe: Recipe) -> Learnt:
    """Train a fresh student on a task and judge it on sequences that it never met; equal seeds give equal records but
    for the seconds, unless a time limit ends them.
    """
    clock, cpu = time.perf_counter(), time.process_time()
    init, data, checks, last = jax.random.split(jax.random.key(recipe.seed), 4)
    before = student(
        task, recipe.cell, width=recipe.width, depth=recipe.depth, feedforward=recipe.feedforward, norm=recipe.norm,
        residual=recipe.residual, backend=recipe.backend, seed=init,
    )  # fmt: skip
    state = rule_of(recipe).optimiser.transform(hyper_of(recipe), 0).init(before)
    ended = fit(Training(jnp.zeros((), jnp.int32), before, state, data), task, recipe, checks)
    after, parts = ended.training.student, -(-recipe.sequences // recipe.batch)
    accuracy, loss = map(float, judge(after, last, task=task, size=recipe.batch, parts=parts))
    spent = {"seconds": time.perf_counter() - clock, "cpu_seconds": time.process_time() - cpu}
    return Learnt(before, after, record(task, recipe, ended, accuracy, loss, parts * recipe.batch) | spent)


def record(task: Task, recipe: Recipe, ended: Fit, accuracy: float, loss: float, sequences: int) -> Record:
    """What is kept of a training, all of it JSON. The interval counts a sequence as one answer, however many it asks:
    answers of one sequence are not independent.
    """
    low, high = wilson(accuracy, sequences)
    norms, steps = ended.measured.norm[ended.measured.finite], len(ended.measured.loss)
    after = max(0, steps - recipe.every)
    options = {name: number(value) for name, value in to_dict(recipe).items() if name not in ("cell", "seed")}
    return {
        "kind": "task", "task": named(task), "distance": task.distance, "length": task.length, "cell": str(recipe.cell),
        "seed": recipe.seed, "accuracy": accuracy, "low": low, "high": high, "sequences": sequences,
        "chance": task.chance, "solved": ended.stopped == "solved", "stopped": ended.stopped, "steps": steps,
        "loss": number(loss), "clipped": float(ended.measured.clipped.mean()),
        "skipped": int((~ended.measured.finite).sum()),
        "norm_median": float(np.median(norms)) if norms.size else None,
        "norm_largest": float(norms.max()) if norms.size else None,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(ended.training.student)),
        "steps_per_second": after / ended.rest if after else None, "first_seconds": ended.first, "recipe": options,
    }  # fmt: skip


def number(value: Any) -> Any:
    """A number that JSON has no word for as text or nothing: infinity is "inf"."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def solve(task: Task, recipe: Recipe) -> Record:
    """Train a fresh student on a task: how accurate it became, with its circumstances."""
    return learn(task, recipe).record


def failed(found: Record) -> bool:
    """Whether accuracy may be chance, or is nearer to chance than to the best there can be: 1, or its "ceiling"."""
    return found["low"] <= found["chance"] or found["accuracy"] < (found.get("ceiling", 1.0) + found["chance"]) / 2


def frontier(
    task: Task, distances: Sequence[int], recipe: Recipe, run: Callable[[Task, Recipe], Record] = solve
) -> Iterator[Record]:
    """A record for each distance, shortest first, up to and with the first at which training fails (`failed`)."""
    return climbed(distances, lambda distance: run(replace(task, distance=distance), recipe))


def climbed(distances: Sequence[int], run: Callable[[int], Record]) -> Iterator[Record]:
    """What ``run`` finds at each distance, shortest first, up to and with the first failure."""
    for distance in sorted(distances):
        found = run(distance)
        yield found
        if failed(found):
            return
