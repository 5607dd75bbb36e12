"""How far a cell on a backend is from obeying each law: the largest violation and, where known, its place."""

import io
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxrec.cells import Cell, Event
from jaxrec.config import first_line
from jaxrec.recurrence.backends import accepts, choose
from jaxrec.recurrence.cases import Case
from jaxrec.recurrence.faults import NO_SLOPE, NotFinite, not_finite
from jaxrec.recurrence.scan import Scan
from jaxrec.recurrence.trees import difference, double, is_real, joined, piece, real_leaves, rows, score
from jaxrec.recurrence.unroll import advance, start, unroll
from jaxrec.recurrence.wrappers import Exposed

LONG = 10_000  # steps
Finding = tuple[float, str]


def contract(case: Case) -> Finding:
    """Runs at all: the state keeps its tree, shapes and dtypes, every output is an array, every number finite."""
    _, outputs = case.first
    if count := infinite(case.first):
        raise not_finite(case.cell, case.events, int(count))
    return (0.0, "") if jax.tree.leaves(outputs) else (1.0, "read, which returns no array")


def compiles(case: Case) -> Finding:
    """`jax.jit` changes nothing."""
    return difference(case.run(case.events), case.first), ""


def deterministic(case: Case) -> Finding:
    """Two runs, each traced anew, agree to the last bit."""
    return difference(case.eager(case.cell, case.events), case.first), ""


def owners(case: Case) -> Finding:
    """Every array is a parameter with one owner; a second name for it would drift apart in training."""
    seen: dict[int, str] = {}
    wrong = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(case.fresh, is_leaf=owned):
        name = jax.tree_util.keystr(path)
        if not owned(leaf):
            wrong.append(f"{name} is a bare array")
            continue
        array = jax.tree.leaves(leaf)[0]
        if isinstance(leaf, nnx.Param) and not is_real(array):
            wrong.append(f"{name} is {array.dtype}, not real")
        if id(array) in seen:
            wrong.append(f"{name} is also {seen[id(array)]}")
        seen[id(array)] = name
    return float(len(wrong)), "; ".join(wrong)


def owned(leaf: Any) -> bool:
    return isinstance(leaf, nnx.Variable)


def split(case: Case) -> Finding:
    """Two pieces, the second from the first one's last state, give what the whole gives."""
    half = case.time // 2
    between, before = case.run(piece(case.events, 0, half), state=case.state)
    last, after = case.run(piece(case.events, half, None), state=between)
    return difference((last, joined(before, after)), case.whole), ""


def resets(case: Case) -> Finding:
    """A reset forgets all that came before it, in its own row only."""
    half = case.time // 2
    last, outputs = case.run(case.events, state=case.state, reset=case.reset)
    alone, after = case.run(piece(case.events, half, None))
    restarted = difference(rows((last, piece(outputs, half, None)), 0), rows((alone, after), 0))
    untouched = difference(rows((last, outputs), slice(1, None)), rows(case.whole, slice(1, None)))
    earlier = difference(piece(outputs, 0, half), piece(case.whole[1], 0, half))
    found = {"the row that restarts": restarted, "the other rows": untouched, "events before the reset": earlier}
    return worst(found)


def states(case: Case) -> Finding:
    """A missing state is the initial one, a run begins at a given one, the last is that after the last event."""
    default = difference(case.first, case.run(case.events, state=start(case.cell, case.batch)))
    seen = Exposed(case.cell)
    # a backend that never holds the states between cannot show them: there the plain one does
    backend = case.backend if accepts(seen, case.backend) else "scan"
    _, trajectory = jax.jit(lambda cell: unroll(cell, case.events, state=case.state, backend=backend))(seen)
    final = difference(case.whole[0], jax.tree.map(lambda leaf: leaf[:, -1], trajectory.state))
    same = difference(trajectory.output, case.whole[1])
    expected, _ = jax.jit(advance)(case.cell, case.state, jax.tree.map(lambda leaf: leaf[:, 0], case.events))
    given = difference(jax.tree.map(lambda leaf: leaf[:, 0], trajectory.state), expected)
    return worst(
        {
            "the default state": default,
            "the last state": final,
            "the outputs beside states": same,
            "the given state": given,
        }
    )


def streaming(case: Case) -> Finding:
    """One event at a time gives what the whole sequence gives."""
    step = jax.jit(advance)
    state, outputs = case.state, []
    for t in range(case.time):
        state, output = step(case.cell, state, jax.tree.map(lambda leaf, t=t: leaf[:, t], case.events))
        outputs.append(output)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1), *outputs)
    return difference((state, stacked), case.whole), ""


def causal(case: Case) -> Finding:
    """Outputs do not depend on later events, neither in value nor in gradient."""
    half = case.time // 2
    other = joined(piece(case.events, 0, half), piece(case.sample(5), half, None))
    value = difference(piece(case.run(other, state=case.state)[1], 0, half), piece(case.whole[1], 0, half))

    def early(x: Any) -> Any:
        return score(piece(case.eager(case.cell, case.events._replace(x=x), state=case.state)[1], 0, half))

    flow = jax.jit(jax.grad(early))(case.events.x)[:, half:]
    return worst({"values": value, "gradients": difference(flow, jnp.zeros_like(flow))})


def separate(case: Case) -> Finding:
    """A row's outputs depend on no other row, and follow it when rows change places."""
    others = slice(1, None)
    changed = jax.tree.map(lambda new, old: jnp.concatenate([new[:1], old[1:]]), case.sample(6), case.events)
    leak = difference(rows(case.run(changed, state=case.state), others), rows(case.whole, others))
    order = np.roll(np.arange(case.batch), 1)
    moved = case.run(rows(case.events, order), state=rows(case.state, order))
    return worst({"a changed neighbour": leak, "another order": difference(moved, rows(case.whole, order))})


def padding(case: Case) -> Finding:
    """Events after the end of a sequence change nothing before it, and a longer array changes nothing at all."""
    half = case.time // 2
    short = piece(case.events, 0, half)
    padded = joined(short, jax.tree.map(lambda leaf: leaf if not is_real(leaf) else jnp.zeros_like(leaf), short))
    return difference(piece(case.run(padded, state=case.state)[1], 0, half), case.run(short, state=case.state)[1]), ""


def stacked(case: Case) -> Finding:
    """Cells made and run under `jax.vmap` give what they give one by one."""
    keys = jax.random.split(jax.random.key(case.seed), 2)
    cells = jax.vmap(lambda key: case.make(nnx.Rngs(key)))(keys)
    together = jax.jit(jax.vmap(lambda cell: case.eager(cell, case.events, reset=case.reset)))(cells)
    single = [case.run(case.events, cell=rows(cells, i), reset=case.reset) for i in range(2)]
    return difference(together, jax.tree.map(lambda *leaves: jnp.stack(leaves), *single)), ""


def saved(case: Case) -> Finding:
    """Weights kept by name in a file and put into another new cell give the same outputs to the last bit."""
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(case.cell)]
    file = io.BytesIO()
    weights: dict[str, Any] = dict(zip(names, map(np.asarray, jax.tree.leaves(case.cell)), strict=True))
    np.savez(file, allow_pickle=False, **weights)
    file.seek(0)
    other = case.make(nnx.Rngs(case.seed + 1))
    with np.load(file, allow_pickle=False) as stored:
        loaded = jax.tree_util.tree_map_with_path(
            lambda path, leaf: jnp.asarray(stored[jax.tree_util.keystr(path)], leaf.dtype), other
        )
    return difference(case.run(case.events, cell=loaded, state=case.state), case.whole), ""


def bfloat16(case: Case) -> Finding:
    """Weights and vectors in bfloat16 give a float32 state and outputs near those of float32."""

    def coarse(leaf: Any) -> Any:
        return leaf.astype(jnp.bfloat16) if is_real(leaf) else leaf

    events = case.events._replace(x=coarse(case.events.x))
    found = jax.jit(lambda cell: case.eager(cell, events, state=case.state))(jax.tree.map(coarse, case.cell))
    halves = [leaf for leaf in jax.tree.leaves(found) if jnp.result_type(leaf) == jnp.bfloat16]
    return worst({"values": difference(found[1], case.whole[1]), "a state or output in bfloat16": float(len(halves))})


def specification(case: Case) -> Finding:
    """Values and gradients are those of the plain scan, from a given state and with a reset."""
    return against_scan(case, (case.cell, case.events, case.state))


def specification_double(case: Case) -> Finding:
    """The same in float64, where rounding hides nothing."""
    with jax.enable_x64(True):
        return against_scan(case, double((case.cell, case.events, case.state)))


def against_scan(case: Case, given: Any) -> Finding:
    """How far the backend is from the plain scan on ``(cell, events, state)``, with a reset."""

    def loss(leaves: Any, rebuild: Any, backend: Any) -> Any:
        cell, events, state = rebuild(leaves)
        last, outputs = unroll(cell, events, state=state, reset=case.reset, backend=backend)
        return score((last, outputs)), (last, outputs)

    plain = Scan(hoist=False)
    if choose(case.cell, case.backend) in (plain, Scan()) and jax.default_backend() == "cpu":  # which does not hoist
        return 0.0, ""
    names, leaves, rebuild = real_leaves(given)

    def run(backend: Any) -> Any:
        return jax.jit(lambda leaves: jax.value_and_grad(loss, has_aux=True)(leaves, rebuild, backend))(leaves)

    (_, values), gradients = run(case.backend)
    (_, wanted), right = run(plain)
    return worst(
        {"values": difference(values, wanted)}
        | {n: difference(g, r) for n, g, r in zip(names, gradients, right, strict=True)}
    )


def gradients(case: Case) -> Finding:
    """Gradients by parameters, events and state agree with finite differences in float64."""
    if wrong := [d.name for d in case.derivatives if not np.isfinite([d.analytic, d.numeric]).all()]:
        raise NotFinite(f"the gradient by {', '.join(wrong)} is not finite; {NO_SLOPE}")
    floor = 1e-4 * max(abs(d.numeric) for d in case.derivatives)
    scale = {d.name: max(abs(d.analytic), abs(d.numeric), floor, 1e-300) for d in case.derivatives}
    return worst({d.name: abs(d.analytic - d.numeric) / scale[d.name] for d in case.derivatives})


def alive(case: Case) -> Finding:
    """Every parameter has a gradient that is not zero for some random input."""
    dead = [d.name for d in case.derivatives if d.parameter and d.largest == 0]
    return float(len(dead)), ", ".join(dead)


def lasting(case: Case) -> Finding:
    """After a long run of random events states, outputs and gradients are finite."""
    events = case.sample(8, LONG)

    def loss(cell: Cell, events: Event) -> Any:
        last, outputs = case.eager(cell, events)
        return score(jax.tree.map(lambda leaf: leaf[:, -1], outputs)), (last, outputs)

    run = jax.jit(jax.value_and_grad(loss, has_aux=True, allow_int=True))
    (_, values), slopes = run(case.fresh, events)
    found = {"states and outputs": infinite(values), "gradients": infinite(slopes)}
    if not any(found.values()):
        return 0.0, ""
    few = piece(events, 0, case.time)
    (_, values), slopes = run(case.fresh, few)
    if count := infinite(values):
        raise not_finite(case.fresh, few, int(count))
    if infinite(slopes):
        raise NotFinite(f"a gradient is nan or inf from the first events on; {NO_SLOPE}")
    return worst(found)


def portable(case: Case) -> Finding:
    """Forward and backward lower for every platform from here."""

    def loss(cell: Cell, events: Any) -> Any:
        return score(case.eager(cell, events, reset=case.reset)[1])

    traced = jax.jit(jax.value_and_grad(loss, allow_int=True)).trace(case.cell, case.events)
    failed = []
    for platform in ("cpu", "cuda", "tpu"):
        try:
            traced.lower(lowering_platforms=(platform,))
        except (NotImplementedError, ValueError, RuntimeError) as error:
            failed.append(f"{platform}: {first_line(error)}")
    return float(len(failed)), "; ".join(failed)


def infinite(tree: Any) -> float:
    """How many entries of real leaves are not finite."""
    return float(
        sum(
            int((~jnp.isfinite(leaf)).sum())
            for leaf in jax.tree.leaves(tree)
            if jnp.issubdtype(leaf.dtype, jnp.inexact)
        )
    )


def worst(found: dict[str, float]) -> Finding:
    """The largest violation and where it is; what is not a number is larger than any."""
    place = max(found, key=lambda name: (np.isnan(found[name]), found[name]))
    return found[place], place
