"""Steps on several devices: each has some rows of a batch, and all parameters or a piece of every table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import PartitionSpec

from jaxrec.config import Mistake
from jaxrec.losses.shards import PIECES, Shard
from jaxrec.models.pieces import CUT, cut_in, drawn_in_pieces, filled
from jaxrec.models.recommender import Recommender, drawn
from jaxrec.parallel import team
from jaxrec.parallel.strategy import Distributed, Mode, distribute, local_devices, meshed
from jaxrec.training.loop import S, run_steps
from jaxrec.training.optimisers import Hyper
from jaxrec.training.source import AnySource, Own
from jaxrec.training.step import Metrics, State, Step


def spread(step: Step, mode: Mode, devices: tuple[jax.Device, ...], pieces: int = 1) -> "Spread":
    """One for equal steps: a process that trains them again compiles nothing anew. One that cuts tables is of those."""
    return Spread(step, mode, devices, pieces) if pieces > 1 else whole_tables(step, mode, devices)


@lru_cache(maxsize=16)
def whole_tables(step: Step, mode: Mode, devices: tuple[jax.Device, ...]) -> "Spread":
    return Spread(step, mode, devices)


class Spread:
    """``run_steps`` compiled for ``devices``; call it as the loop does. The old state's memory is reused for the new.

    A state's ``carry`` is cut as the batch's rows are, so that a lane never leaves its device; whoever else sees the
    state sees its ``carry`` whole. With ``pieces`` so many devices share out every table of users and items, with its
    optimiser's rows; `whole` joins them. Raises Mistake when the rows cannot be shared evenly, or when the loss needs
    the whole table.
    """

    def __init__(self, step: Step, mode: Mode, devices: int | Sequence[jax.Device], pieces: int = 1):
        self.devices = local_devices(devices) if isinstance(devices, int) else list(devices)
        self.step, self.mode, self.pieces = step, mode, pieces
        if pieces > 1 and not step.loss.shares:
            raise Mistake(
                f"shards={pieces} cuts the output table, and {type(step.loss).__name__.lower()} reads it whole; "
                "use softmax or a loss that samples, or one shard"
            )
        self.mesh = meshed(self.devices, mode, pieces)
        self.cut: Cut | None = None
        self.run: Distributed | None = None if pieces > 1 else self.compiled(None)

    def compiled(self, cut: "Cut | None") -> Distributed:
        shards = None if cut is None else cut.shards

        def steps(
            state: State, source: AnySource, index: Any, reset: Array, bounds: Array, hyper: Hyper, carry: Any,
            axis: str | None = None,
        ) -> tuple[State, Metrics, Any]:  # fmt: skip
            state, metrics = run_steps(
                self.step, state._replace(carry=carry), source, index, reset, bounds, hyper, axis, shards
            )
            return state._replace(carry=None), metrics, state.carry

        form = None if cut is None else cut.specs()
        return distribute(
            steps, self.mode, self.devices, split=(form, None, 1, 1, None, None, 0), out=(form, None, 0),
            donate=(0, 6), pieces=self.pieces,
        )  # fmt: skip

    def begun(self, model: Recommender, begin: Callable[[Recommender], State]) -> State:
        """The state that ``begin`` makes of a model whose tables may not be drawn yet: each device draws its pieces."""
        if self.pieces == 1:
            return begin(drawn(model))
        self.know(jax.eval_shape(lambda model: begin(drawn(model)), model))
        return begin(drawn_in_pieces(model, self.mesh))

    def form(self, state: State) -> State:
        """What a checkpoint must hold to go on in place of ``state``: of a table in pieces only its shape, and where
        they go (of many processes the first reads, and all have it on the host).
        """
        if not in_pieces(state):
            return state

        def one(rows: int, leaf: Any) -> Any:
            whole = rows, *leaf.shape[1:]
            if not rows:
                return leaf
            if team.size() > 1:
                return np.empty(whole, leaf.dtype)
            return jax.ShapeDtypeStruct(whole, leaf.dtype, sharding=leaf.sharding)

        assert self.cut is not None
        return self.cut.each(one, state)

    def know(self, state: State) -> None:
        """Learn from a whole state, or the shapes of one, how it is cut."""
        cut = Cut.of(state)
        if cut != self.cut:
            self.cut, self.run = cut, self.compiled(cut)

    def place(self, state: State, source: S, hyper: Hyper) -> tuple[State, S, Hyper]:
        """The three where the devices want them: a loop that starts from these copies nothing at its calls."""
        whole = self.ready(state._replace(carry=None))
        assert self.run is not None
        return self.run.put(0, whole)._replace(carry=state.carry), self.run.put(1, source), self.run.put(5, hyper)

    def lay(self, source: AnySource, index: Any, reset: Any) -> Own:
        """A slab's events and plan, of many processes this one's part, where the devices want them, once a state is
        placed.
        """
        assert self.run is not None
        return self.run.put(1, source), self.run.put_part(2, index), self.run.put_part(3, reset)

    def ready(self, state: State) -> State:
        """The state with tables that can be cut, once it is known how."""
        if self.pieces == 1 or in_pieces(state):
            return state
        self.know(state)
        assert self.cut is not None
        return self.cut.full(state, self.pieces)

    def program(self, state: State, source: AnySource, index: Any, reset: Any, bounds: Any, hyper: Hyper) -> Any:
        """The compiled program of a call, whose state and source may be the shapes of what does not exist yet; those
        that do must be placed.
        """
        whole, imagined = state._replace(carry=None), isinstance(state.step, jax.ShapeDtypeStruct)
        if imagined:
            whole = self.ready(whole)
        assert self.run is not None
        args = whole, source, index, reset, bounds, hyper, state.carry
        return self.run.programs(*(jax.tree.map(shape, args) if imagined else self.run.place(*args)))

    def whole(self, state: State) -> State:
        """The state as it would be on one device of this process; tables that lie in pieces come to the host."""
        state = jax.tree.map(team.here, state)
        return state if self.cut is None else self.cut.joined(state)

    def __call__(
        self, state: State, source: AnySource, index: Any, reset: Any, bounds: Any, hyper: Hyper
    ) -> tuple[State, Metrics]:
        assert self.run is not None, "a state in pieces comes from `place`"
        whole, carry = state._replace(carry=None), state.carry
        whole, metrics, carry = self.run(whole, source, index, reset, bounds, hyper, carry)
        return whole._replace(carry=carry), metrics


def in_pieces(state: State) -> bool:
    """Whether the tables lie in pieces already."""
    return cut_in(getattr(state.tables["item"], "sharding", None)) > 1


def shape(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype)


@dataclass(frozen=True)
class Cut:
    """Which parts of a state are cut: ``rows`` has the state's form, and for every leaf (or part that stays whole) how
    many rows devices share out, 0 for none; ``shards`` the same of tables alone.
    """

    rows: State
    shards: dict[str, Shard]

    @classmethod
    def of(cls, state: State) -> "Cut":
        """Tables of users and items, and whatever the optimiser and the average keep of each of their rows."""
        rows = {name: len(table) for name, table in state.tables.items() if name in CUT}

        def count(path: tuple[Any, ...], leaf: Any) -> int:
            names = [entry.key for entry in path if isinstance(entry, jax.tree_util.DictKey) and entry.key in rows]
            return rows[names[-1]] if names and jnp.shape(leaf)[:1] == (rows[names[-1]],) else 0

        def within(tree: Any) -> Any:
            return jax.tree_util.tree_map_with_path(count, tree)

        none: Any = 0
        optimiser = {"tables": within(state.optimiser["tables"]), "network": none}
        average = None if state.average is None else Recommender(within(state.average.tables), none)
        form = State(none, within(state.tables), none, optimiser, none, None, average)
        return cls(form, {name: Shard(count, PIECES) for name, count in rows.items()})

    def specs(self) -> State:
        """The state's form again, with where each part goes."""
        return jax.tree.map(lambda rows: PartitionSpec(PIECES) if rows else PartitionSpec(), self.rows)

    def full(self, state: State, pieces: int) -> State:
        """Cut leaves filled up with rows of zeros to equal pieces."""

        def fill(rows: int, leaf: Any) -> Any:
            if rows and isinstance(leaf, jax.ShapeDtypeStruct):
                return jax.ShapeDtypeStruct((rows + -rows % pieces, *leaf.shape[1:]), leaf.dtype)
            return filled(leaf, pieces) if rows else leaf

        return self.each(fill, state)

    def joined(self, state: State) -> State:
        """What `full` filled up is taken off again; cut leaves come to the host."""
        return self.each(lambda rows, leaf: np.asarray(leaf)[:rows] if rows else leaf, state)

    def each(self, change: Callable[[int, Any], Any], state: State) -> State:
        whole = state._replace(carry=None)
        found = jax.tree.map(lambda rows, part: jax.tree.map(partial(change, rows), part), self.rows, whole)
        return found._replace(carry=state.carry)
