"""The leaderboard: what rows keep is enough, protocols never meet in one table, and planted differences are found."""

import json
import random

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from strict_html import Reader

from jaxrec.config import Mistake
from jaxrec.metrics import gains
from jaxrec.reports.leaderboard import SAME, boards, device, kept, leaderboard, paired, unpacked

CARD = {
    "name": "shop", "fingerprint": "abc", "split": {"name": "leave-one-out"}, "catalogue": "all",
    "unknown_targets": "miss", "mask_seen": "history", "ties": {"policy": "file order"}, "filters": {"k_core": 0},
    "counts": {"test_targets": 400, "items": 90, "events": 5000},
}  # fmt: skip
PEOPLE = np.repeat(np.arange(200), 2)


def places(shift, seed=0):
    """Places of 400 targets, the better the smaller ``shift``."""
    return np.random.default_rng(seed).integers(0, 10, 400) + shift


def row(recipe, greater, *, seed=0, data="shop", reading="masked", people=PEOPLE, **changes):
    none = np.zeros_like(greater)
    test = {name: float(np.mean(gains(name, greater, none))) for name in ("hr@10", "ndcg@10")}
    return {
        "data": data, "recipe": recipe, "seed": seed, "reading": reading, "test": test | {"coverage@10": 0.5},
        "baselines": {"popularity": {"hr@10": 0.1, "ndcg@10": 0.05}, "markov3": {"hr@10": 0.2, "ndcg@10": 0.1}},
        "protocol": CARD | changes, "model": {"cell": recipe, "parameters": {"tables": 1000, "network": 500}},
        "epochs": 3, "steps": 70, "seconds": 90.0, "trials": 12,
        "machine": {"cpu": "some", "cores": 4, "cores_usable": 1, "devices": ["1 x cpu (cpu)"]},
        **kept(greater, none, people),
    }  # fmt: skip


def lines(rows, published=()):
    reader = Reader(leaderboard(boards(rows), published, "make"))
    return reader, [line for line in reader.rows if line]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 70_000), st.integers(0, 9)), min_size=1, max_size=80),
    st.lists(st.integers(1, 5), min_size=1, max_size=80),
)
def test_what_is_kept_gives_every_metric_up_to_twenty_and_whose_each_target_is(counts, sizes):
    greater, tied = np.array(counts).T
    users = np.repeat(np.arange(len(sizes)) * 3, sizes)[: len(greater)]
    users = np.concatenate([users, np.full(len(greater) - len(users), 10_000)])
    found = kept(greater, np.zeros_like(tied), users)
    back = unpacked(found["places"])
    for metric in ("hr@1", "hr@20", "ndcg@10", "mrr@20"):
        none = np.zeros_like(greater)
        np.testing.assert_array_equal(gains(metric, back, none), gains(metric, greater, none))
    runs = unpacked(found["people"])
    np.testing.assert_array_equal(np.repeat(np.arange(len(runs)), runs), np.unique(users, return_inverse=True)[1])
    later = unpacked(kept(greater, tied, users)["places"])
    assert (later >= back).all(), "a tie never makes a place better"


@pytest.mark.parametrize("name", [*SAME, "reading", "data"])
def test_what_was_not_measured_alike_never_stands_in_one_table(name):
    other = {name: "other"} if name in ("reading", "data") else {name: {"name": "other", "policy": "other"}}
    alike, apart = row("one", places(0)), row("two", places(3), **other)
    assert [len(board.entries) for board in boards([alike, apart])] == [1, 1]
    assert [len(board.entries) for board in boards([alike, row("two", places(3))])] == [2]


def test_seeds_of_a_recipe_are_one_line_with_their_mean_and_the_order_of_rows_does_not_matter():
    rows = [row("good", places(0, s), seed=s) for s in range(3)] + [row("bad", places(5, s), seed=s) for s in range(3)]
    (board,) = boards(rows)
    assert [(entry.name, len(entry.rows)) for entry in board.entries] == [("good", 3), ("bad", 3)]
    good = board.entries[0]
    assert np.mean(good.values("ndcg@10")) == pytest.approx(np.mean(good.by_seed("ndcg@10")), abs=1e-12)
    again = rows.copy()
    random.Random(1).shuffle(again)
    assert paired(boards(again)[0], "ndcg@10") == paired(board, "ndcg@10")


def test_a_planted_difference_is_found_and_none_is_not():
    rows = [row("good", places(0)), row("bad", places(2)), row("same", places(0))]
    found = {(pair["first"], pair["second"]): pair for pair in paired(boards(rows)[0], "ndcg@10")}
    alike = found.pop(next(names for names in found if "bad" not in names))
    assert (alike["delta"], alike["p_holm"], alike["low"], alike["high"]) == (0, 1, 0, 0)
    for pair in found.values():
        assert pair["p_holm"] < 0.01
        assert pair["low"] > 0
        assert pair["p_holm"] >= pair["p"]


def test_models_of_one_protocol_with_other_targets_are_refused_and_so_is_a_seed_that_comes_twice():
    other = row("two", places(1), people=np.repeat(np.arange(100), 4))
    with pytest.raises(Mistake, match="one and two have the protocol of shop but not the same targets"):
        paired(boards([row("one", places(0)), other])[0], "ndcg@10")
    with pytest.raises(Mistake, match="one has seed 0 twice; take one of its rows out"):
        boards([row("one", places(0)), row("one", places(1))])


def test_the_page_has_models_budgets_counters_pairs_and_what_was_published_under_the_same_reading():
    published = [
        {"data": "shop", "reading": "masked", "model": "Theirs <b>", "source": "a paper", "hr@10": 0.3},
        {"data": "shop", "reading": "unmasked", "model": "Elsewhere", "source": "a paper", "hr@10": 0.9},
    ]
    rows = [row("good", places(0, s), seed=s) for s in range(2)] + [row("bad", places(5))]
    reader, found = lines(rows, published)
    by_name = {line[0]: line for line in found}
    assert by_name["good"][3:] == ["2", "1500", "3", "70", "1.5", "1 of 4 cores, some", "12"]
    assert " ±" in by_name["good"][1]
    assert " ±" not in by_name["bad"][1]
    assert by_name["counter: markov3"][1:3] == ["0.2000", "0.1000"]
    assert by_name["Theirs <b> (a paper)"][1:3] == ["0.3000", ""]
    assert "Elsewhere" not in reader.text
    assert "coverage" not in reader.text
    assert any(name.startswith("good \N{MINUS SIGN} bad") for name in by_name)
    assert "nothing to hold it against" in Reader(leaderboard(boards(rows[:1]), [], "make")).text


def test_rows_survive_being_written_down():
    rows = [row("good", places(0))]
    assert (
        leaderboard(boards(json.loads(json.dumps(rows))), [], "make")[:5000]
        == leaderboard(boards(rows), [], "make")[:5000]
    )


def test_what_trained_is_named_as_people_know_it():
    cpu = {"cpu": "some", "cores": 4, "cores_usable": 1}
    assert device(cpu | {"devices": ["1 x cpu (cpu)"]}) == "1 of 4 cores, some"
    assert device(cpu | {"devices": ["2 x NVIDIA H100 (gpu)"]}) == "2 x NVIDIA H100 (gpu)"
