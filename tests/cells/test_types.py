"""The aliases of `jaxrec.types` say the truth about the arrays that cells pass around."""

import beartype
import beartype.roar
import jax.numpy as jnp
import jaxtyping
import pytest
from flax import nnx

from jaxrec.cells import GRU, Elman, Event
from jaxrec.recurrence import advance, unroll

EVENTS = Event(jnp.ones((2, 5, 3)))


@pytest.mark.parametrize("kind", [Elman, GRU])
def test_steps_map_hidden_to_hidden(kind: type[Elman] | type[GRU]) -> None:
    cell = kind(3, 4, rngs=nnx.Rngs(0))
    step = jaxtyping.jaxtyped(typechecker=beartype.beartype)(type(cell).step)
    assert step(cell, cell.initial_state(), cell.project(Event(jnp.ones(3)))).shape == (4,)
    with pytest.raises(jaxtyping.TypeCheckError):
        step(cell, jnp.ones((2, 4)), cell.project(Event(jnp.ones(3))))


def test_resets_are_booleans_by_batch_and_time() -> None:
    checked = jaxtyping.jaxtyped(typechecker=beartype.beartype)(unroll)
    cell = GRU(3, 4, rngs=nnx.Rngs(0))
    checked(cell, EVENTS, reset=jnp.zeros((2, 5), bool))
    with pytest.raises(jaxtyping.TypeCheckError):
        checked(cell, EVENTS, reset=jnp.zeros((2, 5)))
    step = jaxtyping.jaxtyped(typechecker=beartype.beartype)(advance)
    with pytest.raises(jaxtyping.TypeCheckError):
        step(cell, jnp.zeros((2, 4)), Event(jnp.ones((2, 3))), reset=jnp.zeros((2, 5), bool))
