"""Cells that read context, user and session starts, against float64 numpy written from their papers alone."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrec.cells import (
    GLA,
    GRU,
    LRU,
    PRNN,
    QRNN,
    TLSTM,
    Attentive,
    Event,
    HierarchicalRNN,
    IndRNN,
    LatentCross,
    UserGRU,
)
from jaxrec.cells.kinds import AffineCell, Composite, ElementwiseCell
from jaxrec.config import Mistake
from jaxrec.recurrence import unroll

D, H = 3, 4
Weights = dict[str, np.ndarray]
Answer = tuple[Any, np.ndarray]


def sigmoid(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


def gru(p: Weights, name: str, h: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Cho et al. 2014: the candidate sees the reset state; where z is near 1 the state stays."""
    r = sigmoid(p[name + ".wr"].T @ x + p[name + ".ur"].T @ h + p[name + ".br"])
    z = sigmoid(p[name + ".wz"].T @ x + p[name + ".uz"].T @ h + p[name + ".bz"])
    candidate = np.tanh(p[name + ".wn"].T @ x + p[name + ".un"].T @ (r * h) + p[name + ".bn"])
    return z * h + (1 - z) * candidate


def crossed_after(p: Weights, h: np.ndarray, event: Event) -> Answer:
    """Beutel et al. 2018, section 5, after the recurrent layer: its output times 1 + w_c; the state goes on bare."""
    h = gru(p, "cell", h, event.x)
    return h, (1 + p["w"].T @ event.context) * h


def crossed_before(p: Weights, h: np.ndarray, event: Event) -> Answer:
    """The same before it: the input, times 1 + w_c."""
    h = gru(p, "cell", h, (1 + p["w"].T @ event.context) * event.x)
    return h, h


def user_linear(p: Weights, h: np.ndarray, event: Event) -> Answer:
    """Donkers et al. 2017, the linear user-based GRU: the user's vector is one more input of every gate."""
    x, v = event.x, event.user
    r = sigmoid(p["wr"].T @ x + p["vr"].T @ v + p["ur"].T @ h + p["br"])
    z = sigmoid(p["wz"].T @ x + p["vz"].T @ v + p["uz"].T @ h + p["bz"])
    candidate = np.tanh(p["wn"].T @ x + p["vn"].T @ v + p["un"].T @ (r * h) + p["bn"])
    h = z * h + (1 - z) * candidate
    return h, h


def user_attentional(p: Weights, h: np.ndarray, event: Event) -> Answer:
    """The same paper's attentional one: a fourth gate shares the candidate's input out between user and item."""
    x, v = event.x, event.user
    r = sigmoid(p["wr"].T @ x + p["vr"].T @ v + p["ur"].T @ h + p["br"])
    z = sigmoid(p["wz"].T @ x + p["vz"].T @ v + p["uz"].T @ h + p["bz"])
    person = sigmoid(p["wa"].T @ x + p["va"].T @ v + p["ua"].T @ h + p["ba"])
    given = (1 - person) * (p["wn"].T @ x) + person * (p["vn"].T @ v)
    h = z * h + (1 - z) * np.tanh(given + p["un"].T @ (r * h) + p["bn"])
    return h, h


def hierarchical(p: Weights, state: Any, event: Event, *, everywhere: bool = False) -> Answer:
    """Quadrana et al. 2017, section 3.2: c_m = GRU_usr(s_m, c_{m-1}) when a session has ended, and the next one
    begins at tanh(W_init c_m + b_init); HRNN All also gives c_m to the session's GRU at every event. A person's first
    session begins at zeros.
    """
    session, user, events = state
    if event.start and events:
        user = gru(p, "person", user, session)
        session = np.tanh(p["w"].T @ user + p["b"])
    if everywhere:
        gates = {k: p[f"v{k}"].T @ user for k in "rzn"}
        p = p | {f"session.b{k}": p[f"session.b{k}"] + more for k, more in gates.items()}
    session = gru(p, "session", session, event.x)
    return (session, user, events + 1), session


def parallel(p: Weights, state: Any, event: Event) -> Answer:
    """Hidasi et al. 2016, p-RNN: a GRU for the item and one for its features, and both go to the output."""
    item, side = gru(p, "item", state[0], event.x), gru(p, "side", state[1], event.context)
    return (item, side), np.concatenate([item, side])


def interacting(p: Weights, state: Any, event: Event) -> Answer:
    """The same paper's p-RNN with interaction: the states of both GRUs, multiplied."""
    (item, side), _ = parallel(p, state, event)
    return (item, side), item * side


def attentive(p: Weights, state: Any, event: Event) -> Answer:
    """Attention over the last three inputs (Liu et al. 2018), asked by a GRU over them (Li et al. 2017)."""
    h, past = gru(p, "cell", state[0], event.x), [*state[1], event.x][-3:]
    places = p["place"][3 - len(past) :]
    odds = np.array([x @ (p["query"].T @ h) for x in past]) / np.sqrt(D) + places
    shares = np.exp(odds) / np.exp(odds).sum()
    return (h, past), p["out"].T @ h + p["gain"] * sum(share * x for share, x in zip(shares, past, strict=True))


def crossed(fusion: Any) -> Callable[[nnx.Rngs], LatentCross]:
    return lambda rngs: LatentCross(D, GRU(D, H, reset="before", rngs=rngs), fusion=fusion, rngs=rngs)


ZEROS = np.zeros(H)
PAPERS: dict[str, tuple[Callable[[nnx.Rngs], Any], Callable[..., Answer], Any]] = {
    "latent cross after": (crossed("after"), crossed_after, ZEROS),
    "latent cross before": (crossed("before"), crossed_before, ZEROS),
    "user linear": (lambda rngs: UserGRU(D, H, variant="linear", rngs=rngs), user_linear, ZEROS),
    "user attentional": (lambda rngs: UserGRU(D, H, rngs=rngs), user_attentional, ZEROS),
    "hierarchical init": (lambda rngs: HierarchicalRNN(D, H, rngs=rngs), hierarchical, (ZEROS, ZEROS, 0)),
    "hierarchical all": (
        lambda rngs: HierarchicalRNN(D, H, propagate="all", rngs=rngs),
        lambda p, state, event: hierarchical(p, state, event, everywhere=True),
        (ZEROS, ZEROS, 0),
    ),
    "attentive": (
        lambda rngs: Attentive(D, GRU(D, H, reset="before", rngs=rngs), window=3, rngs=rngs),
        attentive,
        (ZEROS, []),
    ),
    "parallel": (lambda rngs: PRNN(D, H, rngs=rngs), parallel, (ZEROS, ZEROS)),
    "parallel interaction": (lambda rngs: PRNN(D, H, output="product", rngs=rngs), interacting, (ZEROS, ZEROS)),
}


@pytest.mark.parametrize("name", PAPERS)
def test_cell_follows_its_paper(name: str, follows_paper: Callable[..., None]) -> None:
    make, step, state = PAPERS[name]
    follows_paper(make, step, state)


def events(**leaves: Any) -> Event:
    noise = np.random.default_rng(3)
    x, context, user = (jnp.asarray(noise.normal(size=(2, 6, D)), jnp.float32) for _ in range(3))
    start, gap = jnp.zeros((2, 6), bool), jnp.asarray(noise.exponential(size=(2, 6)), jnp.float32)
    return Event(x, gap=gap, context=context, user=user, start=start)._replace(**leaves)


def test_latent_cross_without_context_is_the_cell_itself() -> None:
    """Around a fresh cell, as in the paper: a mask whose mean is 1."""
    inner = GRU(D, H, rngs=nnx.Rngs(0))
    for fusion in ("after", "before"):
        cell = LatentCross(D, inner, fusion=fusion, rngs=nnx.Rngs(1))
        nothing = events(context=jnp.zeros((2, 6, D)))
        np.testing.assert_array_equal(unroll(cell, nothing)[1], unroll(inner, nothing)[1])


def test_latent_cross_keeps_the_kind_of_what_it_wraps_and_asks_for_what_it_wants() -> None:
    rngs = nnx.Rngs(0)
    made = {kind: LatentCross(D, kind(D, H, rngs=rngs), rngs=rngs) for kind in (LRU, IndRNN, GRU, TLSTM)}
    assert {kind for kind, cell in made.items() if isinstance(cell, AffineCell)} == {LRU}
    assert {kind for kind, cell in made.items() if isinstance(cell, ElementwiseCell)} == {LRU, IndRNN}
    assert made[TLSTM].wants == ("x", "gap", "context")
    cell, given = made[LRU], events()
    a, b = jax.vmap(jax.vmap(lambda event: cell.affine(cell.project(event))))(given)
    state, _ = unroll(cell, given)
    wanted = jnp.zeros_like(state)
    for t in range(6):
        wanted = a[:, t] * wanted + b[:, t]
    np.testing.assert_allclose(state, wanted, atol=1e-6)
    for fusion in ("after", "before"):
        inner = QRNN(D, H, rngs=rngs) if fusion == "after" else GLA(D, H, heads=1, rngs=rngs)
        wrapped = LatentCross(D, inner, fusion=fusion, rngs=rngs)
        assert isinstance(wrapped, Composite)
        factor = 1 + given.context @ wrapped.w
        x = given.x if fusion == "after" else given.x * factor
        output = unroll(wrapped.cell, given._replace(x=x), backend="scan")[1]
        wanted = output if fusion == "before" else output * factor
        for backend in (None, "scan"):
            np.testing.assert_allclose(unroll(wrapped, given, backend=backend)[1], wanted, atol=1e-6)
    with pytest.raises(Mistake, match="wraps a cell"):
        LatentCross(D, "gru", rngs=rngs)


def test_a_person_in_one_session_has_a_plain_gru() -> None:
    cell = HierarchicalRNN(D, H, rngs=nnx.Rngs(0))
    one = events(start=jnp.zeros((2, 6), bool).at[:, 0].set(True))
    found = unroll(cell, one)[1]
    np.testing.assert_allclose(found, unroll(cell.session, one)[1], atol=1e-6)
    two = one._replace(start=one.start.at[:, 3].set(True))
    again = unroll(cell, two)[1]
    np.testing.assert_allclose(again[:, :3], found[:, :3], atol=1e-6)
    assert np.abs(again - found)[:, 3:].max() > 0.01


def test_attention_decides_between_user_and_item() -> None:
    """All attention to the user leaves the candidate without the item, and the other way round."""
    cell, given = UserGRU(D, H, rngs=nnx.Rngs(0)), events()
    for gate, deaf in ((1e3, "wn"), (-1e3, "vn")):
        cell.ba[...] = jnp.full(H, gate)
        found = unroll(cell, given)[1]
        weight = getattr(cell, deaf)
        kept, weight[...] = weight[...], jnp.full(weight[...].shape, 7.0)
        np.testing.assert_array_equal(unroll(cell, given)[1], found)
        weight[...] = kept


def test_attentive_says_what_it_cannot_wrap() -> None:
    class Two(GRU):
        def read(self, state: Any, projected: Any) -> Any:
            return state, state

    with pytest.raises(Mistake, match=r"Attentive is asked by one vector, and Two shows .*; wrap a cell that shows"):
        Attentive(D, Two(D, H, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(0))
    with pytest.raises(Mistake, match="multiplies one vector unless fusion="):
        LatentCross(D, Two(D, H, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(0))
    with pytest.raises(Mistake, match=r"Attentive wraps a cell, which 'gru' is not; give one, as in attentive\(lru\)"):
        Attentive(D, "gru", rngs=nnx.Rngs(0))  # type: ignore[arg-type]
