"""What is found of gates and units, on cells whose gates are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrec.cells import GRU, LRU, Event, IndRNN, MinGRU, find
from jaxrec.config import Call
from jaxrec.diagnostics.gates import gates
from jaxrec.diagnostics.subject import alone

EVENTS = Event(x=jax.random.normal(jax.random.key(0), (3, 20, 4)))


def of(cell, events=EVENTS):
    return gates(alone(cell, events), events)[0]


def test_gates_are_found_in_the_step_and_named_after_their_lines():
    found = {gate["name"]: gate for gate in of(GRU(4, 6, rngs=nnx.Rngs(0)))["gates"]}
    assert {name: gate["kind"] for name, gate in found.items()} == {"r": "sigmoid", "z": "sigmoid", "n": "tanh"}
    for gate in found.values():
        assert sum(gate["density"]) == pytest.approx(1, abs=1e-4)


def test_saturation_counts_both_ends():
    cell = GRU(4, 6, rngs=nnx.Rngs(0))
    cell.bz = nnx.Param(jnp.array([20.0, 20.0, -20.0, 0.0, 0.0, 0.0]))
    z = next(gate for gate in of(cell)["gates"] if gate["name"] == "z")
    assert z["open"] > 0.33
    assert z["shut"] > 0.16
    assert z["open"] + z["shut"] < 0.7


def test_time_constants_of_a_diagonal_cell_are_those_of_its_decays():
    cell = LRU(4, 6, rngs=nnx.Rngs(0))
    record = of(cell)
    assert record["exact"]
    assert record["units"] == 6
    wanted = np.sort(1 / np.exp(np.asarray(cell.nu[...], np.float64)))
    assert np.allclose(record["time_constants"], wanted, rtol=1e-4)
    assert [gate["kind"] for gate in record["gates"]] == ["decay"]


def test_a_gate_that_never_opens_keeps_for_its_time_constant():
    cell = MinGRU(4, 5, rngs=nnx.Rngs(0))
    constants = np.array([3.0, 10.0, 30.0, 100.0, 300.0])
    still = jax.tree.map(jnp.zeros_like, cell)
    names = [name for name, value in vars(still).items() if getattr(value, "shape", None) == (5,)]
    assert names, "a bias of the gate"
    keep = np.exp(-1 / constants)
    for sign in (1, -1):
        setattr(still, "bz" if "bz" in names else names[0], nnx.Param(jnp.asarray(sign * np.log(keep / (1 - keep)))))
        found = np.array(of(still)["time_constants"])
        if np.allclose(found, constants, rtol=1e-3):
            return
    pytest.fail(f"{found} is not {constants}")


def test_dead_units_and_units_that_never_fade_are_counted():
    cell = IndRNN(4, 6, rngs=nnx.Rngs(0))
    leaves = {name: value for name, value in vars(cell).items() if isinstance(value, nnx.Param)}
    weight = next(name for name, value in leaves.items() if value.ndim == 2)
    setattr(cell, weight, nnx.Param(leaves[weight][...].at[:, :2].set(0)))
    assert of(cell)["dead"] == 2


@pytest.mark.parametrize("name", ["mamba", "mlstm", "clockworkrnn", "causalconv", "cfc", "decayed(lstm)"])
def test_every_kind_of_cell_can_be_looked_at(name):
    events = EVENTS._replace(gap=jnp.ones((3, 20)))
    record = of(find(Call.parse(name), 4, hidden=4, rngs=nnx.Rngs(0)), events)
    assert record["units"] == len(record["time_constants"])
    assert all(gate["kind"] in ("sigmoid", "tanh", "decay") for gate in record["gates"])
