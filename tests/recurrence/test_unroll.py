"""Running cells over time: shapes and mistakes, wrappers, devices, randomness."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, PartitionSpec as P

from jaxrec.cells import GRU, LSTM, Cell, Elman, Event
from jaxrec.config import Mistake
from jaxrec.recurrence import BACKENDS, Exposed, Scan, Tapped, advance, start, tap, unroll, zero_taps

B, T, D, H = 2, 5, 3, 4


def events(batch: int = B, time: int = T) -> Event:
    return Event(jnp.asarray(np.random.default_rng(0).normal(size=(batch, time, D)), jnp.float32))


def gru() -> GRU:
    return GRU(D, H, rngs=nnx.Rngs(0))


class Counter(Cell):
    """Adds up what `project` gives; small enough to break in one place at a time."""

    wants: tuple[str, ...] = ("x",)

    def initial_state(self) -> Any:
        return jnp.zeros(D)

    def step(self, state: Any, projected: Any) -> Any:
        return state + projected


class Narrows(Counter):
    def step(self, state: Any, projected: Any) -> Any:
        return (state + projected).astype(jnp.bfloat16)


class Grows(Counter):
    def step(self, state: Any, projected: Any) -> Any:
        return state, projected


class Reshapes(Counter):
    def step(self, state: Any, projected: Any) -> Any:
        return (state + projected)[:2]


class StartsWithParameter(Counter):
    def __init__(self) -> None:
        self.h0 = nnx.Param(jnp.zeros(D))

    def initial_state(self) -> Any:
        return self.h0


class TimeLSTM(Counter):
    wants = ("x", "gap")


class Wishful(Counter):
    wants = ("x", "weather")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Narrows, ["CELL.step", "CELL.initial_state()", "float32[3]", "bfloat16[3]"]),
        (Grows, ["CELL.step", "(float32[3], float32[3])"]),
        (Reshapes, ["CELL.step", "float32[2]"]),
        (StartsWithParameter, ["CELL.initial_state", "Param", "self.h0[...]"]),
        (TimeLSTM, ["CELL wants 'gap'; the events have ['x']"]),
        (Wishful, ["CELL wants 'weather'", "no event can have"]),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_broken_cell_is_told_in_one_sentence(kind: type[Cell], words: list[str], wrapped: bool) -> None:
    with pytest.raises(Mistake) as caught:
        unroll(Exposed(kind()) if wrapped else kind(), events())
    message = str(caught.value)
    name = f"Exposed({kind.__name__})" if wrapped else kind.__name__
    assert all(word.replace("CELL", name) in message for word in words), message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backend": "scann"}, "did you mean 'scan'"),
        ({"backend": "scan(unrol=2)"}, "did you mean 'unroll'"),
        ({"backend": "scan(unroll=0)"}, "unroll=0"),
        ({"backend": "scan(hoist=3)"}, "hoist=3"),
        ({"backend": "scan(2)"}, "name the options"),
        ({"reset": jnp.zeros((B, T))}, "reset is float32[2,5]"),
        ({"reset": jnp.zeros((B, T + 1), bool)}, "bool[2,6]"),
        ({"state": jnp.zeros((B + 1, H))}, "expected float32[2,4], found float32[3,4]"),
        ({"state": (jnp.zeros((B, H)),)}, "not like its initial state"),
    ],
)
def test_a_mistaken_argument_is_told_in_one_sentence(options: dict[str, Any], words: str) -> None:
    with pytest.raises(Mistake) as caught:
        unroll(gru(), events(), **options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_events_must_be_events_of_one_shape() -> None:
    with pytest.raises(Mistake, match=r"wrap vectors of shape \(batch, time, \.\.\.\) as Event"):
        unroll(gru(), events().x)  # type: ignore[arg-type]
    with pytest.raises(Mistake, match=r"events\.gap has shape \(2, 4\)"):
        unroll(gru(), events()._replace(gap=jnp.zeros((B, T - 1))))


def test_a_backend_that_refuses_is_obeyed_and_never_replaced() -> None:
    class Picky(Scan):
        def refuses(self, cell: Cell) -> str | None:
            return "it is not elementwise"

    with pytest.raises(Mistake, match="Picky cannot run GRU: it is not elementwise"):
        unroll(gru(), events(), backend=Picky())


@pytest.mark.parametrize("backend", [None, "scan", "SCAN(hoist=false)", "scan(hoist=true, unroll=2)", Scan(unroll=3)])
def test_every_way_to_name_a_backend_gives_the_same(backend: Any) -> None:
    cell = gru()
    np.testing.assert_allclose(
        unroll(cell, events(), backend=backend)[1], unroll(cell, events(), backend=Scan(hoist=False))[1], atol=1e-6
    )


def test_the_table_names_classes_that_build_without_options() -> None:
    takers = [name for name, kind in BACKENDS.items() if kind().refuses(gru()) is None]
    assert "scan" in takers
    assert not {"window", "cudnn"} & set(takers)


def test_a_state_outside_the_rows_and_a_reset_at_the_first_event() -> None:
    cell = Counter()
    given = jnp.ones((B, D))
    reset = jnp.zeros((B, T), bool).at[0, 0].set(True)
    last, outputs = unroll(cell, events(), state=given, reset=reset)
    total = events().x.cumsum(axis=1)
    np.testing.assert_allclose(outputs[0], total[0], atol=1e-6)
    np.testing.assert_allclose(outputs[1], total[1] + 1, atol=1e-6)
    np.testing.assert_allclose(last, outputs[:, -1])


def test_no_events_return_the_given_state() -> None:
    given = jnp.ones((B, H))
    last, outputs = unroll(gru(), events(time=0), state=given)
    np.testing.assert_array_equal(last, given)
    assert outputs.shape == (B, 0, H)


def test_a_weakly_typed_initial_state_runs() -> None:
    class Weak(Counter):
        def initial_state(self) -> Any:
            return jnp.full((D,), 1.0), 0  # weakly typed array, plain number

        def step(self, state: Any, projected: Any) -> Any:
            return state[0] + projected, state[1] + 1

    last, _ = jax.jit(unroll)(Weak(), events())
    assert last[1].tolist() == [T, T]


def test_advance_restarts_where_told_and_checks_its_state() -> None:
    cell, state = gru(), jnp.ones((B, H))
    one = Event(events().x[:, 0])
    after, output = advance(cell, state, one, reset=jnp.array([True, False]))
    np.testing.assert_allclose(after[0], advance(cell, start(cell, B), one)[0][0], atol=1e-7)
    np.testing.assert_allclose(after[1], advance(cell, state, one)[0][1], atol=1e-7)
    np.testing.assert_array_equal(after, output)
    with pytest.raises(Mistake, match="not like its initial state"):
        advance(cell, jnp.ones((B, H + 1)), one)
    with pytest.raises(Mistake, match=r"reset is bool\[3\]"):
        advance(cell, state, one, reset=jnp.zeros(3, bool))


def test_prepare_runs_once_for_a_whole_sequence() -> None:
    calls = []

    class Derived(Counter):
        def prepare(self) -> Cell:
            calls.append(1)
            return self

    for cell in (Derived(), Exposed(Derived()), Tapped(Derived())):
        calls.clear()
        given = tap(events(), {"state": jnp.zeros((B, T, D))}) if isinstance(cell, Tapped) else events()
        unroll(cell, given)
        assert len(calls) == 1


def test_exposed_shows_every_state_beside_the_output() -> None:
    cell = LSTM(D, H, rngs=nnx.Rngs(0))
    last, trajectory = unroll(Exposed(cell), events())
    np.testing.assert_array_equal(trajectory.output, unroll(cell, events())[1])
    np.testing.assert_array_equal(trajectory.state.h, trajectory.output)
    np.testing.assert_array_equal(trajectory.state.c[:, -1], last.c)


def loss_of(outputs: jax.Array) -> jax.Array:
    return (outputs[:, -1] ** 2).sum()


def test_zero_taps_change_nothing_and_their_gradient_is_that_of_the_state() -> None:
    cell, x = gru(), events()
    np.testing.assert_array_equal(unroll(cell, x)[1], unroll(Tapped(cell), tap(x, {"state": zero_taps(cell, B, T)}))[1])

    def tapped(values: Any) -> jax.Array:
        return loss_of(unroll(Tapped(cell), tap(x, {"state": values}))[1])

    flow = jax.grad(tapped)(zero_taps(cell, B, T))
    _, trajectory = unroll(Exposed(cell), x)
    for t in range(T - 1):  # the loss as a function of the state after event t, run on from there
        rest = Event(x.x[:, t + 1 :])
        wanted = jax.grad(lambda h, rest=rest: loss_of(unroll(cell, rest, state=h)[1]))(trajectory.state[:, t])
        np.testing.assert_allclose(flow[:, t], wanted, rtol=1e-4, atol=1e-6)


def test_gradients_do_not_cross_a_reset() -> None:
    cell, reset = gru(), jnp.zeros((B, T), bool).at[0, 3].set(True)

    def tapped(values: Any) -> jax.Array:
        return loss_of(unroll(Tapped(cell), tap(events(), {"state": values}), reset=reset)[1])

    flow = jnp.abs(jax.grad(tapped)(zero_taps(cell, B, T))).max(axis=-1)
    assert (flow[0, :3] == 0).all()
    assert (flow[0, 3:] > 0).all()
    assert (flow[1] > 0).all()


def test_taps_have_names_keep_the_context_and_leave_whole_numbers_alone() -> None:
    class Contextual(Counter):
        wants = ("x", "context")

        def initial_state(self) -> Any:
            return jnp.zeros(D), jnp.zeros((), jnp.int32)

        def project(self, event: Event) -> Any:
            return event.x + event.context

        def step(self, state: Any, projected: Any) -> Any:
            return state[0] + projected, state[1] + 1

        def read(self, state: Any, projected: Any) -> Any:
            return state[0]

    x = events()._replace(context=jnp.ones((B, T, D)))
    zeros = zero_taps(Contextual(), B, T)
    assert zeros[1] is None
    added = (zeros[0].at[:, 1].set(10.0), None)
    _, outputs = unroll(Tapped(Contextual(), "second"), tap(x, {"first": None, "second": added}))
    wanted = (x.x + 1).cumsum(axis=1) + jnp.where(jnp.arange(T) >= 1, 10.0, 0.0)[None, :, None]
    np.testing.assert_allclose(outputs, wanted, rtol=1e-6)


class Noisy(Counter):
    """Takes its randomness, if any, from the event."""

    def project(self, event: Event) -> Any:
        return event.x if event.key is None else event.x + jax.random.normal(event.key, (D,))


def test_a_key_for_each_event_is_all_the_randomness_there_is() -> None:
    cell, quiet = Noisy(), events()
    keys = jax.random.split(jax.random.key(0), (B, T))
    loud = quiet._replace(key=keys)
    run = jax.jit(unroll)
    np.testing.assert_array_equal(run(cell, quiet)[1], run(Counter(), quiet)[1])
    np.testing.assert_array_equal(run(cell, loud)[1], run(cell, loud)[1])
    added = np.diff(np.asarray(run(cell, loud)[1] - run(cell, quiet)[1]), axis=1).reshape(-1, D)
    assert len(np.unique(added.round(4), axis=0)) == B * (T - 1)  # no two events share their noise
    hoisted = unroll(cell, loud, backend=Scan(hoist=True))[1]
    np.testing.assert_allclose(hoisted, run(cell, loud)[1], atol=1e-6)


@pytest.mark.parametrize("kind", [Elman, GRU, LSTM])
def test_shards_of_a_batch_give_what_one_device_gives(kind: type[Any]) -> None:
    cell, x = kind(D, H, rngs=nnx.Rngs(0)), events(batch=4)
    reset = jnp.zeros((4, T), bool).at[1, 2].set(True)
    mesh = jax.make_mesh((4,), ("devices",), axis_types=(AxisType.Auto,))

    def loss(cell: Cell, x: Event, reset: jax.Array) -> jax.Array:
        return (unroll(cell, x, reset=reset)[1] ** 2).mean()

    def sharded(cell: Cell, x: Event, reset: jax.Array) -> jax.Array:
        return jax.lax.pmean(loss(cell, x, reset), "devices")

    specs = (P(), P("devices"), P("devices"))
    spread = jax.shard_map(jax.value_and_grad(sharded), mesh=mesh, in_specs=specs, out_specs=P())
    found, wanted = jax.jit(spread)(cell, x, reset), jax.value_and_grad(loss)(cell, x, reset)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, wanted)


def test_stacked_cells_under_vmap_and_a_batch_of_batches() -> None:
    cells = jax.vmap(lambda key: GRU(D, H, rngs=nnx.Rngs(key)))(jax.random.split(jax.random.key(0), 3))
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), events())
    inner = jax.vmap(lambda cell, x: unroll(cell, x)[1], in_axes=(None, 0))
    found = jax.jit(jax.vmap(inner, in_axes=(0, None)))(cells, many)
    assert found.shape == (3, 2, B, T, H)
    one = jax.tree.map(lambda leaf: leaf[2], cells)
    np.testing.assert_allclose(found[2, 1], unroll(one, Event(2 * events().x))[1], atol=1e-6)


def test_forward_mode_agrees_with_reverse_mode() -> None:
    cell, x = gru(), events().x
    f = lambda x: loss_of(unroll(cell, Event(x), backend="scan")[1])  # noqa: E731
    direction = jnp.asarray(np.random.default_rng(3).normal(size=x.shape), jnp.float32)
    _, slope = jax.jvp(f, (x,), (direction,))
    np.testing.assert_allclose(slope, (jax.grad(f)(x) * direction).sum(), rtol=1e-4)
