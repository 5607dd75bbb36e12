"""Cells whose state is a matrix, against float64 numpy written from their papers alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flax import nnx

from jaxrec.cells import GLA, HGRN2, MLSTM, RWKV7, Cell, DeltaNet, Event, GatedDeltaNet, Mamba2

D, HIDDEN, HEADS = 3, 8, 2
Weights = dict[str, np.ndarray]


def sigmoid(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


def silu(a: np.ndarray) -> np.ndarray:
    return a * sigmoid(a)


def softplus(a: np.ndarray) -> np.ndarray:
    return np.log1p(np.exp(a))


def unit(a: np.ndarray) -> np.ndarray:
    return a / np.sqrt(a @ a + 1e-6)


def rms(a: np.ndarray) -> np.ndarray:
    return a / np.sqrt(np.mean(a**2) + 1e-5)


def heads(a: np.ndarray) -> np.ndarray:
    return a.reshape(HEADS, -1)


def mlstm(p: Weights, state: Any, event: Event, *, forget: Callable[..., Any] = sigmoid) -> tuple[Any, np.ndarray]:
    """Beck et al. 2024, equations 19 to 27, gates as they are: no logarithm, no running maximum."""
    x, after, found = event.x, [], []
    q, k, v = (heads(p["w" + n].T @ x + p["b" + n]) for n in "qkv")
    o = heads(sigmoid(p["wo"].T @ x + p["bo"]))
    i, f = np.exp(p["wi"].T @ x + p["bi"]), forget(p["wf"].T @ x + p["bf"])
    for h, (old_memory, old_normaliser) in enumerate(state):
        key = k[h] / np.sqrt(k.shape[1])
        memory = f[h] * old_memory + i[h] * np.outer(v[h], key)
        normaliser = f[h] * old_normaliser + i[h] * key
        after.append((memory, normaliser))
        found.append(o[h] * (memory @ q[h] / max(abs(normaliser @ q[h]), 1)))
    return after, np.concatenate(found)


def nothing(key: int, value: int = HIDDEN // HEADS) -> Any:
    return [(np.zeros((value, key)), np.zeros(key))] * HEADS


@pytest.mark.parametrize("key", [None, 3])
@pytest.mark.parametrize(("forget", "function"), [("sigmoid", sigmoid), ("exponential", np.exp)])
def test_mlstm(follows_paper: Callable[..., None], forget: str, function: Any, key: int | None) -> None:
    def step(p: Weights, state: Any, event: Event) -> tuple[Any, np.ndarray]:
        return mlstm(p, state, event, forget=function)

    follows_paper(
        lambda rngs: MLSTM(D, HIDDEN, heads=HEADS, key=key, forget=forget, rngs=rngs), step, nothing(key or 4)
    )


def convolved(p: Weights, past: list[np.ndarray], now: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """A causal convolution per channel: the oldest input has the first weight."""
    past = [*past[1:], now]
    return past, sum(weight * x for weight, x in zip(p["kernel"], past, strict=True))


def delta(p: Weights, state: Any, event: Event, *, gated: bool) -> tuple[Any, np.ndarray]:
    """S_t = S_{t-1} (alpha (I - beta k k^T)) + beta v k^T, S (value, key), per head.

    alpha is 1 in Yang et al. 2024 (2406.06484, section 2.2), data-dependent in 2412.06464 (equation 10; alpha as in
    Mamba-2, section 3.4); q, k, v behind a short convolution and SiLU, q and k of length 1, RMS norm per head, gate.
    """
    x, (matrices, past) = event.x, state
    past, qkv = convolved(p, past, np.concatenate([p["w" + n].T @ x for n in "qkv"]))
    q, k, v = np.split(silu(qkv), np.cumsum([p["wq"].shape[1], p["wk"].shape[1]]))
    q, k, v, beta = heads(q), heads(k), heads(v), sigmoid(p["wb"].T @ x)
    alpha = np.exp(-np.exp(p["a"]) * softplus(p["wa"].T @ x + p["ba"])) if gated else np.ones(HEADS)
    after, found = [], []
    for h, matrix in enumerate(matrices):
        key, query = unit(k[h]), unit(q[h])
        fade = alpha[h] * (np.eye(len(key)) - beta[h] * np.outer(key, key))
        after.append(matrix @ fade + beta[h] * np.outer(v[h], key))
        found.append(p["scale"] * rms(after[-1] @ query))
    found = np.concatenate(found)
    return (after, past), p["out"].T @ (found * silu(p["wg"].T @ x) if gated else found)


@pytest.mark.parametrize(("kind", "gated"), [(DeltaNet, False), (GatedDeltaNet, True)])
@pytest.mark.parametrize(("key", "window"), [(None, 4), (3, 3)])
def test_delta_rule(follows_paper: Callable[..., None], kind: Any, gated: bool, key: int | None, window: int) -> None:
    def step(p: Weights, state: Any, event: Event) -> tuple[Any, np.ndarray]:
        return delta(p, state, event, gated=gated)

    def start(p: Weights) -> Any:
        return [np.zeros((4, key or 4))] * HEADS, [np.zeros(p["kernel"].shape[1])] * window

    def make(rngs: nnx.Rngs) -> Cell:
        return kind(D, HIDDEN, heads=HEADS, key=key, window=window, rngs=rngs)

    follows_paper(make, step, start)


def gla(p: Weights, state: Any, event: Event) -> tuple[Any, np.ndarray]:
    """Yang et al. 2024 (2312.06635), section 4.1 and 4.4: S_t = diag(alpha) S_{t-1} + k^T v, o = q S, tau = 16."""
    x, after, found = event.x, [], []
    q, k, v = (heads(p["w" + n].T @ x) for n in "qkv")
    alpha = heads(sigmoid(p["up"].T @ (p["down"].T @ x) + p["b"]) ** (1 / 16))
    for h, matrix in enumerate(state):
        after.append(np.diag(alpha[h]) @ matrix + np.outer(k[h], v[h]))
        found.append(p["scale"] * rms(q[h] @ after[-1]))
    return after, p["out"].T @ (np.concatenate(found) * silu(p["wr"].T @ x + p["br"]))


def hgrn2(p: Weights, state: Any, event: Event, *, bound: float = 0.0) -> tuple[Any, np.ndarray]:
    """Qin et al. 2024 (2404.07904), section 3.2: h_t = diag(f) h_{t-1} + (1 - f) i^T, y = o h."""
    x, after, found = event.x, [], []
    o, i = heads(silu(p["wo"].T @ x)), heads(p["wi"].T @ x)
    f = heads(bound + (1 - bound) * sigmoid(p["wf"].T @ x))
    for h, matrix in enumerate(state):
        after.append(f[h][:, None] * matrix + np.outer(1 - f[h], i[h]))
        found.append(o[h] @ after[-1])
    return after, p["out"].T @ (p["scale"] * rms(np.concatenate(found)))


@pytest.mark.parametrize(("kind", "step"), [(GLA, gla), (HGRN2, hgrn2)])
def test_decays_per_key_dimension(follows_paper: Callable[..., None], kind: Any, step: Any) -> None:
    follows_paper(lambda rngs: kind(D, HIDDEN, heads=HEADS, key=3, rngs=rngs), step, [np.zeros((3, 4))] * HEADS)


def test_hgrn2_with_a_lower_bound(follows_paper: Callable[..., None]) -> None:
    def step(p: Weights, state: Any, event: Event) -> tuple[Any, np.ndarray]:
        return hgrn2(p, state, event, bound=0.7)

    follows_paper(lambda rngs: HGRN2(D, HIDDEN, heads=HEADS, bound=0.7, rngs=rngs), step, [np.zeros((4, 4))] * HEADS)


def mamba2(p: Weights, state: Any, event: Event) -> tuple[Any, np.ndarray]:
    """Dao and Gu 2024 (2405.21060), sections 5 and 7: h_t = exp(dt A) h_{t-1} + dt B x^T, y = C h + D x, scalar A."""
    u, (matrices, past) = event.x, state
    past, xbc = convolved(p, past, np.concatenate([p["w" + n].T @ u for n in "xbc"]))
    hidden, key = p["wx"].shape[1], p["wb"].shape[1]
    x, b, c = np.split(silu(xbc + p["bias"]), [hidden, hidden + key])
    dt = softplus(p["wdt"].T @ u + p["bdt"])
    after, found = [], []
    for h, matrix in enumerate(matrices):
        after.append(np.exp(-dt[h] * np.exp(p["a"][h])) * matrix + dt[h] * np.outer(b, heads(x)[h]))
        found.append(c @ after[-1] + p["d"][h] * heads(x)[h])
    return (after, past), p["out"].T @ (p["scale"] * rms(np.concatenate(found) * silu(p["wz"].T @ u)))


@pytest.mark.parametrize(("key", "window"), [(5, 4), (3, 1)])
def test_mamba2(follows_paper: Callable[..., None], key: int, window: int) -> None:
    def start(p: Weights) -> Any:
        return [np.zeros((key, 4))] * HEADS, [np.zeros(p["kernel"].shape[1])] * window

    follows_paper(lambda rngs: Mamba2(D, HIDDEN, heads=HEADS, key=key, window=window, rngs=rngs), mamba2, start)


def rwkv7(p: Weights, state: Any, event: Event) -> tuple[Any, np.ndarray]:
    """Peng et al. 2025 (2503.14456), section 4.1, S (value, key), without the value residual between layers."""
    x, (matrices, last) = event.x, state
    xr, xd, xk, xv, xa, xg = (x + p["mu"][place] * (last - x) for place in range(6))
    r, k, v = p["wr"].T @ xr, p["wk"].T @ xk, p["wv"].T @ xv
    a = sigmoid(p["a2"].T @ (p["a1"].T @ xa) + p["a0"])
    g = p["g2"].T @ sigmoid(p["g1"].T @ xg)
    w = np.exp(-np.exp(-0.5) * sigmoid(p["d2"].T @ np.tanh(p["d1"].T @ xd) + p["d0"]))
    removal, replacement = heads(k * p["xi"]), heads(k * (1 + (a - 1) * p["alpha"]))
    r, v, a, w, rho = heads(r), heads(v), heads(a), heads(w), heads(p["rho"])
    after, found = [], []
    for h, matrix in enumerate(matrices):
        kappa = unit(removal[h])
        fade = np.diag(w[h]) - np.outer(kappa, a[h] * kappa)
        after.append(matrix @ fade + np.outer(v[h], replacement[h]))
        y = after[-1] @ r[h]
        y = (y - y.mean()) / np.sqrt(y.var() + 1e-5 * len(y))
        y = y * heads(p["scale"])[h] + heads(p["shift"])[h]
        found.append(y + (r[h] @ (rho[h] * replacement[h])) * v[h])
    return (after, x), p["out"].T @ (np.concatenate(found) * g)


def test_rwkv7(follows_paper: Callable[..., None]) -> None:
    start = [np.zeros((4, 4))] * HEADS, np.zeros(D)
    follows_paper(lambda rngs: RWKV7(D, HIDDEN, heads=HEADS, rank=3, rngs=rngs), rwkv7, start)
