"""LSTMs and their relatives against float64 numpy written from their papers alone, and their papers' claims."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrec.cells import LSTM, SLSTM, Event, LayerNormLSTM, PeepholeLSTM
from jaxrec.config import Mistake
from jaxrec.recurrence import unroll

D, H = 3, 4
Weights = dict[str, np.ndarray]


def sigmoid(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


def gate(p: Weights, name: str, x: np.ndarray, h: np.ndarray) -> np.ndarray:
    return p["w" + name].T @ x + p["u" + name].T @ h + p["b" + name]


def refined(p: Weights, state: Any, event: Any) -> tuple[Any, np.ndarray]:
    """Gu et al. 2020, section 3.4: the refine gate r moves f inside its band; the input gate is tied to the result."""
    h, c = state
    f, r, o = (sigmoid(gate(p, name, event.x, h)) for name in "fio")
    g = r * (1 - (1 - f) ** 2) + (1 - r) * f**2
    c = g * c + (1 - g) * np.tanh(gate(p, "g", event.x, h))
    h = o * np.tanh(c)
    return (h, c), h


def test_refine_gate_follows_its_paper(follows_paper: Callable[..., None]) -> None:
    follows_paper(lambda rngs: LSTM(D, H, refine=True, rngs=rngs), refined, (np.zeros(H), np.zeros(H)))


def test_default_lstm_starts_where_it_always_did() -> None:
    """Options that are not asked for draw no random numbers: a run of yesterday is the same run today."""
    plain, refine = (LSTM(D, H, refine=refine, rngs=nnx.Rngs(0)) for refine in (False, True))
    chrono = LSTM(D, H, chrono=50, rngs=nnx.Rngs(0))
    for one, other in ((plain, refine), (plain, chrono)):
        for name in ("wi", "wf", "wg", "wo", "ui", "uf", "ug", "uo", "bg", "bo"):
            np.testing.assert_array_equal(getattr(one, name)[...], getattr(other, name)[...])
    assert plain.bf[...].tolist() == [1.0] * H
    assert not plain.bi[...].any()


def test_chrono_biases_start_spread_over_the_time_scales_asked_for() -> None:
    """Tallec and Ollivier 2018, section 2: bf = log(U(1, Tmax - 1)), bi = -bf."""
    cell = LSTM(1, 400, chrono=101, rngs=nnx.Rngs(0))
    scales = np.exp(np.asarray(cell.bf[...], np.float64))
    np.testing.assert_allclose((np.sort(scales) - 1) / 99, np.linspace(0, 1, 400), atol=0.1)
    np.testing.assert_array_equal(cell.bi[...], -cell.bf[...])
    assert not cell.bo[...].any()


def test_uniform_gates_start_uniform_and_their_partners_opposite() -> None:
    """Gu et al. 2020, section 3.2: sigmoid(bf) uniform in [1/d, 1 - 1/d], the other gate's bias its negative."""
    cell = LSTM(1, 400, uniform=True, refine=True, rngs=nnx.Rngs(0))
    gates = sigmoid(np.asarray(cell.bf[...], np.float64))
    assert gates.min() >= 1 / 400 - 1e-6
    assert gates.max() <= 1 - 1 / 400 + 1e-6
    np.testing.assert_allclose(np.sort(gates), np.linspace(0, 1, 400), atol=0.1)
    np.testing.assert_array_equal(cell.bi[...], -cell.bf[...])
    assert np.isfinite(LSTM(1, 1, uniform=True, rngs=nnx.Rngs(0)).bf[...]).all()


@pytest.mark.parametrize("pull", [-30.0, 0.0, 30.0])
def test_refine_gate_moves_the_forget_gate_within_its_band(pull: float) -> None:
    """Section 3.3: g runs from f^2 to 1 - (1 - f)^2, and is f itself where r is one half."""
    cell = LSTM(1, 1, forget_bias=1.5, refine=True, rngs=nnx.Rngs(0))
    cell = jax.tree.map(jnp.zeros_like, cell)
    cell.bf[...], cell.bi[...] = jnp.full(1, 1.5), jnp.full(1, pull)
    state = cell.initial_state()._replace(c=jnp.ones(1))
    after = cell.step(state, tuple(b[...] for b in (cell.bi, cell.bf, cell.bg, cell.bo)))  # the input is tanh(0)
    f = sigmoid(np.float64(1.5))
    np.testing.assert_allclose(after.c, {-30.0: f**2, 0.0: f, 30.0: 1 - (1 - f) ** 2}[pull], rtol=1e-6)


def test_refine_gate_keeps_what_a_sigmoid_alone_rounds_away() -> None:
    """Next to f = 1 the input gate is (1 - f)^2 at best: far below the rounding of 1 - g."""
    cell = jax.tree.map(jnp.zeros_like, LSTM(1, 1, refine=True, rngs=nnx.Rngs(0)))
    far = jnp.full(1, 12.0)
    after = cell.step(cell.initial_state(), (far, far, jnp.full(1, 30.0), jnp.zeros(1)))
    r, shut = 1 / (1 + np.exp(-12.0)), 1 / (1 + np.exp(12.0))
    np.testing.assert_allclose(after.c, shut * (r * shut + (1 - r) * (2 - shut)), rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"chrono": 2}, "chrono=2"),
        ({"chrono": True}, "chrono=True"),
        ({"chrono": 9, "uniform": True}, "both"),
        ({"chrono": 9, "forget_bias": 2.0}, "forget_bias=2.0"),
        ({"uniform": True, "forget_bias": 2.0}, "forget_bias=2.0"),
    ],
)
def test_lstm_refuses_starts_that_contradict(options: dict[str, Any], words: str) -> None:
    with pytest.raises(Mistake, match=words):
        LSTM(D, H, rngs=nnx.Rngs(0), **options)


def layer_norm(a: np.ndarray) -> np.ndarray:
    """Ba et al. 2016, equation 4, with 1e-5 under the root: the first state has no variance."""
    return (a - a.mean()) / np.sqrt(((a - a.mean()) ** 2).mean() + 1e-5)


def layer_normed(p: Weights, state: Any, event: Any) -> tuple[Any, np.ndarray]:
    """Ba et al. 2016, equations 20 to 22: LN over all four gates of a product at once."""
    h, c = state
    recurrent = np.concatenate([p["u" + name].T @ h for name in "ifgo"])
    inward = np.concatenate([p["w" + name].T @ event.x for name in "ifgo"])
    total = p["a1"].ravel() * layer_norm(recurrent) + p["a2"].ravel() * layer_norm(inward) + p["b"].ravel()
    i, f, g, o = np.split(total, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(p["a3"] * layer_norm(c) + p["b3"])
    return (h, c), h


def peephole(p: Weights, state: Any, event: Any) -> tuple[Any, np.ndarray]:
    """Graves 2013, equations 7 to 11: diagonal weights from the old memory to i and f, from the new one to o."""
    h, c = state
    w = {name.removeprefix("inner."): value for name, value in p.items()}
    i = sigmoid(gate(w, "i", event.x, h) + p["pi"] * c)
    f = sigmoid(gate(w, "f", event.x, h) + p["pf"] * c)
    c = f * c + i * np.tanh(gate(w, "g", event.x, h))
    h = sigmoid(gate(w, "o", event.x, h) + p["po"] * c) * np.tanh(c)
    return (h, c), h


def slstm(p: Weights, state: Any, event: Any, *, forget: Callable[..., Any] = sigmoid) -> tuple[Any, np.ndarray]:
    """Beck et al. 2024, equations 8 to 14, without the stabiliser, which must change nothing; R by heads."""
    h, c, n = state
    heads, size, _ = p["ri"].shape
    raw = {}
    for name in "ifzo":
        mixed = np.concatenate([p["r" + name][k].T @ h[k * size : (k + 1) * size] for k in range(heads)])
        raw[name] = p["w" + name].T @ event.x + mixed + p["b" + name]
    i, f = np.exp(raw["i"]), forget(raw["f"])
    c, n = f * c + i * np.tanh(raw["z"]), f * n + i
    h = sigmoid(raw["o"]) * c / n
    return (h, c, n), h


def test_layer_norm_lstm_follows_its_paper(follows_paper: Callable[..., None]) -> None:
    follows_paper(lambda rngs: LayerNormLSTM(D, H, rngs=rngs), layer_normed, (np.zeros(H), np.zeros(H)))


def test_layer_norm_lstm_does_not_see_the_scale_of_its_input() -> None:
    """Table 1 of the paper: invariant to re-scaling the data and the weight matrix."""
    cell = LayerNormLSTM(D, 32, rngs=nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, D)), jnp.float32)
    small, large = (unroll(cell, Event(scale * x))[1] for scale in (30.0, 3000.0))
    np.testing.assert_allclose(small, large, atol=1e-5)


def test_peephole_lstm_follows_its_paper(follows_paper: Callable[..., None]) -> None:
    follows_paper(lambda rngs: PeepholeLSTM(D, H, rngs=rngs), peephole, (np.zeros(H), np.zeros(H)))


def test_peephole_lstm_starts_as_the_lstm() -> None:
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, D)), jnp.float32)
    found, wanted = (unroll(kind(D, H, rngs=nnx.Rngs(3)), Event(x))[1] for kind in (PeepholeLSTM, LSTM))
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("forget", ["sigmoid", "exp"])
def test_slstm_follows_its_paper(forget: str, follows_paper: Callable[..., None]) -> None:
    chosen = {"sigmoid": sigmoid, "exp": np.exp}[forget]
    start = (np.zeros(H), np.zeros(H), np.zeros(H))
    follows_paper(
        lambda rngs: SLSTM(D, H, heads=2, forget=forget, rngs=rngs), lambda *given: slstm(*given, forget=chosen), start,
        idle=("bi",),  # it multiplies c and n alike
    )  # fmt: skip


@pytest.mark.parametrize("shift", [-300.0, 300.0])
def test_slstm_stabiliser_keeps_what_overflows_without_it(shift: float) -> None:
    """A shift of all input gates cancels in c / n, even where exp(300) is no float32 and exp(-300) is nothing."""
    cell = SLSTM(D, H, rngs=nnx.Rngs(0))
    cell.bf[...] = jnp.full(H, 3.0)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 50, D)), jnp.float32)

    def outputs(cell: SLSTM) -> Any:
        found = unroll(cell, Event(x))[1]
        return found.sum(), found

    (_, wanted), _ = jax.value_and_grad(outputs, has_aux=True)(cell)
    cell.bi[...] = cell.bi[...] + shift
    (_, found), gradients = jax.value_and_grad(outputs, has_aux=True)(cell)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradients))


def test_slstm_heads_do_not_mix() -> None:
    cell = SLSTM(D, H, heads=2, rngs=nnx.Rngs(0))
    cell = jax.tree.map(lambda leaf: leaf + 0.3, cell)
    zeros = (jnp.zeros(H),) * 4
    jacobian = jax.jacobian(lambda h: cell.step(cell.initial_state()._replace(h=h), zeros).h)(jnp.ones(H) / 2)
    assert not jacobian[:2, 2:].any()
    assert not jacobian[2:, :2].any()
    assert jacobian[:2, :2].all()


def test_slstm_refuses_heads_that_do_not_divide() -> None:
    with pytest.raises(Mistake, match="heads=3 does not divide hidden=4"):
        SLSTM(D, H, heads=3, rngs=nnx.Rngs(0))
