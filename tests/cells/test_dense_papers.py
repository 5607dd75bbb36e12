"""Orthogonal, oscillating, clocked and light networks against float64 numpy from their papers alone."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrec.cells import SRU, AntisymmetricRNN, Cell, ClockworkRNN, CoRNN, Elman, Event, ExpRNN
from jaxrec.config import Mistake
from jaxrec.recurrence import unroll

D, H = 3, 4
Weights = dict[str, np.ndarray]


def sigmoid(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


def antisymmetric_matrix(upper: np.ndarray, size: int = H) -> np.ndarray:
    """Row by row above the diagonal; below it the negatives."""
    full, left = np.zeros((size, size)), iter(upper)
    for i in range(size):
        for j in range(i + 1, size):
            full[i, j] = next(left)
            full[j, i] = -full[i, j]
    return full


def exponential(a: np.ndarray) -> np.ndarray:
    """exp of an antisymmetric matrix, by the spectrum of the Hermitian i A."""
    values, vectors = np.linalg.eigh(1j * a)
    return ((vectors * np.exp(-1j * values)) @ vectors.conj().T).real


def exp_rnn(p: Weights, h: Any, event: Any) -> tuple[Any, np.ndarray]:
    """Lezcano-Casado and Martinez-Rubio 2019: h_t = modReLU(exp(A) h_{t-1} + T x_t)."""
    a = exponential(antisymmetric_matrix(p["skew"])) @ h + p["t"].T @ event.x
    h = np.sign(a) * np.maximum(np.abs(a) + p["b"], 0)
    return h, h


def antisymmetric(p: Weights, h: Any, event: Any) -> tuple[Any, np.ndarray]:
    """Chang et al. 2019, section 3, with epsilon 0.2 and gamma 0.05; the gate shares the recurrent product."""
    moved = (antisymmetric_matrix(p["skew"]) - 0.05 * np.eye(H)) @ h
    change = np.tanh(moved + p["v"].T @ event.x + p["b"])
    if "vz" in p:
        change = change * sigmoid(moved + p["vz"].T @ event.x + p["bz"])
    h = h + 0.2 * change
    return h, h


def cornn(p: Weights, state: Any, event: Any) -> tuple[Any, np.ndarray]:
    """Rusch and Mishra 2021, equation 3 with explicit damping."""
    y, z = state
    z = z + 0.1 * (np.tanh(p["w"].T @ y + p["u"].T @ z + p["v"].T @ event.x + p["b"]) - 1.5 * y - 0.7 * z)
    y = y + 0.1 * z
    return (y, z), y


def clockwork(p: Weights, state: Any, event: Any) -> tuple[Any, np.ndarray]:
    """Koutnik et al. 2014: module i runs when t mod 2^i = 0, on itself and slower modules; two units each."""
    h, t = state
    after = h.copy()
    for i in range(2):
        if t % 2**i == 0:
            mine = slice(2 * i, 2 * i + 2)
            after[mine] = np.tanh(p[f"u.{i}"].T @ h[2 * i :] + p["w"][:, mine].T @ event.x + p["b"][mine])
    return (after, t + 1), after


def sru(p: Weights, c: Any, event: Any) -> tuple[Any, np.ndarray]:
    """Lei et al. 2018, equations 1 to 4, with the scaled highway of section 3.2 for a bias of -1."""
    f = sigmoid(p["wf"].T @ event.x + p["vf"] * c + p["bf"])
    r = sigmoid(p["wr"].T @ event.x + p["vr"] * c + p["br"])
    c = f * c + (1 - f) * (p["w"].T @ event.x)
    past = p["wh"].T @ event.x if "wh" in p else event.x
    return c, r * c + (1 - r) * past * np.sqrt(1 + 2 * np.exp(-1))


ZERO = np.zeros(H)
PAPERS: dict[str, tuple[Callable[[nnx.Rngs], Cell], Callable[..., Any], Any]] = {
    "exp_rnn": (lambda rngs: ExpRNN(D, H, start="henaff", rngs=rngs), exp_rnn, ZERO),
    "antisymmetric": (
        lambda rngs: AntisymmetricRNN(D, H, epsilon=0.2, gamma=0.05, rngs=rngs),
        antisymmetric,
        ZERO,
    ),
    "antisymmetric-gated": (
        lambda rngs: AntisymmetricRNN(D, H, epsilon=0.2, gamma=0.05, gated=True, rngs=rngs),
        antisymmetric,
        ZERO,
    ),
    "cornn": (lambda rngs: CoRNN(D, H, dt=0.1, gamma=1.5, epsilon=0.7, rngs=rngs), cornn, (ZERO, ZERO)),
    "clockwork": (lambda rngs: ClockworkRNN(D, H, modules=2, rngs=rngs), clockwork, (ZERO, 0)),
    "sru": (lambda rngs: SRU(D, H, highway_bias=-1.0, rngs=rngs), sru, ZERO),
    "sru-same-width": (lambda rngs: SRU(D, D, highway_bias=-1.0, rngs=rngs), sru, np.zeros(D)),
}


@pytest.mark.parametrize("name", PAPERS)
def test_cell_follows_its_paper(name: str, follows_paper: Callable[..., None]) -> None:
    make, step, state = PAPERS[name]
    follows_paper(make, step, state)


@pytest.mark.parametrize("start", ["cayley", "henaff"])
@pytest.mark.parametrize("hidden", [7, 128])
def test_exp_rnn_is_orthogonal_wherever_training_goes(start: str, hidden: int) -> None:
    cell = ExpRNN(D, hidden, start=start, rngs=nnx.Rngs(0))
    for distance in (0.0, 0.3):
        cell.skew[...] = cell.skew[...] + distance * jax.random.normal(jax.random.key(1), cell.skew.shape)
        rotation = np.asarray(cell.prepare().rotation, np.float64)
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(hidden), atol=1e-6 if not distance else 1e-5)


def test_exp_rnn_starts_with_blocks_of_its_angles() -> None:
    """Cayley: s = tan(u / 2), below tan(pi / 4) = 1; Henaff: uniform from -pi to pi. Nothing outside the blocks."""
    for start, bound in (("cayley", 1.0), ("henaff", np.pi)):
        cell = ExpRNN(1, 400, start=start, rngs=nnx.Rngs(0))
        full = antisymmetric_matrix(np.asarray(cell.skew[...], np.float64), 400)
        angles = full[np.arange(0, 400, 2), np.arange(1, 400, 2)].copy()
        full[np.arange(0, 400, 2), np.arange(1, 400, 2)] = 0
        assert not np.triu(full).any()
        assert 0.95 * bound < np.abs(angles).max() <= bound
        uniform = np.arctan(angles) * 4 / np.pi if start == "cayley" else (angles / np.pi + 1) / 2
        np.testing.assert_allclose(np.sort(uniform), np.linspace(0, 1, 200), atol=0.12)  # p about 0.01


def test_exp_rnn_carries_gradients_of_equal_norm_over_a_thousand_steps() -> None:
    cell = ExpRNN(D, 16, start="henaff", rngs=nnx.Rngs(0))
    cell.b[...] = jnp.zeros(16)  # modReLU without bias is the identity
    x, slant = jnp.zeros((1, 1000, D)), jax.random.normal(jax.random.key(1), (16,))
    first = jax.random.normal(jax.random.key(2), (1, 16))
    flow = jax.jit(jax.grad(lambda h: (unroll(cell, Event(x), state=h)[0][0] * slant).sum()))(first)
    np.testing.assert_allclose(jnp.linalg.norm(flow), jnp.linalg.norm(slant), rtol=1e-3)


def test_antisymmetric_jacobian_has_no_real_part_but_its_diffusion() -> None:
    cell = AntisymmetricRNN(D, 8, gamma=0.3, rngs=nnx.Rngs(0)).prepare()
    values = np.linalg.eigvals(np.asarray(cell.matrix, np.float64))
    np.testing.assert_allclose(values.real, -0.3, atol=1e-6)
    assert np.abs(values.imag).max() > 0.5


def test_cornn_without_drive_loses_energy() -> None:
    """Each oscillator alone is damped: gamma y^2 + z^2 shrinks."""
    cell = jax.tree.map(jnp.zeros_like, CoRNN(D, 1, dt=0.01, gamma=2.0, epsilon=0.5, rngs=nnx.Rngs(0)))
    start = cell.initial_state()._replace(y=jnp.ones(1))
    state, energies = start, []
    for _ in range(1000):
        state = cell.step(state, jnp.zeros(1))
        energies.append(float(2 * state.y[0] ** 2 + state.z[0] ** 2))
    assert energies[-1] < 0.05 * 2
    # the decay rate of a damped oscillator: exp(-epsilon t) for its energy
    assert np.log(energies[499] / energies[-1]) == pytest.approx(0.5 * 5, abs=0.6)


def test_clockwork_modules_rest_between_their_turns() -> None:
    cell = ClockworkRNN(D, 6, modules=3, rngs=nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 9, D)), jnp.float32)
    found = np.asarray(unroll(cell, Event(x))[1][0])
    for module, period in enumerate((1, 2, 4)):
        units = found[:, 2 * module : 2 * module + 2]
        moved = [bool((units[t] != units[t - 1]).any()) for t in range(1, 9)]
        assert moved == [t % period == 0 for t in range(1, 9)]


def test_clockwork_of_one_module_is_the_simple_network() -> None:
    cell = ClockworkRNN(D, H, modules=1, rngs=nnx.Rngs(0))
    twin = Elman(D, H, rngs=nnx.Rngs(1))
    twin.w[...], twin.u[...], twin.b[...] = cell.w[...], cell.u[0][...], cell.b[...]
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, D)), jnp.float32)
    np.testing.assert_allclose(unroll(cell, Event(x))[1], unroll(twin, Event(x))[1], atol=1e-6)


def test_sru_reads_its_input_where_the_highway_is_open() -> None:
    cell = SRU(D, D, highway_bias=-40.0, rngs=nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, D)), jnp.float32)
    np.testing.assert_allclose(unroll(cell, Event(x))[1], x, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda rngs: ClockworkRNN(D, H, modules=3, rngs=rngs), "modules=3 does not divide hidden=4"),
        (lambda rngs: ClockworkRNN(D, 40, modules=40, rngs=rngs), "modules=40"),
        (lambda rngs: ExpRNN(D, 1, rngs=rngs), "hidden=1"),
        (lambda rngs: CoRNN(D, H, dt=-0.1, rngs=rngs), "dt=-0.1"),
        (lambda rngs: AntisymmetricRNN(D, H, epsilon=0.0, rngs=rngs), "epsilon=0.0"),
    ],
)
def test_bad_options_are_mistakes(make: Callable[[nnx.Rngs], Cell], words: str) -> None:
    with pytest.raises(Mistake, match=words):
        make(nnx.Rngs(0))
