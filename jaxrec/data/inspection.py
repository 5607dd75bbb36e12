"""Looking at a file of events before anything is trained: what was understood, what it looks like, what could be done.

`inspect` returns plain values, ready for JSON; terminal and page are made from them in `reports`. Never imports jax.
"""

import dataclasses
import typing
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jaxrec.config import Mistake, changed, field_types
from jaxrec.data import card as cards, protocol, shape
from jaxrec.data.events import Events
from jaxrec.data.filters import k_core, minimum_counts
from jaxrec.data.findings import findings
from jaxrec.data.logs import Log, join, ordered
from jaxrec.data.options import FILTERS, Preparation
from jaxrec.data.prepare import PREFIX, data_name, demo_events, find_sources, loaded, ready
from jaxrec.data.prepared import Prepared, ranges
from jaxrec.data.read import read
from jaxrec.data.splits import TEST, TRAIN, VALID, moment

Say = Callable[[str], None]
ROWS = 5
CORES = range(2, 11)
MINIMUMS = (2, 3, 5, 10, 20)
JUDGING = ("catalogue", "unknown_targets", "mask_seen")  # options about what a model may answer
REPEATS: dict[str, dict[str, Any]] = {
    "--deduplicate exact": {"deduplicate": "exact"},
    "--deduplicate first": {"deduplicate": "first"},
    "--collapse-repeats": {"collapse_repeats": True},
}


def inspect(options: Preparation, say: Say = print) -> dict[str, Any]:
    """Read `options.data` as `prepare` would and describe it; filters that are asked for are applied first.

    Keys: `name`, `read` (what was decided, a sentence each), `columns`, `first_rows`, `sequence`, `counts`, `lengths`,
    `popularity`, `repeats`, `time`, `ties`, `filters` (what each would leave), `splits` (what each would leave),
    `warnings` (sentence and remedy). Mistake for a file that cannot be read.
    """
    heard: list[str] = []

    def both(sentence: str) -> None:
        heard.append(sentence)
        say(sentence)

    name, events, log, offsets, done = opened(options, both)
    for option in JUDGING:
        if getattr(options, option) != getattr(Preparation(), option):
            say(f"note: {option} was set, and looking at the file does not depend on it")
    sequence, item, time = log.sequence, log.item, log.time
    found = {
        "name": name,
        "read": heard,
        "columns": events.columns or {},
        "because": events.because,
        "first_rows": first_rows(events),
        "sequence": log.kind,
        "counts": counts(log),
        "lengths": shape.lengths(offsets),
        "popularity": shape.popularity(item),
        "repeats": shape.repeats(sequence, item, time),
        "time": None if time is None else shape.times(time, offsets),
        "ties": shape.ties(sequence, item, time, offsets, log.item_names),
        "filters": list(filters(log, offsets, options)) if done is None else [],
        "splits": list(splits(log, offsets, options, done)),
    }
    return found | {"warnings": [dataclasses.asdict(one) for one in findings(found, time)]}


def opened(options: Preparation, say: Say) -> tuple[str, Events, Log, np.ndarray, Prepared | None]:
    """Name, columns as read, ordered log, offsets, and the prepared data where that is what the path names."""
    if ready(options):
        done = loaded(options)
        say(f"{options.data}: prepared data, split {done.card['split']['name']}")
        events, log = from_prepared(done)
        return done.card["name"], events, *ordered(log), done
    sources = find_sources(options)
    files = {part: read(source, options, say, PREFIX[part]) for part, source in sources.items()}
    files = files or {TRAIN: demo_events(options)}
    log = join(files, options)
    if any(getattr(options, name) not in (0, False, "none") for name in FILTERS):
        log, offsets, _, _ = protocol.decide(log, options, say)
    else:
        log, offsets = ordered(log, options.ties_seed if options.ties == "shuffle" else None)
    return data_name(sources), files[TRAIN], log, offsets, None


def from_prepared(prepared: Prepared) -> tuple[Events, Log]:
    """Prepared data as the log that it was made from; item 0 stands for all that left the vocabulary."""
    import polars as pl

    items, sequences = np.asarray(prepared.items, np.int64), np.diff(prepared.offsets)
    part = np.full(len(items), TEST, np.int8)
    part[ranges(prepared.offsets[:-1], np.asarray(prepared.valid_end))] = VALID
    part[ranges(prepared.offsets[:-1], np.asarray(prepared.train_end))] = TRAIN
    names, people = (pl.Series(["", *words.strings]) for words in (prepared.item_ids, prepared.user_ids))
    person = np.repeat(np.asarray(prepared.users, np.int64), sequences)
    times = None if prepared.times is None else np.asarray(prepared.times) * 1000
    log = Log(
        item=items, sequence=np.repeat(np.arange(len(sequences)), sequences), person=person, part=part, time=times,
        session=None, item_names=names, person_names=people, kind=prepared.card["sequence"],
    )  # fmt: skip
    shown = slice(None, ROWS)
    known: dict[str, Any] = {prepared.card["sequence"]: people[person[shown]]}
    source = prepared.card["source"]
    first = Events(
        names[items[shown]], time=None if times is None else times[shown], columns=source["columns"],
        because=source["chosen_because"], **known,
    )  # fmt: skip
    return first, log


def first_rows(events: Events) -> dict[str, Any]:
    """The first rows of the file as they were understood: columns by role, times in UTC."""
    roles = [role for role in ("user", "session", "item") if getattr(events, role) is not None]
    columns = [getattr(events, role)[:ROWS].to_list() for role in roles]
    if events.time is not None:
        roles, columns = [*roles, "time"], [*columns, [moment(int(time)) for time in events.time[:ROWS]]]
    return {"columns": roles, "rows": [list(row) for row in zip(*columns, strict=True)]}


def counts(log: Log) -> dict[str, Any]:
    """Sizes; `density` is the share of the pairs of a sequence and an item that occur, `sparsity` the rest."""
    found: dict[str, Any] = dict(sizes(log))
    pairs = len(log) - int(shape.repeated(log.sequence, log.item).sum())
    found |= {"people": int(np.count_nonzero(np.bincount(log.person))), "pairs": pairs}
    if log.session is not None:
        found["sessions"] = int(np.count_nonzero(np.bincount(log.session)))
    density = pairs / (found["sequences"] * found["items"])
    return found | {"density": density, "sparsity": 1 - density, "events_per_item": len(log) / found["items"]}


def sizes(log: Log) -> dict[str, int]:
    return protocol.sizes(log.sequence, log.item)


def filters(log: Log, offsets: np.ndarray, options: Preparation) -> Iterator[dict[str, Any]]:
    """What each filter would leave on its own: k-core 2 to 10, minimum events of a user, of an item; repeats."""
    before = sizes(log)

    def row(name: str, flags: str, left: dict[str, int]) -> dict[str, Any]:
        return {"filter": name, "flags": flags, **left, "events_share": left["events"] / before["events"]}

    core = log
    for k in CORES:  # a core lies inside the one before
        core = core.take(k_core(core.sequence, core.item, k))
        yield row(f"{k}-core", f"--k-core {k}", sizes(core))
    for least in MINIMUMS:
        kept = log.take(minimum_counts(log.sequence, log.item, least, 0))
        yield row(f"users with {least} events", f"--min-user-events {least}", sizes(kept))
    for least in MINIMUMS:
        kept = log.take(minimum_counts(log.sequence, log.item, 0, least))
        yield row(f"items with {least} events", f"--min-item-events {least}", sizes(kept))
    untouched: dict[str, Any] = {"deduplicate": "none", "collapse_repeats": False}
    for flags, change in REPEATS.items():
        if flags != "--deduplicate exact" or log.time is not None:
            asked = changed(options, **(untouched | change))
            yield row(flags.removeprefix("--"), flags, sizes(protocol.without_repeats(log, offsets, asked, {})[0]))


def splits(log: Log, offsets: np.ndarray, options: Preparation, done: Prepared | None) -> Iterator[dict[str, Any]]:
    """What each split would leave: events of training, targets, unknown ones; or why it cannot be made."""
    again = shape.repeated(log.sequence, log.item)
    if done is not None:
        ends = np.asarray(done.train_end), np.asarray(done.valid_end)
        yield described(log, offsets, *ends, again) | {"split": done.card["split"]["name"], "leaks": done.card["leaks"]}
        return
    for kind in kinds(options):
        row: dict[str, Any] = {"split": kind, "flags": f"--split {kind}"}
        try:
            asked = changed(options, split=kind)
            (train_end, valid_end), entry = protocol.cut(log, offsets, asked)
        except Mistake as mistake:
            yield row | {"refused": str(mistake)}
            continue
        if "boundaries" in entry:
            row |= {"boundaries": entry["boundaries"]}
        leaks = cards.leaks(entry, protocol.parts_overlap(log), protocol.filters_card(options, {}))
        yield row | described(log, offsets, train_end, valid_end, again) | {"leaks": leaks}


def kinds(options: Preparation) -> list[str]:
    """The splits that fit what was given: files already split are not split again."""
    if options.test is not None:
        return ["given"]
    names = typing.get_args(field_types(Preparation)["split"])
    return [name for name in names if name not in ("auto", "given")]


def described(
    log: Log, offsets: np.ndarray, train_end: np.ndarray, valid_end: np.ndarray, again: np.ndarray
) -> dict[str, Any]:
    """Targets are events of a part with an earlier event in their sequence; unknown ones never occur in training."""
    training = ranges(offsets[:-1], train_end)
    known = np.zeros(len(log.item_names), bool)
    known[log.item[training]] = True
    found: dict[str, Any] = {"train_events": len(training), "known_items": int(known.sum())}
    for part, begin, end in (("valid", train_end, valid_end), ("test", valid_end, offsets[1:])):
        targets = ranges(np.maximum(begin, offsets[:-1] + 1), end)
        found |= {
            f"{part}_targets": len(targets),
            f"unknown_{part}_targets": int((~known[log.item[targets]]).sum()),
            f"repeated_{part}_targets": int(again[targets].sum()),
        }
    return found
