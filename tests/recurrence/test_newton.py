"""Newton's method over time: its forms against the scan, what it reports and refuses, and how it fails."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, PartitionSpec as P

from jaxrec.cells import GRU, IRNN, LRU, LSTM, Cell, Event, MinGRU, ParaGRU, ParaLSTM
from jaxrec.config import Mistake
from jaxrec.recurrence import Newton, Scan, unroll
from jaxrec.recurrence.backends import choose, named
from jaxrec.recurrence.cases import Case, jitter
from jaxrec.recurrence.laws import LAWS, examine
from jaxrec.recurrence.trees import difference, double, score

B, T, D, H = 3, 9, 3, 4
LAW = {law.name: law for law in LAWS}
QUASI = Case(lambda rngs: GRU(D, H, rngs=rngs), D, backend=Newton(form="quasi"))


def given(kind: type[Any], time: int = T) -> tuple[Cell, Event, Any, jax.Array]:
    """A cell, events, a state to start from, and a row that restarts at its first event and one within."""
    noise = np.random.default_rng(0)
    cell = jitter(kind(D, H, rngs=nnx.Rngs(0)), noise)
    state = jitter(jax.tree.map(lambda leaf: jnp.stack([leaf] * B), cell.initial_state()), noise)
    x = jnp.asarray(noise.normal(size=(B, time, D)), jnp.float32)
    return cell, Event(x), state, jnp.zeros((B, time), bool).at[0, time // 2].set(True).at[1, 0].set(True)


@pytest.mark.parametrize("law", ["split", "resets", "states", "streaming", "causal", "separate", "specification"])
def test_the_diagonal_alone_obeys_the_laws_of_backends(law: str) -> None:
    result = examine(LAW[law], QUASI)
    assert result.passed, result.sentence


@pytest.mark.parametrize(
    ("kind", "solver"),
    [
        (GRU, Newton()),
        (GRU, Newton(form="quasi")),
        (ParaLSTM, Newton()),
        (ParaLSTM, Newton(form="quasi")),
        (ParaGRU, Newton(damping=0.5)),
        (ParaGRU, Newton(damping=1)),
    ],
    ids=str,
)
def test_in_float64_values_and_gradients_are_those_of_the_scan(kind: type[Any], solver: Newton) -> None:
    with jax.enable_x64(True):
        cell, events, state, reset = double(given(kind))

        def loss(cell: Cell, events: Event, state: Any, backend: Any) -> Any:
            found = unroll(cell, events, state=state, reset=reset, backend=backend)
            return score(found), found

        run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True), static_argnums=3)
        assert difference(run(cell, events, state, solver), run(cell, events, state, Scan(hoist=False))) < 1e-8


def test_second_derivatives_are_those_of_the_scan() -> None:
    """Forward over reverse: neither mode treats the solution as a constant."""
    with jax.enable_x64(True):
        cell, events, _, _ = double(given(ParaGRU, 4))

        def curvature(x: jax.Array, backend: Any) -> jax.Array:
            slope = jax.grad(lambda x: score(unroll(cell, Event(x), backend=backend)[1]))
            return jax.jvp(slope, (x,), (jnp.cos(x),))[1]

        run = jax.jit(curvature, static_argnums=1)
        wanted = run(events.x, Scan(hoist=False))
        assert difference(run(events.x, Newton()), wanted) < 1e-8
        assert difference(run(events.x, Newton(form="quasi")), wanted) < 1e-8
        assert np.abs(wanted).max() > 1e-3


def test_an_affine_cell_needs_one_iteration_and_the_report_says_so() -> None:
    cell, events, state, reset = given(MinGRU)
    last, outputs, report = jax.jit(lambda cell: Newton().solve(cell, events, state=state, reset=reset))(cell)
    assert report.iterations == 1
    assert report.converged.tolist() == [True] * B
    assert report.residual.max() <= 1e-6
    assert difference((last, outputs), unroll(cell, events, state=state, reset=reset, backend="scan")) < 1e-6


def growing() -> tuple[Cell, Event]:
    """A state that grows threefold with every event: products of its Jacobians are soon large."""
    cell, events, _, _ = given(functools.partial(IRNN, scale=3.0), 40)  # type: ignore[arg-type]
    return cell, events


@pytest.mark.parametrize("form", ["full", "quasi"])
def test_as_many_iterations_as_events_always_suffice(form: str) -> None:
    cell, events = growing()
    last, outputs, report = jax.jit(lambda cell: Newton(form=form).solve(cell, events))(cell)
    assert report.converged.all()
    assert report.iterations <= 40
    assert difference((last, outputs), unroll(cell, events, backend="scan")) < 1e-4


def stuck() -> Any:
    """Two rows: one that restarts before every event, which the first guess solves, and one for which it is too few."""
    cell, events, _, _ = given(GRU)
    reset = jnp.zeros((2, T), bool).at[0].set(True)
    return cell, Event(events.x[:2]), reset, Newton(iterations=1)


def test_an_unconverged_row_is_told_outside_jit() -> None:
    cell, events, reset, solver = stuck()
    with pytest.raises(Mistake, match=r"newton: 1 of 2 rows of GRU have not converged after 1 iterations \(residual"):
        unroll(cell, events, reset=reset, backend=solver)
    with pytest.raises(Mistake, match="allow more iterations, add damping, or take scan"):
        jax.grad(lambda cell: unroll(cell, events, reset=reset, backend=solver)[1].sum())(cell)


def test_an_unconverged_row_is_nan_under_jit_and_so_is_its_gradient() -> None:
    cell, events, reset, solver = stuck()

    def loss(x: jax.Array) -> Any:
        last, outputs = unroll(cell, Event(x), reset=reset, backend=solver)
        return outputs.sum(), (last, outputs)

    (_, found), slope = jax.jit(jax.value_and_grad(loss, has_aux=True))(events.x)
    for leaf in (*found, slope):
        assert np.isfinite(leaf[0]).all()
        assert np.isnan(leaf[1]).all()
    _, outputs, report = Newton(iterations=1).solve(cell, events, reset=reset)
    assert report.converged.tolist() == [True, False]
    assert report.residual[1] > 1e-6
    assert np.isfinite(outputs).all()


class Counts(Cell):
    def initial_state(self) -> Any:
        return jnp.zeros(D), jnp.zeros((), jnp.int32)

    def step(self, state: Any, projected: Any) -> Any:
        return state[0] + projected, state[1] + 1


class Remembers(Counts):
    def initial_state(self) -> Any:
        return ()


def test_it_says_what_it_cannot_run() -> None:
    for cell, words in (
        (LRU(D, H, rngs=nnx.Rngs(0)), "newton cannot run LRU: its state is complex"),
        (Counts(), "newton cannot run Counts: its state has a leaf of int32"),
        (Remembers(), "newton cannot run Remembers: its state has leaves of no type"),
    ):
        events = Event(jnp.zeros((B, T, D)))
        with pytest.raises(Mistake, match=words):
            unroll(cell, events, backend="newton")
        with pytest.raises(Mistake, match=words):
            Newton().solve(cell, events)


@pytest.mark.parametrize(
    "call",
    ["tol=0", "tol=true", "iterations=0", "iterations=2.5", 'form="diagonal"', "damping=2", "damping=true"],
)
def test_a_bad_option_is_told(call: str) -> None:
    name = call.split("=")[0]
    with pytest.raises(Mistake, match=rf"newton: {name}="):
        named(f"newton({call})")


def test_it_is_taken_only_when_asked_for() -> None:
    for kind in (GRU, ParaGRU):
        assert not isinstance(choose(kind(D, H, rngs=nnx.Rngs(0))), Newton)
    assert named("newton(tol=1e-5)") == Newton(tol=1e-5)


def test_no_events_return_the_given_state() -> None:
    cell, _, state, _ = given(ParaLSTM)
    last, outputs = unroll(cell, Event(jnp.zeros((B, 0, D))), state=state, backend="newton")
    assert difference(last, state) == 0
    assert outputs.shape == (B, 0, H)


@pytest.mark.parametrize("form", ["full", "quasi"])
def test_shards_of_a_batch_give_what_one_device_gives(form: str) -> None:
    cell, events, _, _ = given(ParaLSTM, 5)
    x = jnp.concatenate([events.x, events.x[:1]])
    mesh = jax.make_mesh((4,), ("devices",), axis_types=(AxisType.Auto,))

    def loss(cell: Cell, x: jax.Array) -> jax.Array:
        return (unroll(cell, Event(x), backend=Newton(form=form))[1] ** 2).mean()

    spread = jax.shard_map(
        jax.value_and_grad(lambda cell, x: jax.lax.pmean(loss(cell, x), "devices")),
        mesh=mesh, in_specs=(P(), P("devices")), out_specs=P(),
    )  # fmt: skip
    assert difference(jax.jit(spread)(cell, x), jax.jit(jax.value_and_grad(loss))(cell, x)) < 1e-6


class Begun(LSTM):
    """An LSTM with a learned beginning, so that one half of its state has the width of its weights."""

    def initial_state(self) -> Any:
        return super().initial_state()._replace(h=self.bi[...])


def test_weights_in_half_precision_are_widened_before_a_backend_looks_at_the_state() -> None:
    cell = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), Begun(D, H, rngs=nnx.Rngs(0)))
    x = Event(jnp.ones((B, T, D), jnp.bfloat16))
    found = unroll(cell, x, backend=Newton())
    assert difference(found, unroll(cell, x, backend=Scan())) < 1e-5
    *solved, report = Newton().solve(cell, x)
    assert report.converged.all()
    assert {leaf.dtype for leaf in jax.tree.leaves(solved)} == {jnp.dtype(jnp.float32)}
    assert difference(tuple(solved), found) == 0
