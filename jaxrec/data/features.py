"""Further columns that the user asked for: of events, of items, of users; numbers as float32, text as codes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxrec.config import Mistake
from jaxrec.data.clocks import CALENDAR, calendar
from jaxrec.data.columns import guess, listed
from jaxrec.data.events import Events
from jaxrec.data.exact import read_exactly
from jaxrec.data.folders import Folder
from jaxrec.data.frames import as_feature, as_text, finish
from jaxrec.data.options import Preparation
from jaxrec.data.prepared import Feature, Prepared, ranges
from jaxrec.data.rows import Bad, Rows
from jaxrec.data.sides import beside, header, owners
from jaxrec.data.sources import Source
from jaxrec.data.vocabulary import Vocabulary

if TYPE_CHECKING:
    import polars as pl


Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Side:
    """A column of a file about items or users: the values and whose they are, both in the order of the file."""

    of: str  # "item" or "user"
    ids: "pl.Series"
    values: "np.ndarray | pl.Series"
    file: str


def with_features(
    prepared: Prepared,
    row: np.ndarray | None,
    files: Sequence[Events],
    sides: Mapping[str, Side],
    wanted: Sequence[str],
) -> Prepared:
    """The prepared data with the weights and features of its events, items and users; what they are is on the card.

    `row` is the place of every event among those of all files one after the other.
    """
    import polars as pl

    made: dict[str, Feature] = {}
    for name in wanted:
        if name in CALENDAR or name.startswith("@"):
            made[name] = of_calendar(prepared, name)
        elif name in sides:
            made[name] = of_side(prepared, sides[name])
        elif all(name in events.features for events in files) and row is not None:
            parts: list[Any] = [events.features[name] for events in files]
            if len({isinstance(part, np.ndarray) for part in parts}) > 1:
                raise Mistake(f"feature {name!r} is numbers in one file and text in another; write it alike in all")
            values = np.concatenate(parts) if isinstance(parts[0], np.ndarray) else pl.concat(parts)
            made[name] = of_events(prepared, values[row])
        else:
            raise Mistake(f"feature {name!r} is not in every file of events; give them the same columns")
    weights = [events.weights for events in files if events.weights is not None]
    if len(weights) == len(files) and row is not None:
        prepared = replace(prepared, weights=np.concatenate(weights)[row])
    entries = [{"name": name, **described(feature)} for name, feature in made.items()]
    prepared.card.update({"features": entries} if entries else {})
    return replace(prepared, features=made)


def read_sides(source: Source | Folder | None, events: Events, options: Preparation, say: Say) -> dict[str, Side]:
    """The features that are not among the events, from the files beside them."""
    names = [name for name in options.features if not name.startswith("@") and name not in events.features]
    if not names:
        return {}
    if not isinstance(source, Source):
        raise Mistake(f"feature {names[0]!r} is no column of the events, and they lie in no file with side files")
    found: dict[str, Side] = {}
    path = source.path
    for name, of in owners(path, names, ()).items():
        side = beside(path)[of]
        form, columns = header(side)
        if of not in guess(form.header):
            raise Mistake(f"{side.path} has no column known to be the {of}; its columns are {listed(form.header)}")
        key, place = guess(form.header)[of], columns.index(name)
        bad = Bad(str(side.path), options.on_bad_row == "skip")
        frame, lines = read_exactly(side, form, sorted({key, place}), bad)
        rows = Rows(bad, frame.height, lambda row, lines=lines: f":{lines[row]}")  # type: ignore[misc]
        ids = as_text(frame[f"column_{key}"], of, rows)
        again = (~ids.is_first_distinct()).to_numpy()
        rows.reject(again, f"a repeated {of}", lambda row, ids=ids, of=of: f"{of} {ids[row]!r} comes again here")  # type: ignore[misc]
        values = as_feature(frame[f"column_{place}"], name, rows)
        finish(rows, say)
        kept = rows.kept
        taken = values[kept] if isinstance(values, np.ndarray) else values.filter(kept)
        found[name] = Side(of, ids.filter(kept), taken, side.path.name)
    return found


def described(feature: Feature) -> dict[str, Any]:
    missing = np.isnan(feature.values) if feature.ids is None else feature.values == 0
    entry = {"of": feature.of, "kind": "number" if feature.ids is None else "text", "from": feature.origin}
    count = int(missing.sum()) if feature.of == "event" else int(missing[1:].sum())
    return entry | {"missing": count} | ({} if feature.ids is None else {"values": len(feature.ids)})


def of_calendar(prepared: Prepared, name: str) -> Feature:
    if prepared.times is None:
        raise Mistake(f"--features {name} needs times, and the data has none; name the column with --time-column NAME")
    return Feature("event", calendar(name, prepared.times * 1000), None, f"the time, UTC: {CALENDAR[name]}")


def of_events(prepared: Prepared, values: "np.ndarray | pl.Series") -> Feature:
    """Text is coded by first appearance in training; what never occurs there is 0, like a missing one."""
    origin = "a column of the events"
    if isinstance(values, np.ndarray):
        return Feature("event", values, None, origin)
    training = ranges(prepared.offsets[:-1], prepared.train_end)
    codes, ids = coded(values, values[training])
    return Feature("event", codes, ids, f"{origin}; values numbered by first appearance in training, others are 0")


def of_side(prepared: Prepared, side: Side) -> Feature:
    """Values by item or user number; 0 and those that the file does not name have none."""
    whose = prepared.item_ids if side.of == "item" else prepared.user_ids
    numbers = whose.encode(side.ids.to_list())
    if isinstance(side.values, np.ndarray):
        values = np.full(len(whose) + 1, np.nan, np.float32)
        values[numbers] = side.values
        values[0] = np.nan
        return Feature(side.of, values, None, side.file)
    codes, ids = coded(side.values, side.values.filter(numbers > 0))
    found = np.zeros(len(whose) + 1, np.int32)
    found[numbers] = codes
    found[0] = 0
    return Feature(side.of, found, ids, side.file)


def coded(values: "pl.Series", known: "pl.Series") -> tuple[np.ndarray, Vocabulary]:
    """int32 codes of texts: 1, 2, ... by first appearance among the known ones; 0 for others and for empty text."""
    import polars as pl

    distinct = known.filter(known != "").unique(maintain_order=True)
    numbers = pl.Series(np.arange(1, len(distinct) + 1, dtype=np.int32))
    codes = values.replace_strict(distinct, numbers, default=0, return_dtype=pl.Int32) if len(distinct) else None
    found = np.zeros(len(values), np.int32) if codes is None else codes.to_numpy()
    return found, Vocabulary.from_strings(distinct.to_list())
