"""Cells that know about time gaps where gaps are none, endless, tied or negative, and the claims of their papers."""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrec.cells import LSTM, Cell, Event, PhasedLSTM, find
from jaxrec.config import Call, Mistake
from jaxrec.recurrence import unroll

B, T, D, H = 2, 5, 3, 4
DAY = 86400.0
Weights = dict[str, np.ndarray]


def sigmoid(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


def build(text: str) -> Cell:
    return find(Call.parse(text), D, hidden=H, rngs=nnx.Rngs(0))


def random_x(time: int = T) -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).normal(size=(B, time, D)), jnp.float32)


TIMED = ["decayed", "decayed(mingru)", "tlstm", "timelstm1", "timelstm2", "timelstm3", "phasedlstm", "cfc", "gruode"]
YEARS = 20 * 365.25 * DAY


def timed(text: str) -> Cell:
    """Away from zero biases, and with phases that are awake."""
    noise = np.random.default_rng(0)
    cell = build(text.replace("phasedlstm", "phasedlstm(ratio_on=0.5)"))
    return jax.tree.map(lambda leaf: leaf + jnp.asarray(noise.normal(size=leaf.shape) * 0.3, leaf.dtype), cell)


def run(cell: Cell, gaps: Any) -> Any:
    gaps = jnp.broadcast_to(jnp.asarray(gaps, jnp.float32), (B, T))
    return jax.jit(lambda cell, gaps: unroll(cell, Event(random_x(), gap=gaps)))(cell, gaps)


@pytest.mark.parametrize("text", TIMED)
def test_negative_gaps_are_none_and_gaps_are_read(text: str) -> None:
    cell = timed(text)
    none, negative, weeks = (run(cell, gaps) for gaps in (0.0, [-1.0, 0, -DAY, -YEARS, -1e30], 7 * DAY))
    jax.tree.map(np.testing.assert_array_equal, negative, none)
    assert np.abs(none[1] - weeks[1]).max() > 1e-3


@pytest.mark.parametrize("text", TIMED)
def test_twenty_years_and_more_are_finite_in_values_and_gradients(text: str) -> None:
    cell = build(text)
    x = random_x(40)
    gaps = jnp.asarray(np.tile([YEARS, 0, 1, YEARS, 0, 0, DAY, 1e12], (B, 5)), jnp.float32)

    def loss(cell: Cell, x: Any, gaps: Any) -> Any:
        last, outputs = unroll(cell, Event(x, gap=gaps))
        return (outputs**2).sum(), (last, outputs)

    (_, values), gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(cell, x, gaps)
    for leaf in jax.tree.leaves((values, gradients)):
        assert bool(jnp.isfinite(leaf).all())


def test_time_lstm_1_with_open_time_gates_is_the_lstm() -> None:
    """No gap, T = 1 and no peepholes."""
    cell = build("timelstm1")
    cell.time.b[...] = jnp.full(H, 1e3)
    twin = LSTM(D, H, rngs=nnx.Rngs(1))
    for gate in "igo":
        for kind in "wub":
            getattr(twin, kind + gate)[...] = getattr(cell, kind + gate)[...]
    twin.wf[...], twin.uf[...], twin.bf[...] = cell.forget.w[...], cell.forget.u[...], cell.forget.b[...]
    np.testing.assert_allclose(run(cell, 0.0)[1], unroll(twin, Event(random_x()))[1], atol=1e-6)


@pytest.mark.parametrize("text", ["timelstm2", "timelstm3"])
def test_the_first_time_gate_only_falls_with_the_gap_whatever_training_does(text: str) -> None:
    cell = build(text)
    for free in (-50.0, -3.0, 0.0, 3.0, 50.0):
        cell.now.s[...] = jnp.full(H, free)
        gates = np.array([cell.now(jnp.ones(D), jnp.asarray(gap)) for gap in (0.0, 0.01, 1.0, 30.0, 7000.0)])
        assert (np.diff(gates, axis=0) <= 0).all()
    fresh = np.log1p(np.exp(np.asarray(build(text + "(hidden=300)").now.s)))
    assert 0 < fresh.min() < 0.05 < 0.95 < fresh.max() <= 1 + 1e-5


def test_time_lstm_3_shows_what_a_shut_first_gate_leaves_and_keeps_what_the_second_lets_in() -> None:
    cell = build("timelstm3")
    cell.now.b[...], cell.later.b[...], cell.bi[...] = (jnp.full(H, value) for value in (-1e3, 1e3, 1e3))
    _, (first, *rest) = jax.tree.map(lambda leaf: leaf[0], run(cell, 0.0))
    np.testing.assert_allclose(first, 0, atol=1e-6)  # nothing was kept before the first event
    assert np.abs(np.array(rest)).max() > 0.05


def phased(**options: Any) -> PhasedLSTM:
    return PhasedLSTM(D, H, **options, rngs=nnx.Rngs(0))


def test_phases_after_twenty_years_of_events_are_those_of_the_absolute_time() -> None:
    """In float32 the absolute seconds would be 64 s coarse by then, and a sum of days a quarter of an hour."""
    cell = phased(unit=DAY)
    seconds = np.random.default_rng(0).integers(0, 200_000, size=6000)
    gaps = jnp.asarray(seconds, jnp.float32)[None]
    last, _ = jax.jit(lambda gaps: unroll(cell, Event(jnp.zeros((1, 6000, D)), gap=gaps)))(gaps)
    assert seconds.sum() > 18 * 365 * DAY
    period = np.exp(np.asarray(cell.log_period, np.float64))
    apart = (np.asarray(last.elapsed[0], np.float64) - seconds.sum() / DAY) / period
    assert np.abs(apart - np.round(apart)).max() < 2e-3  # float32 rounds each period by 6e-8, 7,000 of them by 4e-4


def test_a_closed_unit_leaks_only_and_an_open_one_is_an_lstm() -> None:
    cell = phased(leak=0.0, ratio_on=0.5)
    cell.log_period[...] = jnp.zeros(H)
    start = jax.tree.map(lambda leaf: jnp.full((B, H), 0.4), cell.initial_state())._replace(elapsed=jnp.zeros((B, H)))
    event = Event(random_x(1), gap=jnp.zeros((B, 1)))
    cell.shift[...] = jnp.full(H, 0.25)  # phase .75: asleep
    asleep, _ = unroll(cell, event, state=start)
    np.testing.assert_array_equal(asleep.h, start.h)
    np.testing.assert_array_equal(asleep.c, start.c)
    cell.shift[...] = jnp.full(H, 0.75)  # phase .25, half of the ratio: wide open
    awake, _ = unroll(cell, event, state=start)
    twin = LSTM(D, H, rngs=nnx.Rngs(1))
    for name in (kind + gate for gate in "ifgo" for kind in "wub"):
        getattr(twin, name)[...] = getattr(cell, name)[...]
    wanted, _ = unroll(twin, Event(random_x(1)), state=type(twin.initial_state())(start.h, start.c))
    np.testing.assert_allclose(awake.h, wanted.h, atol=1e-6)
    np.testing.assert_allclose(awake.c, wanted.c, atol=1e-6)


def test_periods_and_shifts_start_as_in_the_paper() -> None:
    cell = PhasedLSTM(D, 300, rngs=nnx.Rngs(0))
    logs = np.sort(np.asarray(cell.log_period))
    np.testing.assert_allclose(logs, np.linspace(0, 3, 300), atol=0.35)
    np.testing.assert_allclose(
        np.sort(cell.shift[...] / np.exp(cell.log_period[...])), np.linspace(0, 1, 300), atol=0.12
    )
    with pytest.raises(Mistake, match="give 0 < ratio_on < 1"):
        build("phasedlstm(ratio_on=1.5)")


def test_cfc_at_once_is_a_gate_and_after_an_endless_gap_one_of_its_heads() -> None:
    cell = timed("cfc(backbone=5)")
    event = Event(random_x(1), gap=jnp.full((B, 1), 1e9 * DAY))
    _, found = unroll(cell, event)
    u = 1.7159 * np.tanh(0.666 * (np.asarray(random_x(1)) @ cell.w[...] + cell.b[...]))
    g, k, a, b = (u @ getattr(cell, f"w{name}")[...] + getattr(cell, f"b{name}")[...] for name in "gkab")
    np.testing.assert_allclose(found, np.where(a > 0, np.tanh(k), np.tanh(g)), atol=1e-6)
    _, found = unroll(cell, event._replace(gap=jnp.zeros((B, 1))))
    np.testing.assert_allclose(found, sigmoid(-b) * np.tanh(g) + sigmoid(b) * np.tanh(k), atol=1e-6)


def test_gru_ode_without_gaps_is_the_gru() -> None:
    cell = timed("gruode")
    np.testing.assert_allclose(run(cell, 0.0)[1], unroll(cell.inner, Event(random_x()))[1], atol=1e-6)


def weights(cell: Any) -> Weights:
    return {name: np.asarray(getattr(cell, name), np.float64) for name in ("ur", "uz", "un", "br", "bz", "bn")}


def ode_slope(p: Weights, h: np.ndarray) -> np.ndarray:
    """De Brouwer et al. 2019, equation 3 without an input."""
    r, z = (sigmoid(p[f"u{k}"].T @ h + p[f"b{k}"]) for k in "rz")
    return (1 - z) * (np.tanh(p["un"].T @ (r * h) + p["bn"]) - h)


def exact(p: Weights, h: np.ndarray, time: float) -> np.ndarray:
    """The classical Runge-Kutta method in 2,000 steps, which leaves nothing to see."""
    step = time / 2000
    for _ in range(2000):
        first = ode_slope(p, h)
        second = ode_slope(p, h + step / 2 * first)
        third = ode_slope(p, h + step / 2 * second)
        h = h + step / 6 * (first + 2 * second + 2 * third + ode_slope(p, h + step * third))
    return h


@pytest.mark.parametrize("days", [1 / 24, 1, 365, 7305])
def test_eight_steps_of_the_solver_are_near_the_exact_solution(days: float) -> None:
    cell = build("gruode(hidden=32)")
    start = np.tanh(np.random.default_rng(0).normal(size=32))
    wanted = exact(weights(cell), start, np.log1p(days))
    assert np.abs(wanted - start).max() > 0.02
    given = jnp.asarray(start, jnp.float32), jnp.log1p(jnp.asarray(days, jnp.float32))
    np.testing.assert_allclose(cell.flow(*given), wanted, atol=2e-3)
    cell.solver, cell.steps = "dopri5", 32
    np.testing.assert_allclose(cell.flow(*given), wanted, atol=3e-6)


@pytest.mark.parametrize("solver", ["bosh3", "heun", "midpoint", "ralston", "tsit5", "dopri5", "dopri8"])
def test_steps_are_those_of_diffrax(solver: str) -> None:
    diffrax = pytest.importorskip("diffrax")
    cell = timed(f"gruode(solver={solver}, steps=3)")
    state, time = jnp.linspace(-0.9, 0.8, H), jnp.asarray(2.5)
    term = diffrax.ODETerm(lambda t, h, args: cell.slope(h))
    method = {kind.lower(): kind for kind in dir(diffrax)}[solver]
    wanted = diffrax.diffeqsolve(
        term, getattr(diffrax, method)(), 0.0, time, None, state,
        stepsize_controller=diffrax.StepTo(ts=jnp.linspace(0, time, 4)),
    ).ys[-1]  # fmt: skip
    np.testing.assert_allclose(cell.flow(state, time), wanted, atol=2e-6)


def test_after_an_endless_gap_the_state_rests() -> None:
    """At the exact solution's fixed point, n(h) = h; the clock stops there, for any unit."""
    cell = build("gruode(unit=1)")
    rest = cell.flow(jnp.linspace(-0.9, 0.8, H), cell.project(Event(jnp.zeros(D), gap=jnp.asarray(1e30)))[1])
    assert np.abs(cell.slope(rest)).max() < 0.02
    assert np.abs(rest).max() < 1


def test_gru_ode_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Mistake, match="none of bosh3, dopri5, dopri8, heun, midpoint, ralston, tsit5"):
        build("gruode(solver=kvaerno3)")
    with pytest.raises(Mistake, match="steps=0 is not a size"):
        build("gruode(steps=0)")
    monkeypatch.setitem(sys.modules, "diffrax", None)
    with pytest.raises(Mistake, match=r'pip install "jaxrec\[ode\]"'):
        build("gruode")
