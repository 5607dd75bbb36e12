"""Memory tasks: sequences drawn on the device from a key, with answers that need what was shown a known distance ago.

A task is written for one sequence; `Task.draw` makes a batch. Symbols are one-hot vectors. Answers are asked where the
mask says so, at the last step always, and `chance` is the accuracy of the best guess that has seen nothing.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxrec.config import Call, Mistake, Within, did_you_mean, squash
from jaxrec.diagnostics.problem import NEAR, Amount, Positive, Problem, Several, Task


@dataclass(frozen=True, kw_only=True)
class Copy(Task):
    """Ten symbols, blanks, a signal, and the symbols are asked for in order (Arjovsky et al. 2016, after Hochreiter and
    Schmidhuber 1997), https://arxiv.org/abs/1511.06464, section 4.1.

    ``distance`` is their T: between a symbol and its answer lie T + 10 steps. Unlike theirs, the loss counts only where
    a symbol is asked for.
    """

    items: Positive = 10
    """symbols to keep"""
    symbols: Several = 8
    """different ones"""

    @property
    def length(self) -> int:
        return self.distance + 2 * self.items

    @property
    def features(self) -> int:
        return self.symbols + 2  # and the blank, and the signal

    @property
    def outputs(self) -> int:
        return self.symbols

    @property
    def reach(self) -> int:
        return self.distance + self.items

    def one(self, key: Array) -> Problem:
        symbols = jax.random.randint(key, (self.items,), 0, self.symbols)
        after = jnp.full(self.length - self.items, self.symbols).at[self.distance - 1].set(self.symbols + 1)
        return self.asked_at_the_end(jnp.concatenate([symbols, after]), symbols)


@dataclass(frozen=True, kw_only=True)
class Adding(Task):
    """The sum of the two marked ones among uniform numbers (Hochreiter and Schmidhuber 1997, experiment 4, in the form
    of Arjovsky et al. 2016), https://doi.org/10.1162/neco.1997.9.8.1735.

    One mark lies in the first half of ``distance`` steps and one in the second; the sum is asked at the last. Always
    answering 1 has a squared error of 1/6; an answer counts as right when it is off by less than .04, which 1 is in
    7.8 % of all cases.
    """

    distance: Several = 20
    """steps of a sequence"""

    regression: ClassVar[bool] = True

    @property
    def length(self) -> int:
        return self.distance

    @property
    def features(self) -> int:
        return 2

    @property
    def outputs(self) -> int:
        return 1

    @property
    def chance(self) -> float:
        return 2 * NEAR - NEAR**2  # under the triangle of the sum of two, around its middle

    def one(self, key: Array) -> Problem:
        values, first, second = jax.random.split(key, 3)
        x, half, steps = jax.random.uniform(values, (self.distance,)), self.distance // 2, jnp.arange(self.distance)
        places = jax.random.randint(first, (), 0, half), jax.random.randint(second, (), half, self.distance)
        marked = (steps == places[0]) | (steps == places[1])
        last = steps == self.distance - 1
        total = jnp.where(marked, x, 0).sum()
        return Problem(jnp.stack([x, marked.astype(x.dtype)], axis=-1), jnp.where(last, total, 0), last)


@dataclass(frozen=True, kw_only=True)
class Recall(Task):
    """One symbol, ``distance`` distractors, and a signal that asks for it (the latch of Bengio et al. 1994, with the
    noise of Hochreiter and Schmidhuber 1997, experiment 2), https://doi.org/10.1109/72.279181.

    Distractors are drawn among as many other symbols.
    """

    symbols: Several = 8
    """different ones"""

    @property
    def length(self) -> int:
        return self.distance + 2

    @property
    def features(self) -> int:
        return 2 * self.symbols + 1

    @property
    def outputs(self) -> int:
        return self.symbols

    def one(self, key: Array) -> Problem:
        shown, noise = jax.random.split(key)
        symbol = jax.random.randint(shown, (1,), 0, self.symbols)
        between = jax.random.randint(noise, (self.distance,), self.symbols, 2 * self.symbols)
        return self.asked_at_the_end(jnp.concatenate([symbol, between, jnp.array([2 * self.symbols])]), symbol)


@dataclass(frozen=True, kw_only=True)
class SelectiveCopy(Task):
    """Symbols at random places among blanks are asked for in order (Gu and Dao 2023, https://arxiv.org/abs/2312.00752,
    section 4.1, after the denoising of Jing et al. 2019).

    The places are spread over ``distance`` steps, and that many answers follow as there are symbols.
    """

    items: Positive = 8
    """symbols to keep"""
    symbols: Several = 8
    """different ones"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.distance < self.items:
            raise Mistake(f"selective copying over distance = {self.distance} has no room for items = {self.items}; "
                          f"give a distance of at least {self.items}")  # fmt: skip

    @property
    def length(self) -> int:
        return self.distance + self.items

    @property
    def features(self) -> int:
        return self.symbols + 2

    @property
    def outputs(self) -> int:
        return self.symbols

    def one(self, key: Array) -> Problem:
        which, where = jax.random.split(key)
        symbols = jax.random.randint(which, (self.items,), 0, self.symbols)
        places = jnp.sort(jax.random.permutation(where, self.distance)[: self.items])
        shown = jnp.full(self.distance, self.symbols).at[places].set(symbols)
        return self.asked_at_the_end(jnp.concatenate([shown, jnp.full(self.items, self.symbols + 1)]), symbols)


@dataclass(frozen=True, kw_only=True)
class MQAR(Task):
    """Multi-query associative recall (Arora et al. 2023), https://arxiv.org/abs/2312.04927, section 3.1: keys and their
    values in turns, and later every key again, which asks for its value.

    Between the last pair and the first query lie ``distance`` blanks, where the paper draws gaps from a power law. Keys
    of a sequence differ; values are drawn one by one, so that who remembers the values but not the keys is right more
    often than chance, which is 1 / values.
    """

    pairs: Positive = 4
    """keys and values to keep"""
    keys: Positive = 16
    """different keys"""
    values: Several = 8
    """different values"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pairs > self.keys:
            raise Mistake(f"mqar with pairs = {self.pairs} needs as many different keys, and keys = {self.keys}; "
                          f"give keys of at least {self.pairs}")  # fmt: skip

    @property
    def length(self) -> int:
        return self.distance + 3 * self.pairs

    @property
    def features(self) -> int:
        return self.keys + self.values + 1

    @property
    def outputs(self) -> int:
        return self.values

    def one(self, key: Array) -> Problem:
        first, second, third = jax.random.split(key, 3)
        keys = jax.random.permutation(first, self.keys)[: self.pairs]
        values = jax.random.randint(second, (self.pairs,), 0, self.values)
        order = jax.random.permutation(third, self.pairs)
        told = jnp.stack([keys, self.keys + values], axis=1).reshape(-1)
        blanks = jnp.full(self.distance, self.keys + self.values)
        return self.asked_at_the_end(jnp.concatenate([told, blanks, keys[order]]), values[order])


@dataclass(frozen=True, kw_only=True)
class Parity(Task):
    """Whether the ones so far are odd in number, asked at each of ``distance`` steps: state tracking over the group of
    two, after Merrill et al. 2024, https://arxiv.org/abs/2404.08819.
    """

    @property
    def length(self) -> int:
        return self.distance

    @property
    def features(self) -> int:
        return 2

    @property
    def outputs(self) -> int:
        return 2

    def one(self, key: Array) -> Problem:
        bits = jax.random.randint(key, (self.distance,), 0, 2)
        return self.asked_at_the_end(bits, jnp.cumsum(bits) % 2)


@dataclass(frozen=True, kw_only=True)
class FlipFlop(Task):
    """The flip-flop language (Liu et al. 2023), https://arxiv.org/abs/2306.00946, definition 1: instructions, each with
    a bit behind it; the bit behind a read is that of the last write, and asked for at the read.

    ``distance`` is the length of a string, whose last bit is asked for and not shown. It begins with a write and ends
    with a read; between, so many instructions are ignored that ``events`` on average are not, so that lags grow with
    the distance. (Theirs is ignored with probability .8, or .98 where they test sparse ones.)
    """

    distance: Annotated[int, Within(4)] = 20
    """length of a string: even"""
    events: Positive = 2
    """reads and writes between the first and the last instruction, on average"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.distance % 2:
            raise Mistake(f"flipflop over distance = {self.distance} would end in half an instruction; "
                          f"give an even number, such as {self.distance + 1}")  # fmt: skip

    @property
    def length(self) -> int:
        return self.distance - 1

    @property
    def features(self) -> int:
        return 5  # write, read, ignore, and the two bits

    @property
    def outputs(self) -> int:
        return 2

    def one(self, key: Array) -> Problem:
        count = self.distance // 2
        first, second, third = jax.random.split(key, 3)
        event = jax.random.bernoulli(first, min(1, self.events / max(count - 2, 1)), (count,))
        what = jnp.where(event, jax.random.randint(second, (count,), 0, 2), 2).at[0].set(0).at[-1].set(1)
        bits = jax.random.randint(third, (count,), 0, 2)
        written = lax.cummax(jnp.where(what == 0, jnp.arange(count), 0))
        bits = jnp.where(what == 1, bits[written], bits)
        shown = jnp.stack([what, 3 + bits], axis=1).reshape(-1)[:-1]
        asked = jnp.stack([what == 1, jnp.zeros(count, bool)], axis=1).reshape(-1)[:-1]
        answers = jnp.where(asked, jnp.repeat(bits, 2)[:-1], 0)
        return Problem(jax.nn.one_hot(shown, self.features), answers, asked)


@dataclass(frozen=True, kw_only=True)
class Permuted(Task):
    """Which wave was it, its ``distance`` samples shown in one fixed disorder and under noise, asked at the last.

    A stand-in for permuted MNIST (Le et al. 2015, https://arxiv.org/abs/1504.00941, section 4.2) that needs no
    download, and not MNIST: classes are cosines of different frequencies, which are orthogonal, and noise grows with
    the root of the length, so that no part of a sequence suffices and all of it does (the nearest wave is wrong about
    once in a hundred thousand).
    """

    classes: Several = 10
    """different waves"""
    noise: Amount = 0.15
    """standard deviation of the noise, times the root of the length"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.distance <= 2 * self.classes:
            raise Mistake(f"permuted with distance = {self.distance} cannot hold classes = {self.classes} frequencies; "
                          f"give a distance above {2 * self.classes}")  # fmt: skip

    @property
    def length(self) -> int:
        return self.distance

    @property
    def features(self) -> int:
        return 1

    @property
    def outputs(self) -> int:
        return self.classes

    def waves(self) -> np.ndarray[Any, Any]:
        """``(classes, distance)`` in the order in which they are shown, each with a mean square of 1."""
        steps = np.random.default_rng(0).permutation(self.distance)
        turns = np.arange(1, self.classes + 1)[:, None] * steps / self.distance
        return (math.sqrt(2) * np.cos(2 * np.pi * turns)).astype(np.float32)

    def one(self, key: Array) -> Problem:
        which, noise = jax.random.split(key)
        answer = jax.random.randint(which, (1,), 0, self.classes)
        spread = self.noise * math.sqrt(self.distance)
        x = jnp.asarray(self.waves())[answer[0]] + spread * jax.random.normal(noise, (self.distance,))
        return self.asked_at_the_end(jnp.zeros(self.distance, int), answer)._replace(
            x=x[:, None] / math.sqrt(1 + spread**2)
        )


TASKS: Mapping[str, type[Task]] = {
    "copy": Copy,
    "adding": Adding,
    "recall": Recall,
    "selective": SelectiveCopy,
    "mqar": MQAR,
    "parity": Parity,
    "flipflop": FlipFlop,
    "permuted": Permuted,
}


def task(call: Call | str, distance: int) -> Task:
    """The task that ``call`` names, such as ``mqar(pairs=8)``, at a distance. `Mistake` for one that does not exist."""
    call = Call.parse(call) if isinstance(call, str) else call
    kinds = {squash(name): kind for name, kind in TASKS.items()}
    if squash(call.name) not in kinds or call.file is not None:
        raise Mistake(f"there is no task {str(call)!r} (there is {', '.join(TASKS)}){did_you_mean(call.name, TASKS)}")
    kind = kinds[squash(call.name)]
    accepted = [field.name for field in fields(kind) if field.name != "distance"]
    if call.arguments:
        raise Mistake(f"{call}: name the options of a task, as in {call.name}({(accepted or ['distance'])[0]}=...)")
    for name in call.options:
        if name not in accepted:
            known = ", ".join(accepted) or "none"
            raise Mistake(f"{call.name} has no option {name!r} (it has {known}){did_you_mean(name, accepted)}")
    return kind(distance=distance, **call.options)


def named(given: Task) -> str:
    """The call that names a task, without its distance."""
    word = next(name for name, kind in TASKS.items() if kind is type(given))
    own = {field.name: getattr(given, field.name) for field in fields(given) if field.name != "distance"}
    defaults = {field.name: field.default for field in fields(given)}
    return str(Call(word, options={name: value for name, value in own.items() if value != defaults[name]}))
