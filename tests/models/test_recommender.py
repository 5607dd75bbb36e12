"""The recommender: one owner a parameter, touched rows, dropout, and scores that do not depend on company."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrec.cells import GRU, Cell, Event, weight
from jaxrec.config import Mistake
from jaxrec.losses import Softmax
from jaxrec.losses.loss import Loss
from jaxrec.models import recommender
from jaxrec.models.network import Rates, dropout
from jaxrec.models.recommender import Batch, seen
from jaxrec.models.tables import gather, scatter, whole
from jaxrec.training.optimisers import Optimiser
from jaxrec.training.step import Step

WIDTH, ITEMS = 8, 11
HYPER = {"lr": 0.01, "weight_decay": 0.01, "clip": 1.0, "dropout": 0.0, "label_smoothing": 0.0, "temperature": 1.0}


def make(**changes):
    options = {
        "items": ITEMS, "users": 3, "width": WIDTH, "depth": 2, "feedforward": 2, "norm": True, "residual": True,
        "tied": True, "bias": True, "user": False, "backend": None, "seed": 0,
    } | changes  # fmt: skip
    wants = Event(x=jnp.zeros((1, 1, WIDTH)))
    return recommender.build(lambda features, rngs: GRU(features, 6, rngs=rngs), wants=wants, **options)


def some_batch(rows=3, time=5, seed=0):
    draw = np.random.default_rng(seed)
    mask = np.ones((rows, time), bool)
    mask[-1, 3:] = False
    item = np.where(mask, draw.integers(1, ITEMS + 1, mask.shape), 0)
    target = np.where(mask, draw.integers(1, ITEMS + 1, mask.shape), 0)
    reset = np.zeros_like(mask)
    reset[:, 0] = True
    return Batch(*map(jnp.asarray, (item.astype(np.int32), target.astype(np.int32), mask, reset)))


def test_a_tied_model_has_one_item_table_and_both_uses_train_it():
    tied, untied = make(), make(tied=False)
    assert len(jax.tree.leaves(untied)) == len(jax.tree.leaves(tied)) + 1
    assert len({id(leaf) for leaf in jax.tree.leaves(tied)}) == len(jax.tree.leaves(tied))
    step = Step(Softmax(), Optimiser("adam"))
    state = step.init(tied, HYPER, jax.random.key(0))
    batch = some_batch()._replace(item=jnp.full((3, 5), 2, jnp.int32), target=jnp.full((3, 5), 3, jnp.int32))
    after, _ = jax.jit(step)(state, batch, HYPER)
    moved = np.abs(np.asarray(after.tables["item"] - state.tables["item"])).max(axis=1) > 0
    assert moved[1:].all(), "the softmax reads every row"
    assert not moved[0], "padding is never read"


def test_the_padding_column_never_wins_and_the_bias_counts():
    model = make()
    model.tables["bias"] = model.tables["bias"].at[4].set(100.0)
    scores = np.asarray(model(some_batch()))
    assert scores.shape == (3, 5, ITEMS + 1)
    assert np.isneginf(scores[..., 0]).all()
    assert (scores.argmax(-1) == 4).all()


def test_scores_of_a_row_do_not_depend_on_the_other_rows_nor_on_padding():
    model, batch = make(), some_batch()
    scores = np.asarray(model(batch))
    order = np.array([2, 0, 1])
    shuffled = np.asarray(model(jax.tree.map(lambda leaf: leaf[order], batch)))
    np.testing.assert_allclose(shuffled, scores[order], atol=1e-5)
    alone = np.asarray(model(jax.tree.map(lambda leaf: leaf[2:, :3], batch)))
    np.testing.assert_allclose(alone, scores[2:, :3], atol=1e-5)


def test_dropout_keeps_the_mean_meets_the_rate_and_follows_the_row():
    keys = jax.random.split(jax.random.key(1), 4)
    x = jnp.ones((4, 100, 50))
    dropped = np.asarray(dropout(x, 0.3, keys))
    assert dropout(x, 0.3, None) is x
    assert abs((dropped == 0).mean() - 0.3) < 0.02
    assert abs(dropped.mean() - 1) < 0.03
    np.testing.assert_array_equal(np.asarray(dropout(x, 0.3, keys[::-1])), dropped[::-1])
    np.testing.assert_array_equal(np.asarray(dropout(x, 0.0, keys)), np.ones_like(x))
    assert not np.array_equal(dropped[0], dropped[1])


def test_hidden_events_are_unknown_items_and_follow_the_row():
    model, batch = make(), some_batch(3, 400)
    rows = whole(model.tables)

    def hidden(rate, batch):
        return recommender.encode(model.network, rows, batch, rates=Rates(event=rate))[1]

    keyed = batch._replace(keys=jax.random.split(jax.random.key(2), 3))
    nothing = hidden(None, batch._replace(item=jnp.zeros_like(batch.item)))
    np.testing.assert_array_equal(hidden(1.0, keyed), nothing)
    np.testing.assert_array_equal(hidden(0.0, keyed), hidden(None, batch))
    np.testing.assert_array_equal(hidden(0.5, batch), hidden(None, batch))  # no keys: nobody is trained
    slope = jax.grad(lambda x: jnp.sum(recommender.look_up({"item": x}, batch, seen(0.25, keyed)).x))
    read = np.asarray(slope(rows["item"]).values[1:, 0])  # how often each item went in
    assert abs(read.sum() / jnp.sum(batch.item > 0) - 0.75) < 0.05
    turned = hidden(0.5, jax.tree.map(lambda leaf: leaf[::-1], keyed))
    np.testing.assert_allclose(turned[::-1], hidden(0.5, keyed), atol=1e-6)


@dataclass(frozen=True)
class Nearest(Loss):
    """A loss that reads the rows of its targets only."""

    touch: bool = True

    @property
    def samples(self):
        return self.touch

    def __call__(self, hidden, rows, bias, targets, weight, drawn=None):
        return jnp.sum(weight * jnp.sum((hidden - rows[targets]) ** 2, axis=-1)) + jnp.sum(weight * bias[targets])


@pytest.mark.parametrize("tied", [True, False])
def test_gathering_touched_rows_changes_nothing_but_the_work(tied):
    model, batch = make(tied=tied, user=True), some_batch()._replace(user=jnp.full((3, 5), 2, jnp.int32))
    found = []
    for touch in (True, False):
        step = Step(Nearest(touch=touch), Optimiser("adagrad"))
        state = step.init(model, HYPER, jax.random.key(0))
        go = jax.jit(step)
        for _ in range(3):
            state, metrics = go(state, batch, HYPER)
        found.append((state.tables, metrics.grad_norm))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), *found)


def test_gather_sums_duplicates_and_scatter_undoes_it():
    table = jnp.arange(12.0).reshape(6, 2)
    rows = gather({"t": table}, {"t": jnp.array([3, 1, 3, 3])})["t"]
    numbers = jnp.array([[1, 3], [3, 3]])
    np.testing.assert_array_equal(rows.take(numbers), table[numbers])
    grads = jax.grad(lambda values: jnp.sum(rows._replace(values=values).take(numbers)))(rows.values)
    dense = jax.grad(lambda table: jnp.sum(table[numbers]))(table)
    np.testing.assert_array_equal(scatter(table, rows, grads), dense)


def test_map_cells_leaves_the_original_alone():
    model = make()
    doubled = model.map_cells(lambda cell: jax.tree.map(lambda leaf: 2 * leaf, cell))
    before, after = jax.tree.leaves(model.network.blocks[0].cell), jax.tree.leaves(doubled.network.blocks[0].cell)
    np.testing.assert_allclose(after[0], 2 * before[0])
    assert not np.allclose(np.asarray(model(some_batch()))[..., 1:], np.asarray(doubled(some_batch()))[..., 1:])


class Nosy(Cell):
    """Reads a leaf that it does not declare, or shows what no layer can take."""

    def __init__(self, features: int, hidden: int, *, shows: str = "gap", rngs: nnx.Rngs):
        self.w, self.hidden, self.shows = weight(rngs, features, hidden), hidden, shows

    def initial_state(self):
        return jnp.zeros(self.hidden)

    def project(self, event):
        assert event.gap is None, "a leaf that is not declared"
        return event.x @ self.w

    def step(self, state, projected):
        return jnp.tanh(state + projected)

    def read(self, state, projected):
        return {"gap": state, "row": state[None], "pair": (state, state)}[self.shows]


def made(shows: str, backend: str | None = None):
    example = Event(jnp.zeros((1, 1, WIDTH)), gap=jnp.zeros((1, 1)))
    return recommender.build(
        lambda features, rngs: Nosy(features, WIDTH, shows=shows, rngs=rngs), items=5, users=0, width=WIDTH, depth=1,
        feedforward=0, norm=True, residual=True, tied=True, bias=False, user=False, backend=backend, wants=example,
        seed=0,
    )  # fmt: skip


def test_cells_see_only_the_leaves_that_they_declare():
    """What training shows, serving must show too: it gives a cell what it wants."""
    batch = Batch(item=jnp.ones((2, 3), jnp.int32), gap=jnp.ones((2, 3)))
    assert made("gap")(batch).shape == (2, 3, 6)


@pytest.mark.parametrize(("shows", "words"), [("row", r"\(1, 8\)"), ("pair", r"\(8,\), \(8,\)")])
def test_a_cell_that_shows_no_vector_is_refused(shows: str, words: str):
    with pytest.raises(Mistake, match=f"Nosy shows {words} for one event"):
        made(shows)


def test_a_backend_that_refuses_the_cell_does_so_before_anything_is_trained():
    with pytest.raises(Mistake, match="associative cannot run Nosy"):
        made("gap", "associative")


def test_a_cell_that_does_not_run_is_refused_with_its_line():
    class Chooses(Nosy):
        def step(self, state, projected):
            return state if state.sum() > 0 else projected

    with pytest.raises(Mistake, match=r"Chooses does not run: .*test_recommender\.py:\d+: Tracer.*; choose with jnp"):
        recommender.output_width(Chooses(WIDTH, WIDTH, rngs=nnx.Rngs(0)), Event(jnp.zeros((1, 1, WIDTH))))
