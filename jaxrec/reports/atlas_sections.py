"""The drawn sections of the atlas; each is left out where it has no records."""

from collections.abc import Iterable, Iterator, Sequence

from jaxrec.reports import atlas_columns as columns
from jaxrec.reports.atlas_columns import title
from jaxrec.reports.atlas_drawings import change, drawing, mark
from jaxrec.reports.atlas_findings import Reach, Row, events
from jaxrec.reports.atlas_records import Atlas, Record, Subject, number, numbers, part, parts
from jaxrec.reports.atlas_tables import digits, interval
from jaxrec.reports.html import Markup, charts, element, joined, section, table

FULL = columns.LEVELS[0]
FEW = 3  # cells, up to which figures are wider
OPEN = 12  # cells, beyond which the larger sections are opened by whoever wants them
EVENTS = 6  # of a person, in the table of what moved the prediction most


def together(atlas: Atlas, found: Sequence[Row]) -> Iterator[Markup]:
    """All cells over lag."""
    if len({row.subject.name for row in found}) < 2:
        return
    about = (
        "The median over examples, after training where there was one. Drag to look closer, press twice to go back; "
        "press a name to hide its line."
    )
    yield section("Every cell over lag", drawing("Gradient against events back", "together", "gradient over lag",
                                                 about=about, full=True), wide=True)  # fmt: skip


def families(atlas: Atlas, made: Iterable[tuple[int, Markup]]) -> Iterator[Markup]:
    """Figures of subjects, a row a family."""
    figures: dict[str, list[Markup]] = {}
    for place, figure in made:
        figures.setdefault(atlas.subjects[place].family, []).append(figure)
    for family, some in figures.items():
        head = element("h3", mark(family), family)
        span = {1: " one", 2: " two"}.get(len(some), "")
        yield element("div", head, element("div", *some, class_="cards"), class_=f"family{span}")


def grid(atlas: Atlas, rows: Iterable[Markup]) -> Markup:
    """Families side by side where they are small; wider figures where there are few."""
    return element("div", *rows, class_="families few" if len(atlas.subjects) <= FEW else "families")


def folded(atlas: Atlas, name: str, about: str, rows: Sequence[Markup], *, many: str | None = None) -> Iterator[Markup]:
    """A section of small multiples; closed at first where they are many."""
    if not rows:
        return
    inside: Iterable[Markup] = rows if many else [grid(atlas, rows)]
    if len(atlas.subjects) > OPEN:
        words = f"show {many or name.lower()} of {len(atlas.subjects):,} cells"
        inside = [element("details", element("summary", words), *inside)]
    yield section(name, element("p", about, class_="small"), *inside, wide=True)


def cells(atlas: Atlas, found: Sequence[Row]) -> Iterator[Markup]:
    """A card a cell: curves at the start, the middle and the end, and below them every step that was measured."""
    have = {id(row.subject) for row in found}
    made = [(at, _card(atlas, at, one)) for at, one in enumerate(atlas.subjects) if id(one) in have]
    about = (
        "Above: the gradient over lag before training (dotted), halfway (dashed) and at the end (solid, with the "
        "middle half of the examples); a dot where half of it is left. Below: steps back by training step, on the "
        "scale of colours above; the white line is the half-life, the dashed one 1 %."
    )
    rows = list(families(atlas, made))
    if rows:
        yield section("Cell by cell", element("p", about, class_="small"),
                      grid(atlas, rows), wide=True)  # fmt: skip


def _card(atlas: Atlas, place: int, subject: Subject) -> Markup:
    at, layer = atlas.shown(subject), (subject.layers or [0])[0]
    last = subject.last("gradient", length=at, layer=layer)
    first = subject.first("gradient", length=at, layer=layer)
    about = change(Reach.of(part(first, "horizons", "half_life")) if first else None,
                   Reach.of(part(last, "horizons", "half_life")), part(last, "label"))  # fmt: skip
    label = f"{subject.name}: gradient over lag, {about or 'no half-life'}"
    return drawing(subject.name, "curve heat", label, subject=place, about=about or None)


def matters(atlas: Atlas, found: Sequence[Row]) -> Iterator[Markup]:
    """Whether reach is worth anything: against accuracy, and what is lost without older events."""
    figures = []
    known = [row for row in found if row.ndcg[0] is not None]
    if len({row.subject.name for row in known}) > 1:
        figures.append(_scatter(len({row.subject.name for row in known})))
    told = [columns.information(one) for one in atlas.subjects]
    for name, words, about in LOST:
        if any(numbers(part(one, name)) for one in told):
            heading = f"{words[0].upper()}{words[1:]} without older events"
            figures.append(drawing(heading, "information", f"{heading}, against the number of events that are left",
                                   of=name, name=words, about=about))  # fmt: skip
    order = list(_shuffled(atlas))
    if figures or order:
        yield section("Does it matter?", charts(*figures, *order), wide=True)


LOST = (
    ("lost", "loss added", "In nats, when all but the last events are taken away."),
    ("gone", "NDCG@10 lost", "The same, in the list of ten."),
)


def _scatter(cells: int) -> Markup:
    picks = (("half_life", "half-life"), ("one_percent", "1 % left"), ("information_horizon", "information horizon"))
    options = (element("option", text, value=value) for value, text in picks)
    choose = element("label", "Against ", element("select", *options, id="horizon"), class_="scripted", hidden="hidden")
    about = joined(["A mark a cell, with 95 % intervals; an arrow: farther than was measured. ", choose])
    return drawing("Horizon against accuracy", "horizon", f"NDCG@10 of {cells} cells against how far they reach",
                   about=about)  # fmt: skip


def _shuffled(atlas: Atlas) -> Iterator[Markup]:
    """What the order of a history is worth."""
    lines = []
    for subject in atlas.subjects:
        drop = part(subject.last("shuffle"), "drop")
        if isinstance(drop, dict):
            lines.append([subject.name, *(interval(drop.get(name)) for name in ("loss", "ndcg@10"))])
    if lines:
        heads = ("cell", "loss added", "NDCG@10 lost")
        yield table(heads, lines, caption="What is lost when the events of a history come in another order")


def tasks(atlas: Atlas) -> Iterator[Markup]:
    """Accuracy against distance."""
    names = list(dict.fromkeys(one["task"] for subject in atlas.subjects for one in columns.tasks(subject)))
    if not names:
        return
    figures = [drawing(name, "task", f"accuracy of task {name} against distance", of=name) for name in names]
    about = "Each point was trained afresh at that distance; the mean over seeds where there are several."
    yield section("Memory tasks", element("p", about, class_="small"), charts(*figures), wide=True)


def person(atlas: Atlas) -> Iterator[Markup]:
    """Which past events moved one prediction for a real user."""
    known = [(place, subject.last("trace")) for place, subject in enumerate(atlas.subjects)
             if parts(subject.last("trace"), "events")]  # fmt: skip
    figures = [_strip(place, record, many=len(known) > 2) for place, record in known]
    about = (
        "A bar a past event, the oldest on the left: how much the score of the prediction falls when that event is "
        "taken out. The band below is the gradient of the score by the state at that event."
    )
    name = "One person: which past events moved this prediction"
    yield from folded(atlas, name, about, [charts(*figures)] if len(known) > 2 else figures, many="strips")


def _strip(place: int, record: Record | None, *, many: bool) -> Markup:
    found = parts(record, "events")
    predicted, target, rank = part(record, "prediction"), part(record, "target"), number(part(record, "rank"))
    score = number(part(predicted, "score"))
    worth = f" (score {score:.3g})" if score is not None else ""
    told = [f"predicted {title(predicted)}{worth}"] if predicted else []
    told += [f"came next: {title(target)}" + (f", at rank {rank:,.0f}" if rank is not None else "")] if target else []
    name = str(part(record, "subject") or part(record, "cell") or "the model")
    head = f"{name}, user {part(record, 'user') or 'unknown'}"
    figure = drawing(head, "strip", f"{head}: influence of {len(found):,} past events", subject=place,
                     full=not many, about="; ".join(told) or None)  # fmt: skip
    best = _moved(found)
    more = element("details", element("summary", "what moved it most"), best) if many else best
    return element("div", figure, more, data_subject=place)


def _moved(found: Sequence[Record]) -> Markup:
    """The events that moved the prediction most."""
    known = [(abs(number(one.get("influence")) or 0), place, one) for place, one in enumerate(found)]
    best = sorted(known, key=lambda item: (-item[0], -item[1]))[:EVENTS]
    lines = [
        [title(one), f"{len(found) - 1 - place:,}", digits(one.get("influence")), digits(one.get("gradient"))]
        for _, place, one in best
    ]
    return table(("event", "events back", "score lost without it", "log10 gradient"), lines,
                 caption="What moved it most")  # fmt: skip


def gates(atlas: Atlas) -> Iterator[Markup]:
    """Where gates stand, before and after."""
    made = [(place, _gates(place, one)) for place, one in enumerate(atlas.subjects) if columns.gates(one, FULL)]
    about = "How often a gate has a value, over units, events and examples: a ridge a step of training, the last below."
    yield from folded(atlas, "Gates", about, list(families(atlas, made)))


def _gates(place: int, subject: Subject) -> Markup:
    record = subject.last("gates")
    dead, units = number(part(record, "dead")), number(part(record, "units"))
    fading = sorted(value for value in numbers(part(record, "time_constants")) if value is not None)
    told = [f"{dead:,.0f} of {units:,.0f} units dead"] if dead is not None and units else []
    told += [f"time constants {events(fading[0])} to {events(fading[-1])}"] if fading else []
    names = ", ".join(str(one.get("name")) for one in parts(record, "gates"))
    return drawing(subject.name, "ridges", f"{subject.name}: densities of gates {names}", subject=place,
                   about="; ".join(told) or None)  # fmt: skip


SPECTRA = {"circle": columns.spectra, "exponents": columns.exponents, "singular": columns.singular}


def spectra(atlas: Atlas) -> Iterator[Markup]:
    """Eigenvalues on the unit circle, exponents over training, singular values over lag."""
    made = []
    for place, subject in enumerate(atlas.subjects):
        kinds = [kind for kind, read in SPECTRA.items() if read(subject, FULL)]
        if kinds:
            made.append((place, drawing(subject.name, " ".join(kinds), f"{subject.name}: {' and '.join(kinds)} of its "
                                        "steps", subject=place, about=_fold(subject))))  # fmt: skip
    about = (
        "Eigenvalues of recurrent matrices and of the mean one-step Jacobian (hollow: before training), Lyapunov "
        "exponents over training (above 0 a gradient grows, below it fades), singular values of the Jacobian over lag."
    )
    yield from folded(atlas, "Spectra", about, list(families(atlas, made)))


def _fold(subject: Subject) -> str | None:
    largest = next(iter(numbers(part(subject.last("lyapunov"), "exponents"))), None)
    if not largest:
        return None
    return f"{'grows' if largest > 0 else 'fades'} by a factor e in {events(1 / abs(largest))} events"


def inside(atlas: Atlas) -> Iterator[Markup]:
    """The loss of every event by the state of every event before it."""
    made = [
        (place, drawing(one.name, "matrix", f"{one.name}: gradient of all losses by all states", subject=place))
        for place, one in enumerate(atlas.subjects) if columns.inside(one, FULL)
    ]  # fmt: skip
    about = (
        "The gradient of the loss of each event (down) by the state after each event before it (across); the median."
    )
    yield from folded(atlas, "Inside a row", about, list(families(atlas, made)))
