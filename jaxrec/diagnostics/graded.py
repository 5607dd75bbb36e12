"""Long products of matrices in the logarithmic domain: ``P = Q diag(exp(d)) T``.

``Q`` is orthonormal, ``d`` spans as many decades as it wants, and ``T`` is unit upper triangular and well conditioned:
the representation that stabilises determinant quantum Monte Carlo (Bai, Lee, Li and Xu 2011, "Stable solutions of
linear systems involving long chain of matrix multiplications").
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrec.diagnostics.records import Numbers

NOISE = 8  # roundings: how much of a matrix's size the smallest part of it may be and mean nothing
TURNS = 10  # of the host; what is a decade apart or more is by then apart to 1e-10
TINY = 1e-100  # of no consequence beside the diagonal, which is one; denormal numbers would be slow
NEAR = 3 * np.log(10.0)  # what a value must see around it; a float64 holds five times as much


class Graded(NamedTuple):
    """``Q diag(exp(logs)) T`` for every row; ``logs`` are -inf where a direction is lost."""

    q: Array  # (batch, n, k)
    logs: Array  # (batch, k)
    t: Array  # (batch, k, k)


def orthonormal(moved: Array) -> tuple[Array, Array, Array]:
    """``Q (batch, n, k)``, the logarithms ``(batch, k)`` of ``|diag R|`` and ``R`` of ``moved (batch, n, k + 1)``.

    The last column is what became of a probe and stays outside: the largest column tells the size of the Jacobian. What
    is below the rounding of that is none: -inf, whether it is exactly zero or not.
    """
    q, r = jnp.linalg.qr(moved[..., :-1])
    size = jnp.abs(jnp.diagonal(r, axis1=-2, axis2=-1))
    least = NOISE * jnp.finfo(moved.dtype).eps * jnp.linalg.norm(moved, axis=1).max(-1, keepdims=True)
    return q, jnp.where(size <= least, -jnp.inf, jnp.log(size)), r


def times(graded: Graded, moved: Array) -> Graded:
    """``J Q exp(d) T`` where the Jacobian ``J`` has ``moved`` the columns of ``Q`` and a probe."""
    q, logs, r = orthonormal(moved)
    after = graded.logs + logs
    apart = graded.logs[:, None, :] - after[:, :, None]
    here, upper = jnp.isfinite(after)[:, :, None], jnp.triu(jnp.ones((1, *r.shape[-2:]), bool))
    ratio = jnp.where(here & upper, jnp.exp(jnp.where(here & upper, apart, 0)), 0)
    step = jnp.where(here, r * ratio, jnp.eye(r.shape[-1], dtype=r.dtype)[None])
    return Graded(q, after, step @ graded.t)


def log_singular_values(logs: Numbers, t: Numbers) -> Numbers:
    """Natural logarithms ``(k,)`` of the singular values of ``diag(exp(logs)) T``, the largest first; -inf of zeros.

    ``logs (k,)``, ``t (k, k)``. Triangles of the transpose, again and again, are QR iterations: they bring the values
    in order and take apart those that lie far apart. A dense decomposition of a few decades around each then resolves
    those that lie close together.
    """
    found = np.full(len(logs), -np.inf)
    if np.isnan(logs).any() or not np.isfinite(t).all():
        return np.full(len(logs), np.nan)
    alive = np.isfinite(logs)
    if alive.any():
        logs, t = logs[alive], t[alive]
        for _ in range(TURNS):
            logs, t = turned(logs, t)
        found[: len(logs)] = resolved(logs, t)
    return found


def turned(logs: Numbers, t: Numbers) -> tuple[Numbers, Numbers]:
    """The transpose of ``diag(exp(logs)) T`` as an orthogonal matrix, left out, times one of the same form."""
    order = np.argsort(-logs, kind="stable")
    logs, r = logs[order], np.linalg.qr(t[order].T, mode="r")
    with np.errstate(divide="ignore"):
        size = np.abs(np.diagonal(r))
        after = logs + np.log(size)
    apart = np.minimum(logs[None, :] - logs[:, None], 0)  # above the diagonal it is, since logs descend
    t = np.triu(r) * np.exp(apart) / size[:, None]
    return after, np.where(np.abs(t) < TINY, 0, t)


def resolved(logs: Numbers, t: Numbers) -> Numbers:
    """Logarithms of the singular values of a triangle whose far values are apart already."""
    order = np.argsort(-logs, kind="stable")
    logs, t = logs[order], t[np.ix_(order, order)]
    found, at = np.empty_like(logs), 0
    while at < len(logs):
        top = logs[at]
        end = int(np.sum(logs > top - NEAR))
        low, high = int(np.sum(logs > top + NEAR)), int(np.sum(logs > top - 2 * NEAR))
        block = np.exp(logs[low:high] - top)[:, None] * t[low:high, low:high]
        with np.errstate(divide="ignore"):
            found[at:end] = top + np.log(np.linalg.svd(block, compute_uv=False)[at - low : end - low])
        at = end
    return -np.sort(-found)
