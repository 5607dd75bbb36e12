"""Which matrices of a cell its state goes round through, found in the equations of its step and not by their names."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

from jaxrec.cells import Cell, Event
from jaxrec.recurrence.trees import place_name, trained

# what leaves a matrix the matrix that it was
TURNS = {
    "broadcast_in_dim", "convert_element_type", "copy", "copy_p", "optimization_barrier", "reduce_precision", "reshape",
    "squeeze", "transpose",
}  # fmt: skip


class Recurrent(NamedTuple):
    """A recurrent matrix. ``value`` is ``(n, n)``, or ``(..., n, n)`` for the blocks of a block-diagonal one."""

    name: str  # where in the cell it lies, as in "uz", "cell.uz", "u[0]"
    value: Array
    trained: bool  # a parameter of the cell; otherwise `Cell.prepare` derives it


def recurrent_matrices(cell: Cell, event: Event) -> tuple[Recurrent, ...]:
    """The square matrices that carry a cell's state from step to step, in the order of its leaves.

    A leaf of the prepared cell counts where the step multiplies it, as it is but for its type and axes, with something
    that depends on the state, and the product reaches the part of the state that it came from again, at once or in
    later steps. So what only the input meets does not count, nor a weight for each entry, nor a matrix between two
    layers of which the first does not see the second, nor one whose input the state has merely kept (a window).
    ``event`` is one event, of which only shapes are read.
    """
    ready = cell.prepare()
    flat = jax.tree_util.tree_leaves_with_path((ready,))
    names = [place_name(path) for path, _ in flat]
    parameters = trained((cell,))
    square = {
        number for number, (_, leaf) in enumerate(flat) if leaf.ndim > 1 and leaf.shape[-1] == leaf.shape[-2]
    }  # fmt: skip
    return tuple(
        Recurrent(names[number].removeprefix("cell").removeprefix("."), flat[number][1], names[number] in parameters)
        for number in circling(ready, event)
        if number in square
    )


def with_leaves(cell: Cell, values: Mapping[str, Any]) -> Cell:
    """A copy of the cell with other values in the leaves of these names."""

    def put(path: Any, leaf: Any) -> Any:
        return values.get(place_name(path).removeprefix("cell").removeprefix("."), leaf)

    return jax.tree_util.tree_map_with_path(put, (cell,))[0]  # type: ignore[no-any-return]


def circling(ready: Cell, event: Event) -> list[int]:
    """Numbers of the prepared cell's leaves that are recurrent matrices, square or not."""
    state = jax.eval_shape(lambda cell: jax.tree.map(jnp.asarray, cell.initial_state()), ready)
    projected = jax.eval_shape(lambda cell, event: cell.project(event), ready, event)
    closed = jax.make_jaxpr(lambda cell, state, projected: cell.step(state, projected))(
        jax.eval_shape(lambda cell: cell, ready), state, projected
    )
    leaves, parts, rest = (len(jax.tree.leaves(tree)) for tree in (ready, state, projected))
    given = [Mark(matrix=number) for number in range(leaves)]
    given += [Mark(states=frozenset([number])) for number in range(parts)]
    given += [NOTHING] * rest
    met: dict[int, set[int]] = {}
    after = flow(closed, given, met)
    reached = {number: reach(number, after) for number in range(parts)}
    return [
        number
        for number in range(leaves)
        if any(number in mark.through and met[number] & reached[part] for part, mark in enumerate(after))
    ]


class Mark(NamedTuple):
    """What is known of a value in a step."""

    states: frozenset[int] = frozenset()  # parts of the state that it depends on
    through: frozenset[int] = frozenset()  # matrices that one of them was multiplied with on the way
    matrix: int | None = None  # the leaf of the cell that it is


NOTHING = Mark()


def reach(part: int, after: Sequence[Mark]) -> set[int]:
    """Parts of the state that a part of it decides, now or in later steps; among them itself."""
    found, more = set[int](), {part}
    while more:
        found |= more
        more = {other for other, mark in enumerate(after) if mark.states & more} - found
    return found


def flow(closed: ClosedJaxpr | Jaxpr, given: Sequence[Mark], met: dict[int, set[int]]) -> list[Mark]:
    """Marks of a function's results; ``met`` learns which parts of the state each matrix was multiplied with."""
    jaxpr = closed.jaxpr if isinstance(closed, ClosedJaxpr) else closed
    env: dict[Var, Mark] = dict(zip(jaxpr.invars, given, strict=True))

    def mark(atom: Any) -> Mark:
        return NOTHING if isinstance(atom, Literal) else env.get(atom, NOTHING)

    for eqn in jaxpr.eqns:
        env.update(zip(eqn.outvars, passed(eqn, [mark(atom) for atom in eqn.invars], met), strict=True))
    return [mark(atom) for atom in jaxpr.outvars]


def passed(eqn: JaxprEqn, given: list[Mark], met: dict[int, set[int]]) -> list[Mark]:
    """Marks of an equation's results."""
    name, params = eqn.primitive.name, eqn.params
    if name == "scan":
        return scanned(params, given, met)
    if name == "while":
        head = params["cond_nconsts"]
        return looped(params["body_jaxpr"], given[head:], params["body_nconsts"], len(eqn.outvars), met)
    if name == "cond":
        ways = [flow(branch, given[1:], met) for branch in params["branches"]]
        return [joined(given[0]._replace(matrix=None), *found) for found in zip(*ways, strict=True)]
    for inner in (params.get(key) for key in ("jaxpr", "call_jaxpr", "fun_jaxpr")):
        if isinstance(inner, ClosedJaxpr | Jaxpr) and len(getattr(inner, "jaxpr", inner).invars) == len(given):
            return flow(inner, given, met)
    found = joined(*given)._replace(matrix=given[0].matrix if name in TURNS else None)
    if name == "dot_general":
        for one, other in (given, given[::-1]):
            if one.matrix is not None and other.states:
                met.setdefault(one.matrix, set()).update(other.states)
                found = found._replace(through=found.through | {one.matrix})
    return [found] * len(eqn.outvars)


def scanned(params: Mapping[str, Any], given: list[Mark], met: dict[int, set[int]]) -> list[Mark]:
    """A scan is a loop whose results beside the state are stacked; of what it runs over it sees slices."""
    fixed, carried = counted(params)
    sliced = [mark._replace(matrix=None) for mark in given[fixed + carried :]]
    return looped(params["jaxpr"], given[: fixed + carried] + sliced, fixed, carried, met)


def counted(params: Mapping[str, Any]) -> tuple[int, int]:
    """How many of a scan's arguments are constants, and how many it carries; jax 0.12 tells it by trees."""
    if "ft_in" not in params:
        return params["num_consts"], params["num_carry"]
    fixed, carried, _ = (len(list(part.vals)) for part in params["ft_in"].unpack())
    return fixed, carried


def looped(body: ClosedJaxpr, given: list[Mark], fixed: int, carried: int, met: dict[int, set[int]]) -> list[Mark]:
    """Marks after any number of rounds of a loop whose arguments are constants, what it carries, and others."""
    while True:
        found = flow(body, given, met)
        onwards = [joined(old, new) for old, new in zip(given[fixed : fixed + carried], found, strict=False)]
        if onwards == given[fixed : fixed + carried]:
            return onwards + found[carried:]
        given = given[:fixed] + onwards + given[fixed + carried :]


def joined(*marks: Mark) -> Mark:
    """What may be any of these values, or is made of all."""
    first = marks[0].matrix if marks else None
    return Mark(
        frozenset().union(*(mark.states for mark in marks)),
        frozenset().union(*(mark.through for mark in marks)),
        first if all(mark.matrix == first for mark in marks) else None,
    )
