"""How fast small changes of a layer's state grow or fade: Lyapunov exponents, by orthogonalisation and in closed form.

Every function takes a model and a batch and returns one plain record a layer, of the recurrence of that layer alone
(the Jacobian of its next state by its state) along the inputs that the layers below make for it. Changes go through
`jax.jvp`, a step at a time, and are made orthogonal again: no Jacobian is formed, and no length is too long.

A direction that a step extinguishes (a dead relu, the end of a window) has the exponent minus infinity. In floating
point such a direction and one that is smaller than the rounding of the Jacobian cannot be told apart: both are None and
counted under ``zeros``, and fewer are lost in double precision. Other values that are not finite are None and counted
under ``not_finite``.

The time goes into orthogonalisation by LAPACK. Where others use the machine too, start Python with
``OPENBLAS_NUM_THREADS=1``: threads that wait for each other made 256 directions twenty times slower.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxrec.cells import AffineCell, ElementwiseCell
from jaxrec.config import Mistake
from jaxrec.diagnostics.graded import orthonormal
from jaxrec.diagnostics.motion import FULL, Motion, precise
from jaxrec.diagnostics.records import Numbers, Record, number, plain
from jaxrec.diagnostics.subject import Layer, Model, layers, subject
from jaxrec.recurrence.trees import is_complex

BLOCKS, FEW = 10, 5  # stretches of a trajectory; examples from which on they alone say how sure a mean is


def lyapunov(
    model: Model, batch: Any, *, exponents: int = 32, warmup: int | None = None, every: int = 1, full: int = FULL
) -> list[Record]:
    """Lyapunov exponents of every layer, nats a step, the largest first.

    All of them where a state is at most ``full`` numbers, else the leading ``exponents``. Random orthonormal changes
    ``(n, k)`` go through every step and are made orthogonal again after ``every`` of them; exponents are the mean
    logarithms of the diagonal of R (Benettin et al. 1980; for recurrent networks Engelken, Wolf and Abbott 2023,
    https://arxiv.org/abs/2006.02427, and Vogt et al. 2022, https://arxiv.org/abs/2006.14123). The first ``warmup``
    steps, a quarter unless told, are dropped. ``half_width`` is that of a 95 % interval of the mean, over examples or,
    where these are fewer than five, over ten stretches of each; it does not know of what the warm-up left.
    Other keys: ``per_example (batch, k)``; ``zeros``, of each exponent, how often its direction was extinguished;
    ``time_of_e_fold``, steps, ``1 / |largest|``; ``kaplan_yorke``, the dimension of the attractor, None where
    ``k < n`` exponents do not settle it; ``sum``; ``closed_form``, exponents as the decays of a diagonal cell say.
    """
    found = []
    for place, layer in enumerate(layers(subject(model, batch))):
        time = layer.shape[1]
        dropped = burn(time, warmup, every)
        size = layer.size
        columns = size if size <= full else min(exponents, size)
        logs, counts = stretches(layer, columns=columns, every=every)
        kept = slice((dropped - time % every) // every, None)
        found.append(
            {"kind": "lyapunov", "layer": place, "state": size}
            | summary(np.asarray(logs, np.float64)[kept], np.asarray(counts, np.float64)[kept], size)
            | {"warmup": dropped, "every": every, "time": time}
            | {"resets": 0 if layer.reset is None else int(np.asarray(layer.reset).sum())}
            | {"closed_form": None if (known := known_exponents(layer, dropped)) is None else plain(known.mean(0))}
        )
    return found


def burn(time: int, warmup: int | None, every: int) -> int:
    """How many of ``time`` steps are dropped, so that the others are whole turns of ``every`` steps."""
    wanted = time // 4 if warmup is None else warmup
    turns = (time - wanted) // every if every > 0 else 0
    if turns < 1 or wanted < 0:
        raise Mistake(
            f"warmup={wanted} and every={every} leave nothing of {time} steps; the two together must fit into them"
        )
    return time - turns * every


@partial(jax.jit, static_argnames=("columns", "every"))
def stretches(layer: Layer, *, columns: int, every: int) -> tuple[Array, Array]:
    """Logarithms ``(turns, batch, columns)`` of how far each of ``every`` steps stretched each direction, and how many
    of these steps ``(turns, batch)`` were real; the first ``time % every`` steps move the state only.
    """
    with precise():
        motion = Motion(layer)
        first, rest = motion.parts(motion.time % every)
        rest = jax.tree.map(lambda leaf: leaf.reshape(-1, every, *leaf.shape[1:]), rest)
        state, _ = lax.scan(lambda state, entry: (motion.step(state, entry), None), motion.first, first)
        changes, probe = motion.directions(columns)

        def turn(carry: Any, entries: Any) -> Any:
            state, changes = carry
            given = state, jnp.concatenate([changes, probe], axis=-1)
            (state, moved), _ = lax.scan(lambda carry, entry: (motion.push(*carry, entry), None), given, entries)
            changes, logs, _ = orthonormal(moved)
            real = jnp.full((every, motion.rows), True) if entries[2] is None else entries[2]
            return (state, changes), (logs, real.sum(0))

        return lax.scan(turn, (state, changes), rest)[1]


def summary(logs: Numbers, counts: Numbers, size: int) -> Record:
    """Exponents of logarithms ``(turns, batch, k)`` of ``counts (turns, batch)`` steps, ordered, with their spread."""
    with np.errstate(invalid="ignore", divide="ignore"):
        each = logs.sum(0) / counts.sum(0)[:, None]
    counted = counts.sum(0) > 0
    exponents = each[counted].mean(0) if counted.any() else np.full(logs.shape[-1], np.nan)
    order = np.argsort(-exponents, kind="stable")
    exponents = exponents[order]
    return {
        "exponents": plain(exponents),
        "half_width": plain(half_width(logs, counts, each[counted])[order]),
        "per_example": plain(each[:, order]),
        "zeros": [int(count) for count in np.isneginf(logs).sum((0, 1))[order]],
        "not_finite": int((np.isnan(logs) | np.isposinf(logs)).sum()),
        "time_of_e_fold": number(1 / abs(exponents[0])) if np.isfinite(exponents[:1]).all() and exponents[0] else None,
        "kaplan_yorke": kaplan_yorke(exponents, size),
        "sum": number(exponents.sum()),
    }


def half_width(logs: Numbers, counts: Numbers, each: Numbers) -> Numbers:
    """Half the width ``(k,)`` of a 95 % interval of the mean exponent (Student), NaN where there is too little."""
    from scipy.special import stdtrit

    if len(each) >= FEW:
        means = each
    else:
        parts = list(zip(np.array_split(logs, BLOCKS), np.array_split(counts, BLOCKS), strict=True))
        steps = np.concatenate([part.sum(0) for _, part in parts])
        sums = np.concatenate([part.sum(0) for part, _ in parts])
        means = sums[steps > 0] / steps[steps > 0][:, None]
    if len(means) < FEW:
        return np.full(logs.shape[-1], np.nan)
    with np.errstate(invalid="ignore"):
        return np.asarray(stdtrit(len(means) - 1, 0.975) * means.std(0, ddof=1) / np.sqrt(len(means)))


def kaplan_yorke(exponents: Numbers, size: int) -> float | None:
    """The Lyapunov dimension (Kaplan and Yorke 1979) of exponents in descending order, of ``size`` there are."""
    if not len(exponents) or np.isnan(exponents).any():
        return None
    sums = np.cumsum(exponents)
    whole = int(np.sum(np.minimum.accumulate(sums) >= 0))
    if whole == len(exponents):
        return float(size) if whole == size else None
    return whole + (float(sums[whole - 1] / -exponents[whole]) if whole else 0.0)


def closed_form(model: Model, batch: Any, *, warmup: int | None = None) -> list[Record]:
    """Exponents of every layer whose Jacobian is diagonal, from its diagonal: means of ``log |a|`` in nats a step.

    That of an `AffineCell` is its decay (each twice where it is complex); that of an `ElementwiseCell` of one real leaf
    is what one step makes of ones. Of other cells ``exponents`` is None. `lyapunov` must find the same.
    """
    found = []
    for place, layer in enumerate(layers(subject(model, batch))):
        dropped = burn(layer.shape[1], warmup, 1)
        each = known_exponents(layer, dropped)
        record: Record = {"kind": "closed_form", "layer": place, "state": layer.size, "warmup": dropped}
        record |= {"exponents": None if each is None else plain(each.mean(0))}
        found.append(record | {"per_example": None if each is None else plain(each)})
    return found


def known_exponents(layer: Layer, dropped: int) -> Numbers | None:
    """Exponents ``(batch, n)`` of a diagonal layer without the first steps, of rows that go on after these."""
    leaves = jax.tree.leaves(jax.eval_shape(lambda cell: cell.prepare().initial_state(), layer.cell))
    affine, elementwise = isinstance(layer.cell, AffineCell), isinstance(layer.cell, ElementwiseCell)
    if not (affine or (elementwise and not any(map(is_complex, leaves)))) or len(leaves) != 1:
        return None
    logs, counts = (np.asarray(part, np.float64) for part in decays(layer, dropped))
    each = logs[counts > 0] / counts[counts > 0][:, None]
    return -np.sort(-each, axis=-1) if len(each) else None


@jax.jit
def decays(layer: Layer, dropped: Array | int) -> tuple[Array, Array]:
    """Sums over steps, but for the first, of ``log |a|`` ``(batch, n)``, and how many steps ``(batch,)`` these are."""
    with precise():
        motion = Motion(layer)

        def one(carry: Any, given: Any) -> Any:
            (state, sums, counts), (entry, late) = carry, given
            real = jnp.full(motion.rows, late) if entry[2] is None else entry[2] & late
            a = jnp.abs(diagonal(motion, state, entry)).reshape(motion.rows, -1)
            logs = jnp.log(jnp.tile(a, (1, motion.size // a.shape[1])))  # a complex number is two real ones
            return (motion.step(state, entry), sums + jnp.where(real[:, None], logs, 0), counts + real), None

        sums, counts = jnp.zeros((motion.rows, motion.size)), jnp.zeros(motion.rows, jnp.int32)
        late = jnp.arange(motion.time) >= dropped
        return lax.scan(one, (motion.first, sums, counts), (motion.entries, late))[0][1:]


def diagonal(motion: Motion, state: Any, entry: Any) -> Array:
    """The diagonal of a diagonal cell's Jacobian, as the state is shaped ``(batch, ...)``."""
    if isinstance(motion.cell, AffineCell):
        cell = motion.cell
        return jax.vmap(lambda projected: cell.affine(projected)[0])(entry[0])
    state = motion.begin(state, entry)
    ones = jax.tree.map(jnp.ones_like, state)
    [found] = jax.tree.leaves(jax.jvp(lambda state: jax.vmap(motion.cell.step)(state, entry[0]), (state,), (ones,))[1])
    return found
