"""Exponents, singular values and eigenvalues against matrices, maps and cells for which they are known."""

import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrec.cells import GRU, IRNN, LRU, SRU, CausalConv, Cell, ClockworkRNN, Elman, Event, IndRNN, MinGRU, ParaGRU
from jaxrec.config import Mistake
from jaxrec.diagnostics.exponents import closed_form, kaplan_yorke, lyapunov
from jaxrec.diagnostics.motion import Motion
from jaxrec.diagnostics.spectra import eigenvalues, singular_values
from jaxrec.diagnostics.subject import Alone, Layer, alone, layers, subject
from jaxrec.models import recommender
from jaxrec.models.network import NONE
from jaxrec.models.recommender import Batch, Recommender
from jaxrec.recurrence.trees import double

LOG10 = np.log(10.0)


class Linear(Cell):
    """``h' = W h + x``."""

    def __init__(self, w: Any):
        self.w = nnx.Param(jnp.asarray(w))

    def initial_state(self) -> Any:
        return jnp.zeros(self.w.shape[0], self.w.dtype)

    def step(self, state: Any, projected: Any) -> Any:
        return self.w[...] @ state + projected


class Henon(Cell):
    """``(x, y) -> (1 - a x^2 + y, b x)`` with a = 1.4, b = 0.3 (Henon 1976)."""

    def initial_state(self) -> Any:
        return jnp.zeros(2)

    def step(self, state: Any, projected: Any) -> Any:
        x, y = state
        return jnp.stack([1 - 1.4 * x**2 + y, 0.3 * x])


class Gain(Cell):
    """``h' = exp(x) h``: its exponent is the mean of the inputs."""

    def initial_state(self) -> Any:
        return jnp.ones(1)

    def step(self, state: Any, projected: Any) -> Any:
        return jnp.exp(projected) * state


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def by_itself(cell: Cell, x: Any) -> tuple[Alone, Event]:
    events = Event(jnp.asarray(x, jnp.result_type(float)))
    return alone(cell, events), events


def random_orthogonal(n: int) -> np.ndarray:
    return np.asarray(np.linalg.qr(noise(n, n, seed=5))[0])


def symmetric(values: Any) -> np.ndarray:
    q = random_orthogonal(len(values))
    return (q * np.asarray(values)) @ q.T


def row(times: int, n: int, rows: int = 1) -> np.ndarray:
    return 0.1 * noise(rows, times, n)


def test_exponents_of_a_linear_recurrence_are_the_moduli_of_its_eigenvalues() -> None:
    moduli = np.array([1.2, 0.9, 0.5, 1e-3, 1e-5])
    basis = noise(5, 5, seed=1)
    w = basis @ np.diag(moduli * [1, -1, 1, -1, 1]) @ np.linalg.inv(basis)
    with jax.enable_x64(True):
        [record] = lyapunov(*by_itself(Linear(w), row(400, 5)), warmup=100)
        np.testing.assert_allclose(record["exponents"], np.log(moduli), atol=1e-9)
        assert record["sum"] == pytest.approx(np.log(moduli).sum())
        assert record["zeros"] == [0] * 5
        [thrice] = lyapunov(*by_itself(Linear(w), row(400, 5)), warmup=99, every=3)
        assert thrice["warmup"] == 100
        np.testing.assert_allclose(thrice["exponents"][:4], np.log(moduli)[:4], atol=1e-9)
        assert thrice["exponents"][4] is None, "six orders a step: three steps are more than a float64 holds"


def test_single_precision_keeps_exponents_to_its_rounding() -> None:
    [record] = lyapunov(*by_itself(Linear(symmetric([1.1, 0.8, 0.5, 0.1]).astype(np.float32)), row(100, 4)))
    np.testing.assert_allclose(record["exponents"], np.log([1.1, 0.8, 0.5, 0.1]), atol=1e-5)


def test_what_only_turns_has_no_exponent() -> None:
    with jax.enable_x64(True):
        [record] = lyapunov(*by_itself(Linear(random_orthogonal(6)), row(100, 6)))
        np.testing.assert_allclose(record["exponents"], 0, atol=1e-6)
        [record] = singular_values(*by_itself(Linear(random_orthogonal(6)), row(100, 6)), lags=(1, 100))
        np.testing.assert_allclose(record["log10"], np.zeros((2, 6)), atol=1e-12)


def test_a_scaled_identity_scales_and_nothing_else() -> None:
    model, events = by_itself(Linear(0.5 * np.eye(3, dtype=np.float32)), row(50, 3))
    np.testing.assert_allclose(lyapunov(model, events)[0]["exponents"], [np.log(0.5)] * 3, atol=1e-6)
    found = singular_values(model, events, lags=(7,))[0]["log10"]
    np.testing.assert_allclose(found, [[7 * np.log10(0.5)] * 3], atol=1e-5)


@pytest.mark.parametrize(("wide", "near"), [(True, 1e-8), (False, 2e-6)])
def test_ten_thousand_steps_do_not_underflow(wide: bool, near: float) -> None:
    values = np.array([0.9, -0.5, 0.2, 0.01])
    with jax.enable_x64(wide):
        model, events = by_itself(Linear(jnp.asarray(symmetric(values), jnp.result_type(float))), row(10_000, 4))
        [record] = singular_values(model, events, lags=(1, 10, 10_000))
        for lag, found in zip(record["lags"], record["log10"], strict=True):
            np.testing.assert_allclose(found, lag * np.log10(np.abs(values)), rtol=near, atol=near)
        [record] = lyapunov(model, events)
        np.testing.assert_allclose(record["exponents"], np.log(np.abs(values)), atol=near)


def test_powers_of_a_skew_matrix_have_their_own_singular_values() -> None:
    w = noise(6, 6, seed=3) / 3
    with jax.enable_x64(True):
        [record] = singular_values(*by_itself(Linear(w), row(20, 6)), lags=(1, 2, 9))
    for lag, found in zip(record["lags"], record["log10"], strict=True):
        wanted = np.linalg.svd(np.linalg.matrix_power(w, lag), compute_uv=False)
        np.testing.assert_allclose(found[:-1], np.log10(wanted)[:-1], atol=1e-9)  # the last is lost in a dense power
        assert sum(found) == pytest.approx(lag * np.linalg.slogdet(w)[1] / LOG10, rel=1e-10)


def test_exponents_of_the_henon_map() -> None:
    """0.419 and -1.623 (Sprott 2003, "Chaos and Time-Series Analysis"); their sum is log b."""
    with jax.enable_x64(True):
        [record] = lyapunov(*by_itself(Henon(), np.zeros((1, 20_000, 2))))
    np.testing.assert_allclose(record["exponents"], [0.419, -1.623], atol=0.01)
    assert record["sum"] == pytest.approx(np.log(0.3))
    assert record["kaplan_yorke"] == pytest.approx(1.258, abs=0.01)
    assert abs(record["exponents"][0] - 0.4192) < 3 * record["half_width"][0]


def test_a_window_forgets_everything_and_says_so() -> None:
    model, events = by_itself(CausalConv(3, 2, width=3, rngs=nnx.Rngs(0)), noise(2, 40, 3))
    [record] = lyapunov(model, events)
    assert record["exponents"] == [None] * 6
    assert min(record["zeros"]) > 0
    assert record["not_finite"] == 0
    assert record["time_of_e_fold"] is None
    [record] = singular_values(model, events, lags=(1, 2, 3))
    assert record["zeros"] == [2 * 2, 2 * 4, 2 * 6], "a step forgets one of three inputs of two numbers, in two rows"
    np.testing.assert_allclose(record["log10"][0][:4], 0, atol=1e-5)
    assert record["log10"][2] == [None] * 6


def test_a_dead_relu_is_none_and_no_floor() -> None:
    model, events = by_itself(IRNN(3, 4, rngs=nnx.Rngs(0)), noise(2, 60, 3))
    [record] = lyapunov(model, events)
    assert record["exponents"][-1] is None
    assert record["zeros"][-1] > 0


def test_an_independent_relu_that_dies_once_is_dead_both_ways() -> None:
    model, events = by_itself(IndRNN(3, 5, rngs=nnx.Rngs(0)), noise(2, 100, 3))
    [record] = lyapunov(model, events)
    assert record["exponents"] == record["closed_form"] == [None] * 5


def test_a_tanh_network_grows_no_faster_than_its_matrix() -> None:
    """Pascanu, Mikolov and Bengio 2013: the product is at most the norm of W to the power of the steps."""
    w = 1.5 * noise(8, 8, seed=2) / np.sqrt(8)

    class Tanh(Linear):
        def step(self, state: Any, projected: Any) -> Any:
            return jnp.tanh(super().step(state, projected))

    model, events = by_itself(Tanh(w.astype(np.float32)), noise(2, 200, 8))
    [record] = lyapunov(model, events)
    bound = np.linalg.norm(w, 2)
    assert record["exponents"][0] <= np.log(bound)
    [record] = singular_values(model, events, lags=(1, 20))
    assert record["log10"][0][0] <= np.log10(bound) + 1e-6
    assert record["log10"][1][0] <= 20 * np.log10(bound)


@pytest.mark.parametrize("kind", [LRU, MinGRU, ParaGRU])
def test_diagonal_cells_have_the_exponents_of_their_decays(kind: Any) -> None:
    """In 300 steps directions of nearly the same decay are not yet apart; their sum does not depend on that."""
    with jax.enable_x64(True):
        model, events = by_itself(double(kind(3, 5, rngs=nnx.Rngs(0))), noise(2, 400, 3))
        [record], [known] = lyapunov(model, events, warmup=100), closed_form(model, events, warmup=100)
    assert record["closed_form"] == known["exponents"]
    assert record["state"] == len(known["exponents"])
    np.testing.assert_allclose(record["exponents"], known["exponents"], atol=0.02)
    np.testing.assert_allclose(record["sum"], np.sum(known["exponents"]), atol=1e-9)


def test_half_of_what_an_sru_keeps_is_its_last_gate() -> None:
    with jax.enable_x64(True):
        cell = double(SRU(3, 4, rngs=nnx.Rngs(0)))
        model, events = by_itself(cell, noise(1, 200, 3))
        [record] = lyapunov(model, events, warmup=100)
        forget = jax.nn.sigmoid(events.x[0] @ cell.wf[...] + cell.bf[...][None])
    assert record["exponents"][4:] == [None] * 4
    np.testing.assert_allclose(np.sum(record["exponents"][:4]), np.log(forget[100:]).mean(0).sum(), atol=1e-9)
    assert record["closed_form"] is None


def dense_products(layer: Layer, lag: int) -> list[np.ndarray]:
    """The product of the last Jacobians of every row, multiplied out."""
    motion = Motion(layer)
    jacobians = jax.vmap(motion.jacobians)(*motion.trail(lag))
    return [np.linalg.multi_dot([np.eye(motion.size), *np.asarray(jacobians)[::-1, row]]) for row in range(motion.rows)]


def test_singular_values_of_a_gru_are_those_of_the_dense_product() -> None:
    with jax.enable_x64(True):
        model, events = by_itself(double(GRU(3, 6, rngs=nnx.Rngs(0))), noise(2, 12, 3))
        [record] = singular_values(model, events, lags=(10,))
        for found, dense in zip(
            record["per_example"][0], dense_products(layers(subject(model, events))[0], 10), strict=True
        ):
            np.testing.assert_allclose(found, np.log10(np.linalg.svd(dense, compute_uv=False)), atol=1e-8)
    np.testing.assert_allclose(record["log10"][0], np.mean(record["per_example"][0], axis=0), atol=1e-12)


def test_leading_singular_values_come_from_a_few_directions() -> None:
    with jax.enable_x64(True):
        model, events = by_itself(double(GRU(3, 24, rngs=nnx.Rngs(0))), noise(2, 30, 3))
        every = singular_values(model, events, lags=(1, 10, 25))[0]
        some = singular_values(model, events, lags=(1, 10, 25), full=8, leading=4)[0]
    for found, wanted in zip(some["log10"], every["log10"], strict=True):
        assert len(found) == 4
        np.testing.assert_allclose(found, wanted[:4], atol=1e-4)


def test_leading_exponents_come_from_a_few_directions() -> None:
    model, events = by_itself(GRU(3, 12, rngs=nnx.Rngs(0)), noise(2, 200, 3))
    every, some = lyapunov(model, events)[0], lyapunov(model, events, full=8, exponents=3)[0]
    assert len(some["exponents"]) == 3
    assert some["state"] == 12
    np.testing.assert_allclose(some["exponents"], every["exponents"][:3], atol=0.02)


def test_the_interval_covers_what_is_known() -> None:
    covered = []
    for seed in range(80):
        rows = 8 if seed % 2 else 2  # sure by examples, and by stretches of a trajectory
        model, events = by_itself(Gain(), -0.3 + 0.5 * noise(rows, 80, 1, seed=seed))
        [record] = lyapunov(model, events, warmup=0)
        covered.append(abs(record["exponents"][0] + 0.3) <= record["half_width"][0])
    assert 0.87 <= np.mean(covered) <= 1.0, "95 % of 80, give or take three standard errors"


def test_eigenvalues_of_a_step_of_its_mean_and_of_matrices() -> None:
    w = noise(4, 4, seed=4)
    Named = NamedTuple("Named", [("name", str), ("value", Any)])  # noqa: UP014 - a cell's matrix, as it is found
    with jax.enable_x64(True):
        model, events = by_itself(Linear(w), row(9, 4, 3))
        [record] = eigenvalues(model, events, samples=5, matrices=lambda cell, event: [Named("w", cell.w[...])])
    wanted = np.linalg.eigvals(w)
    wanted = wanted[np.argsort(-np.abs(wanted), kind="stable")]
    for found in (record["mean_jacobian"], record["matrices"]["w"]):
        np.testing.assert_allclose(np.abs(np.array(found["real"]) + 1j * np.array(found["imaginary"])), np.abs(wanted))
    assert np.shape(record["jacobian"]["real"]) == (5, 4)
    assert len({tuple(at) for at in record["jacobian"]["at"]}) == 5
    assert record["not_finite"] == 0


def test_sampled_jacobians_are_those_of_the_trajectory() -> None:
    with jax.enable_x64(True):
        model, events = by_itself(double(GRU(3, 4, rngs=nnx.Rngs(0))), noise(2, 6, 3))
        [record] = eigenvalues(model, events, samples=12)
        motion = Motion(layers(subject(model, events))[0])
        jacobians = jax.vmap(motion.jacobians)(*motion.trail(6))
        for (row, step), real in zip(record["jacobian"]["at"], record["jacobian"]["real"], strict=True):
            wanted = np.sort(np.linalg.eigvals(jacobians[step, row]).real)
            np.testing.assert_allclose(np.sort(real), wanted, atol=1e-9)


ITEMS, WIDTH = 7, 4


def stacked(kind: Any = GRU) -> Recommender:
    return recommender.build(
        lambda features, rngs: kind(features, 5, rngs=rngs), items=ITEMS, users=0, width=WIDTH, depth=2, feedforward=2,
        norm=True, residual=True, tied=True, bias=True, user=False, backend=None, seed=0,
        wants=Event(x=jnp.zeros((1, 1, WIDTH))),
    )  # fmt: skip


def items(rows: int, time: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).integers(1, ITEMS + 1, (rows, time)), jnp.int32)


def test_every_layer_of_a_recommender_is_driven_by_the_layers_below() -> None:
    model, batch = stacked(), Batch(items(3, 20))
    found = layers(subject(model, batch))
    network, x = model.network, model.events(batch).x
    block = network.blocks[0]
    np.testing.assert_allclose(found[0].events.x, block.norm(x), atol=1e-6)
    below = block(model.events(batch), None, None, NONE, None, None)[1]
    np.testing.assert_allclose(found[1].events.x, network.blocks[1].norm(below), atol=1e-6)
    records = lyapunov(model, batch) + singular_values(model, batch, lags=(2,)) + eigenvalues(model, batch)
    records += closed_form(model, batch)
    assert [record["layer"] for record in records] == [0, 1] * 4
    assert json.loads(json.dumps(records, allow_nan=False)) == records


def test_steps_that_fill_a_row_up_do_not_count() -> None:
    item, mask = items(2, 20), jnp.ones((2, 20), bool).at[1, 12:].set(False)
    model = stacked()
    short = lyapunov(model, Batch(item[:, :12]), warmup=4)
    for one, other in zip(lyapunov(model, Batch(item, mask=mask), warmup=4), short, strict=True):
        np.testing.assert_allclose(one["per_example"][1], other["per_example"][1], atol=1e-5)
    with pytest.raises(Mistake, match="filled up within the last 9 steps"):
        singular_values(model, Batch(item, mask=mask), lags=(9,))


def test_a_reset_replaces_the_state_and_keeps_the_changes() -> None:
    model = stacked(MinGRU)
    item = items(1, 30)
    plain, cut = (
        lyapunov(model, Batch(item, reset=reset)) for reset in (None, jnp.zeros((1, 30), bool).at[0, 20].set(True))
    )
    np.testing.assert_allclose(plain[0]["exponents"], cut[0]["exponents"], atol=1e-5)
    assert (plain[0]["resets"], cut[0]["resets"]) == (0, 1)


def test_whole_numbers_of_a_state_go_along() -> None:
    model, events = by_itself(ClockworkRNN(3, 4, modules=2, rngs=nnx.Rngs(0)), noise(1, 20, 3))
    assert lyapunov(model, events)[0]["state"] == 4


def test_what_is_not_a_number_is_counted() -> None:
    model, events = by_itself(Elman(3, 2, rngs=nnx.Rngs(0)), np.full((1, 20, 3), np.nan))
    [record] = lyapunov(model, events)
    assert record["exponents"] == [None, None]
    assert record["not_finite"] == 15 * 2
    assert eigenvalues(model, events)[0]["not_finite"] == 16
    assert singular_values(model, events, lags=(1,))[0]["not_finite"] == 2


@pytest.mark.parametrize(
    ("exponents", "size", "wanted"),
    [
        ([-1.0, -2.0], 2, 0.0),
        ([1.0, -2.0], 2, 1.5),
        ([1.0, -0.5], 2, 2.0),
        ([1.0, -0.5], 3, None),
        ([1.0, -np.inf], 2, 1.0),
        ([np.nan], 1, None),
    ],
)
def test_dimension(exponents: list[float], size: int, wanted: float | None) -> None:
    assert kaplan_yorke(np.array(exponents), size) == wanted


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda model, events: lyapunov(model, events, warmup=20), "warmup=20 and every=1 leave nothing of 20 steps"),
        (lambda model, events: lyapunov(model, events, every=0), "every=0"),
        (lambda model, events: singular_values(model, events, lags=(0,)), "from 1 to the 20 steps"),
        (lambda model, events: singular_values(model, events, lags=(21,)), r"lags=\[21\]"),
    ],
)
def test_mistakes_are_named(call: Any, words: str) -> None:
    with pytest.raises(Mistake, match=words):
        call(*by_itself(Henon(), np.zeros((1, 20, 2))))


def test_calls_on_the_same_shapes_compile_once() -> None:
    from jaxrec.diagnostics.exponents import stretches

    for seed in range(3):
        model, events = by_itself(Elman(3, 7, rngs=nnx.Rngs(seed)), noise(1, 20, 3, seed=seed))
        lyapunov(model, events)
        if not seed:
            before = stretches._cache_size()
    assert stretches._cache_size() == before
