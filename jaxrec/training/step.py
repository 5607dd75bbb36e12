"""One training step as one pure function."""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxrec.losses.loss import Loss, Positions, traced, with_hyper
from jaxrec.losses.negatives import Drawn, Popularity
from jaxrec.models.network import Network, Rates
from jaxrec.models.recommender import Batch, Recommender, encode, output_rows
from jaxrec.models.tables import Rows, Shards, gather, scatter
from jaxrec.training.optimisers import Hyper, Optimiser, clip, everything

DRAWS = 2**20  # the place of a step's negatives among the places of its random numbers


class State(NamedTuple):
    """Everything a step changes. ``tables`` and ``network`` are the parameters; ``optimiser`` has a state for each.

    ``key`` never changes: the randomness of a step is ``fold_in(key, step)``, so that a resumed run repeats it exactly.
    ``carry`` is the recurrent state ``(rows, ...)`` kept from step to step when rows are lanes, None otherwise;
    ``average`` the running average of the parameters, where one is kept.
    """

    step: Array
    tables: dict[str, Array]
    network: Network
    optimiser: Any
    key: Array
    carry: Any = None
    average: Recommender | None = None

    @property
    def model(self) -> Recommender:
        """The weights that are trained."""
        return Recommender(self.tables, self.network)

    @property
    def judged(self) -> Recommender:
        """The weights that are judged and saved: the running average, where one is kept."""
        return self.model if self.average is None else self.average


class Metrics(NamedTuple):
    """Numbers of one step: summed loss, positions it was summed over, global gradient norm before any clipping, whether
    clipping by value or by norm changed anything, finite.
    """

    loss: Array
    events: Array
    grad_norm: Array
    clipped: Array
    finite: Array


class TableUpdate(Protocol):
    """The slot for row-sparse and sharded tables: it alone decides how row gradients change a table, and leaves it as
    it was where they are not ``finite``.
    """

    def init(self, tables: dict[str, Array], optimiser: Optimiser, hyper: Hyper) -> Any: ...

    def __call__(
        self, tables: dict[str, Array], state: Any, rows: dict[str, Rows], grads: dict[str, Array],
        transform: optax.GradientTransformation, finite: Array,
    ) -> tuple[dict[str, Array], Any]: ...  # fmt: skip


@dataclass(frozen=True)
class DenseUpdate:
    """Row gradients become dense ones and every row is updated: plain Optax."""

    def init(self, tables: dict[str, Array], optimiser: Optimiser, hyper: Hyper) -> Any:
        return optimiser.transform(hyper, 0).init(tables)

    def __call__(
        self, tables: dict[str, Array], state: Any, rows: dict[str, Rows], grads: dict[str, Array],
        transform: optax.GradientTransformation, finite: Array,
    ) -> tuple[dict[str, Array], Any]:  # fmt: skip
        def update() -> tuple[dict[str, Array], Any]:
            dense = {name: scatter(table, rows[name], grads[name]) for name, table in tables.items()}
            updates, after = transform.update(dense, state, tables)
            return optax.apply_updates(tables, updates), after

        return jax.lax.cond(finite, update, lambda: (tables, state))


@dataclass(frozen=True)
class Step:
    """``step(state, batch, hyper) -> (state, metrics)``: what is static is a field, every float in ``hyper`` is traced.

    The loss is the mean over real positions, over all micro-batches and devices; with ``nominal`` the sum over them
    divided by that number, so that steps that rows have left weigh less. Where the state has a ``carry``, rows are
    lanes: each goes on from what the step before left it, a reset starts it afresh, and no gradient flows back into an
    earlier step. Micro-batches and devices share out the lanes. Under ``shard_map`` and ``pmap`` pass ``axis``:
    gradients and counts are summed over it, and dropout follows a row wherever it is computed. Tables with an entry in
    ``shards`` are this device's pieces; what else there is, is the same on all devices that share a table. A step whose
    gradient is not finite leaves parameters and carry as they were and says so in ``metrics.finite``. With ``averages``
    the state keeps `mixed` parameters beside those that are trained. What lies between layers, and what is multiplied
    there and for scores, is of the type ``compute``, where that is given (Micikevicius et al. 2018,
    https://arxiv.org/abs/1710.03740): parameters, their gradients, recurrences and the loss are not.
    """

    loss: Loss
    optimiser: Optimiser = field(default_factory=Optimiser)
    table_update: TableUpdate = field(default_factory=DenseUpdate)
    microbatches: int = 1
    nominal: int | None = None
    averages: bool = False
    compute: str | None = None

    def plain(self) -> "Step":
        """The step without numbers that ``hyper`` replaces: equal for all trainings that one program serves."""
        defaults: dict[str, Any] = {
            name: type(self.loss).__dataclass_fields__[name].default for name in traced(self.loss)
        }
        return replace(
            self, loss=replace(self.loss, **defaults), optimiser=replace(self.optimiser, steps=Optimiser.steps)
        )

    def init(self, model: Recommender, hyper: Hyper, key: Array, lanes: int = 0) -> State:
        """The state before the first step; ``lanes`` rows, where there are any, keep their recurrent state."""
        transform = self.optimiser.transform(hyper, 0)
        optimiser = {
            "tables": self.table_update.init(model.tables, self.optimiser, hyper),
            "network": transform.init(model.network),
        }
        carry = model.network.start(lanes) if lanes else None
        average = jax.tree.map(jnp.copy, model) if self.averages else None
        return State(jnp.zeros((), jnp.int32), model.tables, model.network, optimiser, key, carry, average)

    def know(self, counts: Array | None, hyper: Hyper) -> Popularity | None:
        """What the loss must know of the training counts ``(1 + items,)`` of each item; None where it needs nothing."""
        return with_hyper(self.loss, hyper).know(counts)

    def __call__(
        self, state: State, batch: Batch, hyper: Hyper, axis: str | None = None, known: Popularity | None = None,
        shards: Shards | None = None,
    ) -> tuple[State, Metrics]:  # fmt: skip
        batch = batch._replace(keys=row_keys(state, batch.item.shape[0], axis))
        loss, events, rows, grads, carry = self.gradients(state, batch, hyper, axis, known, shards)
        if axis is not None:
            loss, events, grads = jax.lax.psum((loss, events, grads), axis)
        count = jnp.maximum(events, 1) if self.nominal is None else jnp.asarray(self.nominal)
        grads = jax.tree.map(lambda g: g / count.astype(g.dtype), grads)
        grads, norm, clipped = clip(grads, hyper["clip"], hyper.get("clip_value"), partial(over_pieces, rows))
        finite = jnp.isfinite(norm) & jnp.isfinite(loss)
        state = self.update(state, rows, grads, hyper, finite, carry)
        return state, Metrics(loss, events, norm, clipped, finite)

    def update(
        self, state: State, rows: dict[str, Rows], grads: dict[str, Any], hyper: Hyper, finite: Array, carry: Any
    ) -> State:
        """The state after the step; the one before it, where a gradient is not ``finite``."""
        transform = self.optimiser.transform(hyper, state.step)
        tables, table_state = self.table_update(
            state.tables, state.optimiser["tables"], rows, grads["rows"], transform, finite
        )

        def dense() -> tuple[Network, Any, Any]:
            updates, after = transform.update(grads["network"], state.optimiser["network"], state.network)
            return optax.apply_updates(state.network, updates), after, carry

        network, network_state, carry = jax.lax.cond(
            finite, dense, lambda: (state.network, state.optimiser["network"], state.carry)
        )
        average = state.average
        if average is not None:
            average = mixed(average, Recommender(tables, network), hyper["average"], state.step, finite)
        return state._replace(
            step=state.step + finite.astype(state.step.dtype),
            tables=tables,
            network=network,
            optimiser={"tables": table_state, "network": network_state},
            carry=carry,
            average=average,
        )

    def gradients(
        self, state: State, batch: Batch, hyper: Hyper, axis: str | None = None, known: Popularity | None = None,
        shards: Shards | None = None,
    ) -> tuple[Array, Array, dict[str, Rows], dict[str, Any], Any]:  # fmt: skip
        """Summed loss, positions, the touched rows, gradients of the sum with respect to rows and network, and the
        lanes' state after the batch.
        """
        loss = with_hyper(self.loss, hyper)
        drawn = self.draw(loss, state, batch, axis, known)
        rows = self.gathered(state.tables, batch, drawn, axis, shards)

        def total(params: dict[str, Any], part: Batch, carry: Any, drawn: Drawn) -> tuple[Array, Any]:
            seen = {name: rows[name]._replace(values=values) for name, values in params["rows"].items()}
            return self.total(params["network"], seen, part, hyper, carry, loss, drawn)

        params = {"rows": {name: table.values for name, table in rows.items()}, "network": state.network}
        slope = jax.value_and_grad(total, has_aux=True)
        if self.microbatches == 1:
            (summed, carry), grads = slope(params, batch, state.carry, drawn)
        else:
            common, apart = drawn.common(), drawn.apart()

            def add(sums: Any, part: tuple[Batch, Any, Drawn]) -> tuple[Any, Any]:
                (summed, carry), grads = slope(params, *part[:2], part[2].joined(common))
                return jax.tree.map(jnp.add, sums, (summed, grads)), carry

            parts = jax.tree.map(
                lambda leaf: leaf.reshape(self.microbatches, -1, *leaf.shape[1:]), (batch, state.carry, apart)
            )
            zero = (jnp.zeros((), jnp.result_type(float)), jax.tree.map(jnp.zeros_like, params))
            (summed, grads), carry = jax.lax.scan(add, zero, parts)
            carry = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), carry)
        return summed, jnp.sum(given(batch.mask)), rows, grads, carry

    def draw(self, loss: Loss, state: State, batch: Batch, axis: str | None, known: Popularity | None) -> Drawn:
        """What the loss draws, for the positions of this device: the same, however the step is spread out."""
        targets, mask = given(batch.target).reshape(-1), given(batch.mask).reshape(-1)
        rows = len(batch.item)
        if axis is not None:
            targets, mask = jax.lax.all_gather((targets, mask), axis, tiled=True)
            rows *= jax.lax.axis_size(axis)
        keys = jax.vmap(lambda key: jax.random.fold_in(key, DRAWS))(row_keys(state, rows, None))
        key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), DRAWS)
        drawn = loss.draw(known, Positions(targets, mask, keys, key))
        return drawn if axis is None else drawn.piece(jax.lax.axis_index(axis), batch.item.size)

    def gathered(
        self, tables: dict[str, Array], batch: Batch, drawn: Drawn, axis: str | None = None,
        shards: Shards | None = None,
    ) -> dict[str, Rows]:  # fmt: skip
        """The rows of each table that this step reads. Every device gathers the rows of all, so that row gradients can
        be summed place by place.
        """

        def everywhere(ids: Array) -> Array:
            return ids if axis is None else jax.lax.all_gather(ids, axis, tiled=True)

        inputs, scored = everywhere(batch.item.reshape(-1)), None
        if self.loss.samples:
            own = [] if drawn.own is None else [everywhere(drawn.own.ids.reshape(-1))]
            shared = [] if drawn.shared is None else [drawn.shared.ids]  # among them the targets, where they are drawn
            targets = [] if drawn.column is not None else [everywhere(given(batch.target).reshape(-1))]
            scored = jnp.concatenate([*shared, *own, *targets])
        tied = "output" not in tables
        if not tied:
            touched = {"item": inputs, "output": scored, "bias": scored}
        else:  # one gather serves both uses, so that a row's two gradients are summed before the optimiser sees them
            both = None if scored is None else jnp.concatenate([scored, inputs])
            touched = {"item": both, "bias": both}
        if "user" in tables and batch.user is not None:
            touched["user"] = everywhere(batch.user.reshape(-1))
        rows = gather(tables, touched, shards)
        if tied and scored is not None and "bias" in rows:
            bias = rows["bias"]
            rows["bias"] = bias._replace(hit=jnp.zeros(len(bias.values), bool).at[bias.locate(scored)].set(True))
        return rows

    def total(
        self, network: Network, rows: dict[str, Rows], batch: Batch, hyper: Hyper, carry: Any, loss: Loss, drawn: Drawn
    ) -> tuple[Array, Any]:
        """The loss summed over a batch's real positions, and the state of lanes that went on from ``carry``."""
        last, hidden = encode(network, rows, batch, carry, rates(hyper), self.compute)
        scored = rows["output"] if "output" in rows else rows["item"]
        bias = rows["bias"].values if "bias" in rows else None
        weight = given(batch.mask).reshape(-1).astype(hidden.dtype)
        flat, targets = hidden.reshape(-1, hidden.shape[-1]), given(batch.target).reshape(-1)
        share = {"shard": scored.shard} if scored.piece else {}
        summed = loss(
            flat, output_rows(rows), bias, scored.locate(targets), weight, drawn.located(scored.locate), **share
        )
        return summed, None if carry is None else last


def over_pieces(rows: dict[str, Rows], parts: dict[str, Any]) -> Array:
    """The sum of a tree of numbers, one a gradient; those of a table's pieces over all devices that have one."""
    cut = {name for name, table in rows.items() if table.piece}
    total = everything((parts["network"], {name: part for name, part in parts["rows"].items() if name not in cut}))
    for name in sorted(cut):
        shard = rows[name].shard
        assert shard is not None
        total += shard.total(parts["rows"][name])
    return total


def mixed(average: Recommender, model: Recommender, decay: Any, step: Array, finite: Array) -> Recommender:
    """The exponential moving average of the weights after step ``step`` (0 is the first), as it was where that step was
    not ``finite`` (Polyak and Juditsky 1992; with this start: TensorFlow's ExponentialMovingAverage).

    The decay rises to what it is as ``(1 + step) / (10 + step)``, so that the first, untrained weights are soon
    forgotten.
    """
    share = jnp.where(finite, 1 - jnp.minimum(decay, (1 + step) / (10 + step)), 0.0)
    return jax.tree.map(lambda old, new: old + share.astype(old.dtype) * (new - old), average, model)


def rates(hyper: Hyper) -> Rates:
    """Shares to drop. Vectors that go in lose as much as layers do, states and events nothing, unless told."""
    layer = hyper.get("dropout")
    return Rates(layer, hyper.get("embedding_dropout", layer), hyper.get("state_dropout"), hyper.get("event_dropout"))


def given(leaf: Array | None) -> Array:
    if leaf is None:
        raise ValueError("a batch without target and mask cannot be trained on; give both, each (batch, time)")
    return leaf


def row_keys(state: State, rows: int, axis: str | None) -> Array:
    """One key a row of the whole batch, the same wherever the row is computed."""
    first = 0 if axis is None else rows * jax.lax.axis_index(axis)
    key = jax.random.fold_in(state.key, state.step)
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(first + jnp.arange(rows))
