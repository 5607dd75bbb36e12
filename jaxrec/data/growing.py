"""A later file added to prepared data: to the byte what preparing all the files together would have made.

The events are taken out of the arrays with their raw ids and exact times, in an order that no decision can tell from
that of the files; the new ones come after them, and everything is decided anew. So the earlier files are not needed,
and the numbers of items and users, the split and every count are those of all the events.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from jaxrec.config import Mistake, fingerprint
from jaxrec.data import leakage, prepare, splits
from jaxrec.data.events import Events
from jaxrec.data.folders import Folder, parts_of, together
from jaxrec.data.large_growing import columns_before, refuse_unlike, streamed, texts
from jaxrec.data.options import Preparation, effective
from jaxrec.data.prepared import Prepared, load, ranges
from jaxrec.data.read import read
from jaxrec.data.sources import Source

Say = Callable[[str], None]


def base(directory: str) -> Prepared:
    """Prepared data that a file can be added to. Mistake, saying why, where it is not, or where it is damaged: what is
    written has hashes of its own, which would vouch for it.
    """
    found = load(directory, verify=True)
    if reason := obstacle(found):
        raise Mistake(f"{directory} cannot be added to, because {reason}; prepare all the files together")
    return found


def obstacle(found: Prepared) -> str | None:
    """What is lost of the raw events, in words; None where nothing is."""
    card = found.card
    gone = [name for name, counts in card["filters"]["removed"].items() if counts["events"]]
    if not visits(found):  # which of a user's equal events stays, those that stayed tell, but not beside their sessions
        gone = [name for name in gone if name != "deduplicate"]
    reasons = {
        "it is the demo, which is generated": "demo" in card["source"],
        "no raw events were kept in it": found.raw is None,
        "its split was given by files": card["split"]["name"] == "given",
        "its sessions are lines without ids of their own": columns_before(found)
        == {"session": "line", "item": "words"},
        f"its ties are {card['ties']['policy']}": card["ties"]["policy"] != "file order",
        f"{' and '.join(gone).replace('_', '-')} left out events that could come back": bool(gone),
        "it keeps features that are text, or of items or users, as numbers": any(
            feature.of != "event" or feature.ids is not None for feature in found.features.values()
        ),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def visits(found: Prepared) -> bool:
    """Whether sequences are sessions of users."""
    gap = bool(found.card["filters"]["session_gap"])
    return gap or (found.card["sequence"] == "session" and "user" in (columns_before(found) or {}))


def inherited(options: Preparation, directory: str, card: dict[str, Any]) -> Preparation:
    """The options that the data was prepared with, for another file. Mistake for one that asks for something else."""
    prepare.refuse_other(options, card, directory)
    same: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in card["options"].items()
    }
    return replace(options, **same)


def identity(found: Prepared, source: Source | Folder, options: Preparation) -> dict[str, Any]:
    """What the grown data follows from."""
    return {"onto": [found.card["fingerprint"], found.card["identity"]], "files": [source.sha256], **effective(options)}


def holds(found: Prepared, source: Source | Folder) -> bool:
    """Whether a file with these bytes is in the data already."""
    told = found.card["source"]
    new = {source.sha256, *(part.sha256 for part in parts_of(source))}
    return not new.isdisjoint([*told["sha256"], *told.get("parts", ())])


def grow(found: Prepared, source: Source | Folder, options: Preparation, say: Say) -> Prepared:
    """The events of the prepared data and of the source, prepared together."""
    say = prepare.unrepeated(say)
    prepared, truth, removed = streamed(found, source, options, say) or in_memory(found, source, options, say)
    card, before = prepared.card, found.card
    card["identity"] = fingerprint(identity(found, source, options))
    earlier = before["source"]
    card["source"] |= {name: earlier[name] + card["source"][name] for name in ("files", "sha256")}
    card["source"]["rows"] = [sum(earlier["rows"]) + sum(card["source"]["rows"]) - len(found.items)]
    if parts := [*earlier.get("parts", ()), *card["source"].get("parts", ())]:
        card["source"]["parts"] = parts
    steps = card["filters"]["removed"]
    steps |= {name: summed(counts, steps.get(name)) for name, counts in before["filters"]["removed"].items()}
    return prepare.concluded(prepared, truth, summed(before["counts"]["removed"], removed), options, say)


def summed(one: dict[str, int], two: dict[str, int] | None) -> dict[str, int]:
    return {name: count + (two or {}).get(name, 0) for name, count in one.items()}


def in_memory(
    found: Prepared, source: Source | Folder, options: Preparation, say: Say
) -> tuple[Prepared, leakage.Truth, dict[str, int]]:
    new = read(source, options, say)
    refuse_unlike(found, source, new.columns)
    alike = {name: getattr(new, name) for name in ("format", "columns", "because", "unit", "rules")}
    both = together([(source, replace(raw_events(found), **alike)), (source, new)])
    told = prepare.source_card({splits.TRAIN: source}, {splits.TRAIN: both}, options)
    return prepare.of_files(options, {splits.TRAIN: both}, {}, found.card["name"], told, say)


def raw_events(found: Prepared) -> Events:
    """The events as a file has them whose preparation they would be."""
    raw, card = found.raw, found.card
    assert raw is not None
    order = np.argsort(raw.appearance)
    event = ranges(found.offsets[:-1][order], found.offsets[1:][order])
    people = texts(found.user_ids).gather(np.repeat(found.users[order] - 1, np.diff(found.offsets)[order]))
    users = card["sequence"] == "user" or "user" in (columns_before(found) or {})
    sessions = None if raw.session is None else texts(raw.session_ids).gather(raw.session[event] - 1)
    features = {name: np.asarray(one.values)[event] for name, one in found.features.items() if name[0] != "@"}
    return Events(
        item=texts(found.item_ids, raw.outside_ids).gather(item_codes(found)[event]),
        user=people if users else None,
        session=sessions if users else people,
        time=None if found.times is None else microseconds(found)[event],
        weights=None if found.weights is None else found.weights[event],
        features=features,
        skipped={rule: n for rule, n in card["source"].get("bad_rows", {}).items() if rule != "policy"},
        left_out=dict(card["source"].get("left_out", {})),
    )


def item_codes(found: Prepared) -> np.ndarray:
    """int (events,): the item of each event as a place in the vocabulary, followed by what is outside it."""
    codes = np.asarray(found.items) - 1
    if found.raw is not None and found.raw.outside is not None:
        codes[codes < 0] = len(found.item_ids) - 1 + found.raw.outside
    return codes


def microseconds(found: Prepared) -> np.ndarray:
    assert found.times is not None
    assert found.raw is not None
    below = 0 if found.raw.below is None else found.raw.below
    return np.asarray(found.times) * 1000 + below
