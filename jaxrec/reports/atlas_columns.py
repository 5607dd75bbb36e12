"""The numbers that the atlas draws from, thinned to what a page can hold: logarithms as hundredths, null for none.

A list of lags is said once and named by its place. ``ZERO`` stands for the logarithm of an exact zero.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jaxrec.reports import palette
from jaxrec.reports.atlas_findings import Row, thresholds
from jaxrec.reports.atlas_records import (
    Atlas,
    Record,
    Subject,
    lags,
    layer,
    length,
    many,
    number,
    numbers,
    part,
    parts,
    phase,
    step,
)

ZERO = -99999
FLOOR, CEILING = -8.0, 3.0  # of the scale of colours, however far the numbers reach
BANDS = ("0.05", "0.25", "0.5", "0.75", "0.95")


@dataclass(frozen=True)
class Limits:
    """At most so many lags of a curve, steps of training, values of a spectrum, and events of a person."""

    lags: int = 96
    steps: int = 48
    values: int = 256
    events: int = 400


LEVELS = (Limits(), Limits(64, 24, 128, 200), Limits(40, 16, 64, 100), Limits(24, 10, 32, 60), Limits(12, 6, 16, 40))


def evenly(values: Sequence[Any], most: int) -> list[Any]:
    """At most so many, evenly spaced, the first and the last among them."""
    if len(values) <= most:
        return list(values)
    return [values[round(place * (len(values) - 1) / (most - 1))] for place in range(most)]


def fewer(lags: Sequence[float], most: int) -> list[int]:
    """Places of at most so many lags, even in the logarithm; the first and the last among them."""
    if len(lags) <= most:
        return list(range(len(lags)))
    top = math.log1p(lags[-1])
    wanted = [math.expm1(top * place / (most - 1)) for place in range(most)]
    found, at = {0, len(lags) - 1}, 0
    for value in wanted:
        while at < len(lags) - 1 and abs(lags[at + 1] - value) <= abs(lags[at] - value):
            at += 1
        found.add(at)
    return sorted(found)


def hundredths(value: float | None) -> int | None:
    return None if value is None else round(100 * value)


def logs(values: Sequence[float | None], zeros: Sequence[float | None] = ()) -> list[int | None]:
    """Logarithms as hundredths; what is not finite is ``ZERO`` where most examples are zero, else None."""
    found = []
    for place, value in enumerate(values):
        share = zeros[place] if place < len(zeros) else None
        empty = value is None and share is not None and share >= 0.5
        found.append(ZERO if empty else hundredths(value))
    return found


def median(record: Record) -> list[float | None]:
    found = numbers(part(record, "log10_quantiles", "0.5"))
    return found or numbers(record.get("log10_mean"))


def span(atlas: Atlas) -> tuple[float, float]:
    """Ends of the one scale of colours: whole powers of ten around all medians, within ``FLOOR`` and ``CEILING``."""
    found = [value for one in atlas.of("gradient") for value in median(one) if value is not None]
    if not found:
        return FLOOR, 1.0
    low, high = max(FLOOR, math.floor(min(found))), min(CEILING, math.ceil(max(found)))
    return (low, high) if high > low else (high - 1.0, high)


def data(atlas: Atlas, found: Sequence[Row], limits: Limits) -> Record:
    """Everything the script needs."""
    kept = Lags(limits.lags)
    low, high = span(atlas)
    faint, grown = thresholds(atlas)
    return {
        "zero": ZERO, "zeroInk": palette.ZERO, "nanInk": palette.NOT_A_NUMBER, "shapes": palette.SHAPES,
        "scale": palette.SCALE, "low": low, "high": high, "main": atlas.main, "lengths": atlas.lengths,
        "faint": math.log10(faint), "grown": math.log10(grown),
        "subjects": [about(one) for one in atlas.subjects],
        "rows": [row.plain() for row in found],
        "curves": [[curve(one, kept) for one in chosen(subject, limits.steps)] for subject in atlas.subjects],
        "matrices": each(atlas, lambda one: inside(one, limits)),
        "gates": each(atlas, lambda one: gates(one, limits)),
        "spectra": each(atlas, lambda one: spectra(one, limits)),
        "exponents": each(atlas, lambda one: exponents(one, limits)),
        "singular": each(atlas, lambda one: singular(one, limits)),
        "information": each(atlas, information),
        "tasks": each(atlas, tasks),
        "traces": each(atlas, lambda one: traces(one, limits)),
        "lags": kept.lists,
    }  # fmt: skip


def each(atlas: Atlas, made: Callable[[Subject], Any]) -> list[Any]:
    return [made(subject) for subject in atlas.subjects]


def about(subject: Subject) -> Record:
    ink = palette.known(subject.family)
    return {"name": subject.name, "cell": subject.cell, "family": subject.family, "ink": ink,
            "shape": palette.SHAPES[palette.INKS[ink].shape], "trained": subject.trained}  # fmt: skip


class Lags:
    """Lists of lags, each once."""

    def __init__(self, most: int) -> None:
        self.most, self.lists, self.known = most, [], {}  # type: ignore[var-annotated]

    def place(self, lags: Sequence[float]) -> int:
        at = tuple(map(int, lags))
        if at not in self.known:
            self.known[at] = len(self.lists)
            self.lists.append(list(at))
        return int(self.known[at])


def chosen(subject: Subject, steps: int) -> list[Record]:
    """Its gradients: every start and end, and at most so many between of each layer and length."""
    found = []
    for at in subject.lengths:
        for one in subject.layers:
            records = subject.of("gradient", length=at, layer=one)
            ends = {step(record) for record in records if phase(record) != "during"}  # measured there, with more rows
            between = [record for record in records if phase(record) == "during" and step(record) not in ends]
            kept = {id(record) for record in evenly(between, steps)}
            found += [record for record in records if phase(record) != "during" or id(record) in kept]
    return found


def curve(record: Record, kept: Lags) -> Record:
    """One gradient over lag: its median, and what is around it at the start and the end."""
    own = lags(record)
    places = fewer(own, kept.most)
    zeros = numbers(record.get("zeros"))
    ends = phase(record) != "during"
    around = {name: numbers(part(record, "log10_quantiles", name)) for name in BANDS if ends and name != "0.5"}
    half = part(record, "horizons", "half_life", "value")
    return {
        "layer": layer(record), "length": length(record), "step": step(record), "phase": phase(record),
        "lags": kept.place([own[at] for at in places]), "median": picked(logs(median(record), zeros), places),
        "half": number(half), "one": number(part(record, "horizons", "one_percent", "value")),
        "label": str(record.get("label")),
        **({"around": {name: picked(logs(some, zeros), places) for name, some in around.items()}}
           if all(around.values()) and ends else {}),
    }  # fmt: skip


def picked(values: Sequence[Any], places: Sequence[int]) -> list[Any]:
    return [values[place] if place < len(values) else None for place in places]


def inside(subject: Subject, limits: Limits) -> list[Record]:
    """Gradients of every step's loss by every state before it."""
    found = []
    for one in filter(None, [subject.last("matrix", layer=at) for at in subject.layers or [0]]):
        steps, rows = numbers(one.get("steps")), [logs(numbers(row)) for row in many(one, "log10")]
        kept = evenly(range(min(len(steps), len(rows))), max(12, limits.lags // 3))
        if kept:
            fields = [[rows[at][by] if by < len(rows[at]) else None for by in kept if by <= at] for at in kept]
            found.append({"layer": layer(one), "length": length(one), "steps": [steps[at] for at in kept],
                          "log10": fields})  # fmt: skip
    return found


def gates(subject: Subject, limits: Limits) -> list[Record]:
    """Densities of every gate at every step, by layer."""
    found: dict[tuple[int, str], Record] = {}
    for record in evenly_of(subject, "gates", min(limits.steps, 12)):
        for gate in parts(record, "gates"):
            density = numbers(gate.get("density"))
            held = found.setdefault((layer(record), str(gate.get("name"))), {
                "layer": layer(record), "name": str(gate.get("name")), "kind": str(gate.get("kind") or ""),
                "edges": [round(value or 0, 3) for value in numbers(gate.get("edges"))], "steps": [], "density": [],
            })  # fmt: skip
            if density and len(density) == len(held["edges"]) - 1:
                held["steps"].append(step(record))
                held["density"].append([round(1e4 * (value or 0)) for value in density])
    return [one for one in found.values() if one["steps"]]


def evenly_of(subject: Subject, kind: str, most: int) -> list[Record]:
    """At most so many steps of a kind, of the longest rows, without the same step twice."""
    last = subject.last(kind)
    records = subject.of(kind, length=length(last)) if last else []
    steps = set(evenly(sorted({step(one) for one in records}), most))
    return list({(layer(one), step(one)): one for one in records if step(one) in steps}.values())


def spectra(subject: Subject, limits: Limits) -> list[Record]:
    """Eigenvalues of recurrent matrices and of the mean one-step Jacobian, at the start and the end."""
    found = []
    for one in (subject.first("eigenvalues"), subject.last("eigenvalues")):
        for record in subject.of("eigenvalues", step=step(one), phase=phase(one)) if one else []:
            named = matrices(record.get("matrices"))
            jacobian = record.get("mean_jacobian") or record.get("jacobian")
            named += [("mean Jacobian", jacobian)] if jacobian else []
            clouds = [{"name": name, "points": points(told, limits.values)} for name, told in named]
            clouds = [cloud for cloud in clouds if cloud["points"]]
            if clouds:
                found.append({"layer": layer(record), "step": step(record), "phase": phase(record), "clouds": clouds})
    return found


def matrices(told: Any) -> list[tuple[str, Any]]:
    """Names and eigenvalues, from a list of them or from a mapping."""
    if isinstance(told, dict):
        return [(str(name), one) for name, one in told.items()]
    return [(str(part(one, "name") or "matrix"), one) for one in parts(told)]


def points(told: Any, most: int) -> list[list[int]]:
    """Thousandths of real and imaginary parts, the largest of them."""
    real, imaginary = (flat(part(told, name)) for name in ("real", "imag"))
    imaginary = imaginary or flat(part(told, "imaginary"))
    pairs = [(a, b) for a, b in zip(real, imaginary, strict=False) if a is not None and b is not None]
    pairs.sort(key=lambda pair: -math.hypot(*pair))
    return [[round(1000 * a), round(1000 * b)] for a, b in pairs[:most]]


def flat(values: Any) -> list[float | None]:
    """Numbers of a list of lists, however deep."""
    if isinstance(values, list):
        return [leaf for value in values for leaf in (flat(value) if isinstance(value, list) else [number(value)])]
    return []


def exponents(subject: Subject, limits: Limits) -> list[Record]:
    """Lyapunov exponents in ten-thousandths of a nat per event, the largest first; null is minus infinity."""
    return [
        {"layer": layer(one), "step": step(one), "of": len(values),
         "values": [None if value is None else round(1e4 * value) for value in evenly(values, min(limits.values, 24))]}
        for one in evenly_of(subject, "lyapunov", limits.steps) if (values := numbers(one.get("exponents")))
    ]  # fmt: skip


def singular(subject: Subject, limits: Limits) -> list[Record]:
    """Singular values of the Jacobian over lags, at the end: at most eight of each, evenly among them."""
    last = subject.last("singular") or subject.last("singular_values")
    found = []
    for one in subject.of(last["kind"], step=step(last), phase=phase(last)) if last else []:
        values = [evenly(numbers(row), 8) for row in many(one, "log10")]
        own = lags(one)[: len(values)]
        places = fewer(own, limits.lags)
        if any(values):
            found.append({"layer": layer(one), "lags": [own[at] for at in places],
                          "log10": [list(map(hundredths, values[at])) for at in places]})  # fmt: skip
    return found


def information(subject: Subject) -> Record | None:
    """What is lost when all but so many events are taken away."""
    record = subject.last("information")
    if record is None or not numbers(record.get("cutoffs")):
        return None
    names = "lost", "lost_low", "lost_high", "gone", "gone_low", "gone_high", "ndcg@10"
    return {"cutoffs": numbers(record["cutoffs"]), "length": length(record),
            **{name: [six(value) for value in numbers(record.get(name))] for name in names}}  # fmt: skip


def six(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def tasks(subject: Subject) -> list[Record]:
    """Accuracy at every distance of every task: the mean over seeds, with the widest interval."""
    groups: dict[tuple[str, float], list[Record]] = {}
    for one in subject.of("task"):
        if (distance := number(one.get("distance"))) is not None and number(one.get("accuracy")) is not None:
            groups.setdefault((str(one.get("task") or "task"), distance), []).append(one)
    return [
        {"task": task, "distance": distance, "accuracy": six(mean(some, "accuracy")), "seeds": len(some),
         "low": least(min, some, "low"), "high": least(max, some, "high"), "chance": least(max, some, "chance"),
         "solved": sum(bool(one.get("solved")) for one in some)}
        for (task, distance), some in sorted(groups.items())
    ]  # fmt: skip


def mean(some: Iterable[Record], name: str) -> float:
    found = [value for one in some if (value := number(one.get(name))) is not None]
    return sum(found) / len(found)


def least(pick: Callable[[list[float]], float], some: Iterable[Record], name: str) -> float | None:
    found = [value for one in some if (value := number(one.get(name))) is not None]
    return six(pick(found)) if found else None


def traces(subject: Subject, limits: Limits) -> list[Record]:
    """One person's last events, and what each of them had to do with a prediction."""
    record = subject.last("trace")
    kept = parts(record, "events")[-limits.events :]
    if not kept:
        return []
    return [{
        "titles": [title(one) for one in kept],
        "gradient": [hundredths(number(one.get("gradient"))) for one in kept],
        "influence": [six(number(one.get("influence"))) for one in kept],
    }]  # fmt: skip


def title(told: Any) -> str:
    """What a thing is called, at most so long."""
    found = str(part(told, "title") or part(told, "item") or "\N{EN DASH}")
    return found if len(found) <= 120 else found[:119] + "\N{HORIZONTAL ELLIPSIS}"
