"""What a memory task is: sequences drawn from a key, answers asked for, and when one counts as right."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrec.config import Section, Within

Positive = Annotated[int, Within(1)]
Several = Annotated[int, Within(2)]
Amount = Annotated[float, Within(0.0)]

NEAR = 0.04  # an adding answer counts as right when it is off by less


class Problem(NamedTuple):
    """Sequences and what is asked of them; one sequence has no ``batch``."""

    x: Array  # (batch, time, features)
    target: Array  # (batch, time), whole numbers below `Task.outputs`, or real numbers; 0 where nothing is asked
    mask: Array  # (batch, time), true where an answer is asked


@dataclass(frozen=True, kw_only=True)
class Task(Section):
    """What is drawn, asked and counted as right."""

    distance: Positive = 20
    """how far what is asked lies back, in steps; each task says from where to where"""

    regression: ClassVar[bool] = False

    @property
    @abstractmethod
    def length(self) -> int:
        """Steps of a sequence."""

    @property
    @abstractmethod
    def features(self) -> int:
        """Numbers that go in at a step."""

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Numbers that a model gives at a step: a score for every answer, or the answer where it is a real number."""

    @abstractmethod
    def one(self, key: Array) -> Problem:
        """One sequence."""

    @property
    def chance(self) -> float:
        """Accuracy of the best guess that saw nothing of the sequence."""
        return 1 / self.outputs

    @property
    def reach(self) -> int:
        """The longest lag at which the last answer depends on what went in."""
        return self.length - 1

    def draw(self, key: Array, batch: int) -> Problem:
        """``batch`` sequences; equal keys draw equal ones."""
        return jax.vmap(self.one)(jax.random.split(key, batch))

    def losses(self, outputs: Array, target: Array) -> Array:
        """Cross-entropy in nats, or squared error, ``(n,)`` of ``outputs (n, outputs)`` and ``target (n,)``."""
        if self.regression:
            return jnp.square(outputs[:, 0] - target)
        return jax.nn.logsumexp(outputs, axis=-1) - jnp.take_along_axis(outputs, target[:, None], axis=-1)[:, 0]

    def right(self, outputs: Array, target: Array) -> Array:
        """Whether answers ``(n,)`` are right."""
        if self.regression:
            return jnp.abs(outputs[:, 0] - target) < NEAR
        return outputs.argmax(axis=-1) == target

    def asked_at_the_end(self, shown: Array, answers: Array) -> Problem:
        """A sequence of symbols ``shown (time,)`` whose last steps ask for ``answers``."""
        blank = jnp.zeros(self.length - len(answers), answers.dtype)
        mask = jnp.arange(self.length) >= len(blank)
        return Problem(jax.nn.one_hot(shown, self.features), jnp.concatenate([blank, answers]), mask)
