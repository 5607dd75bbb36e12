"""The protocol card: what was decided and counted, in words and numbers, beside the arrays."""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxrec.data.columns import Choice
from jaxrec.data.folders import Folder, parts_of
from jaxrec.data.formats import Format
from jaxrec.data.options import Preparation
from jaxrec.data.prepared import SCHEMA, Prepared
from jaxrec.data.sources import Source

QUANTILES = {"min": 0.0, "25%": 0.25, "median": 0.5, "75%": 0.75, "95%": 0.95, "max": 1.0}


def begun(
    options: Preparation, name: str, kind: str, source: dict[str, Any], decided: dict[str, Any], offsets: np.ndarray
) -> dict[str, Any]:
    """The card but for what only the arrays tell; `decided` is what `protocol.decide` decided, with ties and leaks."""
    split = decided["split"]
    return {
        "schema": SCHEMA,
        "name": name,
        "source": source,
        "filters": decided["filters"],
        "split": split,
        "catalogue": catalogue(options, split["name"]),
        "unknown_targets": options.unknown_targets,
        "mask_seen": resolved(options.mask_seen, "history" if kind == "user" else "none"),
        "sequence": kind,
        "ties": decided["ties"],
        "leaks": leaks(split, decided["parts_overlap"], decided["filters"]),
        "lengths": lengths(offsets),
    }


def source(
    source: Source | Folder, form: Format, choice: Choice, rows: int, time: tuple[str, str] | None
) -> dict[str, Any]:
    """Where plain events came from, as `prepare.source_card` tells it of those in memory; `time` is unit and span."""
    parts = [part.sha256 for part in parts_of(source)]
    return {
        "files": [source.path.name],
        "sha256": [source.sha256],
        "format": form.words,
        "columns": choice.names(),
        "chosen_because": f"{form.because}; columns by {choice.because}",
        "rows": [rows],
        "time": time and ", ".join(time),
    } | ({"parts": parts} if parts else {})


def catalogue(options: Preparation, split: str) -> str:
    return resolved(options.catalogue, "train" if split == "time" else "all")


def resolved(asked: str, automatic: str) -> str:
    return automatic if asked == "auto" else asked


def tie_shares(offsets: np.ndarray, times: np.ndarray | None) -> dict[str, Any]:
    """Share of events at the time of another event of their sequence, and of sequences whose last event is tied."""
    if times is None:
        return {"events_tied_share": None, "users_tied_last_share": None}
    tied = tied_events(offsets, times)
    last = tied[offsets[1:] - 1]
    return {"events_tied_share": float(tied.mean()), "users_tied_last_share": float(last.mean())}


def tied_events(offsets: np.ndarray, times: np.ndarray) -> np.ndarray:
    """bool (events,): whether a neighbour in the sequence has the same time."""
    same = np.diff(times) == 0
    same[offsets[1:-1] - 1] = False  # neighbours in different sequences
    return np.append(same, False) | np.append(False, same)


def lengths(offsets: np.ndarray) -> dict[str, float]:
    """Quantiles of the number of events in a sequence, and the mean."""
    events = np.diff(offsets)
    found = np.quantile(events, list(QUANTILES.values()), method="lower")
    return {name: int(value) for name, value in zip(QUANTILES, found, strict=True)} | {"mean": float(events.mean())}


def counts(prepared: Prepared) -> dict[str, int]:
    """Sizes of everything. Unknown targets never occur in training; dropped ones are not in valid_ and test_targets."""
    train_events = int((prepared.train_end - prepared.offsets[:-1]).sum())
    found = {
        "sequences": len(prepared.users),
        "users": len(prepared.user_ids),
        "items": prepared.candidates,
        "known_items": prepared.known,
        "events": len(prepared.items),
        "train_events": train_events,
        "train_pairs": int(np.maximum(prepared.train_end - prepared.offsets[:-1] - 1, 0).sum()),
        "valid_events": int((prepared.valid_end - prepared.train_end).sum()),
        "test_events": int((prepared.offsets[1:] - prepared.valid_end).sum()),
    }
    for split in ("valid", "test"):
        possible = prepared.targets(split, unknown=True)
        unknown = int((~prepared.is_known(possible)).sum())
        found |= {f"{split}_targets": len(prepared.targets(split)), f"unknown_{split}_targets": unknown}
    return found


def leaks(split: dict[str, Any], parts_overlap: bool | None, filters: dict[str, Any]) -> str:
    """What split and filters let training know about the future, in a sentence."""
    return split_leaks(split, parts_overlap) + ("; " + FILTERS_LEAK if filters_leak(split, filters) else "")


FILTERS_LEAK = "but the filters counted validation and test events too (--filter-scope train does not)"


def filters_leak(split: dict[str, Any], filters: dict[str, Any]) -> bool:
    """Whether events after the boundary decided which training events stay."""
    counts = max(filters["k_core"], filters["min_user_events"], filters["min_item_events"]) > 1
    return split["name"] != "given" and filters["scope"] == "all" and (counts or filters["deduplicate"] == "last")


def split_leaks(split: dict[str, Any], parts_overlap: bool | None) -> str:
    if split["name"] in ("leave-one-out", "last-n"):
        return (
            "leaks the future: a user's training events may be later than another user's test event, so popularity, "
            "transitions and items of the future are known in training"
        )
    if split["name"] == "time":
        return f"no leak across time: every training event is before {split['boundaries'][0]}, every test event is not"
    held = "; validation sequences were taken from the training file" if split.get("held_out") else ""
    if parts_overlap is None:
        return f"as the given files were cut: without times it cannot be checked{held}"
    if parts_overlap:
        return f"leaks the future: some events of the training file are later than the first of the test file{held}"
    return f"no leak across time: every event of the training file is before the test file's first{held}"


def summarise(card: dict[str, Any], say: Callable[[str], None]) -> None:
    """Say what came out: sizes, ties, split."""
    n, ties, kind = card["counts"], card["ties"], card["sequence"]
    say(
        f"{card['name']}: {n['sequences']:,} sequences ({kind}s), {n['items']:,} items, {n['events']:,} events; "
        f"{n['train_events']:,} for training, targets: {n['valid_targets']:,} validation, {n['test_targets']:,} test"
    )
    if ties["events_tied_share"] is not None:
        fate = "ties stay in file order" if ties["policy"] == "file order" else f"ties are {ties['policy']}"
        say(
            f"ties: {ties['events_tied_share']:.1%} of events share their time with another of the same {kind}, "
            f"{ties['users_tied_last_share']:.1%} of {kind}s have a tied last event; {fate}"
        )
    unknown = n["unknown_valid_targets"] + n["unknown_test_targets"]
    if unknown:
        fate = "count as misses" if card["unknown_targets"] == "miss" else "are dropped"
        say(f"{unknown:,} targets never occur in training and {fate}")
    say(f"split {card['split']['name']}: {card['leaks']}")
