"""What records of gradient flow say: a row for each cell and length, a sentence for each cell, what to beware of."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jaxrec.reports.atlas_records import Atlas, Record, Subject, lags, layer, length, number, numbers, part, phase, step

NONE = "\N{EN DASH}"
LABELS = ("vanishing", "in band", "exploding", "zero")
REACHES = {"half_life": "half-life", "e_fold": "e-fold", "one_percent": "1 %"}  # of gradients, in a table's order
HORIZON = (
    "the fewest last events from which on at most 5 % of what the past is worth (in loss) is lost when all older ones "
    "are taken away: an ablation, no gradient"
)
FEW = 8  # examples, below which an interval over them says little


@dataclass(frozen=True)
class Reach:
    """A number of events with its interval; ``beyond`` is the longest lag there was where the value is longer."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    beyond: float | None = None

    @classmethod
    def of(cls, told: Any) -> "Reach":
        return cls(*(number(part(told, name)) for name in ("value", "low", "high", "beyond")))

    @property
    def known(self) -> bool:
        return self.value is not None or self.beyond is not None

    @property
    def place(self) -> float | None:
        """Where it stands on an axis: at the longest lag where it is longer."""
        return self.beyond if self.value is None else self.value

    @property
    def text(self) -> str:
        if self.value is not None:
            return events(self.value)
        return NONE if self.beyond is None else f"> {events(self.beyond)}"

    @property
    def between(self) -> str:
        """The interval; empty where there is none."""
        if not self.known or (self.low is None and self.high is None):
            return ""
        if self.low is None:
            return f"to {events(self.high)}"
        return f"{events(self.low)} or more" if self.high is None else f"{events(self.low)} to {events(self.high)}"

    def plain(self) -> dict[str, float | None]:
        return {"value": self.value, "low": self.low, "high": self.high, "beyond": self.beyond}


@dataclass(frozen=True)
class Row:
    """What is known of one subject in rows of one length, after training where it was trained."""

    subject: Subject
    length: int
    record: Record
    horizons: dict[str, Reach]
    information: Record | None
    accuracy: Record | None

    @property
    def label(self) -> str:
        return str(self.record.get("label") or NONE)

    @property
    def uses(self) -> Reach:
        """The information horizon."""
        return Reach.of(part(self.information, "horizon"))

    @property
    def matters(self) -> bool:
        """False where the past was found to be worth nothing."""
        return part(self.information, "matters") is not False

    @property
    def ndcg(self) -> tuple[float | None, float | None, float | None]:
        """The test's NDCG with its interval; without a test, that of the measured sample, which has none."""
        if self.accuracy is not None:
            value, low, high = (number(self.accuracy.get(name)) for name in ("value", "low", "high"))
            return value, low, high
        found = numbers(part(self.information, "ndcg@10"))
        return (found[-1] if found else None), None, None

    def plain(self) -> Record:
        ndcg, low, high = self.ndcg
        return {
            "subject": self.subject.name, "cell": self.subject.cell, "family": self.subject.family,
            "run": self.subject.run, "length": self.length, "inputs": self.record.get("inputs"),
            "layer": layer(self.record), "step": step(self.record), "phase": phase(self.record),
            "examples": number(self.record.get("examples")), "label": self.label,
            **{name: one.plain() for name, one in self.horizons.items()},
            "information_horizon": self.uses.plain() | {"matters": self.matters if self.information else None},
            "ndcg@10": {"value": ndcg, "low": low, "high": high, "of": "test" if self.accuracy else "sample"},
        }  # fmt: skip


def events(value: float | None) -> str:
    """A number of events: 4.1, 47, 1,000."""
    if value is None:
        return NONE
    return f"{value:.2g}" if abs(value) < 10 else f"{value:,.0f}"


def four(value: float | None) -> str:
    return NONE if value is None else f"{value:.4f}"


def rows(atlas: Atlas) -> list[Row]:
    """A row for every subject and length, of its first layer, through which all that is older comes."""
    pairs = [(subject, at) for subject in atlas.subjects for at in subject.lengths]
    return [row for pair in pairs if (row := _row(*pair)) is not None]


def _row(subject: Subject, at: int) -> Row | None:
    record = subject.last("gradient", length=at, layer=subject.layers[0])
    if record is None:
        return None
    told = part(record, "horizons")
    names = (*REACHES, "area", "lyapunov")
    information = subject.last("information")  # the newest, with most people: what is cut off is no matter of rows
    accuracy = subject.last("training", metric="ndcg@10")
    return Row(subject, at, record, {name: Reach.of(part(told, name)) for name in names}, information, accuracy)


def shown(atlas: Atlas, found: Iterable[Row]) -> list[Row]:
    """The row that speaks for each subject."""
    return [row for row in found if row.length == atlas.shown(row.subject)]


def sentence(row: Row, others: Sequence[Row] = ()) -> str:
    """What one subject's gradients and memory reach; ``others`` are its rows of every length."""
    untrained = "" if row.subject.trained else ", untrained"
    parts = [faded(row), *([used(row)] if row.information else [])]
    return f"{row.subject.name}{untrained}: {'; '.join(parts)}: {verdict(others or [row])}"


def faded(row: Row) -> str:
    """How the gradient falls off, in words."""
    half, one = row.horizons["half_life"], row.horizons["one_percent"]
    if row.label == "zero":
        return "no gradient reaches its state"
    if row.label == "exploding":
        rate = row.horizons["lyapunov"].value
        grows = f", by a factor e every {events(-rate)} events" if rate is not None and rate < 0 else ""
        return f"the gradient grows on its way back{grows}"
    if half.value is None:
        return (
            NONE
            if half.beyond is None
            else f"more than half of the gradient is left after all {events(half.beyond)} events"
        )
    gone = events(half.value)
    begin = f"half of the gradient is gone after {gone} {'event' if gone == '1' else 'events'}"
    if one.value is None:
        return begin if one.beyond is None else f"{begin}, more than 1 % is left after all {events(one.beyond)}"
    return f"{begin}, 1 % is left after {events(one.value)}"


def used(row: Row) -> str:
    """What the information horizon says."""
    if not row.matters:
        return "what is older than the last event is worth nothing to it that could be measured"
    horizon = row.uses
    if horizon.value is None:
        return (
            f"it uses all of the {events(horizon.beyond)} events of history" if horizon.beyond else "no horizon known"
        )
    between = f", 95 % {horizon.between}" if horizon.between else ""
    many = "event" if round(horizon.value) == 1 else "events"
    return f"it uses {horizon.value:,.0f} {many} of history (information horizon {events(horizon.value)}{between})"


def verdict(found: Sequence[Row]) -> str:
    """Labels with their lengths: vanishing at 50 and 200, in band at 20."""
    groups: dict[str, list[str]] = {}
    for row in found:
        groups.setdefault(row.label, []).append(f"{row.length:,}")
    return ", ".join(f"{label} at {listed(lengths)}" for label, lengths in groups.items())


def listed(words: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def lead(atlas: Atlas, found: Sequence[Row]) -> str:
    """The whole atlas in a sentence or two."""
    if not found:
        return "There are no gradients among these records."
    if len(found) == 1:
        return sentence(found[0], [row for row in rows(atlas) if row.subject is found[0].subject]) + "."
    counts = Counter(row.label for row in found)
    labels = listed([f"{counts[label]:,} {label}" for label in (*LABELS, NONE) if counts[label]])
    data = sorted({str(one["data"]) for one in atlas.of("training") if one.get("data")})
    on = f" on {listed(data)}" if data else ""
    told = f"{len(found):,} cells{on}, in rows of {found[0].length:,} events: {labels}."
    return " ".join([told, *_ends(found)])


def _ends(found: Sequence[Row]) -> Iterator[str]:
    fading = [row for row in found if row.label not in ("exploding", "zero")]
    reaching = [row for row in fading if row.horizons["half_life"].place is not None]
    if len(reaching) > 1:
        low, high = (pick(reaching, key=lambda row: row.horizons["half_life"].place or 0) for pick in (min, max))
        yield (
            f"Half of the gradient is gone after {low.horizons['half_life'].text} events ({low.subject.name}) to "
            f"{high.horizons['half_life'].text} ({high.subject.name})."
        )
    using = [row for row in found if row.matters and row.uses.value is not None]
    if len(using) > 1:
        low, high = (pick(using, key=lambda row: row.uses.value or 0) for pick in (min, max))
        yield (
            f"Information horizons lie between {low.uses.text} ({low.subject.name}) and {high.uses.text} events "
            f"({high.subject.name})."
        )


def notes(atlas: Atlas, found: Sequence[Row]) -> list[str]:
    """What a reader must know to believe the numbers."""
    told: list[str] = []
    joined = sorted({length(one) for one in atlas.of("gradient") if "end to end" in str(one.get("inputs"))})
    if joined:
        told.append(
            f"Rows of {listed([f'{one:,}' for one in joined])} events are histories of several people end to end, as "
            "nobody's is that long: they say what the cell can carry, not what a person's history is worth."
        )
    counts = sorted({int(number(row.record.get("examples")) or 0) for row in found} - {0})
    if counts:
        few = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
        unsure = "; intervals over so few are rough" if counts[0] < FEW else ""
        told.append(f"Gradients are of {few} examples at each length; intervals are 95 % bootstraps{unsure}.")
    cut = sorted({int(size) for one in atlas.of("gradient") if (size := number(one.get("truncated")))})
    if cut:
        told.append(
            f"Back-propagation is truncated to pieces of {listed([str(size) for size in cut])} events: a gradient ends "
            "with its piece, so half-lives and labels depend on where in a piece the last event is: on the length."
        )
    told += [*_zeros(shown(atlas, found)), *_untold(atlas, shown(atlas, found))]
    return told


def _zeros(found: Sequence[Row]) -> Iterator[str]:
    places = [(row, first_zero(row.record)) for row in found]
    cut = [f"{row.subject.name} from {at:,} events back" for row, at in places if at is not None]
    if cut:
        some = [*cut[:6], *([f"{len(cut) - 6:,} more"] if len(cut) > 6 else [])]
        yield f"The gradient of most examples is exactly zero, not merely small: {listed(some)}."


def _untold(atlas: Atlas, found: Sequence[Row]) -> Iterator[str]:
    raw = [row.subject.name for row in found if not row.subject.trained]
    if raw and len(raw) < len(found):
        yield f"Untrained: {listed(raw)}. The others are shown as training left them."
    elif raw:
        yield "Nothing here was trained: this is what cells are like at their initial weights."
    if any(row.accuracy is None and row.ndcg[0] is not None for row in found):
        yield "Where there is no test, NDCG@10 is that of the sample that the information horizon was measured on."
    if any(len(subject.layers) > 1 for subject in atlas.subjects):
        yield "Where a model has several layers, sentences and tables are about the first one, nearest to the events."


def first_zero(record: Record) -> int | None:
    """The first lag at which, and beyond which, at least half of the examples have a gradient of exactly zero."""
    pairs = zip(lags(record), numbers(record.get("zeros")), strict=False)
    found = None
    for lag, share in reversed(list(pairs)):
        if share is None or share < 0.5:
            break
        found = int(lag)
    return found


def thresholds(atlas: Atlas) -> tuple[float, float]:
    """What is called vanishing and exploding, as the records say."""
    told = next((one["thresholds"] for one in atlas.of("gradient") if isinstance(one.get("thresholds"), dict)), None)
    return number(part(told, "vanishing")) or 0.01, number(part(told, "exploding")) or 10.0


def definitions(atlas: Atlas) -> list[tuple[str, str]]:
    """Every word of the page that has a meaning of its own."""
    faint, grown = thresholds(atlas)
    return [
        ("Gradient", "norm of d loss / d state, of the last event's loss by the state so many events back: the median"),
        ("Half-life, e-fold, 1 %", "the lag from which on less than 1/2, 1/e, 1/100 of that of lag 0 is left (median)"),
        ("Lyapunov", "events for a factor e, by the slope over the longer lags; negative where the gradient grows"),
        ("Vanishing", f"less than {faint:.0%} of the gradient of lag 0 is left at the longest lag"),
        ("Exploding", f"at some lag it is more than {grown:g} times that of lag 0"),
        ("In band", "neither of the two"),
        ("Zero", "no gradient at lag 0; in pictures, exactly zero for at least half of the examples"),
        ("Information horizon", HORIZON),
        ("Start, middle, end", "before training; at the step nearest to half of it; where training ended"),
    ]
