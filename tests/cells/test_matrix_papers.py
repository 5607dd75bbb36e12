"""Cells whose state is a matrix, against float64 numpy written from their papers alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from jaxrec.cells import MLSTM, Event

D, HIDDEN, HEADS = 3, 8, 2
Weights = dict[str, np.ndarray]


def sigmoid(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


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
