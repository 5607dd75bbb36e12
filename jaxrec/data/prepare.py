"""One file of events and a few decisions -> prepared data with its protocol card."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxrec.config import Mistake, fingerprint, to_dict
from jaxrec.data import card as cards, splits
from jaxrec.data.assemble import assemble
from jaxrec.data.clocks import span
from jaxrec.data.demo import generate
from jaxrec.data.events import Events
from jaxrec.data.filters import k_core, minimum_counts
from jaxrec.data.logs import Log, join, ordered
from jaxrec.data.options import Preparation, effective, split_kind
from jaxrec.data.prepared import SCHEMA, Prepared, content_fingerprint, is_prepared, load, save
from jaxrec.data.read import read
from jaxrec.data.sources import Source

Say = Callable[[str], None]
PREFIX = {splits.TRAIN: "", splits.VALID: "valid:", splits.TEST: "test:"}  # of sessions without an id of their own


def prepare(options: Preparation, say: Say = print) -> Prepared:
    """Read, filter, order, split and number the events of `options.data`; every decision is said and on the card.

    A prepared directory is loaded as it is. Mistake where the data or an option does not allow what is asked.
    """
    if ready(options):
        say(f"{options.data}: prepared data, loaded as it is")
        return load(options.data, options.verify)
    return build(options, find_sources(options), say)


def prepare_cached(options: Preparation, cache: str | Path, say: Say = print) -> Prepared:
    """`prepare`, kept in a directory under `cache` named by the contents of the files and the options that matter."""
    if ready(options):
        return prepare(options, say)
    sources, verify = find_sources(options), options.verify
    hashes = [source.sha256 for source in sources.values()]
    name = data_name(sources)
    identity = {"schema": SCHEMA, "name": name, "files": hashes, **effective(options)}
    directory = Path(cache) / f"{name}-{fingerprint(identity)}"
    if directory.exists():
        try:
            found = load(directory, verify)
        except Mistake as damage:
            say(f"{damage}: done now, from the source")
            shutil.rmtree(directory)
        else:
            say(f"{directory}: prepared before")
            return found
    prepared = build(options, sources, say)
    try:
        save(prepared, directory)
    except Mistake:
        if not is_prepared(directory):  # else another process was faster, with the same contents
            raise
    return load(directory)


def ready(options: Preparation) -> bool:
    """Whether `data` names a prepared directory; 'demo' always means the generator."""
    return options.data != "demo" and is_prepared(options.data)


def find_sources(options: Preparation) -> dict[int, Source]:
    """Part (0 training, 1 validation, 2 test) -> file, in order; empty for the demo. Mistake when one is missing."""
    given = split_kind(options) == "given"
    if given and options.data == "demo":
        raise Mistake("--split given needs files; the demo is one log, so use --split leave-one-out or time")
    if options.data == "demo":
        return {}
    sources = {splits.TRAIN: Source(Path(options.data).expanduser())}
    if given and options.valid is not None:
        sources[splits.VALID] = Source(Path(options.valid).expanduser())
    if given:
        if options.test is None:
            raise Mistake("--split given needs a test file; name it with --test FILE or choose another --split")
        sources[splits.TEST] = Source(Path(options.test).expanduser())
    return sources


def data_name(sources: dict[int, Source]) -> str:
    return sources[splits.TRAIN].name if sources else "demo"


def build(options: Preparation, sources: dict[int, Source], say: Say) -> Prepared:
    """The preparation itself, in memory."""
    files = {part: read(source, options, say, PREFIX[part]) for part, source in sources.items()}
    files = files or {splits.TRAIN: demo_events(options)}
    log, filters, removed = filtered(join(files, options), options, say)
    log, offsets = ordered(log)
    train_end, valid_end, split = cut(log, offsets, options)
    card = {
        "schema": SCHEMA,
        "name": data_name(sources),
        "source": source_card(sources, files, options),
        "filters": filters,
        "split": split,
        "catalogue": resolved(options.catalogue, "train" if split["name"] == "time" else "all"),
        "unknown_targets": options.unknown_targets,
        "mask_seen": resolved(options.mask_seen, "history" if log.kind == "user" else "none"),
        "sequence": log.kind,
        "ties": cards.tie_shares(offsets, log.time),
        "leaks": cards.leaks(split, files_overlap(log)),
        "lengths": cards.lengths(offsets),
    }
    prepared = assemble(log, offsets, train_end, valid_end, card)
    card["counts"] = cards.counts(prepared) | {"removed": removed}
    card["fingerprint"] = content_fingerprint(prepared)
    check_targets(card)
    cards.summarise(card, say)
    return prepared


def resolved(asked: str, automatic: str) -> str:
    return automatic if asked == "auto" else asked


def demo_events(options: Preparation) -> Events:
    """The generator's columns as if they had been read from a file."""
    import polars as pl

    columns = generate(options.demo)
    user, item, session = (pl.Series(columns[role]).cast(pl.String) for role in ("user", "item", "session"))
    because = "generated with a known structure"
    return Events(item, user, session, columns["time"] * 1000, format="demo", because=because, unit="milliseconds")


def filtered(log: Log, options: Preparation, say: Say) -> tuple[Log, dict[str, Any], dict[str, int]]:
    """Minimum counts once, then the k-core; with what was asked and what went. Mistake when too little is left."""
    k, user_events, item_events = options.k_core, options.min_user_events, options.min_item_events
    asked = {"k_core": k, "min_user_events": user_events, "min_item_events": item_events}
    if any(asked.values()) and split_kind(options) == "given":
        raise Mistake("filters would change a given split; drop --k-core and --min-*-events, or filter the files first")
    before = sizes(log)
    if user_events > 1 or item_events > 1:
        log = log.take(minimum_counts(log.sequence, log.item, user_events, item_events))
    if k > 1:
        log = log.take(k_core(log.sequence, log.item, k))
    after = sizes(log)
    removed = {name: before[name] - after[name] for name in before}
    if after["items"] < 2:
        cause = "the filters leave" if removed["events"] else "the data has"
        remedy = "lower --k-core and --min-*-events" if removed["events"] else "give data with more items"
        raise Mistake(f"{cause} {after['items']} item(s), and a recommender needs at least two; {remedy}")
    if any(asked.values()):
        say("filters: " + ", ".join(f"{count:,} {name} removed" for name, count in removed.items()))
    scope = "users are sequences; minimum counts once on the raw data, then the k-core to a fixed point"
    return log, asked | {"scope": scope}, removed


def sizes(log: Log) -> dict[str, int]:
    distinct = {"sequences": log.sequence, "items": log.item}
    return {"events": len(log)} | {name: int(np.count_nonzero(np.bincount(codes))) for name, codes in distinct.items()}


def cut(log: Log, offsets: np.ndarray, options: Preparation) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """(train_end, valid_end, the card's entry) of the split that the options name."""
    kind = split_kind(options)
    if kind == "leave-one-out":
        return *splits.leave_one_out(offsets), {"name": kind}
    if kind == "time":
        if log.time is None:
            raise Mistake("--split time needs times, and the data has none; name the column with --time-column NAME")
        places = splits.time_boundaries(options.boundaries, log.time)
        split = {"name": kind, "boundaries": [splits.moment(p) for p in places], "asked": list(options.boundaries)}
        return *splits.by_time(offsets, log.time, places), split
    ends = splits.part_ends(offsets, log.part)
    if splits.VALID in log.part:
        return *ends, {"name": kind, "held_out": 0}
    train_end, valid_end, held = splits.hold_out(offsets, ends, options.held_out)
    return train_end, valid_end, {"name": kind, "held_out": held}


def files_overlap(log: Log) -> bool | None:
    """Whether an event of the training file is later than the first of the test file; None without times."""
    if log.time is None or splits.TEST not in log.part:
        return None
    return bool(log.time[log.part == splits.TRAIN].max() > log.time[log.part == splits.TEST].min())


def source_card(sources: dict[int, Source], files: dict[int, Events], options: Preparation) -> dict[str, Any]:
    """Where the events came from: file names without folders, and hashes, so that the card is the same elsewhere."""
    first = files[splits.TRAIN]
    found = {
        "files": [source.path.name for source in sources.values()],
        "sha256": [source.sha256 for source in sources.values()],
        "format": first.format,
        "columns": first.columns,
        "chosen_because": first.because,
        "rows": [len(events.item) for events in files.values()],
        "time": None if first.time is None else f"{first.unit}, {span(first.time)}",
    }
    return found if sources else found | {"demo": to_dict(options.demo)}


def check_targets(card: dict[str, Any]) -> None:
    """Mistake when there is nothing to learn from or nothing to predict."""
    remedy = {
        "leave-one-out": "a sequence needs three events to be split",
        "time": "move --boundaries so that users have events on both sides",
        "given": "the files need sequences of at least two events",
    }[card["split"]["name"]]
    for count, what in (("train_pairs", "train on"), ("valid_targets", "validate on"), ("test_targets", "test on")):
        if card["counts"][count] == 0:
            raise Mistake(f"split {card['split']['name']} leaves nothing to {what} ({count} = 0); {remedy}")
