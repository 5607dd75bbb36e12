"""ParaGRU and ParaLSTM against float64 numpy written from their paper alone: outputs, gradients, starts and limits."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrec.cells import Event, ParaGRU, ParaLSTM
from jaxrec.cells.kinds import ElementwiseCell
from jaxrec.recurrence import unroll

D, H = 3, 4
Weights = dict[str, np.ndarray]


def sigmoid(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


def para_gru(p: Weights, h: np.ndarray, event: Event) -> tuple[np.ndarray, np.ndarray]:
    """Danieli et al. 2025: a GRU whose state matrices are diagonal; z says how much is new."""
    x = event.x
    z = sigmoid(np.diag(p["az"]) @ h + p["wz"].T @ x + p["bz"])
    r = sigmoid(np.diag(p["ar"]) @ h + p["wr"].T @ x + p["br"])
    c = np.tanh(np.diag(p["ac"]) @ (r * h) + p["wc"].T @ x + p["bc"])
    h = (1 - z) * h + z * c
    return h, h


def para_lstm(p: Weights, state: Any, event: Event) -> tuple[Any, np.ndarray]:
    """Danieli et al. 2025: forget and input gate coupled, diagonal peepholes; the output gate looks at the new c."""
    (h, c), x = state, event.x
    f = sigmoid(np.diag(p["af"]) @ h + p["wf"].T @ x + np.diag(p["cf"]) @ c + p["bf"])
    new = np.tanh(np.diag(p["ac"]) @ h + p["wc"].T @ x + p["bc"])
    c = f * c + (1 - f) * new
    o = sigmoid(np.diag(p["ao"]) @ h + p["wo"].T @ x + np.diag(p["co"]) @ c + p["bo"])
    h = o * np.tanh(c)
    return (h, c), h


def test_para_gru_follows_its_paper(follows_paper: Callable[..., None]) -> None:
    follows_paper(lambda rngs: ParaGRU(D, H, rngs=rngs), para_gru, np.zeros(H))


def test_para_lstm_follows_its_paper(follows_paper: Callable[..., None]) -> None:
    follows_paper(lambda rngs: ParaLSTM(D, H, rngs=rngs), para_lstm, (np.zeros(H), np.zeros(H)))


@pytest.mark.parametrize("kind", [ParaGRU, ParaLSTM])
def test_units_meet_only_in_the_input(kind: type[Any]) -> None:
    """The Jacobian between any two leaves of the state is diagonal: that is what makes these cells parallel."""
    cell = jax.tree.map(
        lambda leaf: leaf + 0.3 * np.random.default_rng(0).normal(size=leaf.shape), kind(D, H, rngs=nnx.Rngs(0))
    )
    assert isinstance(cell, ElementwiseCell)
    state = jax.tree.map(lambda leaf: leaf + jnp.arange(1.0, H + 1) / H, cell.initial_state())
    blocks = jax.tree.leaves(jax.jacobian(cell.step)(state, cell.project(Event(jnp.ones(D)))))
    assert len(blocks) == len(jax.tree.leaves(state)) ** 2
    for block in blocks:
        np.testing.assert_array_equal(block, np.diag(np.diag(block)))
        assert np.diag(block).all()


def test_gates_start_as_in_the_published_code() -> None:
    """Half shut or more, each unit another share; recurrent weights normal with deviation 2 / sqrt(5 hidden)."""
    for cell, first, others in (
        (ParaGRU(D, 4000, rngs=nnx.Rngs(0)), "bz", ("br", "bc")),
        (ParaLSTM(D, 4000, rngs=nnx.Rngs(0)), "bf", ("bc", "bo")),
    ):
        np.testing.assert_allclose(getattr(cell, first)[...], -np.linspace(0, 1, 4000), atol=1e-6)
        assert not any(getattr(cell, name)[...].any() for name in others)
        for name in ("az", "ar", "ac", "af", "ao", "cf", "co"):
            if hasattr(cell, name):
                assert np.std(getattr(cell, name)[...]) == pytest.approx(2 / np.sqrt(5 * 4000), rel=0.05), name


def test_para_gru_keeps_or_replaces_its_state() -> None:
    cell, start = ParaGRU(D, H, rngs=nnx.Rngs(0)), jnp.arange(8.0).reshape(2, H) - 3
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 1, D)), jnp.float32)
    cell.bz[...] = jnp.full(H, -1e4)
    np.testing.assert_array_equal(unroll(cell, Event(x), state=start)[0], start)
    cell.bz[...] = jnp.full(H, 1e4)
    cell.ac[...] = jnp.zeros(H)
    found = unroll(cell, Event(x), state=start)[0]
    np.testing.assert_allclose(found, np.tanh(np.asarray(x)[:, 0] @ np.asarray(cell.wc[...])), atol=1e-6)


def test_para_lstm_keeps_its_memory_while_its_gate_is_open() -> None:
    cell = ParaLSTM(D, H, rngs=nnx.Rngs(0))
    cell.bf[...] = jnp.full(H, 1e4)
    state = jax.tree.map(lambda leaf: leaf[None] + 0.7, cell.initial_state())
    x = jnp.asarray(np.random.default_rng(1).normal(size=(1, 9, D)), jnp.float32)
    last, outputs = unroll(cell, Event(x), state=state)
    np.testing.assert_array_equal(last.c, state.c)
    assert (np.abs(outputs) < np.tanh(0.7)).all()
