"""Metrics over ranks and over recommended lists: one line each."""

from jaxrec.metrics.lists import coverage, mean_popularity
from jaxrec.metrics.ranking import evaluate, hr, mrr, ndcg, parse, recall

__all__ = ["coverage", "evaluate", "hr", "mean_popularity", "mrr", "ndcg", "parse", "recall"]
