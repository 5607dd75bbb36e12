"""What a preparation decides about its events: their order, which of them stay, and where the parts begin.

The order of decisions is fixed: sessions are cut at pauses (when the files are joined), events are put in order, then
duplicates go, then repeats; these look only backwards in time (all but `deduplicate = last`). Then minimum counts,
once, and the k-core until nothing changes. Where a count takes events away between two of one item, repeats are
collapsed again and the k-core taken again, until neither changes anything.

`filter_scope = all` counts every event, and the split is made of what stays. `train` makes the split first; counts then
see the training events alone and drop training events alone, so validation and test are those of the log without
counting filters: an item that training lost is unknown there, and a sequence that training lost begins later.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxrec.config import Mistake
from jaxrec.data import card as cards, splits
from jaxrec.data.filters import k_core, minimum_counts, one_of_each, repeats
from jaxrec.data.logs import Log, arranged, ordered
from jaxrec.data.options import FILTERS, Preparation, split_kind

Say = Callable[[str], None]
Steps = dict[str, dict[str, int]]  # filter -> what it removed: events, sequences, items
ORDER = "session gap, deduplicate, collapse repeats, minimum counts once, k-core to a fixed point; users are sequences"
COUNTED = {
    "all": "counts see all events, and the split is made of what stays",
    "train": "the split is made first; counts see and drop training events alone",
}


def decide(log: Log, options: Preparation, say: Say) -> tuple[Log, np.ndarray, splits.Ends, dict[str, Any]]:
    """(ordered log, offsets, (train_end, valid_end), for the card: split, filters, removed, ties, parts_overlap).

    Mistake when the options contradict the data or each other, or too little is left.
    """
    refuse(log.time is not None, options)
    steps: Steps = {}
    before = sizes(log.sequence, log.item)
    log, offsets = ordered(log, options.ties_seed if options.ties == "shuffle" else None)
    log, offsets = without_repeats(log, offsets, options, steps)
    if counting(options) and options.filter_scope == "all":
        log, offsets, _ = arranged(log, survivors(log.sequence, log.item, options, steps))
    refuse_too_few(before, sizes(log.sequence, log.item))
    ends, split = cut(log, offsets, options)
    if counting(options) and options.filter_scope == "train":
        log, offsets, ends = training_counted(log, offsets, ends, options, steps)
    removed = refuse_too_few(before, sizes(log.sequence, log.item))
    announce(options, steps, removed, say)
    policy = f"shuffled with seed {options.ties_seed}" if options.ties == "shuffle" else "file order"
    decided = {
        "split": split,
        "filters": filters_card(options, steps),
        "removed": removed,
        "ties": {"policy": policy} | cards.tie_shares(offsets, log.time),
        "parts_overlap": parts_overlap(log),
    }
    return log, offsets, ends, decided


def filters_card(options: Preparation, steps: Steps) -> dict[str, Any]:
    """What was asked of the filters, how they count, in which order, and what each removed."""
    asked = {name: getattr(options, name) for name in FILTERS}
    scope = options.filter_scope
    return asked | {"scope": scope, "counted": COUNTED[scope], "order": ORDER, "removed": steps}


def parts_overlap(log: Log) -> bool | None:
    """Whether an event of the training file is later than the first of the test file; None without times."""
    if log.time is None or splits.TEST not in log.part:
        return None
    return bool(log.time[log.part == splits.TRAIN].max() > log.time[log.part == splits.TEST].min())


def refuse(timed: bool, options: Preparation) -> None:
    """Mistake where an option asks for what a log with or without times cannot give, or would change what is given."""
    given = split_kind(options) == "given"
    if given and (options.deduplicate != "none" or options.collapse_repeats):
        raise Mistake(
            "filters would change a given split; drop --deduplicate and --collapse-repeats, or filter the files first"
        )
    if given and counting(options) and options.filter_scope == "all":
        raise Mistake(
            "filters would change a given split; drop --k-core and --min-*-events, filter the files first, or filter "
            "the training file alone with --filter-scope train"
        )
    if options.filter_scope == "train" and options.deduplicate == "last":
        raise Mistake(
            "--deduplicate last drops an event because of a later one, perhaps of the test; with --filter-scope train "
            "use --deduplicate first"
        )
    if not timed and options.deduplicate == "exact":
        raise Mistake("--deduplicate exact compares times, and the data has none; use --deduplicate first or last")
    if not timed and options.ties == "shuffle":
        raise Mistake("--ties shuffle needs times, and the data has none: its order is all there is; use --ties file")


def refuse_too_few(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """What went since `before`; Mistake when fewer than two items are left."""
    removed = {name: before[name] - after[name] for name in before}
    if after["items"] < 2:
        cause = "the filters leave" if removed["events"] else "the data has"
        remedy = "lower --k-core and --min-*-events" if removed["events"] else "give data with more items"
        raise Mistake(f"{cause} {after['items']} item(s), and a recommender needs at least two; {remedy}")
    return removed


def counting(options: Preparation) -> bool:
    return max(options.k_core, options.min_user_events, options.min_item_events) > 0


def without_repeats(log: Log, offsets: np.ndarray, options: Preparation, steps: Steps) -> tuple[Log, np.ndarray]:
    """The ordered log without duplicates, then without repeats."""
    if options.deduplicate != "none":
        pair = (log.item, log.person)
        keys = pair if log.time is None else (log.time, *pair)
        if options.deduplicate == "exact":
            stay = one_of_each(keys)
        else:
            in_time = np.lexsort(keys)  # sessions of a person may overlap
            stay = np.empty(len(log), bool)
            stay[in_time] = one_of_each([key[in_time] for key in pair], last=options.deduplicate == "last")
        log, offsets = dropped("deduplicate", log, stay, steps)
    if options.collapse_repeats:
        log, offsets = dropped("collapse_repeats", log, ~repeats(log.sequence, log.item), steps)
    return log, offsets


def dropped(name: str, log: Log, stay: np.ndarray, steps: Steps) -> tuple[Log, np.ndarray]:
    fewer, offsets, index = arranged(log, np.flatnonzero(stay))
    record(name, log.sequence, log.item, index, steps)
    return fewer, offsets


def training_counted(
    log: Log, offsets: np.ndarray, ends: splits.Ends, options: Preparation, steps: Steps
) -> tuple[Log, np.ndarray, splits.Ends]:
    """(log, offsets, ends) without the training events that the counts of training alone take away."""
    part = splits.part_of_each(offsets, ends)
    training = np.flatnonzero(part == splits.TRAIN)
    stay = part != splits.TRAIN
    stay[training[survivors(log.sequence[training], log.item[training], options, steps)]] = True
    log, offsets, index = arranged(log, np.flatnonzero(stay))
    return log, offsets, splits.part_ends(offsets, part[index])


def survivors(sequence: np.ndarray, item: np.ndarray, options: Preparation, steps: Steps) -> np.ndarray:
    """int64: the events that minimum counts and k-core leave, ascending; sequences are contiguous."""
    kept = np.arange(len(item))

    def drop(name: str, choose: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> bool:
        nonlocal kept
        inner = np.flatnonzero(choose(sequence[kept], item[kept])) if len(kept) else kept
        record(name, sequence[kept], item[kept], inner, steps)
        fewer = len(inner) < len(kept)
        kept = kept[inner]
        return fewer

    users, items = options.min_user_events, options.min_item_events
    if max(users, items) > 0:
        drop("minimum_counts", lambda s, i: minimum_counts(s, i, users, items))
    while True:
        if options.k_core:
            drop("k_core", lambda s, i: k_core(s, i, options.k_core))
        if not options.collapse_repeats or not drop("collapse_repeats", lambda s, i: ~repeats(s, i)):
            return kept


def record(name: str, sequence: np.ndarray, item: np.ndarray, kept: np.ndarray, steps: Steps) -> None:
    """Add what went to the counts of a filter."""
    add_step(name, sizes(sequence, item), sizes(sequence[kept], item[kept]), steps)


def add_step(name: str, before: dict[str, int], after: dict[str, int], steps: Steps) -> None:
    counts = steps.setdefault(name, dict.fromkeys(before, 0))
    for what in before:
        counts[what] += before[what] - after[what]


def sizes(sequence: np.ndarray, item: np.ndarray) -> dict[str, int]:
    distinct = {"sequences": sequence, "items": item}
    return {"events": len(item)} | {name: int(np.count_nonzero(np.bincount(codes))) for name, codes in distinct.items()}


def announce(options: Preparation, steps: Steps, removed: dict[str, int], say: Say) -> None:
    """Say what the filters did."""
    if options.session_gap:
        say(f"sessions: a user's events are cut where more than {options.session_gap:g} minutes lie between two")
    if not steps:
        return
    say("filters: " + ", ".join(f"{count:,} {name} removed" for name, count in removed.items()))
    if len(steps) > 1 or options.filter_scope == "train":
        parts = ", ".join(f"{counts['events']:,} by {name}" for name, counts in steps.items())
        scope = "; counts saw and dropped training events alone" if options.filter_scope == "train" else ""
        say(f"filters, events: {parts.replace('_', '-')}{scope}")


def cut(log: Log, offsets: np.ndarray, options: Preparation) -> tuple[splits.Ends, dict[str, Any]]:
    """(train_end, valid_end) and the card's entry of the split that the options name."""
    kind = split_kind(options)
    if kind == "leave-one-out":
        return splits.leave_one_out(offsets), {"name": kind}
    if kind == "last-n":
        return splits.last_n(offsets, options.last), {"name": kind, "last": options.last}
    if kind == "time":
        if log.time is None:
            raise Mistake("--split time needs times, and the data has none; name the column with --time-column NAME")
        places = splits.time_boundaries(options.boundaries, log.time)
        split = {"name": kind, "boundaries": [splits.moment(p) for p in places], "asked": list(options.boundaries)}
        return splits.by_time(offsets, log.time, places), split
    ends = splits.part_ends(offsets, log.part)
    if splits.VALID in log.part:
        return ends, {"name": kind, "held_out": 0}
    train_end, valid_end, held = splits.hold_out(offsets, ends, options.held_out)
    return (train_end, valid_end), {"name": kind, "held_out": held}
