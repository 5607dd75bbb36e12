"""The atlas of one cell or run: everything that is measured of it, in one file of records."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrec.cells.find import locate
from jaxrec.config import Mistake, changed, field_types, fingerprint, to_dict, value_at
from jaxrec.data.context import attached
from jaxrec.data.prepare import prepare_cached
from jaxrec.data.prepared import Prepared
from jaxrec.data.replacing import replacing
from jaxrec.diagnostics.influence import influence
from jaxrec.diagnostics.records import Record
from jaxrec.models.recommender import Recommender
from jaxrec.runs import build
from jaxrec.runs.folder import Folder, cache, mendable, read_json
from jaxrec.runs.measuring import measured
from jaxrec.runs.options import Config, Diagnose
from jaxrec.runs.run import remember_compilations, train, trained as finished_run, trained_on
from jaxrec.runs.samples import drawn, eligible, laid
from jaxrec.runs.sampling import FILE
from jaxrec.training.feed import Mapped
from jaxrec.training.source import Events

Say = Callable[[str], None]
RECORDS = "records.jsonl"
BESIDE_RUN = ("run", "out", "lengths", "name", "titles", "allow_code", "json", "seed")
STORY = (8, 40)  # events of a history that is told on a page, where there is one like that


def diagnose(
    options: Diagnose, *, explicit: Sequence[str] = (), command: Sequence[str] = (),
    titles: Mapping[str, str] | None = None, say: Say = print,
) -> list[Record]:  # fmt: skip
    """Measure and write ``OUT/records.jsonl``; returns all records that it now holds.

    With ``run`` that run is measured, and what it saw of itself while it trained (`jaxrec train --diagnose`) is taken
    over; otherwise the model that the options describe is measured fresh, trained for ``max_seconds`` under
    ``OUT/runs``, and measured again. Records of the same name are replaced, others stay. ``titles`` name items for
    people. Raises what `train` raises.
    """
    lengths, out = parsed(options.lengths), Path(options.out)
    remember_compilations()
    with mendable(out):
        made(out)
        name = options.name or str(options.model.cell)
        if options.run is not None:
            refuse_beside_run(explicit)
            name = options.name or f"{named(options.run)} ({'/'.join(Path(options.run).parts[-2:])})"
        before = others(out / RECORDS, name, say)
        if options.run is not None:
            found = list(trained(options.run, lengths, name, options, say))
        else:
            found = list(fresh(options, lengths, name, say))
            if options.max_seconds != 0:  # none sets no limit
                config = plain_config(options)
                which = fingerprint({key: value for key, value in to_dict(config).items() if key != "max_seconds"})
                directory = str(out / "runs" / f"{''.join(c if c.isalnum() else '-' for c in name)}-{which[:8]}")
                config = changed(config, run=directory, diagnose=True)
                train(config, explicit=[key for key in explicit if key not in BESIDE_RUN], command=command, say=say)
                found += trained(directory, lengths, name, changed(options, allow_code=True), say)
        return kept(out / RECORDS, before, [entitled(record, titles or {}) for record in found])


def parsed(lengths: str) -> list[int]:
    """Rising whole numbers from a text such as ``20,50,200``."""
    words = lengths.replace(",", " ").split()
    if not words or not all(word.isdecimal() and int(word) > 1 for word in words):
        raise Mistake(f"lengths = {lengths!r} is not a list of lengths; give whole numbers from 2 on, as in 20,50,200")
    return sorted({int(word) for word in words})


def refuse_beside_run(explicit: Sequence[str]) -> None:
    others = [key for key in explicit if key not in BESIDE_RUN]
    if others:
        flag = others[0].replace("_", "-")
        raise Mistake(f"--{flag} says nothing beside --run, which was trained with its own; leave one of the two out")


def plain_config(options: Diagnose) -> Config:
    """The part of the options that is a training's."""
    return Config(**{name: value_at(options, name) for name in field_types(Config)})


def made(out: Path) -> None:
    """Make the directory. `Mistake` where that cannot be."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Mistake(f"--out {out} cannot be made a directory ({error.strerror}); choose another") from None


def named(run: str) -> str:
    """The cell of a run. `Mistake` where the directory is none."""
    config = read_json(Folder(run).config)
    try:
        return str(config["model"]["cell"])
    except (KeyError, TypeError):
        raise Mistake(f"{Folder(run).config} is not the configuration of a run; restore it, or name another") from None


def common(config: Config, name: str, run: str | None, step: int, phase: str) -> Record:
    """What every record of a subject begins with."""
    cell = config.model.cell
    return {
        "subject": name, "cell": str(cell), "family": locate(cell).family, "run": run, "step": step, "phase": phase,
        "seed": config.seed,
    }  # fmt: skip


def fresh(options: Diagnose, lengths: Sequence[int], name: str, say: Say) -> Iterator[Record]:
    """What is measured of the untrained model."""
    prepared = prepare_cached(options, cache(), say=say)
    offer = build.offered(prepared)
    model = build.model(options.model, offer, seed=options.seed)
    prepared = attached(prepared, build.columns(options.model, offer))
    data = Mapped(prepared, options.model.user)
    say(f"{name}: measuring it untrained at lengths {', '.join(map(str, lengths))}")
    about = common(options, name, None, 0, "start")
    for record in measured(model, prepared, data, lengths, seed=options.seed):
        yield about | record


def trained(run: str, lengths: Sequence[int], name: str, options: Diagnose, say: Say) -> Iterator[Record]:
    """What a run saw of itself while it trained, how well it recommends, and what is measured of it now."""
    folder, bundle = Folder(run), finished_run(run, allow_code=options.allow_code)
    result, prepared = read_json(folder.result), trained_on(run, bundle, say)
    data = Mapped(prepared, bundle.config.model.user)
    about = common(bundle.config, name, result["run_id"], result["steps"], "end")
    for sample in watched(folder.path / FILE):
        for record in sample["records"]:
            yield about | {"step": sample["step"], "phase": "during"} | record
    yield about | outcome(result)
    steps = f"{result['steps']:,} step{'s' if result['steps'] != 1 else ''}"
    say(f"{name}: measuring it after {steps} of training")
    for record in measured(bundle.model, prepared, data, lengths, seed=options.seed):
        yield about | record
    yield about | story(bundle.model, prepared, data, seed=options.seed)


def watched(path: Path) -> list[Any]:
    """What a run wrote of itself, but for a line that a kill cut short; nothing where it did not look."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found


def outcome(result: dict[str, Any]) -> Record:
    """How well a run recommends, beside the best counter."""
    headline, metric = result["headline"], next(iter(result["valid"][result["headline"]]))
    metric = "ndcg@10" if "ndcg@10" in result["test"][headline] else metric
    value = result["test"][headline][metric]
    low, high = (result["test"].get("intervals") or {}).get(metric, (None, None))
    counters = {name: one[headline].get(metric) for name, one in result["baselines"].items() if one.get(headline)}
    best = max(((v, n) for n, v in counters.items() if v is not None), default=(None, None))
    return {
        "kind": "training", "metric": metric, "value": value, "low": low, "high": high,
        "best_counter": {"name": best[1], "value": best[0]}, "epochs": result["epochs"], "steps": result["steps"],
        "seconds": result["seconds"]["train"], "data": result["protocol"]["name"],
    }  # fmt: skip


def story(model: Recommender, prepared: Prepared, data: Events, *, seed: int) -> Record:
    """One person drawn by chance, among those with a history of a length that can be shown: which events moved the
    prediction.
    """
    ends, history = eligible(prepared)
    shown = (history >= STORY[0]) & (history <= STORY[1])
    place = drawn(np.flatnonzero(shown if shown.any() else history > 0), 1, seed)[0]
    end, own = ends[place : place + 1], int(min(history[place], STORY[1]))
    sample = laid(data, end, np.array([own]), own, reset=False, inputs="histories")
    record = influence(model, sample.batch, own, exclude_seen=prepared.card["mask_seen"] != "none")
    names = prepared.item_ids.decode
    person = int(prepared.users[prepared.sequence_of(end)[0]])
    events = [
        {"item": str(names([item])[0]) if item else "", "gradient": gradient, "influence": lost}
        for item, gradient, lost in zip(record["items"], record["gradient"], record["influence"], strict=True)
    ]
    return {
        "kind": "trace", "user": str(prepared.user_ids.decode([person])[0]), "rank": record["place"],
        "target": {"item": str(names([record["target"]])[0])}, "length": own, "inputs": "histories",
        "prediction": {"item": str(names([record["prediction"]])[0]), "score": record["score"]}, "events": events,
    }  # fmt: skip


def entitled(record: Record, titles: Mapping[str, str]) -> Record:
    """The record of a story with the titles of its items; any other as it is."""
    if record["kind"] != "trace":
        return record

    def one(item: Record) -> Record:
        return item | ({"title": titles[item["item"]]} if item["item"] in titles else {})

    events = [one(event) for event in record["events"]]
    return record | {"events": events, "target": one(record["target"]), "prediction": one(record["prediction"])}


def others(path: Path, name: str, say: Say) -> list[Record]:
    """Records of other names that a file holds. `Mistake` for a line that is none, before anything is measured."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            _, subject = record["kind"], record["subject"]
        except (ValueError, KeyError, TypeError):
            raise Mistake(f"{path}:{number} is not a record; drop the line, or give another --out") from None
        if subject != name:
            found.append(record)
    if len(found) < len(lines):
        say(f"{path}: what it holds of {name} will be replaced; --name keeps both")
    return found


def kept(path: Path, before: Sequence[Record], found: Sequence[Record]) -> list[Record]:
    """Write the records, whole or not at all; all that the file then holds."""
    with replacing(path) as file:
        file.writelines((json.dumps(record, allow_nan=False) + "\n").encode() for record in [*before, *found])
    return [*before, *found]
