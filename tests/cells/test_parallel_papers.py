"""Cells that run in parallel over time against float64 numpy written from their papers alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from jaxrec.cells import QRNN, CausalConv, Cell

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


PAPERS: dict[str, tuple[Callable[..., Cell], Callable[..., Any], Any]] = {
    "causal_conv": (lambda rngs: CausalConv(D, H, rngs=rngs), causal_conv, []),
    "causal_conv-2": (lambda rngs: CausalConv(D, H, width=2, rngs=rngs), causal_conv, []),
    "qrnn": (lambda rngs: QRNN(D, H, rngs=rngs), qrnn, (np.zeros(D), np.zeros(H))),
}


@pytest.mark.parametrize("name", PAPERS)
def test_the_cell_is_its_paper(name: str, follows_paper: Callable[..., None]) -> None:
    follows_paper(*PAPERS[name])
