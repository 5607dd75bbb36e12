"""What gates and units do: saturation, time constants, dead units. Nothing has to be declared: a gate is whatever a
cell's own code puts through a sigmoid, found in the equations of its step and named after its line in the source.
"""

import linecache
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrec.cells import AffineCell, Cell, Composite, ElementwiseCell, Event
from jaxrec.diagnostics.curves import finite, plain
from jaxrec.diagnostics.records import Record
from jaxrec.diagnostics.subject import STEP, Layer, Model, layers, subject
from jaxrec.recurrence import Exposed, unroll
from jaxrec.recurrence.reverse import parted
from jaxrec.recurrence.traced import compute, value
from jaxrec.recurrence.trees import is_complex, is_real

RANGES = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0), "decay": (0.0, 1.0)}
PRIMITIVES = {"logistic": "sigmoid", "tanh": "tanh"}
BINS = 24
STEPS = 4096  # at most, at which gates are looked at
SATURATED = 0.05  # of the range, from either end
DEAD = 1e-3  # of the median unit's standard deviation
DENSE = 256  # real numbers of a state up to which its Jacobian's diagonal is computed exactly
PLACES = 64  # steps at which Jacobians are looked at
PROBES = 32  # random vectors for the diagonal of a larger one


class Watched(NamedTuple):
    """What a function put through a squashing function: ``name``, its ``kind`` and the values."""

    name: str
    kind: str
    values: Any


def watched(fn: Any, *args: Any) -> tuple[Any, list[Watched]]:
    """``fn(*args)`` and everything that its equations put through sigmoid or tanh, in order, to be called under `jit`
    or `vmap` like ``fn`` itself.
    """
    closed, shape = jax.make_jaxpr(fn, return_shape=True)(*args)
    found: list[Watched] = []

    def run(jaxpr: Any, consts: Sequence[Any], given: Sequence[Any], caller: str | None = None) -> list[Any]:
        env = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *given], strict=True))
        for eqn in jaxpr.eqns:
            inputs = [value(atom, env) for atom in eqn.invars]
            if eqn.primitive.name in ("jit", "pjit"):
                inner = eqn.params["jaxpr"]  # whose own lines are those of whoever traced it first
                outputs = run(inner.jaxpr, inner.consts, inputs, caller or named(eqn))
            else:
                outputs = compute(eqn, inputs)
            if (kind := PRIMITIVES.get(eqn.primitive.name)) and jnp.ndim(outputs[0]):
                found.append(Watched(caller or named(eqn) or kind, kind, outputs[0]))
            env.update(zip(eqn.outvars, outputs, strict=True))
        return [value(atom, env) for atom in jaxpr.outvars]

    outputs = run(closed.jaxpr, closed.consts, jax.tree.leaves(args))
    return jax.tree.unflatten(jax.tree.structure(shape), outputs), found


def named(eqn: Any) -> str | None:
    """The name that the source gives an equation's result, as `z` in ``z = jax.nn.sigmoid(...)``."""
    frames = getattr(eqn.source_info.traceback, "frames", ())
    own = next((one for one in frames if not re.search(r"[\\/](jax|flax|jaxlib)[\\/]", one.file_name)), None)
    line = linecache.getline(own.file_name, own.line_num) if own else ""
    match = re.match(r"\s*(\w+(?:\.\w+)?)(?:\s*:[^=]+)?\s*=[^=]", line)
    return match[1] if match else None


def gates(model: Model, batch: Any) -> list[Record]:
    """One record a layer: of every gate and squashed value a histogram and the shares near both ends; of units their
    time constants (events after which what a unit holds has faded to 1/e by itself) and how many are dead.

    A time constant is ``-1 / mean log |d h'_i / d h_i|`` over the batch, infinite (None) where that mean is not below
    zero. A unit is dead where its standard deviation over all events is below ``DEAD`` of the median unit's.
    """
    given = subject(model, batch)
    return [{"kind": "gates", "layer": number} | layer_gates(layer) for number, layer in enumerate(layers(given))]


def layer_gates(layer: Layer) -> Record:
    values, states, slopes = examined(layer)
    squashed = [np.asarray(values[key]) for key in sorted(values)]
    names = distinct([key.split(" ", 2)[1:] for key in sorted(values)])
    spread = np.concatenate([np.asarray(leaf).std((0, 1)).ravel() for leaf in states])
    dead = spread <= DEAD * np.median(spread)
    logs = [np.asarray(leaf, np.float64) for leaf in slopes]
    rates = np.concatenate([leaf.reshape(leaf.shape[0], -1).mean(0) for leaf in logs])
    with np.errstate(divide="ignore"):
        constants = np.where(rates < 0, -1 / np.where(rates < 0, rates, -1), np.inf)
    return {
        "gates": [histogram(name, kind, one) for (kind, name), one in zip(names, squashed, strict=True)],
        "units": len(spread), "dead": int(dead.sum()), "dead_share": float(dead.mean()),
        "time_constants": plain(np.sort(constants)), "not_fading": int(np.isinf(constants).sum()),
        "exact": exact(layer.cell),
    }  # fmt: skip


def histogram(name: str, kind: str, values: Any) -> Record:
    low, high = RANGES[kind]
    counts, edges = np.histogram(values, BINS, (low, high))
    margin = SATURATED * (high - low)
    return {
        "name": name, "kind": kind, "edges": plain(edges), "density": plain(counts / max(counts.sum(), 1)),
        "mean": finite(float(values.mean())), "shut": finite(float((values < low + margin).mean())),
        "open": finite(float((values > high - margin).mean())),
    }  # fmt: skip


def exact(cell: Cell) -> bool:
    """Whether the diagonal of the step's Jacobian is computed, and not estimated."""
    state = jax.eval_shape(lambda cell: cell.prepare().initial_state(), cell)
    return alone_in_its_leaf(cell, state) or size_of(state) <= DENSE


def alone_in_its_leaf(cell: Cell, state: Any) -> bool:
    return isinstance(cell, ElementwiseCell) and len(jax.tree.leaves(state)) == 1


def size_of(state: Any) -> int:
    """Numbers of a state that can be differentiated."""
    return sum(leaf.size for leaf in jax.tree.leaves(state) if is_real(leaf) or is_complex(leaf))


@jax.jit
def examined(layer: Layer) -> tuple[dict[str, Array], list[Array], list[Array]]:
    """What is squashed, ``(steps, ...)``, by place, kind and name; states ``(batch, time, ...)``; and logarithms of the
    absolute diagonal of the Jacobian ``(places, ...)``, for every leaf of the state.
    """
    cell = layer.cell.prepare()
    path = unroll(Exposed(layer.cell), layer.events, reset=layer.reset, backend=STEP)[1].state
    before = shifted(cell, path, layer.reset)
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), (before, layer.events))

    def squashed(state: Any, event: Event) -> dict[str, Array]:
        found = watched(lambda state, event: through(cell, state, event), state, event)[1] + decays(cell, event)
        return {f"{place:03} {entry.kind} {entry.name}": entry.values for place, entry in enumerate(found)}

    def rates(state: Any, event: Event, key: Array) -> list[Array]:
        return diagonal(cell, state, event, key)

    values = jax.vmap(squashed)(*spaced(flat, STEPS))
    smooth = [leaf for leaf in jax.tree.leaves(path) if is_real(leaf) or is_complex(leaf)]
    places = spaced(flat, PLACES)
    keys = jax.random.split(jax.random.key(0), len(places[1].x))
    return values, smooth, jax.vmap(rates)(places[0], places[1], keys)


def through(cell: Cell, state: Any, event: Event) -> tuple[Any, Any]:
    projected = cell.project(event)
    after = cell.step(state, projected)
    return (after, None) if isinstance(cell, Composite) else (after, cell.read(after, projected))  # it wires both


def decays(cell: Cell, event: Event) -> list[Watched]:
    """What an affine cell multiplies its state with, where it says so."""
    if not isinstance(cell, AffineCell):
        return []
    return [Watched("decay", "decay", jnp.abs(cell.affine(cell.project(event))[0]))]


def shifted(cell: Cell, path: Any, reset: Array | None) -> Any:
    """States before each event ``(batch, time, ...)``, from those after it."""

    def one(leaf: Array, fresh: Any) -> Array:
        first = jnp.broadcast_to(jnp.asarray(fresh, leaf.dtype), (len(leaf), 1, *leaf.shape[2:]))
        before = jnp.concatenate([first, leaf[:, :-1]], axis=1)
        if reset is None:
            return before
        return jnp.where(reset.reshape(*reset.shape, *[1] * (leaf.ndim - 2)), first, before)

    return jax.tree.map(one, path, cell.initial_state())


def spaced(flat: Any, count: int) -> Any:
    """At most ``count`` entries, evenly spaced."""
    total = len(flat[1].x)
    places = np.linspace(0, total - 1, min(count, total)).round().astype(int)
    return jax.tree.map(lambda leaf: leaf[places], flat)


def diagonal(cell: Cell, state: Any, event: Event, key: Array) -> list[Array]:
    """``log |d h'_i / d h_i|`` of one step, for every smooth leaf of the state."""
    smooth, rest, join = parted(state)

    def step(leaves: list[Array]) -> list[Array]:
        return parted(cell.step(join(leaves, rest), cell.project(event)))[0]

    if alone_in_its_leaf(cell, state):
        found = jax.jvp(step, (smooth,), ([jnp.ones_like(leaf) for leaf in smooth],))[1]
    elif size_of(state) <= DENSE:
        dense = jax.jacfwd(step, holomorphic=any(map(is_complex, smooth)))(smooth)
        found = [
            jnp.diagonal(row[place].reshape(leaf.size, leaf.size)).reshape(leaf.shape)
            for place, (leaf, row) in enumerate(zip(smooth, dense, strict=True))
        ]
    else:
        found = estimated(step, smooth, key)
    return [jnp.log(jnp.abs(leaf)) for leaf in found]


def estimated(step: Any, smooth: list[Array], key: Array) -> list[Array]:
    """The diagonal of a Jacobian from random signs (Bekas et al. 2007): the mean of ``v * (J v)``."""

    def one(key: Array) -> list[Array]:
        signs = [
            jax.random.rademacher(jax.random.fold_in(key, place), leaf.shape, leaf.real.dtype).astype(leaf.dtype)
            for place, leaf in enumerate(smooth)
        ]
        return [sign * moved for sign, moved in zip(signs, jax.jvp(step, (smooth,), (signs,))[1], strict=True)]

    return [leaf.mean(0) for leaf in jax.lax.map(one, jax.random.split(key, PROBES))]


def distinct(names: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    """Kinds and names, with a number where a name comes again."""
    found: list[tuple[str, str]] = []
    for place, (kind, name) in enumerate(names):
        again = sum(other == name for _, other in names[:place])
        found.append((kind, f"{name} {again + 1}" if again else name))
    return found
