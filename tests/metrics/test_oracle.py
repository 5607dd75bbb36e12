"""Every metric against trec_eval and against brute force: a few of the cases of experiments/metric_oracle.py."""

import metric_oracle as oracle
import numpy as np
import pytest

from jaxrec.metrics import lists, ranking


def test_every_metric_is_brute_force():
    worst = oracle.compare(150, 0, trec=False)
    assert worst.keys() == {*ranking.METRICS, *lists.LISTS}
    assert max(worst.values()) < oracle.ALLOWED


def test_every_ranking_metric_is_that_of_trec_eval():
    pytest.importorskip("pytrec_eval", reason="pytrec-eval-terrier is not installed")
    draw = np.random.default_rng(1)
    for _ in range(100):
        found = oracle.differences(*oracle.case(draw), trec=True)
        assert found.keys() == set(ranking.METRICS)
        assert max(found.values()) < oracle.ALLOWED


def test_a_planted_fault_is_found(monkeypatch):
    rank = ranking._ranks
    monkeypatch.setattr(ranking, "_ranks", lambda greater, equal, ties: rank(greater, equal, "optimistic"))
    worst = oracle.compare(30, 0, trec=False)
    assert max(worst[name] for name in ranking.METRICS) > 0.1
