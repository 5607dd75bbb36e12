"""What `jaxrec inspect` prints: the words and tables of an inspection, in 80 columns."""

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from jaxrec.reports.tables import print_json, print_table

Found = dict[str, Any]
Rows = list[tuple[str, ...]]
Pairs = list[tuple[str, str]]
BLOCKS = " \u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
COLUMNS = 80
QUANTILES = {"0": "min", "0.25": "25%", "0.5": "median", "0.75": "75%", "0.95": "95%", "0.99": "99%", "1": "max"}


def print_inspection(found: Found, *, as_json: bool) -> None:
    """Everything that was found, for people or as one line of JSON."""
    if as_json:
        print_json(found)
        return
    print(textwrap.fill(lead(found), COLUMNS))
    print_table(found["first_rows"]["columns"], found["first_rows"]["rows"], title="first rows, as understood")
    print_table(("", ""), [*count_rows(found), *shape_rows(found)], title="what it is")
    kind, lengths = found["sequence"], found["lengths"]
    columns, row = quantile_row(lengths["quantiles"])
    print_table((*columns, "mean"), [(*row, f"{lengths['mean']:.1f}")], title=f"events of a {kind}")
    columns, row = quantile_row(found["popularity"]["quantiles"])
    mean = f"{found['counts']['events_per_item']:.1f}"
    print_table((*columns, "mean"), [(*row, mean)], title="events of an item")
    if found["time"] is not None:
        print(f" events in each {found['time']['buckets']['unit']}, {found['time']['span']}")
        print(f" {spark(found['time']['buckets']['events'])}\n")
    if found["filters"]:
        print_table(("filter alone", "events left", kind + "s", "items", "of events"), filter_rows(found),
                    title="what filters would leave")  # fmt: skip
    columns, rows = split_table(found)
    print_table(columns, rows, title="what splits would leave")
    for split in refusals(found):
        print(textwrap.fill(f"{split['split']}: {split['refused']}", COLUMNS))
    for one in found["warnings"]:
        print(textwrap.fill(f"Warning: {one['sentence']}.", COLUMNS, break_on_hyphens=False))
        print(textwrap.fill(f"-> {one['remedy']}", COLUMNS, initial_indent="  ", subsequent_indent="     ",
                            break_on_hyphens=False))  # fmt: skip


def lead(found: Found) -> str:
    """The log in one sentence."""
    n, popular = found["counts"], found["popularity"]
    when = f" between {found['time']['span'].replace(' to ', ' and ')}" if found["time"] else ""
    return (
        f"{found['name']}: {n['events']:,} events of {n['sequences']:,} {found['sequence']}s on {n['items']:,} "
        f"items{when}; a {found['sequence']} has {found['lengths']['quantiles']['0.5']:,} events in the median, and "
        f"{popular['top_10_share']:.0%} of the events go to a tenth of the items."
    )


def count_rows(found: Found) -> Pairs:
    """Sizes by name."""
    n, kind = found["counts"], found["sequence"]
    rows = [
        ("events", f"{n['events']:,}"),
        (f"{kind}s (one sequence each)", f"{n['sequences']:,}"),
        *([("users", f"{n['people']:,}")] if n["people"] != n["sequences"] else []),
        *([("sessions inside users", f"{n['sessions']:,}")] if "sessions" in n else []),
        ("items", f"{n['items']:,}"),
        (f"distinct pairs of {kind} and item", f"{n['pairs']:,}"),
        ("density", f"{n['density']:.4%}"),
        ("sparsity", f"{n['sparsity']:.4%}"),
    ]
    return [*rows, (f"{kind}s with one event", f"{found['lengths']['one']:,}")]


def shape_rows(found: Found) -> Pairs:
    """Popularity, repeats, time and ties by name."""
    p, repeats, ties, kind = found["popularity"], found["repeats"], found["ties"], found["sequence"]
    rows = [
        ("Gini of item popularity", f"{p['gini']:.3f}"),
        ("events of the top 1% of items", f"{p['top_1_share']:.1%}"),
        ("events of the top 10% of items", f"{p['top_10_share']:.1%}"),
        ("items with half of the events", f"{p['half']:,}"),
        ("items with one event", f"{p['once']:,}"),
        (f"events that repeat an item of the same {kind}", f"{repeats['share']:.1%}"),
        ("... the item directly before", f"{repeats['direct_share']:.1%}"),
    ]
    if found["time"] is None:
        return [*rows, ("time", "none; the order of the file is taken")]
    gaps = found["time"]["gap_seconds"]
    return [
        *rows,
        (f"duplicates (same {kind}, item, time)", f"{repeats['duplicates']:,}"),
        ("first event", found["time"]["first"]),
        ("last event", found["time"]["last"]),
        ("times are in whole", found["time"]["resolution"]),
        *([("median gap between events", duration(gaps["0.5"]))] if gaps else []),
        ("events tied with another of the same " + kind, f"{ties['events_tied_share']:.1%}"),
        (f"{kind}s with a tied last event", f"{ties['users_tied_last_share']:.1%}"),
        *([("tied neighbours with ascending item ids", f"{ties['ascending_share']:.1%}")] if ties["pairs"] else []),
    ]


def quantile_row(quantiles: dict[str, float]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and values of the quantiles that people know."""
    return tuple(QUANTILES.values()), tuple(f"{quantiles[share]:,}" for share in QUANTILES)


def filter_rows(found: Found) -> Rows:
    """A row a filter: its flag and what it would leave."""
    return [
        (row["flags"], f"{row['events']:,}", f"{row['sequences']:,}", f"{row['items']:,}", f"{row['events_share']:.1%}")
        for row in found["filters"]
    ]


def split_table(found: Found) -> tuple[tuple[str, ...], Rows]:
    """A row a split that can be made."""
    columns = ("split", "train events", "valid targets", "unknown", "test targets", "unknown", "repeated")
    names = ("train_events", "valid_targets", "unknown_valid_targets", "test_targets", "unknown_test_targets")
    rows = [
        (row["split"], *(f"{row[name]:,}" for name in names), f"{row['repeated_test_targets']:,}")
        for row in found["splits"]
        if "refused" not in row
    ]
    return columns, rows


def refusals(found: Found) -> list[Found]:
    return [row for row in found["splits"] if "refused" in row]


def spark(values: Sequence[float]) -> str:
    """Heights as one line of blocks; what is not zero is never blank."""
    top = max(values, default=0) or 1
    return "".join(BLOCKS[0 if v == 0 else max(1, round(8 * v / top))] for v in values)


def duration(seconds: float) -> str:
    """37 s, 12 min, 3.5 h, 42 days."""
    steps: Iterable[tuple[float, str]] = ((86_400, "days"), (3600, "h"), (60, "min"))
    for unit, name in steps:
        if seconds >= 2 * unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:.3g} s"
