"""Are the ranking and list metrics right to the last tie?

Claim     Over random catalogues, scores full of ties and any cutoff, every ranking metric equals `pytrec_eval` (the
          library behind trec_eval) averaged over all places that ties leave to the target, and a brute force that
          permutes the tied items; list metrics equal loops written from their definitions. Largest difference < 1e-9.
Command   python experiments/metric_oracle.py --cases 10000        (needs `pip install pytrec-eval-terrier`)
Time      About a minute on one core.
Expect    One row in experiments/results/metric_oracle.jsonl: cases, comparisons and the largest difference of each
          metric. It ends with status 1 where one is larger than 1e-9.
"""

import argparse
import itertools
import math
import sys
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from jaxrec.bench.timing import append_row
from jaxrec.metrics import gains
from jaxrec.metrics.lists import describe
from jaxrec.runs.machine import card

ROWS = Path(__file__).parent / "results" / "metric_oracle.jsonl"
ALLOWED = 1e-9
TREC = {
    "hr": "success_{k}", "recall": "recall_{k}", "precision": "P_{k}", "ndcg": "ndcg_cut_{k}", "map": "map_cut_{k}",
    "mrr": "recip_rank",
}  # fmt: skip
GAINS = {
    "hr": lambda rank, k: 1.0, "recall": lambda rank, k: 1.0, "precision": lambda rank, k: 1 / k,
    "ndcg": lambda rank, k: 1 / math.log2(rank + 2), "mrr": lambda rank, k: 1 / (rank + 1),
    "map": lambda rank, k: 1 / (rank + 1),
}  # fmt: skip


def case(draw: np.random.Generator) -> tuple[np.ndarray, int]:
    """Scores of a catalogue, the target in place 0, and a cutoff; one of five is constant, most are full of ties."""
    items = int(draw.integers(2, 40))
    kinds = int(draw.choice([1, 2, 4, 8, 1000]))
    return draw.integers(0, kinds, items).astype(float), int(draw.integers(1, 25))


def counted(scores: np.ndarray) -> tuple[int, int]:
    others = scores[1:]
    return int((others > scores[0]).sum()), int((others == scores[0]).sum())


def by_trec(scores: np.ndarray, k: int) -> dict[str, list[float]]:
    """Each metric for every place, best first, that ties leave to the target: trec_eval on scores without ties."""
    import pytrec_eval

    greater, equal = counted(scores)
    measures = {f"{name.rsplit('_', 1)[0]}.{k}" if "{k}" in name else name for name in TREC.values()}
    judge = pytrec_eval.RelevanceEvaluator({"q": {"i0": 1}}, measures)
    rest = np.argsort(-scores[1:], kind="stable") + 1
    found: dict[str, list[float]] = defaultdict(list)
    for place in range(greater, greater + equal + 1):
        order = [*rest[:place], 0, *rest[place:]]
        whole = judge.evaluate({"q": {f"i{item}": float(-at) for at, item in enumerate(order)}})["q"]
        cut = judge.evaluate({"q": {f"i{item}": float(-at) for at, item in enumerate(order[:k])}})["q"]
        for name, measure in TREC.items():
            found[name].append((cut if name == "mrr" else whole)[measure.format(k=k)])
    return found


def by_permutation(scores: np.ndarray, k: int) -> dict[str, list[float]]:
    """Each metric for every order of the target and, at most, four of its equals: a sort of the whole catalogue."""
    found: dict[str, list[float]] = defaultdict(list)
    tied = [item for item in range(len(scores)) if scores[item] == scores[0]]
    for order in itertools.permutations(tied):
        tie_break = {item: place for place, item in enumerate(order)}
        ranking = sorted(range(len(scores)), key=lambda item: (-scores[item], tie_break.get(item, 0)))
        rank = ranking.index(0)
        for name, gain in GAINS.items():
            found[name].append(gain(rank, k) if rank < k else 0.0)
    return found


def differences(scores: np.ndarray, k: int, *, trec: bool) -> dict[str, float]:
    """Largest difference of each metric, over the three readings of ties."""
    greater, equal = (np.array([count]) for count in counted(scores))
    found: dict[str, float] = defaultdict(float)
    oracles = [by_trec(scores, k)] if trec else []
    oracles += [by_permutation(scores, k)] if equal[0] < 5 else []
    for oracle in oracles:
        for name, values in oracle.items():
            wanted = {"expected": np.mean(values), "optimistic": max(values), "pessimistic": min(values)}
            for ties, value in wanted.items():
                own = gains(f"{name}@{k}", greater, equal, ties)[0]
                found[name] = max(found[name], abs(float(own - value)))
    return found


def list_case(draw: np.random.Generator) -> dict[str, Any]:
    items, k = int(draw.integers(2, 12)), int(draw.integers(1, 5))
    lists = draw.integers(0, items + 1, (int(draw.integers(1, 7)), k))
    lists[0, 0] = 1
    features = draw.integers(0, 3, (items + 1, 3)).astype(float)
    features[0] = 9  # nobody may read it
    return {"lists": lists, "popularity": np.append(0, draw.integers(0, 6, items)), "candidates": items,
            "features": features}  # fmt: skip


def by_loops(lists: Any, popularity: Any, candidates: int, features: Any) -> dict[str, float]:
    """The list metrics from their definitions, one item at a time."""
    named = [int(item) for row in lists for item in row if item]
    often = [named.count(item) for item in range(1, candidates + 1)]
    total = sum(popularity[1:]) + candidates
    tail = [sum(popularity[j] > popularity[i] for j in range(1, candidates + 1)) >= 0.2 * candidates for i in named]
    pairs = sum(abs(a - b) for a in often for b in often)
    found = {
        "coverage": len(set(named)) / candidates,
        "popularity": sum(popularity[i] for i in named) / len(named),
        "gini": pairs / (2 * candidates * sum(often)),
        "tail": sum(tail) / len(named),
        "novelty": sum(-math.log2((popularity[i] + 1) / total) for i in named) / len(named),
    }
    means = []
    for row in lists:
        able = [features[i] / np.linalg.norm(features[i]) for i in row if i and features[i].any()]
        apart = [1 - float(a @ b) for a, b in itertools.combinations(able, 2)]
        means += [sum(apart) / len(apart)] if apart else []
    return found | ({"diversity": sum(means) / len(means)} if means else {})


def compare(cases: int, seed: int, *, trec: bool = True) -> dict[str, float]:
    """Largest difference of every metric over random cases."""
    draw = np.random.default_rng(seed)
    worst: dict[str, float] = defaultdict(float)
    for _ in range(cases):
        scores, k = case(draw)
        for name, value in differences(scores, k, trec=trec).items():
            worst[name] = max(worst[name], value)
        given = list_case(draw)
        wanted, own = by_loops(**given), describe(**given)
        assert {name.partition("@")[0] for name in own} == wanted.keys(), (given, own, wanted)
        for name, value in own.items():
            short = name.partition("@")[0]
            worst[short] = max(worst[short], abs(float(value - wanted[short])))
    return dict(worst)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    worst = compare(options.cases, options.seed)
    row = {
        "cases": options.cases, "seed": options.seed, "oracle": f"pytrec-eval-terrier {version('pytrec-eval-terrier')}",
        "largest_difference": worst, "allowed": ALLOWED,
        "agreed": max(worst.values()) <= ALLOWED,
        "command": f"python experiments/metric_oracle.py --cases {options.cases} --seed {options.seed}",
        "machine": card(devices=False),
    }  # fmt: skip
    append_row(ROWS, row)
    print({name: value for name, value in row.items() if name != "machine"})
    return 0 if row["agreed"] else 1


if __name__ == "__main__":
    sys.exit(main())
