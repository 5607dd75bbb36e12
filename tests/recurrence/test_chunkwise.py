"""The chunkwise form of a matrix state against the loop, for every form that a rule can have."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrec.cells import GRU, MLSTM, DeltaNet, Erase, Event, MatrixCell, MatrixState, Rule
from jaxrec.config import Mistake
from jaxrec.recurrence import Chunkwise, Exposed, Scan, unroll

BATCH, TIME, HEADS, KEY, VALUE = 3, 23, 2, 4, 3
D, H = 3, 4
FORMS = ("head", "head-gate", "head-erase", "key", "key-gate", "key-erase")


class Ruled(MatrixCell):
    """Every part of the rule is read off the event; what it remembers is the number of events so far."""

    def __init__(self, form: str, spread: float = 2.0):
        self.sizes(HEADS, KEY, VALUE)
        self.form, self.spread = form, spread

    def nothing(self) -> Any:
        return jnp.zeros(())

    def remember(self, beside: Any, projected: Any) -> Any:
        return beside + 1

    def rule(self, projected: Any, beside: Any) -> Rule:
        sizes = [KEY, KEY, VALUE, KEY, KEY, KEY, 1, 1]
        query, key, value, decays, read, write, decay, gate = jnp.split(projected, np.cumsum(sizes)[:-1], axis=1)
        return Rule(
            query,
            key,
            value,
            -(self.spread ** (decays if "key" in self.form else decay[:, 0])),
            Erase(0.5 * jnp.tanh(read), 0.5 * jnp.tanh(write)) if "erase" in self.form else None,
            gate[:, 0] if "gate" in self.form else None,
        )

    def output(self, projected: Any, beside: Any, reading: Any) -> Any:
        return reading / beside


def sample(seed: int = 0) -> tuple[Any, Any, Any]:
    noise = np.random.default_rng(seed)
    state = MatrixState(noise.normal(size=(BATCH, HEADS, KEY, VALUE)), np.arange(1.0, BATCH + 1))
    x = noise.normal(size=(BATCH, TIME, HEADS, 5 * KEY + VALUE + 2))
    reset = np.zeros((BATCH, TIME), bool)
    reset[0, [0, 3, 4, 12]] = reset[1, 8] = reset[1, TIME - 1] = True  # row 2 never
    return state, x, jnp.asarray(reset)


def run(cell: Any, backend: Any, state: Any, x: Any, reset: Any) -> Any:
    """Outputs and last state, and gradients of a number that depends on both."""
    slants = [
        np.random.default_rng(9).normal(size=(BATCH, *shape)) for shape in ((TIME, HEADS, VALUE), (HEADS, KEY, VALUE))
    ]

    def loss(state: Any, x: Any) -> Any:
        last, outputs = unroll(cell, Event(x), state=state, reset=reset, backend=backend)
        return (outputs * slants[0]).sum() + (last.matrix * slants[1]).sum() + last.beside.sum(), (last, outputs)

    (_, found), gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(state, x)
    return found, gradients


@pytest.mark.parametrize(("form", "chunk"), [*((form, 4) for form in FORMS), ("head-erase", None)])
def test_chunks_are_the_loop(form: str, chunk: int | None) -> None:
    """In float64 to the last digits: resets at the start, inside and at the end of chunks, time no multiple."""
    with jax.enable_x64(True):
        given = jax.tree.map(jnp.asarray, sample())
        wanted, found = (run(Ruled(form), backend, *given) for backend in (Scan(), Chunkwise(chunk=chunk)))
        for want, have in zip(jax.tree.leaves(wanted), jax.tree.leaves(found), strict=True):
            np.testing.assert_allclose(have, want, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("form", ["head-erase", "key-erase"])
def test_steep_decays_neither_overflow_nor_lose_digits(form: str) -> None:
    """Decays next to 1 among decays of exp(-10000): a sum of their logarithms would keep no digit of the small ones."""
    state, x, reset = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), sample())
    cell = Ruled(form, spread=100.0)
    wanted, found = (run(cell, backend, state, x, reset > 0) for backend in (Scan(), Chunkwise()))
    for want, have in zip(jax.tree.leaves(wanted), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(have, want, atol=1e-5 * max(1, np.abs(want).max()), rtol=1e-5)


def test_memory_does_not_hold_a_state_per_event() -> None:
    """The loop keeps a matrix per event for its backward pass, chunks keep one each."""
    cell, x = MLSTM(4, 64, heads=1, rngs=nnx.Rngs(0)), jnp.zeros((1, 256, 4))

    def held(backend: Any) -> int:
        slope = jax.grad(lambda cell: (unroll(cell, Event(x), backend=backend)[1] ** 2).sum())
        return int(jax.jit(slope).lower(cell).compile().memory_analysis().temp_size_in_bytes)

    assert held(Scan()) > 256 * 64 * 64 * 4
    assert held(Chunkwise()) < 256 * 64 * 64 * 4 / 2


class OwnRead(Ruled):
    def read(self, state: Any, projected: Any) -> Any:
        return state.matrix


class OwnMemory(DeltaNet):
    """What is beside the matrix changes for one event, and not for a sequence."""

    def remember(self, beside: Any, projected: Any) -> Any:
        return super().remember(0.5 * beside, projected)


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (GRU(D, H, rngs=nnx.Rngs(0)), "not a MatrixCell"),
        (OwnRead("head"), "its read is its own"),
        (Exposed(Ruled("head")), "not a MatrixCell"),
        (OwnMemory(D, H, rngs=nnx.Rngs(0)), "remembered still moves on as before"),
    ],
)
def test_what_it_cannot_run_is_refused_with_the_reason(cell: Any, words: str) -> None:
    x = jnp.zeros((1, 2, D)) if isinstance(cell, GRU | OwnMemory) else jnp.asarray(sample()[1])
    with pytest.raises(Mistake, match=words):
        unroll(cell, Event(x), backend="chunkwise")


@pytest.mark.parametrize("chunk", [0, -1, True, 2.0])
def test_a_chunk_is_a_number_of_events(chunk: Any) -> None:
    with pytest.raises(Mistake, match="is not a length"):
        Chunkwise(chunk=chunk)
