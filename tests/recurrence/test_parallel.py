"""Backends without a loop over time: edges that the laws do not reach, long runs, memory, and which one is taken."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, PartitionSpec as P

from jaxrec.cells import (
    GRU,
    LRU,
    QRNN,
    CausalConv,
    Cell,
    Composite,
    Decayed,
    Event,
    LatentCross,
    Mamba,
    MinGRU,
    WindowCell,
)
from jaxrec.config import Mistake
from jaxrec.recurrence import Associative, Exposed, Scan, Window, Wired, unroll
from jaxrec.recurrence.associative import solve
from jaxrec.recurrence.backends import choose
from jaxrec.recurrence.choice import LONG

B, T, D, H = 2, 7, 3, 4
RESET = np.zeros((B, T), bool)
RESET[0, [0, 3, 4]] = RESET[1, 6] = True


def events(time: int = T, batch: int = B) -> Event:
    return Event(jnp.asarray(np.random.default_rng(0).normal(size=(batch, time, D)), jnp.float32))


class Recent(WindowCell):
    """The last three inputs weighted, from a learned beginning; each input is a vector and its sum."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.begin = nnx.Param(jax.random.normal(rngs.params(), (3, D)))

    def initial_state(self) -> Any:
        return self.begin[...], jnp.arange(3.0)

    def project(self, event: Event) -> Any:
        return event.x, event.x.sum()

    def read(self, state: Any, projected: Any) -> Any:
        return (jnp.arange(1.0, 4)[:, None] * state[0]).sum(axis=0) * jnp.tanh(state[1]).sum() + projected[1]


class Nested(Composite):
    """A QRNN between two GRUs: one cell inside is made of cells itself."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.first, self.middle, self.last = GRU(D, H, rngs=rngs), QRNN(H, H, rngs=rngs), GRU(H, H, rngs=rngs)

    def inner(self) -> dict[str, Cell]:
        return {"first": self.first, "middle": self.middle, "last": self.last}

    def wire(self, run: Callable[[str, Event], Any], events: Event) -> Any:
        low = run("first", events)
        return low + run("last", Event(run("middle", Event(low))))


KINDS = {
    "affine": (lambda rngs: MinGRU(D, H, rngs=rngs), Associative()),
    "complex": (lambda rngs: LRU(D, H, rngs=rngs), Associative()),
    "chunked": (lambda rngs: MinGRU(D, H, rngs=rngs), Associative(chunk=3)),
    "window": (lambda rngs: Recent(rngs=rngs), Window()),
    "composite": (lambda rngs: Nested(rngs=rngs), Wired()),
    "preferring": (lambda rngs: Nested(rngs=rngs), Wired(prefer="associative(chunk=2)")),
}
kinds = pytest.mark.parametrize("name", KINDS)


def close(found: Any, wanted: Any, atol: float = 2e-6) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol, rtol=1e-4), found, wanted)


@kinds
def test_values_slopes_and_gradients_are_those_of_the_scan(name: str) -> None:
    """From a given state, with resets at the first event, the last and in a row; forward mode as well."""
    make, backend = KINDS[name]
    cell, x, reset = make(nnx.Rngs(0)), events(), jnp.asarray(RESET)
    state = unroll(cell, events(2), backend=Scan())[0]

    def run(cell: Cell, x: Event, state: Any, backend: Any) -> Any:
        last, trajectory = unroll(Exposed(cell), x, state=state, reset=reset, backend=backend)
        return last, trajectory.output, trajectory.state

    def both(backend: Any) -> Any:
        def loss(cell: Cell, x: Event, state: Any) -> Any:
            leaves = jax.tree.leaves(run(cell, x, state, backend))
            return sum(jnp.abs(jnp.tanh(leaf + 0.3) ** 2).sum() for leaf in leaves)

        values = run(cell, x, state, backend)
        slope = jax.jvp(lambda x: loss(cell, x, state), (x,), (events(),))[1]
        return values, slope, jax.grad(loss, argnums=(0, 1, 2))(cell, x, state)

    close(*(jax.jit(both, static_argnums=0)(each) for each in (backend, Scan())), atol=1e-5)


@kinds
@pytest.mark.parametrize("time", [0, 1])
def test_few_events_or_none(name: str, time: int) -> None:
    make, backend = KINDS[name]
    cell = make(nnx.Rngs(0))
    close(unroll(cell, events(time), backend=backend), unroll(cell, events(time), backend=Scan()))


@pytest.mark.parametrize("slowest", [1.0, 0.9999, 0.5])
@pytest.mark.parametrize("kind", [np.float32, np.complex64])
def test_ten_thousand_steps_keep_their_digits(slowest: float, kind: Any) -> None:
    """Products of decays underflow on the way, to where the true ones are nothing too; gradients included."""
    noise, time = np.random.default_rng(0), 10_000
    a = slowest * noise.uniform(0.2, 1, size=(1, time, 3)) ** np.array([0, 1e-4, 1.0])
    b, g = noise.normal(size=(2, 1, time, 3))
    if kind is np.complex64:
        a = a * np.exp(1j * noise.uniform(0, 3, size=a.shape))
        b = b + 1j * noise.normal(size=b.shape)
    a, b, g = a.astype(kind), b.astype(kind), g.astype(np.float32)
    found = jax.jit(solve)(a, b)
    by_a, by_b = jax.jit(jax.grad(lambda a, b: (solve(a, b).real * g).sum(), argnums=(0, 1)))(a, b)
    h, back = np.zeros((2, 1, time, 3), np.result_type(kind, np.float64))
    for t in range(time):
        h[:, t] = b[:, t] + (a[:, t] * h[:, t - 1] if t else 0)
    for t in reversed(range(time)):
        back[:, t] = g[:, t] + (a[:, t + 1] * back[:, t + 1] if t + 1 < time else 0)
    before = np.concatenate([np.zeros_like(h[:, :1]), h[:, :-1]], axis=1)
    for have, want in ((found, h), (by_b, back), (by_a, back * before)):
        scale = np.abs(want).max(axis=(0, 1))
        assert (np.abs(have - want).max(axis=(0, 1)) <= 2e-5 * scale).all()


def scratch(backend: Any, time: int) -> int:
    """Bytes that a training pass of a cell with a wide state needs besides its inputs and results."""
    cell = Mamba(D, 8, rngs=nnx.Rngs(0))

    def loss(cell: Cell, x: Event) -> Any:
        return (unroll(cell, x, backend=backend)[1] ** 2).sum()

    return int(jax.jit(jax.grad(loss)).lower(cell, events(time)).compile().memory_analysis().temp_size_in_bytes)


def test_memory_grows_with_time_and_chunks_hold_it_down() -> None:
    whole, chunked = (Wired(prefer=f"associative{options}") for options in ("", "(chunk=32)"))
    assert scratch(whole, 2048) < 2.2 * scratch(whole, 1024)  # time times time would be 4
    assert scratch(chunked, 2048) < 0.4 * scratch(whole, 2048)


def test_there_is_no_loop() -> None:
    def program(cell: Cell, backend: Any) -> str:
        return str(jax.make_jaxpr(lambda cell: unroll(cell, events(), reset=jnp.asarray(RESET), backend=backend))(cell))

    conv, gated = CausalConv(D, H, rngs=nnx.Rngs(0)), QRNN(D, H, rngs=nnx.Rngs(0))
    for cell, backend in ((conv, Window()), (gated, Wired(prefer="associative"))):
        assert "scan[" in program(cell, Scan())
        assert not any(loop in program(cell, backend) for loop in ("scan[", "while["))


@pytest.mark.parametrize("name", ["complex", "chunked", "window", "preferring"])
def test_shards_of_a_batch_give_what_one_device_gives(name: str) -> None:
    make, backend = KINDS[name]
    cell, x = make(nnx.Rngs(0)), events(batch=4)
    reset = jnp.zeros((4, T), bool).at[1, 2].set(True)

    def loss(cell: Cell, x: Event, reset: jax.Array) -> jax.Array:
        return (unroll(cell, x, reset=reset, backend=backend)[1] ** 2).mean()

    def sharded(cell: Cell, x: Event, reset: jax.Array) -> jax.Array:
        return jax.lax.pmean(loss(cell, x, reset), "devices")

    mesh = jax.make_mesh((4,), ("devices",), axis_types=(AxisType.Auto,))
    specs = (P(), P("devices"), P("devices"))
    spread = jax.shard_map(jax.value_and_grad(sharded), mesh=mesh, in_specs=specs, out_specs=P())
    close(jax.jit(spread)(cell, x, reset), jax.jit(jax.value_and_grad(loss))(cell, x, reset))


def test_the_backend_that_pays_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    rngs = nnx.Rngs(0)
    for kind in (MinGRU, QRNN):
        assert isinstance(choose(kind(D, H, rngs=rngs), length=10 * LONG), Scan)  # on this CPU
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    affine, window, composite = MinGRU(D, H, rngs=rngs), CausalConv(D, H, rngs=rngs), QRNN(D, H, rngs=rngs)
    assert isinstance(choose(affine, length=LONG), Associative)
    assert isinstance(choose(affine, length=LONG - 1), Scan)
    assert isinstance(choose(window, length=1), Window)
    assert isinstance(choose(composite, length=1), Wired)
    assert isinstance(choose(GRU(D, H, rngs=rngs), length=LONG), Scan)

    def loops(time: int) -> bool:
        return "scan[" in str(jax.make_jaxpr(lambda x: unroll(composite, x))(events(time)))

    assert loops(LONG - 1)
    assert not loops(LONG)


@pytest.mark.parametrize(
    ("cell", "backend", "words"),
    [
        (GRU, "associative", "associative cannot run GRU: it is not an AffineCell"),
        (GRU, "window", "window cannot run GRU: it is not a WindowCell"),
        (MinGRU, "composite", "composite cannot run MinGRU: it is not a Composite"),
        (QRNN, "composite(prefer=window(size=3))", "window has no option 'size'"),
        (QRNN, "composite(prefer=composite)", "composite runs none of its cells gates, pool"),
        (MinGRU, "associative(chunk=0)", "chunk=0 is not a number of events"),
        (MinGRU, "associative(chunk=true)", "chunk=True is not a number of events"),
    ],
)
def test_what_cannot_run_is_refused_in_one_sentence(cell: Any, backend: str, words: str) -> None:
    with pytest.raises(Mistake) as caught:
        unroll(cell(D, H, rngs=nnx.Rngs(0)), events(), backend=backend)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


class BoundMinGRU(MinGRU):
    def step(self, state: Any, projected: Any) -> Any:
        return jnp.tanh(super().step(state, projected))


class FadingConv(CausalConv):
    def step(self, state: Any, projected: Any) -> Any:
        return super().step(0.9 * state, projected)


class DoublingQRNN(QRNN):
    def read(self, state: Any, projected: Any) -> Any:
        return 2 * super().read(state, projected)


OWN = {
    "affine": (BoundMinGRU, Associative(), "its step is its own"),
    "window": (FadingConv, Window(), "its step is its own"),
    "composite": (DoublingQRNN, Wired(), "its read is its own"),
}


@pytest.mark.parametrize("name", OWN)
def test_a_cell_that_changes_what_its_kind_derives_is_refused_and_runs_as_it_is_written(name: str) -> None:
    make, backend, said = OWN[name]
    cell = make(D, H, rngs=nnx.Rngs(0))
    with pytest.raises(Mistake, match=said):
        unroll(cell, events(), backend=backend)
    close(unroll(cell, events()), unroll(cell, events(), backend=Scan()))
    if name != "window":  # a crossed window is a composite, which runs it as one
        with pytest.raises(Mistake, match=said):
            unroll(LatentCross(D, Exposed(cell), fusion="before", rngs=nnx.Rngs(0)), crossed(), backend=backend)


@pytest.mark.parametrize("wrap", [Exposed, lambda cell: LatentCross(D, cell, rngs=nnx.Rngs(0)), lambda cell: cell])
@pytest.mark.parametrize("make", [MinGRU, QRNN])
def test_wrappers_change_nothing_of_that(wrap: Any, make: Any) -> None:
    backend = Associative() if make is MinGRU else Wired()
    assert backend.refuses(wrap(make(D, H, rngs=nnx.Rngs(0)))) is None
    assert Associative().refuses(Decayed(D, wrap(MinGRU(D, H, rngs=nnx.Rngs(0))), rngs=nnx.Rngs(0))) is None


def crossed() -> Event:
    return events()._replace(context=jnp.ones((B, T, D)))


@pytest.mark.parametrize(("time", "batch"), [(0, B), (T, 0)])
@pytest.mark.parametrize(
    ("make", "backend"),
    [
        (GRU, "adjoint"),
        (GRU, "adjoint(piece=3)"),
        (MinGRU, "associative(chunk=2)"),
        (MinGRU, "newton"),
        (CausalConv, "window"),
        (QRNN, "composite(prefer=adjoint)"),
    ],
)
def test_no_events_and_no_rows_are_what_the_scan_makes_of_them(make: Any, backend: str, time: int, batch: int) -> None:
    cell, x = make(D, H, rngs=nnx.Rngs(0)), events(time, batch)
    reset = jnp.zeros((batch, time), bool)
    found, wanted = (unroll(cell, x, reset=reset, backend=way) for way in (backend, Scan()))
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, wanted)
    close(found, wanted)
