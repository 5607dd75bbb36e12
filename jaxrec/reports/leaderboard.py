"""A page of many models, one table a protocol: numbers that were not measured alike never stand in one table.

A *row* is what a finished training left: ``data, recipe, seed, reading, test, baselines, protocol, model, epochs,
steps, seconds, machine, places, people`` (`experiments/recipes.py` writes them). Rows of one recipe are its seeds.
"""

import base64
import json
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxrec.config import Mistake
from jaxrec.metrics import bootstrap, gains, holm, parse, permutation
from jaxrec.reports.charts import Axis, interval_dots, short
from jaxrec.reports.html import Markup, element, facts, note, page, section, table, write

Row = Mapping[str, Any]
Published = Sequence[Mapping[str, Any]]  # model, data, source, and a number a metric
SHOWN = 20  # places told apart; farther ones are all alike
SAME = ("fingerprint", "split", "catalogue", "unknown_targets", "mask_seen", "ties", "filters")


def packed(numbers: NDArray[Any]) -> str:
    """Small whole numbers as text: deflated, base64."""
    return base64.b64encode(zlib.compress(numbers.astype("<u2").tobytes(), 9)).decode()


def unpacked(text: str) -> NDArray[np.int64]:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), "<u2").astype(np.int64)


def kept(greater: NDArray[Any], equal: NDArray[Any], users: NDArray[Any]) -> dict[str, str]:
    """What a row keeps of every target, in the order of the data: ``places``, how many candidates scored higher, those
    from `SHOWN` on as one number (a tie counts as half a place, rounded up); ``people``, how many targets in a row
    belong to one user or session.
    """
    places = np.minimum(greater + (equal + 1) // 2, SHOWN)
    edges = np.flatnonzero(np.diff(users, prepend=-1, append=-1))
    return {"places": packed(places), "people": packed(np.diff(edges))}


@dataclass(frozen=True)
class Entry:
    """A model: the rows of its seeds."""

    name: str
    rows: tuple[Row, ...]

    @property
    def first(self) -> Row:
        return self.rows[0]

    def by_seed(self, metric: str) -> list[float]:
        return [row["test"][metric] for row in self.rows]

    @cached_property
    def people(self) -> NDArray[np.int64]:
        """To whom each target belongs."""
        sizes = unpacked(self.first["people"])
        return np.repeat(np.arange(len(sizes)), sizes)

    def values(self, metric: str) -> NDArray[np.float64]:
        """What each target is worth, the mean over seeds."""
        found = [unpacked(row["places"]) for row in self.rows]
        return np.mean([gains(metric, places, np.zeros_like(places)) for places in found], axis=0)


@dataclass(frozen=True)
class Board:
    """What one protocol says of its models, the best first."""

    name: str  # of the data set
    protocol: Mapping[str, Any]
    reading: str
    metrics: tuple[str, ...]
    entries: tuple[Entry, ...]


def boards(rows: Iterable[Row]) -> list[Board]:
    """The rows by protocol. `Mistake` where a recipe has a seed twice."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        same = {name: row["protocol"].get(name) for name in SAME} | {"reading": row["reading"], "data": row["data"]}
        groups[json.dumps(same, sort_keys=True)].append(row)
    return sorted((board(group) for group in groups.values()), key=lambda one: one.name)


def board(rows: Sequence[Row]) -> Board:
    models: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if any(row["seed"] == other["seed"] for other in models[row["recipe"]]):
            raise Mistake(f"{row['recipe']} has seed {row['seed']} twice; take one of its rows out")
        models[row["recipe"]].append(row)
    metrics = tuple(name for name in rows[0]["test"] if tells(name))
    entries = [Entry(name, tuple(sorted(found, key=lambda row: row["seed"]))) for name, found in models.items()]
    entries.sort(key=lambda entry: -mean(entry.by_seed(chosen(metrics))))
    return Board(rows[0]["data"], rows[0]["protocol"], rows[0]["reading"], metrics, tuple(entries))


def tells(metric: str) -> bool:
    """Whether a metric follows from the places that a row keeps."""
    try:
        k = parse(metric)[1]
    except Mistake:
        return False
    return k is not None and k <= SHOWN


def chosen(metrics: Sequence[str]) -> str:
    """The metric that models are ordered and tested by: one that says where in the list the target was."""
    return next((name for name in metrics if name.startswith(("ndcg", "mrr"))), metrics[0])


def paired(found: Board, metric: str) -> list[dict[str, Any]]:
    """Every pair of models, on the same targets: the difference of their means over seeds, its 95 % interval (paired
    bootstrap over people) and the p-value of a permutation test, corrected for all pairs of the board (Holm).
    """
    values = [entry.values(metric) for entry in found.entries]
    pairs: list[dict[str, Any]] = []
    for (a, one), (b, other) in combinations(enumerate(found.entries), 2):
        if not np.array_equal(one.people, other.people):
            raise Mistake(f"{one.name} and {other.name} have the protocol of {found.name} but not the same targets")
        delta = values[a] - values[b]
        low, high = bootstrap(delta, groups=one.people)
        p = permutation(delta, groups=one.people)
        pairs.append({"first": one.name, "second": other.name, "delta": float(delta.mean()), "low": low, "high": high,
                      "p": p})  # fmt: skip
    for pair, corrected in zip(pairs, holm([pair["p"] for pair in pairs]), strict=True):
        pair["p_holm"] = float(corrected)
    return pairs


def write_leaderboard(rows: Iterable[Row], published: Published, path: Path, command: str) -> None:
    """The page of all rows."""
    write(path, leaderboard(boards(rows), published, command))


def leaderboard(found: Sequence[Board], published: Published, command: str) -> str:
    lead = (
        "A table for every protocol: the same file, split, order of ties, catalogue and hidden items. Numbers are "
        "those of the test targets, which chose nothing."
    )
    return page("Leaderboard", lead, *(shown(one, published) for one in found), made_by=command)


def shown(one: Board, published: Published) -> Markup:
    """A protocol: what it is, its models, and whether they differ."""
    metric = chosen(one.metrics)
    pairs = paired(one, metric)
    others = [other for other in published if other["data"] == one.name and other["reading"] == one.reading]
    return section(
        f"{one.name}, {'seen items hidden' if one.reading == 'masked' else 'nothing hidden'}",
        facts(protocol(one)), dots(one, metric), models(one, others), differences(pairs, metric), wide=True,
    )  # fmt: skip


def protocol(one: Board) -> list[tuple[str, str]]:
    card, counts = one.protocol, one.protocol["counts"]
    ties = card["ties"]
    split = card["split"]["name"] if isinstance(card["split"], Mapping) else card["split"]
    return [
        ("split", f"{split}, {counts['test_targets']:,} test targets"),
        ("candidates", f"{counts['items']:,} items, catalogue {card['catalogue']}"),
        ("unknown targets", str(card["unknown_targets"])),
        ("ties in time", str(ties["policy"] if isinstance(ties, Mapping) else ties)),
        ("data", f"{counts['events']:,} events, fingerprint {card['fingerprint']}"),
    ]


def dots(one: Board, metric: str) -> Markup:
    """Every model with the interval of its mean over targets, beside the best counter."""
    rows = []
    for entry in one.entries:
        values = entry.values(metric)
        rows.append((entry.name, float(values.mean()), *bootstrap(values, groups=entry.people)))
    name, best = counter(one, metric)
    return interval_dots(
        metric, rows, Axis(metric), reference=(best, name), exact="{:.4f}".format,
        note="mean over seeds, 95 % interval over people",
    )  # fmt: skip


def counter(one: Board, metric: str) -> tuple[str, float]:
    """The best counter by a metric."""
    known = one.entries[0].first["baselines"]
    name = max(known, key=lambda which: known[which][metric])
    return name, known[name][metric]


def models(one: Board, others: Published) -> Markup:
    """The table: ours, then counters, then what was published on the same file under the same reading."""
    columns = ["model", *one.metrics, "seeds", "parameters", "epochs", "updates", "minutes", "on", "trials"]
    ours = [
        [element("strong", entry.name), *(spread(entry.by_seed(name)) for name in one.metrics), *budget(entry)]
        for entry in one.entries
    ]
    blank = [""] * 7
    name, _ = counter(one, chosen(one.metrics))
    best = one.entries[0].first["baselines"][name]
    counted = [[f"counter: {name}", *(f"{best[metric]:.4f}" for metric in one.metrics), *blank]]
    said = [
        [f"{other['model']} ({other['source']})", *(number(other.get(metric)) for metric in one.metrics), *blank]
        for other in others
    ]
    return table(
        columns, [*ours, *counted, *said], caption="test targets; mean ± deviation between seeds; minutes are a seed's"
    )


def spread(values: Sequence[float]) -> str:
    return f"{mean(values):.4f}" + (f" {whole(f'± {stdev(values):.4f}')}" if len(values) > 1 else "")


def whole(text: str) -> str:
    """A text that no table cell breaks."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def budget(entry: Entry) -> list[str]:
    """What a training of the model took, and how many were tried to find it."""
    row = entry.first
    weights = sum(row["model"]["parameters"].values())
    minutes = mean(one["seconds"] for one in entry.rows) / 60
    return [str(len(entry.rows)), short(weights), str(row["epochs"]), f"{row['steps']:,}", f"{minutes:.1f}",
            device(row["machine"]), str(row.get("trials", ""))]  # fmt: skip


def device(machine: Mapping[str, Any]) -> str:
    """What trained: accelerators as JAX calls them, or so many cores of a processor."""
    names = [name for name in machine.get("devices") or () if "cpu" not in name]
    return ", ".join(names) or f"{machine['cores_usable']} of {machine['cores']} cores, {machine['cpu']}"


def differences(pairs: Sequence[Mapping[str, Any]], metric: str) -> Markup | None:
    """Which models differ."""
    if not pairs:
        return note("One model: nothing to hold it against yet.", kind="plain")
    columns = ["pair", f"difference in {metric}", "95 % interval", "p (Holm)"]
    lines = [
        [f"{pair['first']} \N{MINUS SIGN} {pair['second']}", f"{pair['delta']:+.4f}",
         whole(f"{pair['low']:+.4f} to {pair['high']:+.4f}"), f"{pair['p_holm']:.4f}"]
        for pair in pairs
    ]  # fmt: skip
    return table(columns, lines, caption="paired on the same targets, means over seeds; permutation of whole people")
