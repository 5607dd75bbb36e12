"""Ranking metrics against enumeration of tie orders, an implementation by sorting, values by hand, and laws."""

import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import given, strategies as st

from jaxrec.config import Mistake
from jaxrec.metrics import average_precision, evaluate, gains, hr, mrr, ndcg, parse, precision, recall

GAINS = {
    hr: lambda rank: 1.0,
    recall: lambda rank: 1.0,
    ndcg: lambda rank: 1 / math.log2(rank + 2),
    mrr: lambda rank: 1 / (rank + 1),
    average_precision: lambda rank: 1 / (rank + 1),
}
metrics = pytest.mark.parametrize("metric", GAINS, ids=lambda metric: metric.__name__)
cutoffs = st.none() | st.integers(1, 12)


def by_enumeration(gain, greater, equal, k):
    """Mean gain over every order of the target (0) and the candidates tied with it."""
    gains = []
    for order in itertools.permutations(range(equal + 1)):
        rank = greater + order.index(0)
        gains.append(gain(rank) if k is None or rank < k else 0.0)
    return sum(gains) / len(gains)


@metrics
@given(greater=st.integers(0, 10), equal=st.integers(0, 4), k=cutoffs)
def test_expected_is_the_mean_over_all_tie_orders(metric, greater, equal, k):
    wanted = by_enumeration(GAINS[metric], greater, equal, k)
    np.testing.assert_allclose(metric([greater], [equal], k), [wanted], rtol=1e-12, atol=1e-15)


@metrics
@given(
    scores=st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=1, max_size=4),
    k=st.integers(1, 8),
    ties=st.sampled_from(["optimistic", "pessimistic"]),
)
def test_agrees_with_sorting_the_catalogue(metric, scores, k, ties):
    """Column 0 is the target; a sort that puts it first or last among its equals gives its rank."""
    scores = np.array(scores)
    own = np.zeros(scores.shape[1], int)
    own[0] = -1 if ties == "optimistic" else 1
    wanted = []
    for row in scores:
        top = np.lexsort((own, -row))[:k]
        wanted.append(sum(GAINS[metric](place) for place, item in enumerate(top) if item == 0))
    others = scores[:, 1:]
    greater, equal = ((compare(others, scores[:, :1])).sum(1) for compare in (np.greater, np.equal))
    np.testing.assert_allclose(metric(greater, equal, k, ties), wanted, rtol=1e-15)


def test_values_by_hand():
    greater, equal = np.array([0, 2, 9, 0]), np.array([0, 0, 1, 3])
    np.testing.assert_allclose(hr(greater, equal, 10), [1, 1, 0.5, 1])
    np.testing.assert_allclose(mrr(greater, equal, 10), [1, 1 / 3, 0.05, 25 / 48])
    np.testing.assert_allclose(ndcg(greater, equal, 2), [1, 0, 0, (1 + 1 / math.log2(3)) / 4])
    np.testing.assert_array_equal(ndcg([2, 0], [0, 0], 10), [0.5, 1.0])


@metrics
@given(
    counts=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 3000)), min_size=1, max_size=5),
    k=st.integers(1, 4000),
)
def test_laws(metric, counts, k):
    greater, equal = np.array(counts).T
    best, mean, worst = (metric(greater, equal, k, ties) for ties in ("optimistic", "expected", "pessimistic"))
    assert np.all(best >= mean - 1e-12)
    assert np.all(mean >= worst - 1e-12)
    assert np.all((worst >= 0) & (best <= 1))
    assert np.all(metric(greater, equal, k + 1) >= mean - 1e-12), "a longer list never loses"
    assert np.all(metric(greater + 1, equal, k) <= mean + 1e-12), "one more competitor never helps"
    np.testing.assert_allclose(metric(greater, equal, None), metric(greater, equal, 10_000), rtol=1e-12)
    untied = metric(greater, np.zeros_like(equal), k)
    np.testing.assert_array_equal(untied, metric(greater, np.zeros_like(equal), k, "pessimistic"))


@metrics
def test_first_place_is_perfect_and_a_constant_model_is_not(metric):
    assert metric([0], [0], 10) == [1.0]
    constant = metric([0], [999], 10)
    assert metric([0], [999], 10, "optimistic") == [1.0]
    np.testing.assert_allclose(constant, sum(GAINS[metric](rank) for rank in range(10)) / 1000, rtol=1e-12)


def test_precision_is_the_share_of_places_and_needs_a_cutoff():
    np.testing.assert_array_equal(precision([0, 4, 5], [0, 0, 0], 5), [0.2, 0.2, 0])
    np.testing.assert_allclose(precision([0], [9], 5), [0.1])
    for call in (lambda: precision([0], [0], None), lambda: parse("precision")):
        with pytest.raises(Mistake, match="precision@10"):
            call()


def test_gains_are_what_evaluate_averages():
    greater, equal = np.array([0, 3, 7, 7]), np.array([0, 2, 0, 0])
    for ties in ("expected", "optimistic", "pessimistic"):
        found = gains("ndcg@5", greater, equal, ties, candidates=7)
        assert evaluate(["ndcg@5"], greater, equal, ties, 7) == {"ndcg@5": found.mean()}
    assert gains("mrr", greater, equal, candidates=7)[2] == 0


@metrics
def test_no_targets_no_values(metric):
    assert metric(np.zeros(0, int), np.zeros(0, int), 10).shape == (0,)


def test_small_tables_for_large_cutoffs_and_ranks():
    """Neither a cutoff beyond every rank nor a rank beyond the cutoff costs memory: 8 EB would not fit."""
    np.testing.assert_allclose(mrr([3], [0], 10**15), [0.25])
    np.testing.assert_array_equal(mrr([10**15], [10**15], 10), [0.0])


@pytest.mark.parametrize(
    ("name", "metric", "k"),
    [("hr@10", hr, 10), ("NDCG@5", ndcg, 5), ("mrr", mrr, None), ("Recall@20", recall, 20), (" mrr @ 3 ", mrr, 3)],
)
def test_parse(name, metric, k):
    assert parse(name) == (metric, k)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("ndgc@10", "did you mean 'ndcg'"),
        ("hitrate@10", "choose from hr, recall, precision, ndcg, mrr, map"),
        ("coverage@10", "every result has it"),
        ("", "choose from"),
        ("hr@0", "'0'"),
        ("hr@ten", "'ten'"),
        ("hr@", "hr@10"),
        ("hr@1@2", "'1@2'"),
        ("hr@-1", "'-1'"),
    ],
)
def test_a_name_that_cannot_be_read_is_a_mistake(name, part):
    with pytest.raises(Mistake) as raised:
        parse(name)
    assert part in str(raised.value)
    assert "\n" not in str(raised.value)


def test_evaluate_averages_under_the_names_given():
    found = evaluate(["HR@1", "mrr"], [0, 1], [0, 0])
    assert found == {"HR@1": 0.5, "mrr": 0.75}
    assert evaluate(["hr@1"], [0, 0], [1, 0], ties="pessimistic") == {"hr@1": 0.5}


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (lambda: evaluate(["hr@1"], [], []), "no targets"),
        (lambda: hr([0, 1], [0], 10), "(2,)"),
        (lambda: hr([-1], [0], 10), "-1"),
        (lambda: hr([0.5], [0], 10), "float64"),
        (lambda: hr([0], [0], 0), "k = 0"),
        (lambda: hr([0], [0], 10, "middle"), "'middle'"),
    ],
)
def test_errors_name_the_value(call, part):
    with pytest.raises(ValueError, match=re.escape(part)):
        call()


def test_a_sure_miss_gains_nothing_at_any_cutoff():
    names = ("hr", "ndcg", "mrr", "hr@2000")
    assert evaluate(names, np.array([50, 50]), np.array([0, 0]), candidates=50) == dict.fromkeys(names, 0.0)
    last = evaluate(names, np.array([49]), np.array([0]), candidates=50)
    assert last["hr"] == 1.0
    assert 0 < last["mrr"] < last["ndcg"] < 1
