"""The reverse pass in pieces against the scan's, what it keeps, and what it says of itself."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrec.cells import GRU, LSTM, MGU, AntisymmetricRNN, Cell, Event, MinGRU, bias, weight
from jaxrec.config import Mistake
from jaxrec.recurrence import Scan, unroll
from jaxrec.recurrence.adjoint import Adjoint, divisor
from jaxrec.recurrence.cases import Case
from jaxrec.recurrence.reverse import Plan
from jaxrec.recurrence.trees import difference, double, real_leaves, score


class Odd(Cell):
    """What a reading of equations could get wrong: derived and shared weights, a count, a key, a late product."""

    wants = ("x", "key")

    def __init__(self, features: int, hidden: int, *, rngs: nnx.Rngs):
        self.w, self.u, self.v = weight(rngs, features, hidden), weight(rngs, hidden, hidden), weight(rngs, hidden, 2)
        self.b, self.hidden = bias(hidden, 0.5), hidden

    def initial_state(self) -> Any:
        return {"h": jnp.tanh(self.b), "count": jnp.zeros((), jnp.int32)}

    def step(self, state: Any, x: Any) -> Any:
        h = jnp.tanh(x @ self.w + state["h"] @ jnp.tanh(self.u) + state["h"] @ self.u + self.u[0])
        return {"h": jnp.where(state["count"] % 3 == 2, state["h"], jnp.exp(-jnp.abs(h))), "count": state["count"] + 1}

    def read(self, state: Any, x: Any) -> Any:
        return state["h"] @ self.v, state["count"]


@pytest.mark.parametrize("make", [GRU, LSTM, MinGRU, Odd])
def test_pieces_and_a_rest_give_the_values_and_gradients_of_the_scan(make: Any) -> None:
    with jax.enable_x64(True):
        case = Case(lambda rngs: make(3, 4, rngs=rngs), 3, batch=2, time=7)
        _, leaves, rebuild = real_leaves(double((case.cell, case.events, case.state)))

        def loss(leaves: Any, backend: Any) -> Any:
            cell, events, state = rebuild(leaves)
            found = unroll(cell, events, state=state, reset=case.reset, backend=backend)
            return score(found), found

        def both(leaves: Any) -> Any:
            ways = (Adjoint(piece=3), Scan(hoist=False))
            return [jax.value_and_grad(loss, has_aux=True)(leaves, way) for way in ways]

        found, wanted = jax.jit(both)(leaves)
    assert difference(found, wanted) < 1e-12


def plan(cell: Cell, features: int = 3) -> Plan:
    state = jnp.zeros((2, 4)) if not isinstance(cell, LSTM) else (jnp.zeros((2, 4)),) * 2
    state = jax.tree.unflatten(jax.tree.structure(cell.initial_state()), jax.tree.leaves(state))
    return Plan(cell, state, (Event(jnp.zeros((5, 2, features))), None), 5)


def test_a_gru_keeps_what_its_derivation_by_hand_needs() -> None:
    after, before = (plan(GRU(3, 4, reset=form, rngs=nnx.Rngs(0))) for form in ("after", "before"))
    # r, z, n and the candidate's product, which the reset gate multiplies; the state before the step
    assert (len(after.kept_values), after.kept_states) == (4, [0])
    assert (len(before.kept_values), before.kept_states) == (3, [0])
    # slopes of the three gates, which are those of the projections too, and that of the candidate's product
    assert len(after.stacked) == 4


def test_an_lstm_keeps_its_four_gates_and_the_squashed_memory() -> None:
    made = plan(LSTM(3, 4, rngs=nnx.Rngs(0)))
    assert (len(made.kept_values), made.kept_states) == (5, [0, 1])
    assert len(made.stacked) == 4


def test_what_depends_on_weights_only_leaves_the_loop() -> None:
    class Squashed(MGU):
        def step(self, state: Any, projected: Any) -> Any:
            return jnp.tanh(projected[0] + state @ jnp.tanh(self.uf))

    made = plan(Squashed(3, 4, rngs=nnx.Rngs(0))).step
    assert [eqn.primitive.name for eqn in made.fixed if eqn.primitive.name == "tanh"] == ["tanh"]
    assert [eqn.primitive.name for eqn in made.moving].count("tanh") == 1


def test_derived_weights_are_weights_when_they_are_traced_again() -> None:
    cell, x = AntisymmetricRNN(3, 4, rngs=nnx.Rngs(0)), jnp.ones((2, 5, 3))
    first, second = (jax.jit(lambda cell: unroll(cell, Event(x), backend="adjoint")) for _ in range(2))
    assert difference(first(cell), second(cell)) == 0


def test_forward_mode_needs_the_scan() -> None:
    cell, x = GRU(3, 4, rngs=nnx.Rngs(0)), jnp.ones((2, 5, 3))
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: unroll(cell, Event(x), backend="adjoint")[1], (x,), (x,))


@pytest.mark.parametrize("piece", [0, -1, 1.5, True])
def test_a_piece_is_a_number_of_steps(piece: Any) -> None:
    with pytest.raises(Mistake, match=r"adjoint: piece=.* is not a number of steps; give a whole number"):
        Adjoint(piece)


def test_pieces_divide_the_time_where_they_can() -> None:
    assert [divisor(time, 8) for time in (50, 200, 1000, 7, 8, 199)] == [10, 8, 8, 7, 8, 8]


def test_gradients_of_stacked_cells_agree_with_those_of_each() -> None:
    cells = jax.vmap(lambda key: GRU(3, 4, rngs=nnx.Rngs(key)))(jax.random.split(jax.random.key(0), 2))
    x = jax.random.normal(jax.random.key(1), (2, 5, 3))
    slope = jax.grad(lambda cell, backend: score(unroll(cell, Event(x), backend=backend)[1]))
    found = jax.jit(jax.vmap(lambda cell: slope(cell, Adjoint(piece=2))))(cells)
    wanted = jax.vmap(lambda cell: slope(cell, "scan"))(cells)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, wanted)


class Stateless(Cell):
    """Remembers nothing."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.w = weight(rngs, 3, 4)

    def initial_state(self) -> Any:
        return ()

    def step(self, state: Any, projected: Any) -> Any:
        return ()

    def read(self, state: Any, projected: Any) -> Any:
        return jnp.tanh(projected @ self.w)


def test_a_cell_without_a_state_may_restart() -> None:
    cell, x = Stateless(rngs=nnx.Rngs(0)), jnp.ones((2, 5, 3))
    reset = jnp.zeros((2, 5), bool).at[0, 2].set(True)
    found = unroll(cell, Event(x), reset=reset, backend=Adjoint(piece=2))
    assert difference(found, unroll(cell, Event(x), reset=reset, backend=Scan())) < 1e-6
