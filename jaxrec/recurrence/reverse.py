"""The reverse pass of a traced step: what to keep of it, and how to go back through a piece of many steps."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.extend.core import JaxprEqn, Var

from jaxrec.cells import Cell
from jaxrec.recurrence.states import batched_initial, restart, spread
from jaxrec.recurrence.traced import (
    SLOPES,
    abstract,
    alive,
    compute,
    evaluate,
    flat_jaxpr,
    kept,
    kept_product,
    trace,
    value,
)

Leaves = list[Any]


class Plan:
    """A step of ``cell`` for a batch, traced forth and back. States and outputs are lists of leaves.

    ``inputs`` are one piece of events and resets, ``(steps, batch, ...)``.
    """

    def __init__(self, cell: Cell, state: Any, inputs: Any, length: int):
        self.length = length
        first, structure = jax.tree.flatten(state)
        self.moved = jax.eval_shape(lambda inputs: [leaf[0] for leaf in project(cell, inputs)], inputs)
        tree = jax.tree.structure(jax.eval_shape(projected, cell, inputs))
        self.step, (_, shapes) = trace(one_step(structure, tree), cell, first, self.moved)
        self.outputs = jax.tree.structure(shapes)
        self.states = len(first)
        self.sites = {eqn.outvars[0]: eqn for eqn in self.step.moving if self.worth_keeping(eqn)}
        self.numbers = {var: number for number, var in enumerate(self.sites)}
        self.places = {var: place for var, eqn in self.sites.items() if (place := self.step.product(eqn)) is not None}
        self.trace_back(self.step.share(jax.tree.leaves(cell)))

    def worth_keeping(self, eqn: JaxprEqn) -> bool:
        return eqn.primitive.name in SLOPES or self.step.product(eqn) is not None

    def trace_back(self, shared: Leaves) -> None:
        """The slopes of one step as equations, and which of the step's values these read."""
        steps = self.step.inputs[: self.states], self.step.inputs[self.states :], list(self.sites)
        slopes = [atom for atom in self.step.outputs if is_smooth(atom.aval)]
        given = [shared, self.transposed(shared), *map(blanks, (*steps, slopes))]
        closed, found = flat_jaxpr(self.back_one, *given)
        self.consts = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
        self.names, self.gives = divided(closed.jaxpr.invars, given), divided(closed.jaxpr.outvars, found)
        needed, self.equations = alive(closed.jaxpr)
        self.kept_states = [number for number, name in enumerate(self.names[2]) if name in needed]
        self.kept_values = [number for number, name in enumerate(self.names[4]) if name in needed]
        states = {self.names[2][number] for number in self.kept_states}
        wanted = [atom for part in self.gives[2:] for atom in part if not (isinstance(atom, Var) and atom in states)]
        self.stacked = list({id(atom): atom for atom in wanted}.values())

    def transposed(self, shared: Leaves) -> Leaves:
        return [jnp.swapaxes(shared[place], 0, 1) for place in self.places.values()]

    def forward(self, shared: Leaves, state: Leaves, moved: Leaves) -> tuple[Leaves, Any]:
        """One step: the next state, and beside the outputs what the reverse pass reads."""
        values: Leaves = [None] * len(self.sites)

        def keep(eqn: JaxprEqn, given: Leaves) -> Leaves | None:
            if (number := self.numbers.get(eqn.outvars[0])) is None:
                return None
            [values[number]] = found = compute(eqn, given)
            return found

        found = self.step.run(shared, [*state, *moved], keep)
        saved = [state[number] for number in self.kept_states], [values[number] for number in self.kept_values]
        return found[: self.states], (found[self.states :], saved)

    def run(self, everything: Any) -> tuple[Leaves, Leaves, Any]:
        """The last state, outputs ``(batch, time, ...)``, and what the reverse pass reads, ``(time, batch, ...)``."""
        shared, cell, state, inputs = everything
        time = jax.tree.leaves(inputs)[0].shape[1]
        first = jax.tree.leaves(state)

        def step(carry: Any, entry: Any) -> Any:
            state, saved = carry
            index, moved = entry
            state, (outputs, more) = self.forward(shared, state, moved)
            return (state, put(saved, more, index)), outputs

        def piece(carry: Any, begin: Array) -> Any:
            state, outputs, saved = carry
            moved = project(cell, block(inputs, begin, self.length))
            (state, saved), found = lax.scan(step, (state, saved), (begin + jnp.arange(self.length), moved))
            return (state, put_block(outputs, found, begin), saved), None

        _, (outputs, saved) = jax.eval_shape(self.forward, shared, first, self.moved)
        blank = [jnp.zeros((leaf.shape[0], time, *leaf.shape[1:]), leaf.dtype) for leaf in outputs]
        room = jax.tree.map(lambda leaf: jnp.zeros((time, *leaf.shape), leaf.dtype), saved)
        carry = first, *spread((blank, room), everything)
        return lax.scan(piece, carry, jnp.arange(0, time, self.length))[0]

    def back_one(
        self, shared: Leaves, transposed: Leaves, state: Leaves, moved: Leaves, values: Leaves, slopes: Leaves
    ) -> list[Leaves]:
        """Slopes of a step by shared (but for products), state, moved and results of products; the products' rows."""
        taps = [jnp.zeros_like(values[self.numbers[var]]) for var in self.places]
        products = {var: number for number, var in enumerate(self.places)}

        def step(shared: Leaves, state: Leaves, moved: Leaves, taps: Leaves) -> tuple[Leaves, Leaves]:
            rows: Leaves = [None] * len(taps)

            def recall(eqn: JaxprEqn, given: Leaves) -> Leaves | None:
                if (var := eqn.outvars[0]) not in self.sites:
                    return None
                result, product = values[self.numbers[var]], products.get(var)
                if product is None:
                    return [kept(eqn.primitive.name)(given[0], result)]
                rows[product] = given[0]
                return [kept_product(given[0], transposed[product], result, taps[product])]

            return self.step.run(shared, [*state, *moved], recall), rows

        pull, rows = pullback(step, shared, state, moved, taps)
        return [*divided(pull(slopes), [smooth_of(part) for part in (shared, state, moved, taps)]), rows]

    def back(self, shared: Leaves, transposed: Leaves, carry: Any, entry: Any) -> Any:
        """One turn of the reverse loop."""
        by_state, by_shared = carry
        states, values, moved, slopes = entry
        names = [
            *self.names[0],
            *self.names[1],
            *(self.names[2][number] for number in self.kept_states),
            *self.names[3],
            *(self.names[4][number] for number in self.kept_values),
            *self.names[5],
        ]
        known = [*shared, *transposed, *states, *moved, *values, *by_state, *slopes]
        env = self.consts | dict(zip(names, known, strict=True))
        evaluate(self.equations, env)
        more, by_state = ([value(atom, env) for atom in part] for part in self.gives[:2])
        return (by_state, plus(by_shared, more)), [value(atom, env) for atom in self.stacked]

    def unstacked(self, stacked: Leaves, states: Leaves) -> list[Leaves]:
        """Slopes by moved and by products, and rows, of all steps of a piece."""
        found = dict(zip(map(id, self.stacked), stacked, strict=True))
        found |= {id(self.names[2][number]): leaf for number, leaf in zip(self.kept_states, states, strict=True)}
        return [[found[id(atom)] for atom in part] for part in self.gives[2:]]

    def backward(self, everything: Any, saved: Any, last: Leaves, outputs: Leaves) -> Leaves:
        """Slopes by every smooth leaf of ``(shared, cell, state, inputs)``, from those by last state and outputs."""
        shared, cell, _, inputs = everything
        transposed = lax.optimization_barrier(self.transposed(shared))  # once, not at every step
        order = [sum(map(is_smooth, shared[:place])) for place in self.places.values()]

        def step(carry: Any, entry: Any) -> Any:
            index, moved, slopes = entry
            states, values = take(saved, index)
            return self.back(shared, transposed, carry, (states, values, moved, slopes))

        def piece(carry: Any, begin: Array) -> Any:
            by_state, by_shared, by_cell, by_inputs = carry
            here = block(inputs, begin, self.length)
            pull, moved = pullback(lambda *given: (project(*given),) * 2, cell, here)
            (by_state, by_shared), stacked = lax.scan(
                step,
                (by_state, by_shared),
                (begin + jnp.arange(self.length), moved, block(outputs, begin, self.length)),
                reverse=True,
            )
            states = [lax.dynamic_slice_in_dim(leaf, begin, self.length) for leaf in saved[0]]
            by_moved, by_products, rows = self.unstacked(stacked, states)
            for place, left, right in zip(order, rows, by_products, strict=True):
                by_shared[place] += flat(left).T @ flat(right)
            more, found = divided(pull(by_moved), [by_cell, smooth_of(here)])
            return (by_state, by_shared, plus(by_cell, more), put_block(by_inputs, found, begin)), None

        zero = jax.tree.map(jnp.zeros_like, (smooth_of(shared), smooth_of(cell), smooth_of(inputs)))
        carry = spread((last, *zero), (everything, last, outputs))
        begins = jnp.arange(0, jax.tree.leaves(inputs)[0].shape[1], self.length)
        (by_state, by_shared, by_cell, by_inputs), _ = lax.scan(piece, carry, begins, reverse=True)
        return [*by_shared, *by_cell, *by_state, *by_inputs]


def block(tree: Any, begin: Any, length: int) -> Any:
    """``length`` steps of leaves ``(batch, time, ...)``, as ``(length, batch, ...)``."""
    return jax.tree.map(lambda leaf: jnp.swapaxes(lax.dynamic_slice_in_dim(leaf, begin, length, 1), 0, 1), tree)


def put_block(whole: Any, part: Any, begin: Any) -> Any:
    """``whole`` with ``part`` where `block` would take it from."""
    return jax.tree.map(
        lambda leaf, more: lax.dynamic_update_slice_in_dim(leaf, jnp.swapaxes(more, 0, 1), begin, 1), whole, part
    )


def take(tree: Any, index: Any) -> Any:
    return jax.tree.map(lambda leaf: lax.dynamic_index_in_dim(leaf, index, keepdims=False), tree)


def put(tree: Any, step: Any, index: Any) -> Any:
    return jax.tree.map(lambda leaf, one: lax.dynamic_update_index_in_dim(leaf, one, index, 0), tree, step)


def one_step(structure: Any, tree: Any) -> Callable[..., Any]:
    """A batch's step over leaves of the state and of what moves: projected events and resets."""

    def step(cell: Cell, state: Leaves, moved: Leaves) -> Any:
        events, start = jax.tree.unflatten(tree, moved)

        def one(state: Any, event: Any) -> tuple[Leaves, Any]:
            after = cell.step(state, event)
            return jax.tree.leaves(after), cell.read(after, event)

        fresh = None if start is None else batched_initial(cell, len(start))
        return jax.vmap(one)(restart(jax.tree.unflatten(structure, state), fresh, start), events)

    return step


def projected(cell: Cell, inputs: Any) -> Any:
    """Projected events, of steps and batch together: a product over one axis needs no copy in its reverse pass."""
    events, starts = inputs
    leading = jax.tree.leaves(events)[0].shape[:2]
    found = jax.vmap(cell.project)(jax.tree.map(flat, events))
    return jax.tree.map(lambda leaf: leaf.reshape(*leading, *leaf.shape[1:]), found), starts


def flat(leaf: Array) -> Array:
    """The two leading axes as one."""
    return leaf.reshape(leaf.shape[0] * leaf.shape[1], *leaf.shape[2:])


def project(cell: Cell, inputs: Any) -> Leaves:
    """What a piece gives its steps, as leaves ``(steps, batch, ...)``: projected events, and resets."""
    return jax.tree.leaves(projected(cell, inputs))


def pullback(fn: Callable[..., tuple[Leaves, Any]], *args: Any) -> tuple[Callable[[Leaves], Leaves], Any]:
    """From slopes by the smooth values of ``fn`` to slopes by smooth leaves of ``args``; and what else it returns."""
    smooth, rest, join = parted(args)

    def values(smooth: Leaves) -> tuple[Leaves, Any]:
        found, more = fn(*join(smooth, rest))
        return smooth_of(found), more

    _, pull, more = jax.vjp(values, smooth, has_aux=True)
    return lambda slopes: pull(slopes)[0], more


def parted(tree: Any) -> tuple[Leaves, Leaves, Callable[[Leaves, Leaves], Any]]:
    """Leaves that can be differentiated, the others, and how to put the two together again."""
    leaves, structure = jax.tree.flatten(tree)
    places = [is_smooth(leaf) for leaf in leaves]

    def join(smooth: Leaves, rest: Leaves) -> Any:
        here, there = iter(smooth), iter(rest)
        return jax.tree.unflatten(structure, [next(here) if place else next(there) for place in places])

    return smooth_of(leaves), [leaf for leaf in leaves if not is_smooth(leaf)], join


def smooth_of(tree: Any) -> Leaves:
    return [leaf for leaf in jax.tree.leaves(tree) if is_smooth(leaf)]


def is_smooth(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jnp.inexact))


def plus(left: Leaves, right: Leaves) -> Leaves:
    return [mine + more for mine, more in zip(left, right, strict=True)]


def divided(leaves: Any, like: Any) -> list[Leaves]:
    """A flat list in parts as long as those of ``like``."""
    here = iter(leaves)
    return [[next(here) for _ in jax.tree.leaves(part)] for part in like]


def blanks(atoms: list[Any]) -> list[jax.ShapeDtypeStruct]:
    """The shapes and dtypes of variables, to trace with."""
    return [jax.ShapeDtypeStruct(abstract(atom).shape, abstract(atom).dtype) for atom in atoms]
