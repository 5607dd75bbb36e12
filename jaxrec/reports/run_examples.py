"""Example histories of a run: what somebody did, what the model put first, what came next. Imports jax."""

from pathlib import Path
from typing import Any

import numpy as np

from jaxrec.config import Mistake, first_line
from jaxrec.data.columns import guess, plain
from jaxrec.data.context import attached
from jaxrec.data.prepared import Prepared
from jaxrec.data.sources import Source
from jaxrec.evaluation.ranks import evaluate
from jaxrec.reports.options import Report
from jaxrec.runs.bundle import load
from jaxrec.runs.folder import Folder

SHOWN = 8  # last events of a history
LISTED = 5
TITLES = ("title", "itemtitle", "movietitle", "name", "itemname", "productname", "track", "textkeywords", "headline")


def some_histories(options: Report, folder: Folder, prepared: Prepared) -> list[dict[str, Any]]:
    """``options.examples`` sequences, evenly spaced among those with test targets, each at its last target.

    The lists are those of the evaluation itself: the same state, the same items left out.
    """
    titles = read_titles(Path(options.titles).expanduser()) if options.titles else {}
    bundle = load(folder.path, allow_code=options.allow_code)
    prepared = attached(prepared, bundle.columns)
    ranks = evaluate(bundle.model, prepared, "test", users=options.examples, k=min(LISTED, prepared.candidates))
    assert ranks.top is not None
    masked = prepared.card["mask_seen"] != "none"
    last = np.flatnonzero(np.append(np.diff(ranks.example) != 0, True))
    offsets, items = np.asarray(prepared.offsets), np.asarray(prepared.items)

    def named(number: int) -> dict[str, str]:
        raw = str(prepared.item_ids.decode([number])[0]) if number else ""
        return {"item": raw, "title": titles.get(raw, "")}

    found = []
    for row in last[: options.examples]:
        begin = offsets[ranks.example[row]]
        history = items[begin : begin + ranks.position[row]]
        greater, equal = ranks.greater[row], ranks.equal[row]
        if masked:
            greater, equal = ranks.greater_masked[row], ranks.equal_masked[row]
        missed = greater >= prepared.candidates
        found.append(
            {
                "user": str(prepared.user_ids.decode([int(ranks.user[row])])[0]),
                "events": len(history),
                "history": [named(int(number)) for number in history[-SHOWN:]],
                "top": [named(int(number)) | {"hit": bool(number == ranks.target[row])}
                        for number in ranks.top[row] if number],
                "truth": named(int(ranks.target[row])),
                "rank": None if missed else float(greater + 1 + equal / 2),  # expected over the order of ties
            }
        )  # fmt: skip
    return found


def read_titles(path: Path) -> dict[str, str]:
    """Item id -> title, from a table with a header: the column known to be the item, and the one known as a title."""
    import polars as pl

    source = Source(path)
    try:
        if source.parquet:
            table = pl.read_parquet(path).cast(pl.String)
        else:
            separator = "\t" if "\t" in source.sample[0] else ","
            table = pl.read_csv(source.whole(), separator=separator, infer_schema=False, quote_char=None)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise Mistake(f"{path} is not a table ({first_line(error)}); give CSV, TSV or Parquet") from None
    names = table.columns
    place = guess(names).get("item", 0)
    title = next((n for word in TITLES for n, name in enumerate(names) if plain(name) == word and n != place), None)
    if title is None:
        raise Mistake(
            f"{path} has no column known to be a title ({', '.join(TITLES[:5])}, ...); its columns are "
            f"{', '.join(map(repr, names))}; rename one"
        )
    chosen = table.select(names[place], names[title]).drop_nulls()
    return dict(zip(*(chosen[name].to_list() for name in chosen.columns), strict=True))
