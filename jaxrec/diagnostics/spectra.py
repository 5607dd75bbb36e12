"""Singular values of long products of a layer's Jacobians, and eigenvalues of one step.

Every function takes a model and a batch and returns one plain record a layer, of the recurrence of that layer alone:
the Jacobian of its next state by its state, along the inputs that the layers below make for it. Exponents are in
`jaxrec.diagnostics.exponents`. What is not finite is None and counted.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxrec.cells import Cell, Event
from jaxrec.config import Mistake
from jaxrec.diagnostics.graded import Graded, log_singular_values, times
from jaxrec.diagnostics.motion import FULL, Motion, precise
from jaxrec.diagnostics.records import Numbers, Record, plain
from jaxrec.diagnostics.subject import Layer, Model, layers, subject

OVER = 8  # directions beside those asked for, that the last ones be right too
POWER = 32  # steps that these go to and fro at least: the values of a few steps do not lie far apart


def singular_values(
    model: Model, batch: Any, *, lags: Iterable[int], leading: int = 32, full: int = FULL
) -> list[Record]:
    """Singular values of ``d state_T / d state_(T - lag)`` of every layer, for every lag: log10, the largest first.

    ``T`` is the end of the batch. ``log10 (lags, k)`` are means over examples, ``per_example (lags, batch, k)``; all
    where a state is at most ``full`` numbers, else the leading ones, from a subspace that the transposed product finds
    (randomised, with power steps: Halko, Martinsson and Tropp 2011), the last of them to a percent where values lie
    close together. Values of one at every lag are dynamical isometry (Pennington, Schoenholz and Ganguli 2017,
    https://arxiv.org/abs/1711.04735). ``zeros`` counts those of each lag that are none.
    """
    wanted = [int(lag) for lag in lags]
    found = []
    for place, layer in enumerate(layers(subject(model, batch))):
        check_lags(wanted, layer)
        size = layer.size
        kept = size if size <= full else min(leading, size)
        columns = kept if kept == size else min(size, kept + OVER)
        parts = products(layer, jnp.asarray(wanted), longest=max(wanted), columns=columns)
        logs, t = (np.asarray(part, np.float64) for part in (parts.logs, parts.t))
        each = np.stack(
            [[log_singular_values(*one) for one in zip(*lag, strict=True)] for lag in zip(logs, t, strict=True)]
        )
        each = each[..., :kept] / np.log(10.0)
        found.append(
            {"kind": "singular_values", "layer": place, "state": size, "lags": wanted}
            | {"log10": plain(each.mean(1)), "per_example": plain(each)}
            | {"zeros": [int(count) for count in np.isneginf(each).sum((1, 2))]}
            | {"not_finite": int((np.isnan(each) | np.isposinf(each)).sum()), "time": layer.shape[1]}
        )
    return found


def check_lags(lags: list[int], layer: Layer) -> None:
    time = layer.shape[1]
    if not lags or min(lags) < 1 or max(lags) > time:
        raise Mistake(f"lags={lags} must be whole numbers from 1 to the {time} steps of the batch; give at least one")
    if layer.real is not None and not np.asarray(layer.real)[:, time - max(lags) :].all():
        raise Mistake(f"some rows are filled up within the last {max(lags)} steps; give rows that end in real events")


@partial(jax.jit, static_argnames=("longest", "columns"))
def products(layer: Layer, lags: Array, *, longest: int, columns: int) -> Graded:
    """The product of the Jacobians of the last ``lags (l,)`` steps of every row, leaves ``(l, batch, ...)``."""
    with precise():
        motion = Motion(layer)
        trail = motion.trail(longest)
        changes, probe = motion.directions(columns)

        def at(step: Array) -> Any:
            return jax.tree.map(lambda leaf: lax.dynamic_index_in_dim(leaf, step, keepdims=False), trail)

        def there(step: Array, changes: Array) -> Array:
            state, entry = at(step)
            return motion.push(state, changes, entry)[1]

        def back(step: Array, changes: Array) -> Array:
            state, entry = at(longest - 1 - step)
            return jnp.linalg.qr(motion.pull(state, changes, entry))[0]

        def again(step: Array, changes: Array) -> Array:
            return jnp.linalg.qr(there(step, changes))[0]

        def grow(step: Array, graded: Graded) -> Graded:
            moved = there(step, jnp.concatenate([graded.q, probe], axis=-1))
            return times(graded, moved)

        def power(lag: Array, changes: Array) -> Array:
            return lax.fori_loop(0, lag, back, lax.fori_loop(longest - lag, longest, again, changes))

        def product(lag: Array) -> Graded:
            start = changes
            if columns < motion.size:
                start = lax.fori_loop(0, lag, back, start)
                start = lax.fori_loop(0, 1 + POWER // lag, lambda _, start: power(lag, start), start)
            none = jnp.zeros((motion.rows, columns), start.dtype)
            same = jnp.broadcast_to(jnp.eye(columns, dtype=start.dtype), (motion.rows, columns, columns))
            return lax.fori_loop(longest - lag, longest, grow, Graded(start, none, same))

        return lax.map(product, lags)


def eigenvalues(
    model: Model,
    batch: Any,
    *,
    samples: int = 16,
    seed: int = 0,
    matrices: Callable[[Cell, Event], Iterable[Any]] | None = None,
    full: int = FULL,
) -> list[Record]:
    """Eigenvalues of every layer, in descending order of modulus, as lists ``real`` and ``imaginary``.

    ``jacobian``: of one step, at ``samples`` pairs of a state and an event that occur (``at``: row and step);
    ``mean_jacobian``: of the mean of these Jacobians; both None where a state is more than ``full`` numbers.
    ``matrices``: by name, of what ``matrices(cell, event)`` yields: pieces with a ``name`` and a ``value (..., n, n)``.
    """
    found = []
    for place, layer in enumerate(layers(subject(model, batch))):
        record: Record = {"kind": "eigenvalues", "layer": place, "state": layer.size}
        record |= {"jacobian": None, "mean_jacobian": None, "matrices": {}, "not_finite": 0}
        if layer.size <= full:
            row, step = sampled(layer, samples, seed)
            jacobians = np.asarray(jacobians_at(layer, jnp.asarray(row), jnp.asarray(step)), np.float64)
            sound = np.isfinite(jacobians).all((1, 2))
            record["not_finite"] = int((~sound).sum())
            record["jacobian"] = {"at": np.stack([row, step], 1)[sound].tolist()} | spectrum(jacobians[sound])
            record["mean_jacobian"] = spectrum(jacobians[sound].mean(0)) if sound.any() else None
        if matrices is not None:
            event = jax.tree.map(lambda leaf: leaf[0, 0], layer.events)
            parts = ((part.name, np.asarray(part.value, np.float64)) for part in matrices(layer.cell, event))
            record["matrices"] = {name: spectrum(value) if np.isfinite(value).all() else None for name, value in parts}
        found.append(record)
    return found


def sampled(layer: Layer, samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and steps ``(samples,)`` of different real events, or of all of them."""
    real = np.ones(layer.shape, bool) if layer.real is None else np.asarray(layer.real, bool)
    places = np.argwhere(real)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(places))[:samples])
    return places[chosen, 0], places[chosen, 1]


@jax.jit
def jacobians_at(layer: Layer, row: Array, step: Array) -> Array:
    """The Jacobians ``(samples, n, n)`` of one step of each of these rows."""
    with precise():
        motion = Motion(layer)
        trail = motion.trail(motion.time)
        state, (projected, reset, _) = jax.tree.map(lambda leaf: leaf[step, row], trail)
        fresh = jax.tree.map(lambda leaf: leaf[row], motion.first)
        motion.first, motion.rows = fresh, len(row)
        return motion.jacobians(state, (projected, reset, None))


def spectrum(matrix: Numbers) -> dict[str, Any]:
    """Eigenvalues of matrices ``(..., n, n)``, each in descending order of modulus, in two parts."""
    values: np.ndarray[Any, Any] = np.linalg.eigvals(matrix)
    values = np.take_along_axis(values, np.argsort(-np.abs(values), axis=-1, kind="stable"), -1)
    return {"real": values.real.tolist(), "imaginary": values.imag.tolist()}
