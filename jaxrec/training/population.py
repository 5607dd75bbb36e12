"""Many trainings in one program: what differs between them is stacked along a first axis, the members.

A member is one training: its state, the plan of its batches, its rates. All members share the step and the data on the
device. An `Executor` says how they run: so many at a time in one vectorised pass, one after another, over one device or
several; each way gives every member the numbers that it has alone, up to the order of sums.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxrec.losses.negatives import Popularity
from jaxrec.parallel.programs import Programs, memory_of
from jaxrec.parallel.strategy import local_devices
from jaxrec.training.loop import run_steps
from jaxrec.training.optimisers import Hyper
from jaxrec.training.source import Source
from jaxrec.training.step import Metrics, State, Step

AXIS = "members"


@dataclass(frozen=True)
class Executor:
    """``at_once`` members are vectorised together and the others follow in a loop; ``devices`` share the members."""

    at_once: int = 1
    devices: int = 1

    def admits(self, members: int) -> bool:
        """Whether so many members can be shared out evenly."""
        return members % (self.at_once * self.devices) == 0

    def __str__(self) -> str:
        inner = "map" if self.at_once == 1 else f"vmap({self.at_once})"
        return inner if self.devices == 1 else f"shard_map({inner}, devices={self.devices})"


class Members(NamedTuple):
    """What members have apart; every leaf has the axis of members in front. A member without steps to run (equal
    ``bounds``) stands still.
    """

    state: State
    plan: Array
    reset: Array
    bounds: Array
    hyper: Hyper
    known: Popularity | None = None


class Together:
    """`run_steps` for all members in one compiled program; the old states' memory is reused for the new."""

    def __init__(self, step: Step, executor: Executor):
        self.step, self.executor = step, executor
        one, many = PartitionSpec(), PartitionSpec(AXIS)
        run = self.loop
        mesh = Mesh(np.array(local_devices(executor.devices)), (AXIS,), axis_types=(AxisType.Auto,))
        if executor.devices > 1:
            run = jax.shard_map(run, mesh=mesh, in_specs=(many, many, one), out_specs=many, check_vma=False)
        self.place, everywhere = NamedSharding(mesh, many), NamedSharding(mesh, one)
        places = (self.place, self.place, everywhere)
        self.programs = Programs(jax.jit(run, donate_argnums=0, in_shardings=places, out_shardings=self.place))

    def loop(self, state: State, rest: Members, source: Source) -> tuple[State, Metrics]:
        def one(given: tuple[State, Members]) -> tuple[State, Metrics]:
            state, rest = given
            told = source._replace(known=rest.known)
            return run_steps(self.step, state, told, rest.plan, rest.reset, rest.bounds, rest.hyper)

        some = self.executor.at_once
        run = one if some == 1 else jax.vmap(one)

        def chunk(number: Array, held: tuple[State, Metrics]) -> tuple[State, Metrics]:
            """Members replaced where they lie in the stack: `jax.lax.map` would hold all of them twice."""
            states, _ = held
            part = jax.tree.map(lambda leaf: piece(leaf, number, some), (states, rest))
            return jax.tree.map(lambda all_, new: replaced(all_, number, new, some), held, run(part))

        blank = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(jax.vmap(one), (state, rest))[1]
        )
        return jax.lax.fori_loop(0, len(rest.bounds) // some, chunk, (state, blank))

    def __call__(self, members: Members, source: Source) -> tuple[State, Metrics]:
        state = jax.device_put(members.state, self.place)  # nothing is done where it lies there
        return self.program(members, source)(state, members._replace(state=None), source)  # type: ignore[arg-type,no-any-return]

    def program(self, members: Members, source: Source) -> Any:
        """The program for arguments of these shapes, compiled once."""
        given = (members.state, members._replace(state=None), source)  # type: ignore[arg-type]
        return self.programs(*jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype), given))

    def bytes(self, members: Members, source: Source) -> int:
        """What the compiled program needs of a device's memory, arguments and results included."""
        found = memory_of(self.program(members, source))
        return 0 if found is None else found.peak


def piece(stacked: Array, number: Array, some: int) -> Array:
    """The ``number``th piece of ``some`` members; a lone one without the axis of members."""
    return stacked[number] if some == 1 else jax.lax.dynamic_slice_in_dim(stacked, number * some, some)


def replaced(stacked: Array, number: Array, new: Array, some: int) -> Array:
    """The stack with another piece."""
    new = new[None] if some == 1 else new
    return jax.lax.dynamic_update_slice_in_dim(stacked, new, number * some, 0)


@lru_cache(maxsize=16)
def together(step: Step, executor: Executor) -> Together:
    """One for equal steps: a process that trains them again compiles nothing anew."""
    return Together(step, executor)


def stack(trees: Sequence[Any]) -> Any:
    """Trees of one structure as one tree whose leaves have a first axis more."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@jax.jit
def take(stacked: Any, number: Array | int) -> Any:
    """One of the trees that were stacked."""
    return jax.tree.map(lambda leaf: leaf[number], stacked)


@partial(jax.jit, donate_argnums=0)
def put(stacked: Any, number: Array | int, tree: Any) -> Any:
    """The stack with another tree at a place; nothing is compiled again for another place."""
    return jax.tree.map(lambda leaf, new: leaf.at[number].set(new), stacked, tree)


def level(hyper: Hyper) -> Hyper:
    """Rates under the names that every training with some dropout has: what is off is 0, and item vectors lose what
    layers lose unless told (`step.rates`).
    """
    if not {"dropout", "embedding_dropout"} & set(hyper):
        return hyper
    layer = hyper.get("dropout", jnp.zeros(()))
    return {"embedding_dropout": layer} | hyper | {"dropout": layer}


def executors(members: int, devices: int, chunks: Sequence[int] = (1, 8)) -> Iterator[Executor]:
    """The ways in which so many members can run."""
    for count in dict.fromkeys((1, devices)):
        for chunk in sorted({*chunks, max(1, members // count)}):
            executor = Executor(chunk, count)
            if executor.admits(members):
                yield executor
