"""The newer cells against float64 numpy written from their papers alone: outputs, gradients, starts and limits."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrec.cells import IRNN, LEM, LRU, LSTM, MGU, RGLRU, TLSTM, Cell, Event, IndRNN, MinGRU, MinLSTM
from jaxrec.recurrence import unroll

B, T, D, H = 2, 5, 3, 4
HOUR, DAY = 3600.0, 86400.0
GAPS = np.array([[0, HOUR, 3 * DAY, 365 * DAY, 0], [7 * DAY, 1, 0, HOUR, 100]])  # seconds; exact in float32
Weights = dict[str, np.ndarray]
NOTHING: Mapping[str, Any] = MappingProxyType({})


def sigmoid(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


def relu(a: np.ndarray) -> np.ndarray:
    return np.maximum(a, 0)


def irnn(p: Weights, h: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Le, Jaitly and Hinton 2015: a plain network of rectified linear units."""
    h = relu(p["w"].T @ x + p["u"].T @ h + p["b"])
    return h, h


def indrnn(
    p: Weights, h: np.ndarray, x: np.ndarray, *, activation: Callable[..., Any] = relu
) -> tuple[np.ndarray, np.ndarray]:
    """Li et al. 2018, section 3: h_t = sigma(W x_t + u * h_{t-1} + b), u a vector."""
    h = activation(p["w"].T @ x + p["u"] * h + p["b"])
    return h, h


def mgu(p: Weights, h: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Zhou et al. 2016, table 1: the one gate forgets, and is also the reset gate of the candidate."""
    f = sigmoid(p["wf"].T @ x + p["uf"].T @ h + p["bf"])
    candidate = np.tanh(p["wn"].T @ x + p["un"].T @ (f * h) + p["bn"])
    h = (1 - f) * h + f * candidate
    return h, h


def min_gru(p: Weights, h: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Feng et al. 2024, section 3.1: gate and candidate see the input only, and the candidate has no tanh."""
    z = sigmoid(p["wz"].T @ x + p["bz"])
    h = (1 - z) * h + z * (p["wn"].T @ x + p["bn"])
    return h, h


def min_lstm(p: Weights, h: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Feng et al. 2024, section 3.2: f and i divided by their sum; no output gate."""
    f = sigmoid(p["wf"].T @ x + p["bf"])
    i = sigmoid(p["wi"].T @ x + p["bi"])
    h = f / (f + i) * h + i / (f + i) * (p["wn"].T @ x + p["bn"])
    return h, h


def lru(p: Weights, h: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Orvieto et al. 2023, section 3.4 and appendix A: a complex diagonal, read by the real part of C h + D x."""
    eigenvalues = np.exp(-np.exp(p["nu"]) + 1j * np.exp(p["theta"]))
    inward, outward = p["b"][0].T + 1j * p["b"][1].T, p["c"][0].T + 1j * p["c"][1].T
    h = eigenvalues * h + np.exp(p["gamma"]) * (inward @ x)
    return h, (outward @ h).real + p["d"] * x


def rglru(p: Weights, h: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """De et al. 2024, section 2.4, c = 8.

    The section says a = sigmoid(Lambda) and a_t = a^(c r_t). Its appendix A writes log a_t = -c softplus(Lambda) r_t
    and calls that the same; it is so with Lambda negated, since log sigmoid(L) = -softplus(-L). Written here as the
    section has it, with Lambda = -lam: the cell follows the appendix and the published code.
    """
    u = p["w"].T @ x
    r = sigmoid(p["wr"].T @ u + p["br"])
    i = sigmoid(p["wi"].T @ u + p["bi"])
    a = sigmoid(-p["lam"]) ** (8 * r)
    h = a * h + np.sqrt(1 - a**2) * (i * u)
    return h, h


def lem(
    p: Weights, state: tuple[np.ndarray, np.ndarray], x: np.ndarray, *, dt: float = 1.0
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Rusch et al. 2022, equation 3: both time steps from the old y; the new y sees the new z."""
    y, z = state
    first = dt * sigmoid(p["w1"].T @ y + p["v1"].T @ x + p["b1"])
    second = dt * sigmoid(p["w2"].T @ y + p["v2"].T @ x + p["b2"])
    z = (1 - first) * z + first * np.tanh(p["wz"].T @ y + p["vz"].T @ x + p["bz"])
    y = (1 - second) * y + second * np.tanh(p["wy"].T @ z + p["vy"].T @ x + p["by"])
    return (y, z), y


def tlstm(
    p: Weights, state: tuple[np.ndarray, np.ndarray], x: np.ndarray, gap: float, *, unit: float = DAY
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Baytas et al. 2017: the short-term part of the memory fades with the gap; then an LSTM."""
    h, c = state
    short = np.tanh(p["ud"].T @ c + p["bd"])
    faded = short / np.log(np.e + gap / unit)
    c = (c - short) + faded
    p = {name.removeprefix("inner."): value for name, value in p.items()}
    i, f, o = (sigmoid(p[f"w{k}"].T @ x + p[f"u{k}"].T @ h + p[f"b{k}"]) for k in "ifo")
    c = f * c + i * np.tanh(p["wg"].T @ x + p["ug"].T @ h + p["bg"])
    h = o * np.tanh(c)
    return (h, c), h


class Paper(NamedTuple):
    kind: type[Cell]
    step: Callable[..., tuple[Any, np.ndarray]]
    options: Mapping[str, Any] = NOTHING
    step_options: Mapping[str, Any] = NOTHING


PAPERS = {
    "irnn": Paper(IRNN, irnn),
    "indrnn": Paper(IndRNN, indrnn),
    "indrnn-tanh": Paper(IndRNN, indrnn, {"activation": "tanh"}, {"activation": np.tanh}),
    "mgu": Paper(MGU, mgu),
    "min_gru": Paper(MinGRU, min_gru),
    "min_lstm": Paper(MinLSTM, min_lstm),
    "lru": Paper(LRU, lru),
    "rglru": Paper(RGLRU, rglru),
    "lem": Paper(LEM, lem),
    "lem-slow": Paper(LEM, lem, {"dt": 0.3}, {"dt": 0.3}),
    "tlstm": Paper(TLSTM, tlstm),
    "tlstm-hours": Paper(TLSTM, tlstm, {"unit": HOUR}, {"unit": HOUR}),
}


def jittered(cell: Cell, dtype: Any = np.float32, scale: float = 0.3) -> Cell:
    """Away from zero biases, which would hide a misplaced one."""
    noise = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(np.asarray(leaf, np.float64) + noise.normal(size=leaf.shape) * scale, dtype), cell
    )


def weights_of(cell: Cell) -> Weights:
    """By their own names: an LSTM inside a cell lends its names too."""
    found = [
        ([part.name for part in path if isinstance(part, jax.tree_util.GetAttrKey)], np.asarray(leaf, np.float64))
        for path, leaf in jax.tree_util.tree_leaves_with_path(cell)
    ]
    named = {
        next(name for name in reversed(names) if name not in ("value", "raw_value")): leaf for names, leaf in found
    }
    assert len(named) == len(found)
    return named


def vectors(dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(B, T, D)).astype(np.float32).astype(dtype)


def events(x: Any, dtype: Any = np.float32) -> Event:
    return Event(jnp.asarray(x, dtype), gap=jnp.asarray(GAPS, dtype))


def with_weights(cell: Cell, **values: float) -> Cell:
    """The named weights filled with one number each."""
    for name, value in values.items():
        weight = getattr(cell, name)
        weight[...] = jnp.full(weight[...].shape, value, weight[...].dtype)
    return cell


@pytest.mark.parametrize("name", PAPERS)
def test_cell_follows_its_paper(name: str, follows_paper: Callable[..., None]) -> None:
    kind, step, options, step_options = PAPERS[name]
    zeros = np.zeros(H)

    def one(p: Weights, state: Any, event: Event) -> tuple[Any, np.ndarray]:
        more = (event.gap,) if kind is TLSTM else ()
        return step(p, state, event.x, *more, **step_options)

    start = (zeros, zeros) if kind in (LEM, TLSTM) else zeros
    follows_paper(lambda rngs: kind(D, H, rngs=rngs, **options), one, start)


def test_irnn_starts_as_a_scaled_identity() -> None:
    np.testing.assert_array_equal(IRNN(D, H, rngs=nnx.Rngs(0)).u[...], np.eye(H))
    cell = IRNN(D, H, scale=0.01, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(cell.u[...], 0.01 * np.eye(H), rtol=1e-6)
    assert not cell.b[...].any()


def test_lru_eigenvalues_start_uniform_on_their_ring() -> None:
    """Lemma 3.2: |lambda|^2 uniform between the squared radii; gamma makes the state's variance that of the input."""
    cell = LRU(D, 4000, r_min=0.4, r_max=0.9, rngs=nnx.Rngs(0))
    p = weights_of(cell)
    radius, phase = np.exp(-np.exp(p["nu"])), np.exp(p["theta"])
    assert radius.min() >= 0.4 - 1e-6
    assert radius.max() <= 0.9 + 1e-6
    spread = (np.sort(radius**2) - 0.16) / (0.81 - 0.16)
    np.testing.assert_allclose(spread, np.linspace(0, 1, 4000), atol=0.03)  # Kolmogorov-Smirnov, about p = 0.001
    np.testing.assert_allclose(np.sort(phase) / (2 * np.pi), np.linspace(0, 1, 4000), atol=0.03)
    assert abs(np.corrcoef(radius, phase)[0, 1]) < 0.06
    np.testing.assert_allclose(np.exp(p["gamma"]), np.sqrt(1 - radius**2), rtol=1e-5)
    assert np.var(p["b"]) == pytest.approx(1 / (2 * D), rel=0.1)
    assert np.var(p["c"]) == pytest.approx(1 / 4000, rel=0.1)


@pytest.mark.parametrize("ring", [(0.9999, 1.0), (0.0, 1.0), (0.0, 0.9)])
def test_lru_starts_finite_on_any_ring(ring: tuple[float, float]) -> None:
    """An eigenvalue that rounds to 1 or 0 has no finite nu or gamma: dead from the start."""
    p = weights_of(LRU(1, 200_000, r_min=ring[0], r_max=ring[1], rngs=nnx.Rngs(0)))
    assert all(np.isfinite(p[name]).all() for name in ("nu", "theta", "gamma"))


def test_lru_keeps_its_phase_within_its_bound() -> None:
    p = weights_of(LRU(D, 500, max_phase=0.3, rngs=nnx.Rngs(0)))
    assert 0.28 < np.exp(p["theta"]).max() <= 0.3 + 1e-6


def test_rglru_starts_with_decays_between_its_bounds() -> None:
    """The paper draws a^c, the decay under an open gate, uniformly between 0.9 and 0.999."""
    lam = weights_of(RGLRU(D, 4000, rngs=nnx.Rngs(0)))["lam"]
    decay = np.exp(-8 * np.logaddexp(0, lam))
    assert decay.min() >= 0.9 - 1e-5
    assert decay.max() <= 0.999 + 1e-5
    np.testing.assert_allclose((np.sort(decay) - 0.9) / 0.099, np.linspace(0, 1, 4000), atol=0.03)


def test_min_gru_keeps_its_state_when_the_gate_is_shut_and_forgets_it_when_open() -> None:
    cell, start = jittered(MinGRU(D, H, rngs=nnx.Rngs(0))), jnp.arange(8.0).reshape(B, H) - 3
    last, found = unroll(with_weights(cell, bz=-1e4), events(vectors()), state=start)
    np.testing.assert_array_equal(last, start)
    np.testing.assert_array_equal(found, np.broadcast_to(start[:, None], (B, T, H)))
    _, found = unroll(with_weights(cell, bz=1e4), events(vectors()), state=start)
    p = weights_of(cell)
    np.testing.assert_allclose(found, vectors(np.float64) @ p["wn"] + p["bn"], atol=1e-6)


@pytest.mark.parametrize(("forget", "take"), [(-1e4, -1e4), (1e4, 1e4), (-1e4, 1e4), (1e4, -1e4), (-1e4, -9e3)])
def test_min_lstm_divides_by_vanishing_gates(forget: float, take: float) -> None:
    """f / (f + i) is 0 / 0 in any precision there; its limit is the sigmoid of log f - log i."""
    cell = with_weights(jittered(MinLSTM(D, H, rngs=nnx.Rngs(0))), bf=forget, bi=take)

    def total(cell: Cell, x: Any) -> Any:
        found = unroll(cell, events(x))[1]
        return (found**2).sum(), found

    (_, found), gradients = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(cell, jnp.asarray(vectors()))
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradients))
    p, wanted = weights_of(cell), np.zeros((B, T, H))
    for row in range(B):
        h = np.zeros(H)
        for t, x in enumerate(vectors(np.float64)[row]):
            log_f, log_i = (-np.logaddexp(0, -(p["w" + k].T @ x + p["b" + k])) for k in "fi")
            f = np.exp(log_f - np.logaddexp(log_f, log_i))
            h = f * h + (1 - f) * (p["wn"].T @ x + p["bn"])
            wanted[row, t] = h
    np.testing.assert_allclose(found, wanted, atol=3e-3)  # one float32 step at 1e4 is 1e-3


def rglru_total(cell: Cell, x: Any) -> Any:
    found = unroll(cell, events(x))[1]
    return found.sum(), found


@pytest.mark.parametrize("shut", [{"lam": -20.0}, {"lam": -40.0}, {"lam": -300.0}, {"br": -300.0}])
def test_rglru_near_one_has_finite_gradients(shut: dict[str, float]) -> None:
    """sqrt(1 - a^2) has an endless slope at a = 1, and from a = 1 - 3e-8 on float32 rounds a to 1."""
    cell = with_weights(jittered(RGLRU(D, H, rngs=nnx.Rngs(0))), **shut)
    differentiate = jax.value_and_grad(rglru_total, argnums=(0, 1), has_aux=True)
    (_, found), gradients = differentiate(cell, jnp.asarray(vectors()))
    assert bool(jnp.isfinite(found).all())
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert bool(jnp.isfinite(leaf).all()), jax.tree_util.keystr(path)


@pytest.mark.parametrize("lam", [-14.0, -20.0, -30.0])
def test_rglru_near_one_still_takes_its_input(lam: float) -> None:
    """1 - a^2 cancels in float32 long before its root is negligible: the oracle here uses expm1."""
    cell = with_weights(jittered(RGLRU(D, H, rngs=nnx.Rngs(0))), lam=lam)
    p, wanted = weights_of(cell), np.zeros((B, T, H))
    for row in range(B):
        h = np.zeros(H)
        for t, x in enumerate(vectors(np.float64)[row]):
            u = p["w"].T @ x
            log_a = -8 * np.log1p(np.exp(lam)) * sigmoid(p["wr"].T @ u + p["br"])
            h = np.exp(log_a) * h + np.sqrt(-np.expm1(2 * log_a)) * sigmoid(p["wi"].T @ u + p["bi"]) * u
            wanted[row, t] = h
    _, found = unroll(cell, events(vectors()))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6 * np.abs(wanted).max())


def test_tlstm_without_gaps_is_the_lstm() -> None:
    cell = jittered(TLSTM(D, H, rngs=nnx.Rngs(0)))
    twin = LSTM(D, H, rngs=nnx.Rngs(1))
    for name, value in weights_of(cell).items():
        if name not in ("ud", "bd"):
            getattr(twin, name)[...] = jnp.asarray(value, jnp.float32)
    x = jnp.asarray(vectors())
    _, wanted = unroll(twin, Event(x))
    _, found = unroll(cell, Event(x, gap=jnp.zeros((B, T))))
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    _, gone = unroll(cell, Event(x, gap=jnp.full((B, T), 365 * DAY)))
    assert np.abs(gone - wanted).max() > 0.05


def test_tlstm_fades_its_short_term_memory_only() -> None:
    """Under an endless gap, what is left of the memory is its long-term part, c - tanh(Ud c + bd)."""
    cell = jittered(TLSTM(D, H, rngs=nnx.Rngs(0)))
    x = jnp.asarray(vectors()[:, :1])
    state, _ = unroll(cell, Event(x, gap=jnp.zeros((B, 1))))
    p = weights_of(cell)
    h, c = (np.asarray(leaf, np.float64) for leaf in (state.h, state.c))
    gap = 3 * DAY
    weight = 1 / math.log(math.e + 3)
    short = np.tanh(c @ p["ud"] + p["bd"])
    kept = c - (1 - weight) * short
    after, _ = unroll(cell, Event(x, gap=jnp.full((B, 1), gap)), state=state)
    gates = {k: vectors(np.float64)[:, 0] @ p["w" + k] + h @ p["u" + k] + p["b" + k] for k in "ifg"}
    wanted = sigmoid(gates["f"]) * kept + sigmoid(gates["i"]) * np.tanh(gates["g"])
    np.testing.assert_allclose(after.c, wanted, atol=1e-6)
