"""What a result says beside its headline: ties, intervals, slices; and the file that it can be computed from again."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from jaxrec.config import Mistake
from jaxrec.data.vocabulary import Vocabulary
from jaxrec.evaluation.ranks_file import COLUMNS, Ranks, load, save, to_parquet
from jaxrec.evaluation.summary import details, summarise
from jaxrec.metrics import evaluate

METRICS = ("hr@5", "ndcg@5")
N = 200
DATA = SimpleNamespace(
    card={"mask_seen": "history"}, candidates=30, popularity=np.arange(31),
    user_ids=Vocabulary.from_strings([f"u{n}" for n in range(20)]),
    item_ids=Vocabulary.from_strings([f"i{n}" for n in range(30)]),
)  # fmt: skip


@pytest.fixture
def table():
    draw = np.random.default_rng(0)
    greater, equal = draw.integers(0, 15, N), draw.integers(0, 3, N) * (draw.random(N) < 0.3)
    return Ranks(
        example=np.arange(N), user=np.repeat(np.arange(1, 21), 10), position=draw.integers(1, 9, N),
        target=draw.integers(0, 31, N), greater=greater + 2, equal=equal, greater_masked=greater, equal_masked=equal,
        candidates=np.full(N, 30),
    )  # fmt: skip


MASKS = {"a": np.arange(N) < 50, "b": np.arange(N) >= 50, "empty": np.zeros(N, bool)}


def test_details_are_those_of_the_headline_reading(table):
    found, whole = details(DATA, table, METRICS, MASKS), summarise(DATA, table, METRICS)
    best, worst = found["ties"]["optimistic"], found["ties"]["pessimistic"]
    for name in METRICS:
        assert worst[name] < whole["masked"][name] < best[name]
        low, high = found["intervals"][name]
        assert low < whole["masked"][name] < high
    assert best == evaluate(METRICS, table.greater_masked, np.zeros(N, int))
    assert worst == evaluate(METRICS, table.greater_masked + table.equal_masked, np.zeros(N, int))
    assert found["ties"]["tied_targets"] == np.mean(table.equal_masked > 0)


def test_slices_add_up_to_the_whole(table):
    found, whole = details(DATA, table, METRICS, MASKS)["slices"], summarise(DATA, table, METRICS)
    assert found.keys() == {"a", "b"}, "a slice without targets has no mean"
    assert found["a"]["count"] == 50
    for name in METRICS:
        total = sum(row["count"] * row[name] for row in found.values())
        assert total / N == pytest.approx(whole["masked"][name])


def test_intervals_know_that_targets_of_a_user_belong_together(table):
    same = table._replace(greater_masked=table.user // 2, equal_masked=np.zeros(N, int))
    alone = same._replace(user=np.arange(N))
    wide, narrow = (details(DATA, one, ("hr@5",), {})["intervals"]["hr@5"] for one in (same, alone))
    assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])


def test_what_is_saved_is_read_again(table, tmp_path):
    save(tmp_path / "ranks.npz", table, MASKS)
    ranks, masks = load(tmp_path / "ranks.npz")
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(ranks, name), getattr(table, name))
    assert masks.keys() == MASKS.keys()
    for name, mask in masks.items():
        np.testing.assert_array_equal(mask, MASKS[name])
    save(tmp_path / "old.npz", table)  # as before there were slices
    assert load(tmp_path / "old.npz")[1] == {}


@pytest.mark.parametrize("harm", ["missing", "cut", "other"])
def test_a_file_that_cannot_be_read_is_a_mistake(table, tmp_path, harm):
    path = tmp_path / "ranks.npz"
    if harm != "missing":
        save(path, table, MASKS)
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    if harm == "other":
        np.savez(path, example=np.arange(3))
    with pytest.raises(Mistake, match=r"ranks\.npz .*jaxrec evaluate"):
        load(path)


def test_parquet_has_the_ids_of_the_data_and_a_column_a_slice(table, tmp_path):
    to_parquet(tmp_path / "ranks.parquet", table, MASKS, DATA)
    frame = pl.read_parquet(tmp_path / "ranks.parquet")
    assert frame.columns == [*COLUMNS, "user_id", "target_id", *MASKS]
    np.testing.assert_array_equal(frame["greater_masked"], table.greater_masked)
    assert frame["user_id"].to_list() == [f"u{number - 1}" for number in table.user]
    assert frame["target_id"].to_list() == [f"i{number - 1}" if number else None for number in table.target]
    assert frame["a"].sum() == 50
    with pytest.raises(Mistake, match="--parquet"):
        to_parquet(tmp_path / "nowhere" / "x.parquet", table, MASKS, DATA)
