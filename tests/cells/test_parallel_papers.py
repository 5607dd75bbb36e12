"""Cells that run in parallel over time against float64 numpy written from their papers alone."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrec.cells import HGRN, QRNN, S5, CausalConv, Cell, Event, Mamba
from jaxrec.cells.s5 import hippo
from jaxrec.config import Mistake
from jaxrec.recurrence import unroll

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
    """Bradbury et al. 2017, section 2: z_t = tanh(W1 x_{t-1} + W2 x_t) and so on, then fo-pooling."""
    before, c = state
    first, second = ({k: p[f"gates.w{k}"][half] for k in "zfo"} for half in (slice(D), slice(D, None)))
    z = np.tanh(first["z"].T @ before + second["z"].T @ event.x + p["gates.bz"])
    f = sigmoid(first["f"].T @ before + second["f"].T @ event.x + p["gates.bf"])
    o = sigmoid(first["o"].T @ before + second["o"].T @ event.x + p["gates.bo"])
    c = f * c + (1 - f) * z
    return (event.x, c), o * c


def s5(p: Weights, h: np.ndarray, event: Any) -> tuple[np.ndarray, np.ndarray]:
    """Smith et al. 2023, section 3.2: zero-order hold of a diagonal system, one of each conjugate pair kept."""
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


def test_s5_starts_as_the_real_hippo_system() -> None:
    """Its outputs are those of the real x' = A x + B u, y = C x + D u, with A = HiPPO-N built from its definition."""
    size, dt = 2 * H, 0.05
    root = np.sqrt(2 * np.arange(size) + 1)
    legs = -np.tril(np.outer(root, root), -1) - np.diag(np.arange(size) + 1.0)
    normal = legs + np.outer(root, root) / 2  # HiPPO-N: HiPPO-LegS without its low-rank part
    turn, basis = hippo(H)
    np.testing.assert_allclose(normal @ basis, basis * (-0.5 + 1j * turn), atol=1e-12)
    with jax.enable_x64(True):
        cell = S5(D, H, dt_min=dt, dt_max=dt, rngs=nnx.Rngs(0))
        p = {name: np.asarray(getattr(cell, name)[...]) for name in "bcd"}
        x = np.random.default_rng(0).normal(size=(1, 6, D))
        _, found = unroll(cell, Event(jnp.asarray(x)))
    inward = 2 * (basis @ (p["b"][0] + 1j * p["b"][1]).T).real
    outward = 2 * (basis.conj() @ (p["c"][0] + 1j * p["c"][1])).real
    values, vectors = np.linalg.eig(normal)
    power = (vectors * np.exp(values * dt) @ np.linalg.inv(vectors)).real
    held = np.linalg.solve(normal, (power - np.eye(size)) @ inward)
    state, wanted = np.zeros(size), []
    for u in x[0]:
        state = power @ state + held @ u
        wanted.append(state @ outward + p["d"] * u)
    np.testing.assert_allclose(found[0], wanted, rtol=1e-9, atol=1e-11)


def test_mamba_starts_as_its_paper_says() -> None:
    cell = Mamba(40, 3000, rngs=nnx.Rngs(0))
    step = np.log1p(np.exp(np.asarray(cell.ssm.bd[...], np.float64)))
    assert step.min() >= 0.00099
    assert step.max() <= 0.101
    np.testing.assert_allclose(np.sort(np.log(step / 0.001)) / np.log(100), np.linspace(0, 1, 3000), atol=0.03)
    np.testing.assert_allclose(np.exp(cell.ssm.log_a[...]), np.tile(np.arange(1, 17), (3000, 1)), rtol=1e-6)
    assert cell.ssm.wd.shape == (3, 3000)  # rank 40 / 16, rounded up


def test_a_mamba_that_takes_no_time_sees_only_its_window() -> None:
    """With the step size at zero nothing enters the state: what is left is a gated convolution."""
    cell = Mamba(D, H, rngs=nnx.Rngs(0))
    cell.ssm.bd[...] = jnp.full(H, -200.0)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 9, D)), jnp.float32)
    last, outputs = unroll(cell, Event(x))
    assert not last["ssm"].any()
    _, later = unroll(cell, Event(x[:, -4:]))
    np.testing.assert_allclose(later[:, -1], outputs[:, -1], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("lower", [0.0, 0.9])
def test_hgrn_never_forgets_faster_than_its_bound(lower: float) -> None:
    cell = HGRN(D, H, lower=lower, rngs=nnx.Rngs(0))
    x = 100.0 * np.random.default_rng(0).normal(size=(64, D))
    kept = np.abs(jax.vmap(lambda x: cell.affine(cell.project(Event(x)))[0])(jnp.asarray(x, jnp.float32)))
    assert lower - 1e-6 <= kept.min() <= lower + 0.01
    assert 0.999 <= kept.max() <= 1 + 1e-6


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: S5(D, H, dt_min=0.1, dt_max=0.01, rngs=nnx.Rngs(0)), "dt_min=0.1"),
        (lambda: HGRN(D, H, lower=1.0, rngs=nnx.Rngs(0)), "lower=1.0"),
        (lambda: Mamba(D, H, states=0, rngs=nnx.Rngs(0)), "states=0"),
        (lambda: CausalConv(D, H, width=0, rngs=nnx.Rngs(0)), "width=0"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(make: Callable[[], Cell], words: str) -> None:
    with pytest.raises(Mistake, match=words):
        make()
