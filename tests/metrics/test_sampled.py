"""Sampled candidates: names, and draws without replacement that have the distribution they say."""

import itertools

import numpy as np
import pytest
from hypothesis import given, strategies as st

from jaxrec.config import Mistake
from jaxrec.metrics import sampled
from jaxrec.metrics.sampled import Sample, draw, ranked, samples, split_name

NAMES = ("hr@10", "ndcg@10[uni100,seed1]", "mrr[uni100,seed1]", "hr@5[pop50,seed0]")


def test_a_name_says_which_candidates():
    assert split_name("ndcg@10") == ("ndcg@10", None)
    assert split_name("ndcg@10[pop100,seed7]") == ("ndcg@10", Sample("pop", 100, 7))
    assert str(Sample("uni", 100, 1)) == "uni100,seed1"
    assert ranked(NAMES) == ("hr@10",)
    assert samples(NAMES) == {
        Sample("uni", 100, 1): {"ndcg@10[uni100,seed1]": "ndcg@10", "mrr[uni100,seed1]": "mrr"},
        Sample("pop", 50, 0): {"hr@5[pop50,seed0]": "hr@5"},
    }


@pytest.mark.parametrize("name", ["hr@10[100]", "hr@10[uni100]", "hr@10[uni0,seed1]", "hr@10[top5,seed1]", "hr@10["])
def test_a_name_that_cannot_be_read_is_a_mistake(name):
    with pytest.raises(Mistake, match=r"hr@10\[uni100,seed1\]"):
        split_name(name)


def test_a_metric_that_does_not_exist_is_one_among_samples_too():
    with pytest.raises(Mistake, match="did you mean"):
        split_name("ndgc@10[uni100,seed1]")


@given(st.integers(0, 5), st.integers(1, 12), st.data())
def test_nothing_barred_nothing_twice_and_as_many_as_there_are(seed, size, data):
    items = 10
    weights = np.array([0.0, *data.draw(st.lists(st.integers(0, 4), min_size=items - 1, max_size=items - 1))])
    barred = data.draw(st.lists(st.sets(st.integers(1, items - 1)), min_size=3, max_size=3))
    row = np.repeat(np.arange(3), [len(one) for one in barred])
    flat = np.array([item for one in barred for item in one], np.int64)
    found = draw(weights, row, flat, 3, size, np.random.default_rng(seed))
    for drawn, out in zip(found, barred, strict=True):
        able = {item for item in range(items) if weights[item] > 0} - out
        got = drawn[drawn > 0]
        assert len(set(got)) == len(got) == min(size, len(able))
        assert set(got) <= able
        assert not drawn[len(got) :].any()


@pytest.mark.parametrize("tries", [0, 1, 4])  # by what is left alone, a mixture, and mostly by rejection
def test_the_chance_of_each_list_is_that_of_successive_sampling(tries, monkeypatch):
    monkeypatch.setattr(sampled, "TRIES", tries)
    weights, rows = np.array([0.0, 5, 3, 1, 1, 7]), 40_000
    found = draw(weights, np.arange(rows), np.full(rows, 5), rows, 2, np.random.default_rng(0))  # 5 is barred
    for first, second in itertools.permutations((1, 2, 3, 4), 2):
        wanted = weights[first] / 10 * weights[second] / (10 - weights[first])
        share = np.mean((found[:, 0] == first) & (found[:, 1] == second))
        assert share == pytest.approx(wanted, abs=5 * np.sqrt(wanted / rows))
