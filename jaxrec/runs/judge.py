"""Judging: a model, the counting baselines and, on built-in data, the generator's own ceiling on the same targets."""

import copy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxrec.config import Mistake, fingerprint
from jaxrec.data.prepared import Prepared
from jaxrec.data.replacing import replacing
from jaxrec.evaluation import sampled
from jaxrec.evaluation.ranks import Ranks, evaluate
from jaxrec.evaluation.ranks_file import save
from jaxrec.evaluation.slices import slices
from jaxrec.evaluation.summary import collapsed, details, headline, list_length, summarise
from jaxrec.metrics import evaluate as measure
from jaxrec.metrics.sampled import ranked, samples
from jaxrec.models import counting
from jaxrec.models.counting import Markov, Popularity, Recency
from jaxrec.models.recommender import Recommender
from jaxrec.models.transitions import Transitions
from jaxrec.runs.folder import Folder

BASELINES: dict[str, Callable[[], Any]] = {
    "popularity": Popularity,
    "markov": lambda: Markov((1.0,)),
    "markov3": lambda: Markov((1.0, 0.5, 0.25)),
    "markov3_shares": lambda: Markov((1.0, 0.5, 0.25), normalised=True),
}
# going back to an item is no recommendation where seen items are masked
RETURNING: dict[str, Callable[[], Any]] = {
    "recency": Recency,
    "recent5_markov": lambda: Markov((1.0,), recent=5),
}


class Judged(NamedTuple):
    """A model's answers on the test targets, and what they say."""

    ranks: Ranks
    found: dict[str, Any]  # the entry "test" of a result
    masks: dict[str, np.ndarray]
    drawn: dict[str, np.ndarray]  # candidates (n, size) by the name of their sample
    warnings: list[str]

    def save(self, folder: Folder) -> None:
        """Write ``ranks.npz``, and ``candidates.npz`` where candidates were sampled."""
        write_ranks(folder.ranks, self.ranks, self.masks)
        folder.candidates.unlink(missing_ok=True)  # those of an earlier judgement are not this one's
        if self.drawn:
            which = {name: getattr(self.ranks, name) for name in ("example", "position", "target")}
            with replacing(folder.candidates) as file:
                np.savez_compressed(file, allow_pickle=False, **which, **self.drawn)


def write_ranks(path: Path, ranks: Ranks, masks: dict[str, np.ndarray]) -> None:
    """Write ranks with their slices, whole or not at all."""
    with replacing(path) as file:
        save(file, ranks, masks)


def model(
    recommender: Recommender, prepared: Prepared, metrics: tuple[str, ...], split: str, *, users: int | None = None
) -> tuple[Ranks, dict[str, Any]]:
    """Ranks and numbers of a model on a split, among all candidates; on the test targets its lists are described."""
    ranks = evaluate(recommender, prepared, split, users=users, k=shown(prepared, metrics, split))
    return ranks, numbers(prepared, ranks, metrics)


def shown(prepared: Prepared, metrics: tuple[str, ...], split: str) -> int:
    """Items of the lists that are kept of a split."""
    return min(list_length(ranked(metrics)), prepared.candidates) if split == "test" else 0


def numbers(prepared: Prepared, ranks: Ranks, metrics: tuple[str, ...]) -> dict[str, Any]:
    """What ranks among all candidates say."""
    # whoever prepares data with a vector an item (1 + candidates, f) gets the diversity of lists
    return summarise(prepared, ranks, ranked(metrics), prepared.item_features)


def on_test(
    recommender: Recommender, prepared: Prepared, metrics: tuple[str, ...], ranks: Ranks | None = None
) -> Judged:
    """Everything there is to know about a model on the test targets, whose ``ranks`` may be known; sampled candidates
    where a metric names them.
    """
    if ranks is None:
        ranks = evaluate(recommender, prepared, "test", k=shown(prepared, metrics, "test"))
    masks = sliced(prepared, ranks)
    found = numbers(prepared, ranks, metrics) | details(prepared, ranks, ranked(metrics), masks)
    drawn: dict[str, np.ndarray] = {}
    for sample, names in samples(metrics).items():
        some = drawn[str(sample)] = sampled.candidates(prepared, ranks, sample)
        counts = sampled.evaluate(recommender, prepared, ranks, some)
        values = measure(names.values(), *counts, candidates=sample.size + 1)
        found.setdefault("sampled", {}).update({name: values[base] for name, base in names.items()})
    return Judged(ranks, found, masks, drawn, [sentence for sentence in [collapsed(ranks)] if sentence])


def sliced(prepared: Prepared, ranks: Ranks) -> dict[str, np.ndarray]:
    """`slices` of a split's targets, which are the same for every model; the last two are kept."""
    asked = (ranks.example, ranks.position, ranks.target)
    data = prepared.card["fingerprint"]
    with _ONE:
        for known, targets, masks in _SLICED:
            if known == data and all(map(np.array_equal, targets, asked)):
                return masks
        masks = slices(prepared, ranks)
        _SLICED[:] = [(data, asked, masks), *_SLICED[:1]]
        return masks


_SLICED: list[tuple[str, tuple[Any, ...], dict[str, np.ndarray]]] = []


def baselines(prepared: Prepared, metrics: tuple[str, ...]) -> dict[str, Any]:
    """Numbers of counting on the test targets: popularity, the last item, the last three (weights 1, 1/2, 1/4; counts
    and shares), and going back to recent items where nothing is masked.
    """

    def count() -> dict[str, Any]:
        transitions = Transitions.count(prepared)
        chosen = BASELINES | (RETURNING if headline(prepared) == "unmasked" else {})
        return {
            name: summarise(prepared, make().fit(prepared, transitions).counts(prepared, "test"), ranked(metrics))
            for name, make in chosen.items()
        }

    return once("baselines", prepared, metrics, count)


def ceiling(prepared: Prepared, metrics: tuple[str, ...]) -> dict[str, Any] | None:
    """Numbers of the generator's exact predictor where the data came from one and was left whole, else None."""
    if "demo" not in prepared.card["source"]:
        return None
    from jaxrec.data.demo import true_counts

    def count() -> dict[str, Any] | None:
        try:
            found = counting.Ranks(*true_counts(prepared, "test"))
        except Mistake:  # filters or sessions cut the histories that the generator knows
            return None
        return summarise(prepared, found, ranked(metrics))

    return once("ceiling", prepared, metrics, count)


def once(what: str, prepared: Prepared, metrics: tuple[str, ...], count: Callable[[], Any]) -> Any:
    """What a process found of the same data before, or finds now: many trainings in one ask for the same."""
    key = (what, fingerprint(prepared.card), metrics)
    with _ONE:
        if key not in _FOUND:
            if len(_FOUND) >= 16:
                _FOUND.clear()
            _FOUND[key] = count()
        return copy.deepcopy(_FOUND[key])


_ONE = threading.Lock()  # many trainings in one process ask at the same time, and one of them should count
_FOUND: dict[tuple[str, str, tuple[str, ...]], Any] = {}
