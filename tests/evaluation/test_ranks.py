"""The pass over users equals ranking every target by hand, whatever the split, the lengths and the grouping."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec.cells import GRU, Event
from jaxrec.config import Mistake
from jaxrec.data.prepared import Prepared
from jaxrec.data.vocabulary import Vocabulary
from jaxrec.evaluation import ranks
from jaxrec.evaluation.summary import collapsed, headline, summarise
from jaxrec.models import history, recommender
from jaxrec.models.pieces import in_pieces
from jaxrec.models.recommender import Batch

ITEMS = 30


def prepared(mask="history_except_target", unknown="miss", known=ITEMS, lengths=(3, 40, 2, 9, 17, 1, 5), seed=0):
    """Sequences whose last 0 to 3 events are test targets and the one before validation."""
    draw = np.random.default_rng(seed)
    lengths = np.array(lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    valid_end = np.maximum(offsets[:-1], offsets[1:] - draw.integers(1, 4, len(lengths)))
    train_end = np.maximum(offsets[:-1], valid_end - 1)
    items = draw.integers(1, ITEMS + 1, offsets[-1]).astype(np.int32)
    items[offsets[2] - 1] = 0  # the last event of the second sequence is an item that nobody knows
    words = Vocabulary.from_strings([f"i{n}" for n in range(ITEMS)])
    card = {"mask_seen": mask, "unknown_targets": unknown}
    return Prepared(
        card=card, items=items, offsets=offsets, train_end=train_end, valid_end=valid_end, known=known,
        candidates=ITEMS,
        users=np.arange(1, len(lengths) + 1, dtype=np.int32), popularity=np.arange(ITEMS + 1), item_ids=words,
        user_ids=Vocabulary.from_strings([f"u{n}" for n in range(len(lengths))]), gaps=None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return recommender.build(
        lambda features, rngs: GRU(features, 6, rngs=rngs), items=ITEMS, users=9, width=6, depth=2, feedforward=0,
        norm=True, residual=True, tied=True, bias=True, user=True, backend=None, wants=Event(x=jnp.zeros((1, 1, 6))),
        seed=0,
    )  # fmt: skip


def by_hand(model, data, split):
    """One target at a time: the whole history in one batch of one row, all scores, plain comparisons."""
    rows = []
    for event in data.targets(split):
        sequence = int(np.searchsorted(data.offsets, event, side="right") - 1)
        begin = data.offsets[sequence]
        past = data.items[begin:event]
        user = jnp.full((1, len(past)), int(data.users[sequence]))
        scores = np.asarray(model(Batch(item=jnp.asarray(past)[None], user=user)))[0, -1, 1:]
        goal = int(data.items[event])
        if goal == 0 or goal > data.known:
            rows.append([ITEMS, 0, ITEMS, 0])
            continue
        other = np.arange(1, ITEMS + 1) != goal
        shown = other & ~np.isin(np.arange(1, ITEMS + 1), past)
        own = scores[goal - 1]
        row = [(scores[part] > own + 1e-6).sum() for part in (other, shown)]
        if data.card["mask_seen"] == "history" and goal in past:
            row[1] = ITEMS
        rows.append([row[0], 0, row[1], 0])
    return np.array(rows)


@pytest.mark.parametrize("split", ["valid", "test"])
@pytest.mark.parametrize("mask", ["history_except_target", "history"])
def test_every_target_is_ranked_as_by_hand(model, split, mask, monkeypatch):
    monkeypatch.setattr(history, "LENGTHS", (8, 16))  # the long sequence is carried over three chunks
    monkeypatch.setattr(ranks, "ROWS", 4)
    monkeypatch.setattr(ranks, "TARGETS", 3)
    data = prepared(mask, known=ITEMS - 2)
    found = ranks.evaluate(model, data, split, k=5)
    wanted = by_hand(model, data, split)
    np.testing.assert_array_equal(np.stack(found[4:8], axis=1), wanted)
    assert (found.candidates == ITEMS).all()
    np.testing.assert_array_equal(found.target, data.items[data.targets(split)])
    for target, row, position, top in zip(data.targets(split), found.example, found.position, found.top, strict=True):
        past = data.items[data.offsets[row] : data.offsets[row] + position]
        assert data.offsets[row] + position == target
        assert not set(top) & set(past)
        assert len(set(top)) == 5


@pytest.mark.parametrize("mask", ["none", "history"])
def test_a_model_in_pieces_gives_every_target_the_place_it_has(model, mask):
    data = prepared(mask)
    wanted = ranks.evaluate(model, data, "test", k=5)
    found = ranks.evaluate(in_pieces(model, jax.devices()[:4]), data, "test", k=5)
    for name, values in wanted._asdict().items():
        np.testing.assert_array_equal(getattr(found, name), values, err_msg=name)


def test_a_sample_of_users_gets_the_ranks_it_gets_in_the_whole(model):
    data = prepared()
    whole, some = ranks.evaluate(model, data, "test"), ranks.evaluate(model, data, "test", users=3)
    assert len(np.unique(some.example)) == 3
    place = np.isin(whole.example, some.example)
    for name in ranks.Ranks._fields[:9]:
        np.testing.assert_array_equal(getattr(whole, name)[place], getattr(some, name))


def test_without_a_mask_both_readings_agree_and_the_headline_says_so(model):
    data = prepared("none")
    found = ranks.evaluate(model, data, "test")
    np.testing.assert_array_equal(found.greater, found.greater_masked)
    assert headline(data) == "unmasked"
    summary = summarise(data, found, ("hr@10", "ndcg@10"))
    assert summary["masked"] is None
    assert set(summary["unmasked"]) == {"hr@10", "ndcg@10"}


def test_lists_are_described_under_the_headline_reading(model):
    data = prepared()
    found = ranks.evaluate(model, data, "test", k=10)
    summary = summarise(data, found, ("hr@10",))
    lists = {f"{name}@10" for name in ("coverage", "popularity", "gini", "tail", "novelty")}
    assert set(summary["masked"]) == {"hr@10"} | lists
    features = np.eye(ITEMS + 1, 4)
    assert "diversity@10" in summarise(data, found, ("hr@10",), features)["masked"]
    assert set(summary["unmasked"]) == {"hr@10"}


def test_a_score_that_is_not_a_number_is_named_with_its_user(model):
    item = 7
    data = prepared()
    broken = recommender.Recommender(model.tables | {"bias": model.tables["bias"].at[item].set(jnp.nan)}, model.network)
    events = data.targets("test")
    hit = data.items[events] == item
    data.items[events[0]] = item
    owner = data.user_ids.decode(data.users[data.sequence_of(events[:1])])[0]
    with pytest.raises(Mistake, match=rf"{int(hit[1:].sum()) + 1} of {len(events)} targets.* of user '{owner}'"):
        ranks.evaluate(broken, data, "test")


def test_a_collapsed_model_is_named(model):
    flat = jax.tree.map(jnp.zeros_like, model)
    data = prepared("none")
    found = ranks.evaluate(flat, data, "test")
    assert "collapsed" in collapsed(found)
    assert collapsed(ranks.evaluate(model, data, "test")) is None
    assert summarise(data, found, ("hr@10",))["unmasked"]["hr@10"] < 10 / ITEMS, (
        "expectation over ties, misses included"
    )


def test_the_saved_file_has_the_columns_and_no_pickle(model, tmp_path):
    found = ranks.evaluate(model, prepared(), "test", k=3)
    ranks.save(str(tmp_path / "ranks.npz"), found)
    with np.load(tmp_path / "ranks.npz", allow_pickle=False) as columns:
        assert set(columns) == {
            "example", "user", "position", "target", "greater", "equal", "greater_masked", "equal_masked", "candidates",
        }  # fmt: skip
        np.testing.assert_array_equal(columns["greater"], found.greater)
