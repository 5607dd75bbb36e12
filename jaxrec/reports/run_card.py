"""`jaxrec report`: everything that the page of a run shows, as plain values. Reads the run folder, never trains.

jax is imported for the example lists only.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxrec.config import Mistake, from_dict
from jaxrec.data.prepare import prepare_cached
from jaxrec.data.prepared import Prepared
from jaxrec.evaluation.slices import slices
from jaxrec.metrics import parse
from jaxrec.metrics.intervals import bootstrap
from jaxrec.reports.options import Report
from jaxrec.reports.run_findings import findings, sentence
from jaxrec.runs.folder import Folder, cache, read_json
from jaxrec.runs.options import Config

Found = dict[str, Any]
CUTOFFS = 40  # points of the curve over list lengths
TARGETS = 20  # a slice with fewer has no interval worth the name


class Ranks(NamedTuple):
    """The columns of ``ranks.npz`` that pages need, (n,) each, in the reading that leads."""

    example: np.ndarray
    user: np.ndarray
    position: np.ndarray
    target: np.ndarray
    greater: np.ndarray
    equal: np.ndarray
    candidates: np.ndarray


def card(options: Report, say: Any = print) -> Found:
    """The data of the page of ``options.run``; `Mistake` where no finished run is there.

    Keys: ``run page sentence result tested metrics hit_rates curves slices examples warnings notes command machine
    config``. What needs the data (slices, examples) is left out with a note where the data is gone or is another.
    """
    folder = Folder(options.run)
    if not folder.result.exists():
        raise Mistake(
            f"{options.run} holds no finished run (no result.json); "
            f"finish it with: jaxrec train --run {options.run} ..."
        )
    result, config = read_json(folder.result), read_json(folder.config)
    ranks = load_ranks(folder.ranks, result["headline"])
    notes: list[str] = []
    prepared = find_data(config, result, notes, say)
    metrics = measured(result, config, ranks, options.rounds, notes)
    parts = sliced(prepared, ranks, [row["metric"] for row in metrics], options.rounds) if prepared else []
    found = {
        "run": options.run,
        "page": options.out or str(folder.report),
        "result": result,
        "tested": {"targets": len(ranks.target), "sequences": len(np.unique(ranks.example))},
        "metrics": metrics,
        "hit_rates": hit_rates(ranks),
        "curves": curves(folder.metrics),
        "slices": parts,
        "examples": None if prepared is None else examples(options, folder, prepared, notes),
        "notes": notes,
        "command": folder.command.read_text(encoding="utf-8").strip() if folder.command.exists() else "",
        "machine": read_json(folder.machine) if folder.machine.exists() else {},
        "config": config,
    }
    return found | {"sentence": sentence(found), "warnings": findings(found)}


def load_ranks(path: Path, headline: str) -> Ranks:
    """Ranks in the reading that leads; `Mistake` when the file is absent or damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            columns = dict(file)
    except FileNotFoundError:
        raise Mistake(f"{path} does not exist; make it again with: jaxrec evaluate --run {path.parent}") from None
    except (OSError, ValueError) as error:
        raise Mistake(
            f"{path} cannot be read ({error}); make it again with: jaxrec evaluate --run {path.parent}"
        ) from None
    ending = "_masked" if headline == "masked" else ""
    columns |= {name: columns[name + ending] for name in ("greater", "equal")}
    return Ranks(*(columns[name] for name in Ranks._fields))


def find_data(config: Found, result: Found, notes: list[str], say: Any) -> Prepared | None:
    """The data that the run was judged on, from its file or the cache; None with a note when it is not there."""
    try:
        prepared = prepare_cached(from_dict(Config, config, "config.json"), cache(), say=say)
    except Mistake as mistake:
        notes.append(f"Slices and examples need the data, and it is not where it was: {mistake}")
        return None
    if prepared.card["fingerprint"] != result["protocol"]["fingerprint"]:
        notes.append(f"Slices and examples are left out: {config['data']} is not the data that the run was trained on.")
        return None
    return prepared


def values(metric: str, ranks: Ranks) -> np.ndarray:
    """A metric of every target (n,); a target with the whole catalogue above it is a sure miss."""
    gain, k = parse(metric)
    return np.where(ranks.greater < ranks.candidates, gain(ranks.greater, ranks.equal, k), 0.0)


def interval(found: np.ndarray, users: np.ndarray, rounds: int) -> tuple[float, float]:
    """95 % of the means when whole people are drawn again."""
    return bootstrap(found, groups=users, rounds=rounds)


def measured(result: Found, config: Found, ranks: Ranks, rounds: int, notes: list[str]) -> list[Found]:
    """A row a metric: the number of ``result.json``, its interval, and the counters beside it."""
    reading = result["headline"]
    rows = []
    for name in config["eval"]["metrics"]:
        if name not in result["test"][reading]:
            continue
        value, single = result["test"][reading][name], values(name, ranks)
        if abs(value - single.mean()) > 1e-9:
            notes.append(
                f"ranks.npz gives {name} = {single.mean():.6f} and result.json {value:.6f}: one of them is not of this "
                "run; make both again with jaxrec evaluate"
            )
        low, high = interval(single, ranks.user, rounds)
        counters = {name_: base[reading][name] for name_, base in result["baselines"].items()}
        ceiling = result["ceiling"] and result["ceiling"][reading][name]
        rows.append(
            {"metric": name, "value": value, "low": low, "high": high, "counters": counters, "ceiling": ceiling}
        )
    return rows


def hit_rates(ranks: Ranks) -> Found:
    """The share of targets among the first k, for every length of list, and that of a random order."""
    most = int(ranks.candidates.max())
    cutoffs = np.unique(np.geomspace(1, most, CUTOFFS).round().astype(int))
    gain, _ = parse("hr@1")
    sure = ranks.greater < ranks.candidates
    found = [float(np.mean(sure * gain(ranks.greater, ranks.equal, int(k)))) for k in cutoffs]
    return {"k": cutoffs.tolist(), "hr": found, "random": (cutoffs / most).tolist()}


def curves(path: Path) -> Found:
    """Training and validation records, and the seconds of the first dispatch that went into compiling.

    Compiling is what the first record took beyond the median pace of those after it; 0 where there is no other.
    """
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    train = [record for record in records if "loss" in record]
    valid = [record for record in records if "valid" in record]
    at = dict(zip(map(id, records), np.cumsum([record["seconds"] for record in records]).tolist(), strict=True))
    steps = np.diff([0, *(record["step"] for record in train)])
    pace = [record["seconds"] / step for record, step in zip(train[1:], steps[1:], strict=True) if step > 0]
    compiling = max(0.0, train[0]["seconds"] - float(np.median(pace)) * steps[0]) if pace else 0.0
    names = ("step", "epoch", "loss", "grad_norm", "events", "seconds", "lr")
    return {
        "train": [{name: record.get(name) for name in names} | {"at": at[id(record)]} for record in train],
        "valid": [
            {"epoch": record["epoch"], "step": record["step"], "at": at[id(record)], **record["valid"]}
            for record in valid
        ],
        "compile_seconds": float(compiling),
    }


def sliced(prepared: Prepared, ranks: Ranks, metrics: list[str], rounds: int) -> list[Found]:
    """A row a slice that holds targets: how many, and every metric with its interval where there are enough."""
    rows = []
    found = {name: values(name, ranks) for name in metrics}
    for name, mask in slices(prepared, ranks).items():
        if not mask.any():
            continue
        row: Found = {"slice": name, "targets": int(mask.sum()), "share": float(mask.mean()), "metrics": {}}
        for metric, single in found.items():
            inside = single[mask]
            low, high = interval(inside, ranks.user[mask], rounds) if len(inside) >= TARGETS else (None, None)
            row["metrics"][metric] = {"value": float(inside.mean()), "low": low, "high": high}
        rows.append(row)
    return rows


def examples(options: Report, folder: Folder, prepared: Prepared, notes: list[str]) -> list[Found] | None:
    """Evenly spaced histories with the first five and the truth; None with a note where the model cannot be run."""
    if options.examples < 1:
        return None
    from jaxrec.reports.run_examples import some_histories

    try:
        return some_histories(options, folder, prepared)
    except Mistake as mistake:
        notes.append(f"Example histories are left out: {mistake}")
        return None
