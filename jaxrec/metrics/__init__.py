"""Metrics over ranks and over recommended lists: one line each."""

from jaxrec.metrics.intervals import bootstrap, holm, permutation
from jaxrec.metrics.lists import coverage, describe, diversity, gini, mean_popularity, novelty, tail_share
from jaxrec.metrics.ranking import average_precision, evaluate, gains, hr, mrr, ndcg, parse, precision, recall

__all__ = [
    "average_precision",
    "bootstrap",
    "coverage",
    "describe",
    "diversity",
    "evaluate",
    "gains",
    "gini",
    "holm",
    "hr",
    "mean_popularity",
    "mrr",
    "ndcg",
    "novelty",
    "parse",
    "permutation",
    "precision",
    "recall",
    "tail_share",
]
