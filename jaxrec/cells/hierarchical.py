"""A network of sessions inside a network of persons."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxrec.cells.cell import Cell, Event
from jaxrec.cells.gru import GRU
from jaxrec.cells.weights import bias, orthogonal
from jaxrec.config import Mistake
from jaxrec.types import Hidden


class HRNNState(NamedTuple):
    """The session so far and the person ``(hidden,)``, and whether there was an event at all, since a first session
    follows none.
    """

    session: Hidden
    person: Hidden
    begun: Array


class HierarchicalRNN(Cell):
    """Hierarchical RNN (Quadrana et al. 2017): a GRU over the events of a session, begun from a GRU over a person's
    sessions.

    https://arxiv.org/abs/1706.04148, section 3.2. Where `Event.start` says that a session begins, the person's state
    takes in the last state of the session before, ``c' = GRU_user(s, c)``, and the new session begins at
    ``s0 = tanh(W c' + b)``; every event is then a step ``s' = GRU_session(x, s)``. ``propagate="init"`` is the paper's
    HRNN Init; with ``"all"`` (HRNN All) the session's GRU also sees ``c'`` at every event, an input of all its gates
    (the authors' code leaves it out of the candidate). A person's first session begins at zeros, as in that code. Both
    GRUs gate the state before the matrix product. The person's state outlives sessions; a reset, which separates
    persons, forgets both.

    ``W`` starts orthogonal, ``b`` at 0. State: session and person, each ``(hidden,)``, and a truth value; output: the
    session's state.
    """

    family = "context"
    wants = ("x", "start")
    keeps: ClassVar[Mapping[str, int]] = {"session.bz": 1}  # a person's state takes in sessions, not events

    def __init__(self, features: int, hidden: int, *, propagate: Literal["init", "all"] = "init", rngs: nnx.Rngs):
        if propagate not in ("init", "all"):
            raise Mistake(f'HierarchicalRNN has no propagate={propagate!r}; choose "init" or "all"')
        self.features, self.hidden = features, hidden
        self.session = GRU(features, hidden, reset="before", rngs=rngs)
        self.person = GRU(hidden, hidden, reset="before", rngs=rngs)
        self.w, self.b = orthogonal(rngs, hidden), bias(hidden)
        self.vr, self.vz, self.vn = (orthogonal(rngs, hidden) if propagate == "all" else None for _ in range(3))

    def initial_state(self) -> HRNNState:
        return HRNNState(jnp.zeros(self.hidden), jnp.zeros(self.hidden), jnp.zeros((), bool))

    def project(self, event: Event) -> tuple[Any, Array]:
        assert event.start is not None
        return self.session.project(event), event.start

    def step(self, state: HRNNState, projected: Any) -> HRNNState:
        gates, start = projected
        opens = start & state.begun
        after = self.person.step(state.person, self.person.project(Event(state.session)))
        person = jnp.where(opens, after, state.person)
        session = jnp.where(opens, jnp.tanh(person @ self.w + self.b), state.session)
        if self.vr is not None and self.vz is not None and self.vn is not None:
            gates = tuple(gate + person @ v for gate, v in zip(gates, (self.vr, self.vz, self.vn), strict=True))
        return HRNNState(self.session.step(session, gates), person, jnp.ones((), bool))

    def read(self, state: HRNNState, projected: Any) -> Hidden:
        return state.session
