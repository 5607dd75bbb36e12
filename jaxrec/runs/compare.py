"""Runs held against each other on the same test targets, from what they saved: nothing is run again, jax is not needed.

Every number is about pairs: the same target under two models. Intervals and tests treat a user's targets as one unit.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxrec.config import Mistake
from jaxrec.data.vocabulary import Vocabulary
from jaxrec.evaluation.ranks_file import Ranks, load
from jaxrec.evaluation.summary import counts_of
from jaxrec.metrics import bootstrap, gains, holm, parse, permutation
from jaxrec.metrics.lists import LISTS
from jaxrec.metrics.sampled import ranked
from jaxrec.runs.change import differences
from jaxrec.runs.folder import Folder, read_json

Masks = dict[str, NDArray[np.bool_]]
PROTOCOL = ("split", "catalogue", "unknown_targets", "mask_seen", "sequence", "filters")


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run as it lies in its folder."""

    path: Path
    result: dict[str, Any]
    ranks: Ranks
    masks: Masks

    @classmethod
    def read(cls, directory: str, split: str = "test") -> "Run":
        """With its answers on the test or the validation targets. `Mistake` where the folder holds no finished run."""
        folder = Folder(directory)
        if not folder.result.exists():
            raise Mistake(f"{directory} holds no finished run (no result.json); finish it with jaxrec train")
        return cls(
            folder.path, read_json(folder.result), *load(folder.ranks if split == "test" else folder.ranks_valid)
        )

    @cached_property
    def ids(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """(users, targets) as they were in the data, from the vocabularies of the run's bundle; None = unknown."""
        found = []
        for name, numbers in (("user_ids", self.ranks.user), ("item_ids", self.ranks.target)):
            file = self.path / "bundle" / f"{name}.npz"
            try:
                with np.load(file, allow_pickle=False) as arrays:
                    words = Vocabulary(arrays["blob"], arrays["offsets"])
            except (OSError, ValueError, KeyError) as error:
                raise Mistake(f"{file} cannot be read ({error}); restore it, or train the run again") from None
            found.append(np.array([None, *words.strings], object)[numbers])
        return found[0], found[1]


def compare(
    directories: Sequence[str], *, metrics: Sequence[str] = (), split: str = "test", rounds: int = 10_000,
    seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Hold every run against the first: ``{"reading", "targets", "users", "metrics", "runs", "comparisons", "notes"}``.

    ``metrics`` are those of the first run where none is given. A comparison has, for one run and one metric, both
    means, their difference with its 95 % interval (paired bootstrap over users), the p-value of a permutation test
    (``rounds`` sign flips of whole users) and ``p_holm``, corrected for the number of runs that are held against the
    first (Holm 1979); the shares of targets where the run wins, loses and ties; and the same difference per slice.
    `Mistake` where the runs were not judged on the same targets against the same candidates, saying what differs.
    """
    if len(directories) < 2:
        raise Mistake(f"{len(directories)} run is nothing to compare; name two or more folders of runs")
    first, *others = runs = [Run.read(directory, split) for directory in directories]
    for other in others:
        refuse_unlike(first, other)
    reading = first.result["headline"]
    names = tuple(metrics) or metrics_of(first, reading)
    for name in names:
        parse(name)
    found = [against(first, other, name, reading, rounds, seed) for name in names for other in others]
    for _, group in itertools.groupby(found, key=lambda one: one["metric"]):
        same = list(group)
        for one, corrected in zip(same, holm([one["p"] for one in same]), strict=True):
            one["p_holm"] = float(corrected)
    return {
        "split": split, "reading": reading,
        "targets": len(first.ranks.target), "users": len(np.unique(first.ranks.user)),
        "data": first.result["protocol"]["name"], "metrics": list(names), "rounds": rounds, "seed": seed,
        "runs": [about(run, names, reading) for run in runs], "comparisons": found, "notes": notes(runs),
    }  # fmt: skip


def metrics_of(run: Run, reading: str) -> tuple[str, ...]:
    """The ranking metrics of a result, in its order."""
    return ranked(name for name in run.result["test"][reading] if name.partition("@")[0] not in LISTS)


def about(run: Run, names: Sequence[str], reading: str) -> dict[str, Any]:
    values = {name: float(np.mean(values_of(run, name, reading))) for name in names}
    model = run.result["model"]["cell"]
    return {"run": str(run.path), "run_id": run.result["run_id"], "cell": model, "values": values}


def values_of(run: Run, name: str, reading: str) -> NDArray[np.float64]:
    """A metric for every target (n,), expected over ties."""
    candidates = int(run.ranks.candidates[0]) if len(run.ranks.candidates) else None
    return gains(name, *counts_of(run.ranks, reading), candidates=candidates)


def against(first: Run, other: Run, name: str, reading: str, rounds: int, seed: int) -> dict[str, Any]:
    """One run and one metric, held against the first run."""
    before, after = values_of(first, name, reading), values_of(other, name, reading)
    delta, users = after - before, first.ranks.user
    low, high = bootstrap(delta, groups=users, seed=seed)
    return {
        "run": str(other.path), "metric": name, "first": float(before.mean()), "other": float(after.mean()),
        "delta": float(delta.mean()), "low": low, "high": high,
        "p": permutation(delta, groups=users, rounds=rounds, seed=seed),
        "wins": float(np.mean(delta > 0)), "losses": float(np.mean(delta < 0)), "ties": float(np.mean(delta == 0)),
        "slices": {
            slice_: per_slice(before[mask], delta[mask], users[mask], seed)
            for slice_, mask in slices_of(first, other).items()
            if mask.any()
        },
    }  # fmt: skip


def per_slice(
    before: NDArray[np.float64], delta: NDArray[np.float64], users: NDArray[np.int64], seed: int
) -> dict[str, float]:
    low, high = bootstrap(delta, groups=users, seed=seed)
    mean = float(before.mean())
    return {"count": len(delta), "first": mean, "delta": float(delta.mean()), "low": low, "high": high}


def slices_of(first: Run, other: Run) -> Masks:
    """The slices of the first run, or of the other where the first has none."""
    return first.masks or other.masks


def refuse_unlike(first: Run, other: Run) -> None:
    """`Mistake`, with what differs, unless both runs ranked the same targets against equally many candidates and hid
    the same items.
    """
    pair = f"{first.path} and {other.path}"
    before, after = ({name: run.result["protocol"].get(name) for name in PROTOCOL} for run in (first, other))
    changes = "; ".join(differences(before, after)[:5])
    because = f" ({changes})" if changes else ""
    a, b = first.ranks, other.ranks
    if len(a.target) != len(b.target):
        raise Mistake(
            f"{pair} were judged on {len(a.target):,} and {len(b.target):,} targets{because}; train both on the "
            "same data with the same split and filters"
        )
    same_data = first.result["protocol"]["fingerprint"] == other.result["protocol"]["fingerprint"]
    columns = [(a.user, b.user), (a.target, b.target)] if same_data else list(zip(first.ids, other.ids, strict=True))
    unlike = np.any([left != right for left, right in [*columns, (a.position, b.position)]], axis=0)
    if unlike.any():
        at = int(np.flatnonzero(unlike)[0])
        asked = " and ".join(
            f"item {run.ids[1][at]!r} of user {run.ids[0][at]!r} after {run.ranks.position[at]} events"
            for run in (first, other)
        )
        raise Mistake(
            f"{pair} were judged on other targets{because}: {int(unlike.sum()):,} of {len(unlike):,} differ, the "
            f"first is {asked}; train both on the same data with the same split"
        )
    if not np.array_equal(a.candidates, b.candidates):
        raise Mistake(
            f"{pair} ranked their targets against {a.candidates[0]:,} and {b.candidates[0]:,} items{because}; "
            "give both the same catalogue and filters"
        )
    masks = [run.result["protocol"]["mask_seen"] for run in (first, other)]
    if masks[0] != masks[1]:
        raise Mistake(f"{pair} hide other items (mask_seen {masks[0]} and {masks[1]}); judge both under the same")


def notes(runs: Sequence[Run]) -> list[str]:
    """What a reader should know before believing the numbers."""
    found = []
    if not any(run.masks for run in runs[:2]):
        found.append(f"{runs[0].path} has no slices; jaxrec evaluate --run {runs[0].path} adds them")
    if len({run.result["protocol"]["fingerprint"] for run in runs}) > 1:
        found.append("the runs had the same test targets but not the same training data")
    found += [f"{run.path} is not complete" for run in runs if not run.result.get("complete", True)]
    found += [f"{run.path}: {sentence}" for run in runs for sentence in run.result.get("warnings", [])]
    ids = [run.result["run_id"] for run in runs]
    found += [f"{run.path} is the first run again" for run, own in zip(runs[1:], ids[1:], strict=True) if own == ids[0]]
    return found
