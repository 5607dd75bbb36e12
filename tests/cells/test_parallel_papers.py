"""Cells that run in parallel over time against float64 numpy written from their papers alone."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from jaxrec.cells import HGRN, QRNN, S5, CausalConv, Cell, Mamba

D, H = 3, 4
Weights = dict[str, np.ndarray]


def sigmoid(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


def causal_conv(p: Weights, past: list[np.ndarray], event: Any) -> tuple[list[np.ndarray], np.ndarray]:
    """Every unit has a kernel over its own last inputs; zeros stand before the first."""
    past = [*past, p["w"].T @ event.x]
    y = p["b"].copy()
    for unit in range(len(y)):
        for delay in range(len(p["kernel"])):
            if delay < len(past):
                y[unit] += p["kernel"][-1 - delay, unit] * past[-1 - delay][unit]
    return past, y


def qrnn(p: Weights, state: Any, event: Any) -> tuple[Any, np.ndarray]:
    """Bradbury et al. 2017, equations 1, 3 and 5: z_t = tanh(W1 x_{t-1} + W2 x_t) and so on, then fo-pooling."""
    before, c = state
    first, second = ({k: p[f"gates.w{k}"][half] for k in "zfo"} for half in (slice(D), slice(D, None)))
    z = np.tanh(first["z"].T @ before + second["z"].T @ event.x + p["gates.bz"])
    f = sigmoid(first["f"].T @ before + second["f"].T @ event.x + p["gates.bf"])
    o = sigmoid(first["o"].T @ before + second["o"].T @ event.x + p["gates.bo"])
    c = f * c + (1 - f) * z
    return (event.x, c), o * c


def s5(p: Weights, h: np.ndarray, event: Any) -> tuple[np.ndarray, np.ndarray]:
    """Smith et al. 2023, equations 5 and 6: zero-order hold of a diagonal system, one of each conjugate pair kept."""
    eigenvalues, step = -np.exp(p["decay"]) + 1j * p["turn"], np.exp(p["log_step"])
    kept = np.exp(eigenvalues * step)
    inward, outward = p["b"][0].T + 1j * p["b"][1].T, p["c"][0].T + 1j * p["c"][1].T
    h = kept * h + (kept - 1) / eigenvalues * (inward @ event.x)
    return h, 2 * (outward @ h).real + p["d"] * event.x


def mamba(p: Weights, state: Any, event: Any) -> tuple[Any, np.ndarray]:
    """Gu and Dao 2023, algorithm 2 and figure 3: step size, B and C are functions of the input; A is diagonal."""
    past, h = state
    past, u = causal_conv({name[5:]: value for name, value in p.items() if name.startswith("conv.")}, past, event)
    u = u * sigmoid(u)
    step = np.log1p(np.exp(p["ssm.wd"].T @ (p["ssm.wr"].T @ u) + p["ssm.bd"]))
    b, c = p["ssm.wb"].T @ u, p["ssm.wc"].T @ u
    y = np.zeros_like(u)
    h = h.copy()
    for channel in range(len(u)):
        for n in range(len(b)):
            decay = np.exp(-step[channel] * np.exp(p["ssm.log_a"][channel, n]))
            h[channel, n] = decay * h[channel, n] + step[channel] * b[n] * u[channel]
            y[channel] += c[n] * h[channel, n]
    gate = p["wz"].T @ event.x
    return (past, h), p["wo"].T @ ((y + p["ssm.d"] * u) * gate * sigmoid(gate))


def hgrn(p: Weights, h: np.ndarray, event: Any, *, lower: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Qin et al. 2023, section 3.2: a complex forget gate no smaller than `lower`, tied to the input gate."""
    silu = {k: (a := p[f"w{k}"].T @ event.x + p[f"b{k}"]) * sigmoid(a) for k in "rig"}
    forget = lower + (1 - lower) * sigmoid(p["wf"].T @ event.x + p["bf"])
    h = forget * np.exp(1j * p["theta"]) * h + (1 - forget) * (silu["r"] + 1j * silu["i"])
    both = np.concatenate([h.real, h.imag])
    normed = (both - both.mean()) / np.sqrt(both.var() + 1e-5) * p["scale"] + p["shift"]
    return h, p["wo"].T @ (normed * silu["g"]) + p["bo"]


PAPERS: dict[str, tuple[Callable[..., Cell], Callable[..., Any], Any]] = {
    "causal_conv": (lambda rngs: CausalConv(D, H, rngs=rngs), causal_conv, []),
    "causal_conv-2": (lambda rngs: CausalConv(D, H, width=2, rngs=rngs), causal_conv, []),
    "qrnn": (lambda rngs: QRNN(D, H, rngs=rngs), qrnn, (np.zeros(D), np.zeros(H))),
    "s5": (lambda rngs: S5(D, H, rngs=rngs), s5, np.zeros(H, complex)),
    "mamba": (lambda rngs: Mamba(D, H, states=5, rngs=rngs), mamba, ([], np.zeros((H, 5)))),
    "hgrn": (lambda rngs: HGRN(D, H, rngs=rngs), hgrn, np.zeros(H, complex)),
    "hgrn-upper": (
        lambda rngs: HGRN(D, H, lower=0.8, rngs=rngs),
        functools.partial(hgrn, lower=0.8),
        np.zeros(H, complex),
    ),
}


@pytest.mark.parametrize("name", PAPERS)
def test_the_cell_is_its_paper(name: str, follows_paper: Callable[..., None]) -> None:
    follows_paper(*PAPERS[name])
