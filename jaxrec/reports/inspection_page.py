"""`jaxrec inspect --html`: the page of an inspection."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxrec.reports.charts import Axis, Series, bars, line_chart, percent, quantile_curve, short
from jaxrec.reports.html import Markup, charts, code, element, facts, note, page, section, table, tiles, write
from jaxrec.reports.inspection import count_rows, duration, filter_rows, lead, refusals, shape_rows, split_table

Found = dict[str, Any]


def write_page(found: Found, path: Path, command: Sequence[str]) -> None:
    """Write the page, whole or not at all. Mistake when it cannot be written."""
    write(path, inspection_page(found, shlex.join(command)))


def inspection_page(found: Found, command: str) -> str:
    """One self-contained page; `command` is what makes it again."""
    return page(
        f"{found['name']}: a look at the data", lead(found), numbers(found), warnings(found), reading(found),
        sizes(found), popularity(found), *time(found), filters(found), splits(found), made_by=command,
    )  # fmt: skip


def numbers(found: Found) -> Markup:
    n, kind, ties = found["counts"], found["sequence"], found["ties"]
    boxes = [
        (f"{n['events']:,}", "events", f"{found['lengths']['mean']:.1f} a {kind}"),
        (f"{n['sequences']:,}", f"{kind}s", f"{n['sessions']:,} sessions" if "sessions" in n else "one sequence each"),
        (f"{n['items']:,}", "items", f"{n['events_per_item']:.1f} events each"),
        (f"{n['density']:.3%}", "density", f"{n['sparsity']:.3%} sparse"),
        (f"{found['repeats']['share']:.1%}", "repeats", f"events with an item of the same {kind}"),
    ]
    if ties["events_tied_share"] is not None:
        share = f"{ties['users_tied_last_share']:.1%} of {kind}s: the last one"
        boxes.append((f"{ties['events_tied_share']:.1%}", "events tied in time", share))
    return tiles(boxes)


def warnings(found: Found) -> Markup:
    told = [note(f"{one['sentence']}.", one["remedy"]) for one in found["warnings"]]
    return section("Warnings", *(told or [note("Nothing to warn of.", kind="good")]))


def reading(found: Found) -> Markup:
    rows = found["first_rows"]
    columns = [f"{role} ({found['columns'][role]})" if role in found["columns"] else role for role in rows["columns"]]
    return section(
        "How it was read",
        element("ul", *(element("li", sentence) for sentence in found["read"])) if found["read"] else None,
        facts([("Chosen because", found["because"])]),
        table(columns, rows["rows"], caption="The first rows, as understood; times in UTC"),
    )


def sizes(found: Found) -> Markup:
    lengths, kind = found["lengths"], found["sequence"]
    rows = [*count_rows(found), *shape_rows(found)]
    half = -(-len(rows) // 2)
    shape = [
        f"{one['from']:,}" if one["from"] == one["to"] else f"{short(one['from'])}-{short(one['to'])}"
        for one in lengths["histogram"]
    ]
    long = max(lengths["quantiles"].values()) > 50 * max(min(lengths["quantiles"].values()), 1)
    return section(
        "What it is",
        charts(facts(rows[:half], compact=True), facts(rows[half:], compact=True)),
        charts(
            bars(f"Length of a {kind}'s sequence", shape, [one["sequences"] for one in lengths["histogram"]],
                 "events in the sequence", Axis(f"{kind}s")),
            quantile_curve("The same as quantiles", lengths["quantiles"], Axis("events", log=long),
                           note=f"half of the {kind}s have {lengths['quantiles']['0.5']:,} events or fewer"),
        ),
        wide=True,
    )  # fmt: skip


def popularity(found: Found) -> Markup:
    curve, p = found["popularity"]["curve"], found["popularity"]
    share = [rank / curve["rank"][-1] for rank in curve["rank"]]
    even = Series("evenly spread", [0, 1], [0, 1])
    return section(
        "Popularity",
        charts(
            line_chart("Events of the item at each rank", [Series("", curve["rank"], curve["events"])],
                       Axis("rank of the item", log=True), Axis("events", log=True),
                       note=f"the first has {p['most']:,}; {p['once']:,} items have one"),
            line_chart("Share of events that go to the top items",
                       [Series("this data", [0, *share], [0, *curve["share"]]), even],
                       Axis("share of items, the most popular first", form=percent), Axis("share of events",
                       form=percent, low=0, high=1), note=f"Gini {p['gini']:.3f}; {p['half']:,} items have half"),
        ),
    )  # fmt: skip


def time(found: Found) -> list[Markup]:
    if found["time"] is None:
        return []
    t, buckets = found["time"], found["time"]["buckets"]
    figures = [
        bars(f"Events in each {buckets['unit']}", buckets["start"], buckets["events"], f"{buckets['unit']}, UTC",
             Axis("events"), note=t["span"])
    ]  # fmt: skip
    if t["gap_seconds"]:
        zero = sum(1 for value in t["gap_seconds"].values() if value <= 0)
        figures.append(
            quantile_curve("Time to the next event of the sequence", t["gap_seconds"],
                           Axis("time", log=True, form=duration),
                           note="gaps of zero are not drawn" if zero else None)
        )  # fmt: skip
    return [section("Time", charts(*figures))]


def filters(found: Found) -> Markup:
    if not found["filters"]:
        note_ = "This is prepared data: filters belong to the file that it was made from."
        return section("Filters", note(note_, kind="plain"))
    cores = [row for row in found["filters"] if row["filter"].endswith("-core")]
    at = [int(row["filter"].partition("-")[0]) for row in cores]
    before = found["counts"]
    left = [
        Series(name, [1, *at], [1, *(row[key] / before[key] for row in cores)])
        for name, key in (("events", "events"), (f"{found['sequence']}s", "sequences"), ("items", "items"))
    ]
    columns = ("filter, on its own", "events left", f"{found['sequence']}s", "items", "of events")
    return section(
        "What each filter would leave",
        charts(line_chart("k-core", left, Axis("k"), Axis("share left", form=percent, low=0, high=1))),
        table(columns, filter_rows(found)),
        wide=True,
    )


def splits(found: Found) -> Markup:
    columns, rows = split_table(found)
    leaks = [(row["split"], row["leaks"]) for row in found["splits"] if "leaks" in row]
    bounds = [
        (f"boundaries of {row['split']}", " and ".join(row["boundaries"]))
        for row in found["splits"]
        if "boundaries" in row
    ]
    return section(
        "What each split would leave",
        table(columns, rows, caption="unknown: never in training; repeated: test targets that the history holds")
        if rows
        else None,
        *(note(f"{row['split']}: {row['refused']}", kind="plain") for row in refusals(found)),
        facts([*bounds, *leaks]),
        code(f"jaxrec prepare --data FILE --out DIR {found['splits'][0].get('flags', '')}".strip()),
    )
