"""One training step as one pure function."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxrec.models.network import Network
from jaxrec.models.recommender import Batch, Recommender, encode, output_rows
from jaxrec.models.tables import Rows, gather, scatter
from jaxrec.training.optimisers import Hyper, Optimiser, clip


class State(NamedTuple):
    """Everything a step changes. ``tables`` and ``network`` are the parameters; ``optimiser`` has a state for each.

    ``key`` never changes: the randomness of a step is ``fold_in(key, step)``, so that a resumed run repeats it exactly.
    ``carry`` is the recurrent state ``(rows, ...)`` kept from step to step when rows are lanes, None otherwise.
    """

    step: Array
    tables: dict[str, Array]
    network: Network
    optimiser: Any
    key: Array
    carry: Any = None

    @property
    def model(self) -> Recommender:
        return Recommender(self.tables, self.network)


class Metrics(NamedTuple):
    """Numbers of one step: summed loss, positions it was summed over, global gradient norm before clipping, clipped,
    finite.
    """

    loss: Array
    events: Array
    grad_norm: Array
    clipped: Array
    finite: Array


class Loss(Protocol):
    """See ``jaxrec.losses``: a frozen dataclass whose float fields may be traced."""

    def touched(self, targets: Array) -> Array | None: ...

    def __call__(self, hidden: Array, rows: Array, bias: Array | None, targets: Array, weight: Array) -> Array: ...


class TableUpdate(Protocol):
    """The slot for row-sparse and sharded tables: it alone decides how row gradients change a table."""

    def init(self, tables: dict[str, Array], optimiser: Optimiser, hyper: Hyper) -> Any: ...

    def __call__(
        self, tables: dict[str, Array], state: Any, rows: dict[str, Rows], grads: dict[str, Array],
        transform: optax.GradientTransformation,
    ) -> tuple[dict[str, Array], Any]: ...  # fmt: skip


class DenseUpdate:
    """Row gradients become dense ones and every row is updated: plain Optax."""

    def init(self, tables: dict[str, Array], optimiser: Optimiser, hyper: Hyper) -> Any:
        return optimiser.transform(hyper, 0).init(tables)

    def __call__(
        self, tables: dict[str, Array], state: Any, rows: dict[str, Rows], grads: dict[str, Array],
        transform: optax.GradientTransformation,
    ) -> tuple[dict[str, Array], Any]:  # fmt: skip
        dense = {name: scatter(table, rows[name].ids, grads[name]) for name, table in tables.items()}
        updates, state = transform.update(dense, state, tables)
        return optax.apply_updates(tables, updates), state


@dataclass(frozen=True)
class Step:
    """``step(state, batch, hyper) -> (state, metrics)``: what is static is a field, every float in ``hyper`` is traced.

    The loss is the mean over real positions, over all micro-batches and devices; with ``nominal`` the sum over them
    divided by that number, so that steps that rows have left weigh less. Where the state has a ``carry``, rows are
    lanes: each goes on from what the step before left it, a reset starts it afresh, and no gradient flows back into an
    earlier step. Micro-batches and devices share out the lanes. Under ``shard_map`` and ``pmap`` pass ``axis``:
    gradients and counts are summed over it, and dropout follows a row wherever it is computed. A step whose gradient is
    not finite leaves parameters and carry as they were and says so in ``metrics.finite``.
    """

    loss: Any  # a Loss: a frozen dataclass, which a protocol cannot say
    optimiser: Optimiser = field(default_factory=Optimiser)
    table_update: TableUpdate = field(default_factory=DenseUpdate)
    microbatches: int = 1
    nominal: int | None = None

    def init(self, model: Recommender, hyper: Hyper, key: Array, lanes: int = 0) -> State:
        """The state before the first step; ``lanes`` rows, where there are any, keep their recurrent state."""
        transform = self.optimiser.transform(hyper, 0)
        optimiser = {
            "tables": self.table_update.init(model.tables, self.optimiser, hyper),
            "network": transform.init(model.network),
        }
        carry = model.network.start(lanes) if lanes else None
        return State(jnp.zeros((), jnp.int32), model.tables, model.network, optimiser, key, carry)

    def __call__(self, state: State, batch: Batch, hyper: Hyper, axis: str | None = None) -> tuple[State, Metrics]:
        batch = batch._replace(keys=row_keys(state, batch.item.shape[0], axis))
        loss, events, rows, grads, carry = self.gradients(state, batch, hyper, axis)
        if axis is not None:
            loss, events, grads = jax.lax.psum((loss, events, grads), axis)
        count = jnp.maximum(events, 1) if self.nominal is None else jnp.asarray(self.nominal)
        grads = jax.tree.map(lambda g: g / count.astype(g.dtype), grads)
        grads, norm = clip(grads, hyper["clip"])
        finite = jnp.isfinite(norm) & jnp.isfinite(loss)
        kept = state._replace(carry=carry)
        state = jax.lax.cond(finite, lambda: self.update(kept, rows, grads, hyper), lambda: state)
        return state, Metrics(loss, events, norm, norm >= hyper["clip"], finite)

    def update(self, state: State, rows: dict[str, Rows], grads: dict[str, Any], hyper: Hyper) -> State:
        transform = self.optimiser.transform(hyper, state.step)
        tables, table_state = self.table_update(state.tables, state.optimiser["tables"], rows, grads["rows"], transform)
        updates, network_state = transform.update(grads["network"], state.optimiser["network"], state.network)
        network = optax.apply_updates(state.network, updates)
        return state._replace(
            step=state.step + 1,
            tables=tables,
            network=network,
            optimiser={"tables": table_state, "network": network_state},
        )

    def gradients(
        self, state: State, batch: Batch, hyper: Hyper, axis: str | None = None
    ) -> tuple[Array, Array, dict[str, Rows], dict[str, Any], Any]:
        """Summed loss, positions, the touched rows, gradients of the sum with respect to rows and network, and the
        lanes' state after the batch.
        """
        touched = self.touched(state.tables, batch)
        if axis is not None:  # every device gathers the rows of all, so that row gradients can be summed place by place
            touched = jax.tree.map(lambda ids: jax.lax.all_gather(ids, axis, tiled=True), touched)
        rows = gather(state.tables, touched)

        def total(params: dict[str, Any], part: Batch, carry: Any) -> tuple[Array, Any]:
            seen = {name: rows[name]._replace(values=values) for name, values in params["rows"].items()}
            return self.total(params["network"], seen, part, hyper, carry)

        params = {"rows": {name: table.values for name, table in rows.items()}, "network": state.network}
        slope = jax.value_and_grad(total, has_aux=True)
        if self.microbatches == 1:
            (loss, carry), grads = slope(params, batch, state.carry)
        else:

            def add(sums: Any, part: tuple[Batch, Any]) -> tuple[Any, Any]:
                (loss, carry), grads = slope(params, *part)
                return jax.tree.map(jnp.add, sums, (loss, grads)), carry

            parts = jax.tree.map(
                lambda leaf: leaf.reshape(self.microbatches, -1, *leaf.shape[1:]), (batch, state.carry)
            )
            (loss, grads), carry = jax.lax.scan(add, (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params)), parts)
            carry = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), carry)
        return loss, jnp.sum(given(batch.mask)), rows, grads, carry

    def touched(self, tables: dict[str, Array], batch: Batch) -> dict[str, Array | None]:
        """Row numbers of each table that this batch reads, None for all of them."""
        scored = self.loss.touched(given(batch.target).reshape(-1))
        inputs = batch.item.reshape(-1)
        if "output" in tables:
            touched = {"item": inputs, "output": scored, "bias": scored}
        else:  # one gather serves both uses, so that a row's two gradients are summed before the optimiser sees them
            both = None if scored is None else jnp.concatenate([scored, inputs])
            touched = {"item": both, "bias": both}
        if "user" in tables and batch.user is not None:
            touched["user"] = batch.user.reshape(-1)
        return touched

    def total(
        self, network: Network, rows: dict[str, Rows], batch: Batch, hyper: Hyper, carry: Any = None
    ) -> tuple[Array, Any]:
        """The loss summed over a batch's real positions, and the state of lanes that went on from ``carry``."""
        last, hidden = encode(network, rows, batch, carry, rate=hyper["dropout"])
        loss = dataclasses.replace(self.loss, **{name: hyper[name] for name in traced(self.loss)})
        scored = rows["output"] if "output" in rows else rows["item"]
        bias = rows["bias"].values if "bias" in rows else None
        weight = given(batch.mask).reshape(-1).astype(hidden.dtype)
        flat = hidden.reshape(-1, hidden.shape[-1])
        summed = loss(flat, output_rows(rows), bias, scored.locate(given(batch.target).reshape(-1)), weight)
        return summed, None if carry is None else last


def given(leaf: Array | None) -> Array:
    if leaf is None:
        raise ValueError("a batch without target and mask cannot be trained on; give both, each (batch, time)")
    return leaf


def traced(loss: Any) -> list[str]:
    """Names of the loss's float fields: they are entries of ``hyper`` of the same name."""
    return [f.name for f in dataclasses.fields(loss) if f.type in (float, "float")]


def row_keys(state: State, rows: int, axis: str | None) -> Array:
    """One key a row of the whole batch, the same wherever the row is computed."""
    first = 0 if axis is None else rows * jax.lax.axis_index(axis)
    key = jax.random.fold_in(state.key, state.step)
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(first + jnp.arange(rows))
