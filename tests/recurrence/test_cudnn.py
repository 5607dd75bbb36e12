"""The backend for NVIDIA's LSTM, as far as a machine without such a device can tell."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.experimental import rnn
from jax.interpreters import mlir
from jaxlib import gpu_rnn

from jaxrec.cells import GRU, LSTM, Cell, Event
from jaxrec.config import Mistake
from jaxrec.recurrence import Exposed, Scan, cudnn, unroll
from jaxrec.recurrence.cases import jitter
from jaxrec.recurrence.cudnn import Cudnn
from jaxrec.recurrence.trees import difference, score

B, T, D, H = 2, 3, 3, 4


def lstm() -> LSTM:
    cell: LSTM = jitter(LSTM(D, H, rngs=nnx.Rngs(0)), np.random.default_rng(0))
    return cell


def events() -> Event:
    return Event(jnp.asarray(np.random.default_rng(1).normal(size=(B, T, D)), jnp.float32))


def state() -> Any:
    leaf = jnp.asarray(np.random.default_rng(2).normal(size=(B, H)), jnp.float32)
    return type(lstm().initial_state())(leaf, leaf[::-1])


def without_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """jax's own plain reading of cuDNN's arguments takes the place of the call."""

    def reference(x: Any, h: Any, c: Any, weights: Any, lengths: Any, *options: Any) -> Any:
        *sizes, precision = options
        assert precision == jax.lax.Precision.HIGHEST
        parts = rnn.unpack_lstm_weights(weights, sizes[0], sizes[1], sizes[2], sizes[4])
        return rnn.lstm_ref(x, h, c, *parts, lengths, *sizes)

    monkeypatch.setattr(rnn, "lstm", reference)
    monkeypatch.setattr(cudnn, "nvidia", lambda: True)


def test_weights_lie_as_cudnn_reads_them() -> None:
    """Read by hand: matrices of all gates i f g o, a row for each unit, then two biases, of which one is zero."""
    cell, x = lstm(), np.asarray(events().x, np.float64)
    flat = np.asarray(cudnn.packed(cell), np.float64)
    assert flat.shape == (rnn.get_num_params_in_lstm(D, H, 1, False),)
    ends = np.cumsum([4 * H * D, 4 * H * H, 4 * H])
    inward, recurrent, first, second = np.split(flat, ends)
    assert not second.any()
    start = state()
    h, c = np.asarray(start.h, np.float64), np.asarray(start.c, np.float64)
    for t in range(T):
        gates = x[:, t] @ inward.reshape(4 * H, D).T + h @ recurrent.reshape(4 * H, H).T + first
        i, f, g, o = np.split(gates, 4, axis=1)
        c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        h = np.tanh(c) / (1 + np.exp(-o))
    last, _ = unroll(cell, events(), state=start, backend="scan")
    np.testing.assert_allclose(h, last.h, atol=1e-6)
    np.testing.assert_allclose(c, last.c, atol=1e-6)


def test_values_and_gradients_are_those_of_the_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    without_device(monkeypatch)

    def run(backend: Any) -> Any:
        def loss(cell: Cell, x: Event, start: Any) -> Any:
            found = unroll(cell, x, state=start, backend=backend)
            return score(found), found

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(lstm(), events(), state())

    assert difference(run("cudnn"), run(Scan(hoist=False))) < 1e-6


def test_it_lowers_for_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes and descriptor, which only cuDNN knows, are invented; what surrounds them is what a device would get."""

    class Library:
        def build_rnn_descriptor(self, *sizes: Any) -> bytes:
            return b"invented"

    monkeypatch.setattr(gpu_rnn, "compute_rnn_workspace_reserve_space_sizes", lambda *_: (16, 32), raising=False)
    monkeypatch.setattr(cudnn, "nvidia", lambda: True)
    for primitive, lowering in (
        (rnn.rnn_fwd_p, gpu_rnn._rnn_fwd_lowering),
        (rnn.rnn_bwd_p, gpu_rnn._rnn_bwd_lowering),
    ):
        mlir.register_lowering(primitive, functools.partial(lowering, Library(), "cu"), platform="cuda")

    def loss(cell: Cell, x: Event) -> Any:
        return unroll(cell, x, backend="cudnn")[1].sum()

    lowered = jax.jit(jax.grad(loss)).trace(lstm(), events()).lower(lowering_platforms=("cuda",))
    calls = [line for line in lowered.as_text().splitlines() if "custom_call @cudnn_rnn" in line]
    assert ["bwd" in call for call in calls] == [False, True]
    weights = rnn.get_num_params_in_lstm(D, H, 1, False)
    assert all(f"tensor<{B}x{T}x{D}xf32>" in call and f"tensor<{weights}xf32>" in call for call in calls)


def test_a_row_may_restart_at_its_first_event_only(monkeypatch: pytest.MonkeyPatch) -> None:
    without_device(monkeypatch)
    first = jnp.zeros((B, T), bool).at[1, 0].set(True)
    found = unroll(lstm(), events(), state=state(), reset=first, backend="cudnn")
    assert difference(found, unroll(lstm(), events(), state=state(), reset=first, backend="scan")) < 1e-6
    with pytest.raises(Mistake, match="cudnn: reset restarts inside a row"):
        unroll(lstm(), events(), reset=first.at[0, 2].set(True), backend="cudnn")
    with pytest.raises(Mistake, match="cudnn: reset may restart inside a row"):
        jax.jit(functools.partial(unroll, backend="cudnn"))(lstm(), events(), reset=first)


def test_no_events_return_the_given_state(monkeypatch: pytest.MonkeyPatch) -> None:
    without_device(monkeypatch)
    last, outputs = unroll(lstm(), Event(jnp.zeros((B, 0, D))), state=state(), backend="cudnn")
    assert difference(last, state()) == 0
    assert outputs.shape == (B, 0, H)


def test_it_says_what_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Mistake, match="cudnn cannot run LSTM: there is no NVIDIA device"):
        unroll(lstm(), events(), backend="cudnn")
    monkeypatch.setattr(cudnn, "nvidia", lambda: True)
    assert Cudnn().refuses(lstm()) is None
    for cell in (GRU(D, H, rngs=nnx.Rngs(0)), Exposed(lstm())):
        assert "not an LSTM" in (Cudnn().refuses(cell) or "")
    refined = lstm()
    refined.refine = True
    assert "refine gate" in (Cudnn().refuses(refined) or "")
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), lstm())
        assert "float64" in (Cudnn().refuses(wide) or "")
    with pytest.raises(Mistake, match=r"events\.x is bfloat16"):
        Cudnn().run(lstm(), state(), Event(events().x.astype(jnp.bfloat16)), None)
    with pytest.raises(Mistake, match="tf32=1"):
        Cudnn(tf32=1)  # type: ignore[arg-type]
