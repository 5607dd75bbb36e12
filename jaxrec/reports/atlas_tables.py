"""The tables of the atlas, and the buttons that take its numbers away."""

from collections.abc import Iterator, Sequence

from jaxrec.reports.atlas_findings import NONE, REACHES, Reach, Row, four
from jaxrec.reports.atlas_records import Atlas, Record, number, part, step
from jaxrec.reports.html import Markup, element, section, table


def tables(atlas: Atlas, found: Sequence[Row]) -> Iterator[Markup]:
    """All numbers, and the buttons that take them away."""
    if not atlas.subjects:
        return
    files = (
        ("atlas.csv", "this table (CSV)"),
        ("atlas-curves.csv", "curves (CSV)"),
        ("atlas.json", "everything (JSON)"),
    )
    buttons = (element("button", words, type="button", data_file=name) for name, words in files)
    take = element("div", "Take the numbers: ", *buttons, class_="tools scripted", hidden="hidden")
    heads = ("cell", "events", *REACHES.values(), "Lyapunov", "information horizon", "NDCG@10", "label")
    lines = [
        [row.subject.name, f"{row.length:,}", *(_reach(row.horizons[name]) for name in (*REACHES, "lyapunov")),
         _reach(row.uses) if row.matters else "nothing",
         interval(dict(zip(("value", "low", "high"), row.ndcg, strict=True))), row.label]
        for row in found
    ]  # fmt: skip
    body = [table(heads, lines, caption="events, with 95 % intervals")] if lines else []
    if len(lines) > 40:
        body = [element("details", element("summary", f"all {len(lines):,} rows"), *body)]
    yield section("All numbers", take, *body, *_trained(atlas), *_weights(atlas), wide=True)


def _reach(reach: Reach) -> str:
    return f"{reach.text} ({reach.between})" if reach.between else reach.text


def _trained(atlas: Atlas) -> Iterator[Markup]:
    """Training and clipping, a line each; what no record tells has no column."""
    lines = []
    for one in atlas.subjects:
        training, clip = one.last("training"), one.last("clipping")
        if training or clip:
            lines.append([
                one.name, str(part(training, "data") or NONE), interval(training),
                four(number(part(training, "best_counter", "value"))), _count(part(training, "epochs")),
                _count(part(training, "steps") or (step(training) if training else None)),
                _count(part(training, "seconds")), _share(part(clip, "share")), digits(part(clip, "together")),
            ])  # fmt: skip
    heads = ("cell", "data", "test", "best counter", "epochs", "steps", "seconds", "steps clipped", "direction kept")
    told = [place for place in range(len(heads)) if any(line[place] != NONE for line in lines)]
    if lines:
        caption = "Training: the test and the best counter"
        if told[-1] > heads.index("seconds"):
            caption += (
                ", the share of steps that are clipped, and the cosine between the mean gradient with and without"
            )
        yield table([heads[place] for place in told], [[line[place] for place in told] for line in lines],
                    caption=caption)  # fmt: skip


def _count(value: object) -> str:
    found = number(value)
    return NONE if found is None else f"{found:,.0f}"


def _share(value: object) -> str:
    found = number(value)
    return NONE if found is None else f"{found:.1%}"


def _weights(atlas: Atlas) -> Iterator[Markup]:
    """From how far back each weight learns."""
    lines = []
    for one in atlas.subjects:
        told = part(one.last("weights"), "weights")
        for name, weight in told.items() if isinstance(told, dict) else ():
            lines.append([one.name, str(name), _count(part(weight, "half"))])
    if lines:
        inner = table(("cell", "weight", "half by lag"), lines, caption="The lag by which half of a weight's gradient "
                      "is collected")  # fmt: skip
        yield element("details", element("summary", "from how far back each weight learns"), inner)


def interval(told: Record | None) -> str:
    value, low, high = (number(part(told, name)) for name in ("value", "low", "high"))
    if value is None:
        return NONE
    return four(value) + (f" ({four(low)} to {four(high)})" if low is not None and high is not None else "")


def digits(value: object) -> str:
    found = number(value)
    return NONE if found is None else f"{found:.3g}".replace("-", "\N{MINUS SIGN}")
