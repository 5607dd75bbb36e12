"""The model that learns memory tasks: the recommender's own blocks between a linear encoder and a linear head."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxrec.cells import Event, find
from jaxrec.cells.cell import DAY
from jaxrec.config import Call
from jaxrec.diagnostics.problem import Problem, Task
from jaxrec.models.network import Block, Network
from jaxrec.models.recommender import output_width


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Student:
    """A `diagnostics.subject.Model` whose batches are `Problem`s."""

    encoder: nnx.Linear
    network: Network
    head: nnx.Linear
    task: Task = dataclasses.field(metadata={"static": True})

    def __call__(self, problem: Problem) -> Array:
        """What it answers at every step ``(batch, time, outputs)``."""
        return self.head(self.network(self.events(problem))[1])

    def events(self, problem: Problem) -> Event:
        return sides(self.encoder(problem.x))

    def losses(self, hidden: Array, target: Array) -> Array:
        return self.task.losses(self.head(hidden), target)

    def loss(self, problem: Problem) -> Array:
        """The mean over all answers of a batch."""
        losses = self.task.losses(*flat(self(problem), problem.target))
        asked = problem.mask.reshape(-1)
        return jnp.where(asked, losses, 0).sum() / asked.sum()


def flat(outputs: Array, target: Array) -> tuple[Array, Array]:
    """``(batch, time, n)`` and ``(batch, time)`` with one axis for all steps."""
    return outputs.reshape(-1, outputs.shape[-1]), target.reshape(-1)


def sides(x: Array) -> Event:
    """Vectors ``(batch, time, width)`` with all that some cells want beside them, the same at every step and without
    news: a day since the event before, zeros as context and as person, no session that begins.
    """
    steps = x.shape[:2]
    return Event(x=x, gap=jnp.full(steps, DAY), context=jnp.zeros_like(x), user=jnp.zeros_like(x),
                 start=jnp.zeros(steps, bool))  # fmt: skip


def student(
    task: Task, cell: Call, *, width: int, depth: int, feedforward: int, norm: bool, residual: bool,
    backend: Call | None, seed: Any, allow_code: bool = True,
) -> Student:  # fmt: skip
    """A fresh one; ``seed`` is a number or a key."""
    rngs = nnx.Rngs(seed)
    encoder = nnx.Linear(task.features, width, rngs=rngs)
    example = sides(jnp.zeros((1, 1, width)))
    blocks = []
    for _ in range(depth):
        made = find(cell, width, hidden=width, rngs=rngs, allow_code=allow_code)
        shown = output_width(made, example, backend)
        blocks.append(
            Block(made, width, shown, width, norm=norm, residual=residual, feedforward=feedforward, rngs=rngs)
        )
    network = Network(blocks, width, norm=norm, backend=backend, rngs=rngs)
    return Student(encoder, network, nnx.Linear(width, task.outputs, rngs=rngs), task)
