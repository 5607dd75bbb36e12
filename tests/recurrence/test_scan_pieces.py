"""The scan in pieces: states computed again for the backward pass, and gradients cut off at boundaries."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrec.cells import GRU, LSTM, Event
from jaxrec.config import Mistake
from jaxrec.recurrence import Scan, unroll
from jaxrec.recurrence.cases import jitter
from jaxrec.recurrence.trees import difference, score

B, T, D, H = 3, 7, 3, 4
PLAIN = Scan(hoist=False)


@functools.cache
def given(kind: type[Any]) -> tuple[Any, Event, Any, jax.Array]:
    """A cell, events, a state to start from, and resets: before, at and after a boundary of three steps."""
    noise = np.random.default_rng(0)
    cell = kind(D, H, rngs=nnx.Rngs(0))
    events = Event(jnp.asarray(noise.normal(size=(B, T, D)), jnp.float32))
    state = jitter(jax.tree.map(lambda leaf: jnp.stack([leaf] * B), cell.initial_state()), noise)
    return cell, events, state, jnp.zeros((B, T), bool).at[0, 2].set(True).at[1, 3].set(True).at[1, 4].set(True)


@functools.cache
def specified() -> Any:
    return differentiated(PLAIN, *given(LSTM))


def differentiated(backend: Scan, cell: Any, events: Event, state: Any, reset: Any) -> Any:
    def loss(cell: Any, events: Event, state: Any) -> Any:
        found = unroll(cell, events, state=state, reset=reset, backend=backend)
        return score(found), found

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(cell, events, state)


@pytest.mark.parametrize("remat", [1, 3, 7, 10])
def test_states_computed_again_change_nothing(remat: int) -> None:
    assert difference(differentiated(Scan(remat=remat), *given(LSTM)), specified()) < 1e-6


def test_states_computed_again_save_memory() -> None:
    cell, time = GRU(D, H, rngs=nnx.Rngs(0)), 400
    events = Event(jnp.zeros((B, time, D)))

    def bytes_of(backend: Scan) -> int:
        loss = lambda cell: unroll(cell, events, backend=backend)[0].sum()  # noqa: E731
        used: Any = jax.jit(jax.grad(loss)).lower(cell).compile().memory_analysis()
        return int(used.temp_size_in_bytes)

    assert bytes_of(Scan(hoist=False, remat=20)) < bytes_of(PLAIN) / 2


def by_hand(size: int, cell: Any, events: Event, state: Any, reset: Any) -> Any:
    """Pieces one after the other, each from the last one's state without its past."""
    outputs = []
    for begin in range(0, T, size):
        piece = Event(events.x[:, begin : begin + size])
        here = None if reset is None else reset[:, begin : begin + size]
        if begin:
            state = jax.lax.stop_gradient(state)
        state, output = unroll(cell, piece, state=state, reset=here, backend=PLAIN)
        outputs.append(output)
    return state, jnp.concatenate(outputs, axis=1)


@pytest.mark.parametrize(("size", "remat"), [(1, None), (3, None), (3, 2), (9, None)])
def test_gradients_stop_at_boundaries_and_values_do_not(size: int, remat: int | None) -> None:
    cell, events, state, reset = given(LSTM)

    def loss(cell: Any, events: Event, state: Any) -> Any:
        found = by_hand(size, cell, events, state, reset)
        return score(found), found

    wanted = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(cell, events, state)
    found = differentiated(Scan(truncate=size, remat=remat), cell, events, state, reset)
    assert difference(found, wanted) < 1e-6
    assert difference(found[0], specified()[0]) < 1e-6


def test_no_gradient_crosses_a_boundary() -> None:
    cell, events, state, _ = given(GRU)

    def last(x: jax.Array, state: Any) -> jax.Array:
        return unroll(cell, Event(x), state=state, backend="scan(truncate=3)")[0].sum()

    by_x, by_state = jax.grad(last, argnums=(0, 1))(events.x, state)
    reached = np.abs(by_x).max(axis=(0, 2)) > 0
    np.testing.assert_array_equal(reached, np.arange(T) >= 6)
    assert not by_state.any()


@pytest.mark.parametrize(
    "call",
    ["scan(remat=0)", "scan(remat=true)", "scan(remat=2.5)", "scan(truncate=-1)", 'scan(truncate="often")'],
)
def test_a_bad_number_of_steps_is_told(call: str) -> None:
    name = call.removeprefix("scan(").split("=")[0]
    with pytest.raises(Mistake, match=rf"scan: {name}=.* is not a number of steps; give a whole number of at least 1"):
        unroll(GRU(D, H, rngs=nnx.Rngs(0)), Event(jnp.zeros((B, T, D))), backend=call)


def test_no_events_in_pieces() -> None:
    cell, events, state, _ = given(GRU)
    last, outputs = unroll(cell, Event(events.x[:, :0]), state=state, backend=Scan(remat=2, truncate=4))
    np.testing.assert_array_equal(last, state)
    assert outputs.shape == (B, 0, H)
