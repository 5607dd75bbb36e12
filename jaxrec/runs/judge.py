"""Judging: a model, the counting baselines and, on built-in data, the generator's own ceiling on the same targets."""

from collections.abc import Callable
from typing import Any

from jaxrec.config import Mistake
from jaxrec.data.prepared import Prepared
from jaxrec.evaluation.ranks import Ranks, evaluate
from jaxrec.evaluation.summary import list_length, summarise
from jaxrec.models import counting
from jaxrec.models.counting import Markov, Popularity
from jaxrec.models.recommender import Recommender

BASELINES: dict[str, Callable[[], Any]] = {
    "popularity": Popularity,
    "markov": lambda: Markov((1.0,)),
    "markov3": lambda: Markov((1.0, 0.5, 0.25)),
}


def model(
    recommender: Recommender, prepared: Prepared, metrics: tuple[str, ...], split: str, *, users: int | None = None
) -> tuple[Ranks, dict[str, Any]]:
    """Ranks and numbers of a model on a split; on the test targets its lists are described too."""
    k = min(list_length(metrics), prepared.candidates) if split == "test" else 0
    ranks = evaluate(recommender, prepared, split, users=users, k=k)
    return ranks, summarise(prepared, ranks, metrics)


def baselines(prepared: Prepared, metrics: tuple[str, ...]) -> dict[str, Any]:
    """Numbers of popularity and of Markov counting (last item; last three with weights 1, 1/2, 1/4) on the test
    targets.
    """
    return {
        name: summarise(prepared, make().fit(prepared).counts(prepared, "test"), metrics)
        for name, make in BASELINES.items()
    }


def ceiling(prepared: Prepared, metrics: tuple[str, ...]) -> dict[str, Any] | None:
    """Numbers of the generator's exact predictor where the data came from one and was left whole, else None."""
    if "demo" not in prepared.card["source"]:
        return None
    from jaxrec.data.demo import true_counts

    try:
        found = counting.Ranks(*true_counts(prepared, "test"))
    except Mistake:  # filters or sessions cut the histories that the generator knows
        return None
    return summarise(prepared, found, metrics)
