"""Each cell against its paper's equations in float64 numpy, and against flax and PyTorch with the same weights."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrec.cells import GRU, LSTM, Cell, Elman, Event
from jaxrec.recurrence import unroll

B, T, D, H = 2, 5, 3, 4
Weights = dict[str, np.ndarray]


def sigmoid(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


def elman_step(p: Weights, h: Any, x: np.ndarray, activation: Callable[..., Any]) -> Any:
    return activation(p["w"].T @ x + p["u"].T @ h + p["b"])


def gru_gates(p: Weights, h: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r = sigmoid(p["wr"].T @ x + p["ur"].T @ h + p["br"])
    z = sigmoid(p["wz"].T @ x + p["uz"].T @ h + p["bz"])
    return r, z


def gru_after_step(p: Weights, h: np.ndarray, x: np.ndarray) -> np.ndarray:
    r, z = gru_gates(p, h, x)
    n = np.tanh(p["wn"].T @ x + p["bn"] + r * (p["un"].T @ h + p["cn"]))
    return (1 - z) * n + z * h


def gru_before_step(p: Weights, h: np.ndarray, x: np.ndarray) -> np.ndarray:
    r, z = gru_gates(p, h, x)
    n = np.tanh(p["wn"].T @ x + p["bn"] + p["un"].T @ (r * h))
    return (1 - z) * n + z * h


def lstm_step(p: Weights, state: tuple[np.ndarray, np.ndarray], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    h, c = state
    i, f, o = (sigmoid(p[f"w{k}"].T @ x + p[f"u{k}"].T @ h + p[f"b{k}"]) for k in "ifo")
    c = f * c + i * np.tanh(p["wg"].T @ x + p["ug"].T @ h + p["bg"])
    return o * np.tanh(c), c


PAPERS = {
    "elman": (lambda rngs: Elman(D, H, rngs=rngs), lambda p, h, x: elman_step(p, h, x, np.tanh)),
    "elman-relu": (
        lambda rngs: Elman(D, H, activation="relu", rngs=rngs),
        lambda p, h, x: elman_step(p, h, x, lambda a: np.maximum(a, 0)),
    ),
    "gru-after": (lambda rngs: GRU(D, H, rngs=rngs), gru_after_step),
    "gru-before": (lambda rngs: GRU(D, H, reset="before", rngs=rngs), gru_before_step),
    "lstm": (lambda rngs: LSTM(D, H, rngs=rngs), lstm_step),
}


def jittered(cell: Cell, seed: int = 0) -> Cell:
    """Away from zero biases, which would hide a misplaced one."""
    noise = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: leaf + jnp.asarray(noise.normal(size=leaf.shape) * 0.3, leaf.dtype), cell)


def vectors(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(B, T, D)).astype(np.float32)


def weights_of(cell: Cell) -> Weights:
    found = jax.tree_util.tree_leaves_with_path(cell)
    return {path[0].name: np.asarray(leaf, np.float64) for path, leaf in found}


@pytest.mark.parametrize("name", PAPERS)
def test_cell_follows_its_paper(name: str) -> None:
    make, step = PAPERS[name]
    cell, x = jittered(make(nnx.Rngs(0))), vectors()
    p = weights_of(cell)
    wanted = np.zeros((B, T, H))
    for row in range(B):
        state: Any = (np.zeros(H), np.zeros(H)) if name == "lstm" else np.zeros(H)
        for t in range(T):
            state = step(p, state, x[row, t].astype(np.float64))
            wanted[row, t] = state[0] if name == "lstm" else state
    _, found = unroll(cell, Event(jnp.asarray(x)))
    np.testing.assert_allclose(found, wanted, atol=2e-6)


def loss_weights() -> np.ndarray:
    return np.random.default_rng(2).normal(size=(B, T, H)).astype(np.float32)


def ours_with_gradients(cell: Cell) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    def loss(cell: Cell, x: jax.Array) -> Any:
        outputs = unroll(cell, Event(x))[1]
        return (outputs * loss_weights()).sum(), outputs

    (_, outputs), (by_cell, by_x) = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(cell, jnp.asarray(vectors()))
    return np.asarray(outputs), weights_of(by_cell) | {"x": np.asarray(by_x)}


def joined(weights: Weights, letter: str, gates: str) -> np.ndarray:
    return np.concatenate([weights[letter + gate] for gate in gates], axis=-1).astype(np.float32)


def flax_twin(cell: Cell) -> tuple[Any, dict[str, Callable[[Any], Any]]]:
    """flax's own cell with the same weights, and where each of ours lies in it."""
    w = weights_of(cell)
    f32 = {name: jnp.asarray(value, jnp.float32) for name, value in w.items()}
    if isinstance(cell, GRU):
        twin: Any = nnx.GRUCell(D, H, rngs=nnx.Rngs(0))
        twin.dense_i.kernel[...], twin.dense_i.bias[...] = joined(w, "w", "rzn"), joined(w, "b", "rzn")
        twin.dense_h.kernel[...] = joined(w, "u", "rzn")
        places = {"r": 0, "z": 1, "n": 2}
        where: dict[str, Callable[[Any], Any]] = {}
        for gate, k in places.items():
            cut = slice(k * H, (k + 1) * H)
            where["w" + gate] = lambda g, cut=cut: g.dense_i.kernel[...][:, cut]
            where["b" + gate] = lambda g, cut=cut: g.dense_i.bias[...][cut]
            where["u" + gate] = lambda g, cut=cut: g.dense_h.kernel[...][:, cut]
        return twin, where
    if isinstance(cell, LSTM):
        twin, where = nnx.LSTMCell(D, H, rngs=nnx.Rngs(0)), {}
        for gate in "ifgo":
            inward = "if_" if gate == "f" else "i" + gate
            getattr(twin, inward).kernel[...] = f32["w" + gate]
            getattr(twin, "h" + gate).kernel[...] = f32["u" + gate]
            getattr(twin, "h" + gate).bias[...] = f32["b" + gate]
            where["w" + gate] = lambda g, inward=inward: getattr(g, inward).kernel[...]
            where["u" + gate] = lambda g, gate=gate: getattr(g, "h" + gate).kernel[...]
            where["b" + gate] = lambda g, gate=gate: getattr(g, "h" + gate).bias[...]
        return twin, where
    twin = nnx.SimpleCell(D, H, rngs=nnx.Rngs(0))
    twin.dense_i.kernel[...], twin.dense_i.bias[...] = f32["w"], f32["b"]
    twin.dense_h.kernel[...] = f32["u"]
    return twin, {
        "w": lambda g: g.dense_i.kernel[...],
        "b": lambda g: g.dense_i.bias[...],
        "u": lambda g: g.dense_h.kernel[...],
    }


@pytest.mark.parametrize("kind", [Elman, GRU, LSTM])
def test_cell_equals_flax_in_outputs_and_gradients(kind: type[Any]) -> None:
    cell = jittered(kind(D, H, rngs=nnx.Rngs(0)))
    if isinstance(cell, GRU):
        cell.cn[...] = jnp.zeros(H)  # flax's GRU has no bias there
    twin, where = flax_twin(cell)

    def loss(twin: Any, x: jax.Array) -> Any:
        carry, outputs = (jnp.zeros((B, H)),) * 2 if kind is LSTM else jnp.zeros((B, H)), []
        for t in range(T):
            carry, y = twin(carry, x[:, t])
            outputs.append(y)
        outputs = jnp.stack(outputs, axis=1)
        return (outputs * loss_weights()).sum(), outputs

    with jax.numpy_rank_promotion("allow"):  # flax adds biases (hidden,) to (batch, hidden)
        differentiate = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True, allow_int=True)
        (_, wanted), (by_twin, by_x) = differentiate(twin, jnp.asarray(vectors()))
    found, gradients = ours_with_gradients(cell)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    np.testing.assert_allclose(gradients["x"], by_x, atol=1e-5)
    for name, place in where.items():
        np.testing.assert_allclose(gradients[name], place(by_twin), atol=1e-5, err_msg=name)


TORCH = {"Elman": ("RNN", [""]), "GRU": ("GRU", ["r", "z", "n"]), "LSTM": ("LSTM", ["i", "f", "g", "o"])}


@pytest.mark.parametrize("kind", [Elman, GRU, LSTM])
def test_cell_equals_pytorch_in_outputs_and_gradients(kind: type[Any]) -> None:
    torch = pytest.importorskip("torch")
    cell = jittered(kind(D, H, rngs=nnx.Rngs(0)))
    w = weights_of(cell)
    name, gates = TORCH[kind.__name__]
    twin = getattr(torch.nn, name)(D, H, batch_first=True)
    with torch.no_grad():
        twin.weight_ih_l0.copy_(torch.tensor(joined(w, "w", gates).T))
        twin.weight_hh_l0.copy_(torch.tensor(joined(w, "u", gates).T))
        twin.bias_ih_l0.copy_(torch.tensor(joined(w, "b", gates)))
        twin.bias_hh_l0.zero_()
        if kind is GRU:
            twin.bias_hh_l0[2 * H :] = torch.tensor(w["cn"])
    x = torch.tensor(vectors(), requires_grad=True)
    wanted, _ = twin(x)
    (wanted * torch.tensor(loss_weights())).sum().backward()
    found, gradients = ours_with_gradients(cell)
    np.testing.assert_allclose(found, wanted.detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(gradients["x"], x.grad.numpy(), atol=1e-5)
    for letter, theirs in (("w", twin.weight_ih_l0), ("u", twin.weight_hh_l0), ("b", twin.bias_ih_l0)):
        np.testing.assert_allclose(joined(gradients, letter, gates), theirs.grad.numpy().T, atol=1e-5, err_msg=letter)
    if kind is GRU:
        np.testing.assert_allclose(gradients["cn"], twin.bias_hh_l0.grad.numpy()[2 * H :], atol=1e-5)


def test_forget_bias_is_where_the_forget_gate_starts() -> None:
    cell = LSTM(D, H, forget_bias=2.5, rngs=nnx.Rngs(0))
    assert cell.bf[...].tolist() == [2.5] * H
    assert cell.bi[...].tolist() == [0.0] * H


def test_recurrent_matrices_start_orthogonal_and_inputs_at_their_fan_in() -> None:
    cell = GRU(200, 50, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(cell.un[...] @ cell.un[...].T, np.eye(50), atol=1e-5)
    assert np.var(cell.wn[...]) == pytest.approx(1 / 200, rel=0.1)
    assert not np.allclose(cell.ur[...], cell.uz[...])
