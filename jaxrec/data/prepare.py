"""One file of events and a few decisions -> prepared data with its protocol card."""

import functools
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxrec.config import Mistake, fingerprint, to_dict
from jaxrec.data import card as cards, large, leakage, protocol, splits
from jaxrec.data.assemble import assemble
from jaxrec.data.clocks import span
from jaxrec.data.demo import generate
from jaxrec.data.events import Events
from jaxrec.data.export import is_export, read_export
from jaxrec.data.features import Side, read_sides, with_features
from jaxrec.data.folders import Folder, added, parts_of
from jaxrec.data.logs import join
from jaxrec.data.options import Preparation, asked, effective, split_kind
from jaxrec.data.prepared import PROTOCOL, SCHEMA, Prepared, content_fingerprint, is_prepared, load, save
from jaxrec.data.read import located, read
from jaxrec.data.sides import hashes
from jaxrec.data.sources import Source

Say = Callable[[str], None]
Sources = dict[int, Source | Folder]  # by part
PREFIX = {splits.TRAIN: "", splits.VALID: "valid:", splits.TEST: "test:"}  # of sessions without an id of their own


def prepare(options: Preparation, say: Say = print, sources: Sources | None = None) -> Prepared:
    """Read, filter, order, split and number the events of `options.data`; every decision is said and on the card.

    A prepared directory is loaded as it is. `sources` are what `find_sources` found, where somebody has asked: their
    bytes are hashed once. Mistake where the data or an option does not allow what is asked.
    """
    if sources is None and ready(options):
        found = loaded(options)
        say(f"{options.data}: prepared data, loaded as it is")
        return found
    return build(options, find_sources(options) if sources is None else sources, say)


def prepare_cached(options: Preparation, cache: str | Path, say: Say = print) -> Prepared:
    """`prepare`, kept in a directory under `cache` named by the contents of the files and the options that matter."""
    if ready(options):
        return prepare(options, say)
    sources, verify = find_sources(options), options.verify
    name = data_name(sources)
    directory = Path(cache) / f"{name}-{fingerprint({'name': name} | identity(options, sources))}"
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


def identity(options: Preparation, sources: Mapping[int, Source | Folder]) -> dict[str, Any]:
    """What prepared data follows from: the bytes of the files, wherever they lie, and the options that matter."""
    files = [source.sha256 for source in sources.values()] + hashes(sources.values(), options)
    names = [part.path.name for source in sources.values() for part in parts_of(source)]  # in ids of lines
    return {"schema": SCHEMA, "files": files, **effective(options)} | ({"parts": names} if names else {})


def ready(options: Preparation) -> bool:
    """Whether `data` names prepared data, a directory or an exported set; 'demo' always means the generator."""
    return options.data != "demo" and (is_prepared(options.data) or is_export(options))


def loaded(options: Preparation) -> Prepared:
    """What `ready` found. Mistake for options that ask for other data than was prepared."""
    found = load(options.data, options.verify) if is_prepared(options.data) else read_export(options)
    refuse_other(options, found.card, options.data)
    return found


def refuse_other(options: Preparation, card: dict[str, Any], name: str) -> None:
    """Mistake for options that were decided otherwise when the data was prepared, as far as its card tells."""
    stated = {key: card[key] for key in PROTOCOL} | {"split": card["split"]["name"]}
    given = stated["split"] == "given"
    decided, differ = card.get("options", {}), []
    for key, value in asked(options).items():
        functools.reduce(getattr, key.split("."), options)  # looked at, even where it is as the card has it
        if value not in (decided.get(key), stated.get(key)) and not (given and key in ("test", "valid")):
            differ.append(f"--{key.replace('_', '-')}")
    if differ:
        ask, them = ("ask", "them") if len(differ) > 1 else ("asks", "it")
        remedy = f"drop {them}, or prepare the file of events again with {them}"
        raise Mistake(f"{name} was prepared otherwise than {' and '.join(differ)} {ask}; {remedy}")


def find_sources(options: Preparation) -> dict[int, Source | Folder]:
    """Part (0 training, 1 validation, 2 test) -> file, in order; empty for the demo. Mistake when one is missing."""
    given = split_kind(options) == "given"
    if given and options.data == "demo":
        raise Mistake("--split given needs files; the demo is one log, so use --split leave-one-out or time")
    if options.data == "demo":
        refuse_for_demo(options)
        return {}
    sources = {splits.TRAIN: located(options.data, options)}
    if given and options.valid is not None:
        sources[splits.VALID] = located(options.valid, options)
    if given:
        if options.test is None:
            raise Mistake("--split given needs a test file; name it with --test FILE or choose another --split")
        sources[splits.TEST] = located(options.test, options)
    return sources


def refuse_for_demo(options: Preparation) -> None:
    """Mistake for options about reading files, which the generator would ignore."""
    asked = {
        "--time-unit": options.time_unit != "auto",
        "--rating-column": options.rating_column is not None,
        "--min-rating": options.min_rating is not None,
        "--event-column": options.event_column is not None,
        "--event-weights": bool(options.event_weights),
        "--on-bad-row": options.on_bad_row != "error",
    }
    if flags := [flag for flag, given in asked.items() if given]:
        raise Mistake(f"{flags[0]} is about files, and the demo is generated; drop it or name a file with --data")


def data_name(sources: dict[int, Source | Folder]) -> str:
    return sources[splits.TRAIN].name if sources else "demo"


def build(options: Preparation, sources: dict[int, Source | Folder], say: Say) -> Prepared:
    """The preparation itself, in memory or, where the file is large and plain, by way of the disk."""
    say = unrepeated(say)
    prepared, truth, removed = large.streamed(options, sources, say) or in_memory(options, sources, say)
    prepared.card["identity"] = fingerprint(identity(options, sources))
    return concluded(prepared, truth, removed, options, say)


def concluded(
    prepared: Prepared, truth: leakage.Truth | None, removed: dict[str, int], options: Preparation, say: Say
) -> Prepared:
    """The prepared data with the rest of its card. Mistake where it cannot be learnt from, or leaks."""
    card = prepared.card
    card["counts"] = cards.counts(prepared) | {"removed": removed}
    card["fingerprint"] = content_fingerprint(prepared)
    card["options"] = {key: value for key, value in asked(options).items() if key not in ("test", "valid")}
    check_targets(card)
    card["leak_check"] = leakage.proven(prepared, truth)
    cards.summarise(card, say)
    return prepared


def unrepeated(say: Say) -> Say:
    """`say`, each sentence once: a file that turns out not to be plain while it is streamed is read a second time."""
    said: set[str] = set()

    def once(sentence: str) -> None:
        if sentence not in said:
            said.add(sentence)
            say(sentence)

    return once


def in_memory(
    options: Preparation, sources: dict[int, Source | Folder], say: Say
) -> tuple[Prepared, leakage.Truth, dict[str, int]]:
    """Prepared data whose card lacks what is counted, what it was made of, and what the filters removed."""
    files = {part: read(source, options, say, PREFIX[part]) for part, source in sources.items()}
    files = files or {splits.TRAIN: demo_events(options)}
    sides = read_sides(sources.get(splits.TRAIN), files[splits.TRAIN], options, say)
    return of_files(options, files, sides, data_name(sources), source_card(sources, files, options), say)


def of_files(
    options: Preparation,
    files: Mapping[int, Events],
    sides: Mapping[str, Side],
    name: str,
    told: dict[str, Any],
    say: Say,
) -> tuple[Prepared, leakage.Truth, dict[str, int]]:
    """`in_memory` of files that were read; `told` is what the card says of them."""
    log, offsets, ends, decided = protocol.decide(join(files, options), options, say)
    prepared = assemble(log, offsets, *ends, cards.begun(options, name, log.kind, told, decided, offsets))
    prepared = with_features(prepared, log.row, list(files.values()), sides, options.features)
    return prepared, leakage.Truth.of(log), decided["removed"]


def demo_events(options: Preparation) -> Events:
    """The generator's columns as if they had been read from a file."""
    import polars as pl

    columns = generate(options.demo)
    user, item, session = (pl.Series(columns[role]).cast(pl.String) for role in ("user", "item", "session"))
    because = "generated with a known structure"
    return Events(item, user, session, columns["time"] * 1000, format="demo", because=because, unit="milliseconds")


def source_card(sources: dict[int, Source | Folder], files: dict[int, Events], options: Preparation) -> dict[str, Any]:
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
        **reading_card(list(files.values()), options),
    }
    if parts := [part.sha256 for source in sources.values() for part in parts_of(source)]:
        found["parts"] = parts
    return found if sources else found | {"demo": to_dict(options.demo)}


def reading_card(files: list[Events], options: Preparation) -> dict[str, Any]:
    """What options left out of the files, and the rows that broke a rule; nothing where nothing was."""
    found: dict[str, Any] = {}
    if options.on_bad_row == "skip":
        found["bad_rows"] = {"policy": "left out", **added([events.skipped for events in files])}
    if any(events.left_out for events in files):
        found["left_out"] = added([events.left_out for events in files])
    return found | files[0].rules


def check_targets(card: dict[str, Any]) -> None:
    """Mistake when there is nothing to learn from or nothing to predict."""
    remedy = {
        "leave-one-out": "a sequence needs three events to be split",
        "last-n": "a sequence needs more than twice --last events to be split",
        "time": "move --boundaries so that users have events on both sides",
        "given": "the files need sequences of at least two events",
    }[card["split"]["name"]]
    for count, what in (("train_pairs", "train on"), ("valid_targets", "validate on"), ("test_targets", "test on")):
        if card["counts"][count] == 0:
            raise Mistake(f"split {card['split']['name']} leaves nothing to {what} ({count} = 0); {remedy}")
