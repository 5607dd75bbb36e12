"""Preparing large plain files by way of the disk: the same contents, card and fingerprint as in memory."""

import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxrec.config import Mistake
from jaxrec.data import card as cards, splits
from jaxrec.data.assemble import by_appearance
from jaxrec.data.buckets import Cut, Ordered, at_rank, in_order
from jaxrec.data.coding import Irregular
from jaxrec.data.folders import Folder, files_of
from jaxrec.data.options import Preparation, split_kind
from jaxrec.data.prepared import Prepared, Raw, map_array
from jaxrec.data.protocol import filters_card
from jaxrec.data.scratch import holding
from jaxrec.data.sources import Source
from jaxrec.data.streaming import Spool, counted, opened, plain, read_into, scaled
from jaxrec.data.vocabulary import Vocabulary

Say = Callable[[str], None]


def streamed(
    options: Preparation, sources: Mapping[int, Source | Folder], say: Say
) -> tuple[Prepared, None, dict[str, int]] | None:
    """Prepared data whose large arrays are mapped files in a temporary folder; None where it is done in memory.

    The folder (54 bytes an event at most) goes when the prepared data goes, or with the process. Mistake where the
    disk is full.
    """
    if len(sources) != 1:
        return None
    (source,) = sources.values()
    if type(source) not in (Source, Folder) or not plain(options, files_of(source)):
        return None
    prepared = by_disk(str(source.path), lambda folder: through(source, options, folder, say), say)
    return None if prepared is None else (prepared, None, {"events": 0, "sequences": 0, "items": 0})


def by_disk(name: str, make: Callable[[Path], Prepared], say: Say) -> Prepared | None:
    """What `make` makes in a temporary folder, which goes with it; None where only the reader in memory can tell."""
    try:
        with holding() as scratch:
            prepared = make(scratch.path)
    except Irregular as reason:
        say(f"{name}: read in memory, because {reason}")
        return None
    weakref.finalize(prepared, scratch.remove)
    return prepared


def through(source: Source | Folder, options: Preparation, folder: Path, say: Say) -> Prepared:
    """Spool, put in order, number; what was decided is said as the readers say it."""
    clock = time.process_time()
    files = files_of(source)
    spool = Spool(folder, *opened(files[0], options))
    read_into(spool, files, options, say)
    when = spool.when()
    say(f"{source.path}: {counted(spool.rows, when)}")
    say(f"{source.path}: streamed; read and coded in {time.process_time() - clock:.1f} CPU-seconds")
    told = cards.source(source, spool.form, spool.choice, spool.rows, when)
    return laid(spool, options, source.name, told, say)


def laid(spool: Spool, options: Preparation, name: str, told: dict[str, Any], say: Say) -> Prepared:
    """The spooled log in order, cut and numbered; `told` is what the card says of its source."""
    if len(spool.item) < 2:
        raise Mistake(
            f"the data has {len(spool.item)} item(s), and a recommender needs at least two; give data with more items"
        )
    clock = time.process_time()
    split, cut = division(spool, options)
    made = in_order(spool, cut, cards.catalogue(options, split["name"]) == "all")
    say(f"{name}: put in order in {time.process_time() - clock:.1f} CPU-seconds")
    decided = {
        "split": split,
        "filters": filters_card(options, {}),
        "ties": {"policy": "file order"} | made.ties,
        "parts_overlap": None,
    }
    return arrays(spool, made, cards.begun(options, name, spool.kind, told, decided, made.offsets))


def arrays(spool: Spool, made: Ordered, card: dict[str, Any]) -> Prepared:
    """The files mapped, with what is small beside them."""
    item_names, person_names = spool.item.names(), spool.person.names()
    names = ("items", "times", "gaps") if spool.timed else ("items",)
    mapped: dict[str, Any] = {name: map_array(spool.folder / f"{name}.npy") for name in names}
    fine = spool.folder / "below.npy"
    outside, outside_ids = by_appearance(made.strangers, item_names)
    below = map_array(fine) if fine.exists() else None
    return Prepared(
        card=card,
        offsets=made.offsets,
        train_end=made.ends[0],
        valid_end=made.ends[1],
        users=np.arange(1, len(made.persons) + 1, dtype=np.int32),
        popularity=made.popularity,
        item_ids=Vocabulary.from_series(item_names.gather(made.item_codes)),
        user_ids=Vocabulary.from_series(person_names.gather(made.persons)),
        known=made.known,
        candidates=len(made.item_codes),
        raw=Raw(made.persons.astype(np.int32), below, outside, outside_ids=outside_ids),
        **mapped,
    )


def division(spool: Spool, options: Preparation) -> tuple[dict[str, Any], Cut]:
    """The card's entry of the split, and how the sequences of a bucket are cut."""
    kind = split_kind(options)
    if kind == "leave-one-out":
        return {"name": kind}, lambda offsets, _: splits.leave_one_out(offsets)
    if kind == "last-n":
        return {"name": kind, "last": options.last}, lambda offsets, _: splits.last_n(offsets, options.last)
    if not spool.timed:
        raise Mistake("--split time needs times, and the data has none; name the column with --time-column NAME")
    unit = spool.unit()

    def ranked(rank: int) -> int:
        found = at_rank(spool.folder / "time", rank, spool.low, spool.high)
        return int(scaled(np.array([found]), unit)[0])

    first, second = (splits.place(text, spool.rows, ranked) for text in options.boundaries)
    places = splits.apart(options.boundaries, (first, second))
    split = {"name": kind, "boundaries": [splits.moment(p) for p in places], "asked": list(options.boundaries)}

    def by_time(offsets: np.ndarray, times: np.ndarray | None) -> splits.Ends:
        assert times is not None
        return splits.by_time(offsets, times, places)

    return split, by_time
