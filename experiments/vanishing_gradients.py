"""How far back does training reach, by cell, initialisation and clipping, and does the gradient say so beforehand?

Claim     Whether the first gradient vanishes does not tell what is learnt: of 130 trainings on tasks where it does 89
          are solved, of 72 where it is in band 50. The trained gradient tells: of 140 in band 113 are solved, of 57
          that still vanish 24, and these are 21 flip-flops, which need no gradient from afar, and three trained with
          truncated gradients. A start decides more than clipping: an LSTM recalls over 20 events, with forget bias 0
          over none, with chrono initialisation over 1,000; a GRU goes as far clipped by norm, by value or not at all,
          while IRNN fails unclipped. No cell gets MQAR right over 20 events in 2,000 steps. One seed.
Command   python experiments/vanishing_gradients.py --size desk            ci: seconds; full: all cells, three seeds
          --shard 0/4 takes every fourth curve, --max-seconds 3600 stops between rows, --plan only says how long
Time      ci half a minute, desk 71 CPU-minutes (each row has its seconds), full: see what --plan says on your device.
Expect    A row for every (task, cell, remedy, seed) and distance in experiments/results/vanishing_gradients.jsonl, up
          to the first distance at which the cell fails: accuracy at the last steps with its interval, the gradient of
          the last loss by the state 0, 1, 2, 5, ... steps before it, at the start and after training, and its label.

Same width, rate and number of steps for every cell, nothing tuned: half as many steps beyond a distance of 200. A row
that is there is not computed again. Cells that read gaps get one day everywhere (in `demo` the gaps of its events).
`demo` is the built-in shop with its dependency planted `distance` events back: accuracy there is hr@10, chance that of
the best counter, and the ceiling that of the generator itself; it is trained as `jaxrec train` does.
"""

import argparse
import dataclasses
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec.bench.timing import append_row
from jaxrec.cells.find import ours
from jaxrec.config import Call, fingerprint, resolve, to_dict
from jaxrec.data.prepare import prepare_cached
from jaxrec.data.prepared import Prepared
from jaxrec.diagnostics.curves import label
from jaxrec.diagnostics.gradient import by_scan
from jaxrec.diagnostics.solve import Recipe, Record, climbed, learn, number, wilson
from jaxrec.diagnostics.subject import Model
from jaxrec.diagnostics.tasks import task
from jaxrec.models.recommender import Batch
from jaxrec.runs import build
from jaxrec.runs.bundle import load
from jaxrec.runs.folder import cache
from jaxrec.runs.machine import card
from jaxrec.runs.options import Config
from jaxrec.runs.run import remember_compilations, train

ROWS = Path(__file__).parent / "results" / "vanishing_gradients.jsonl"
LAGS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
PROBED = 16  # sequences whose gradients are measured
LONG = 200  # beyond it, half the steps
FAMILIES = ("elman", "irnn", "gru", "lstm", "lru", "mlstm", "lem", "cfc", "causalconv")
TASKS = ("recall", "adding", "flipflop", "copy", "mqar")
# other starts, where a cell has one; {reach} is the longest lag that the task asks for
STARTS: dict[str, tuple[str, ...]] = {
    "lstm": ("lstm(chrono={reach})", "lstm(forget_bias=0)", "lstm(uniform=true, refine=true)"),
    "lru": ("lru(r_min=0.9, r_max=0.999)",),
    "irnn": ("irnn(scale=0.9)",),
    "lem": ("lem(dt=0.1)",),
    "causalconv": ("causalconv(width=32)",),
}
CLIPS: dict[str, dict[str, Any]] = {
    "no clipping": {"clip": float("inf")},
    "clip value .05": {"clip": float("inf"), "clip_value": 0.05},
}
OTHERS: dict[str, dict[str, Any]] = {
    "no norm": {"norm": False},
    "no residual": {"residual": False},
    "truncated at 20": {"backend": "scan(truncate=20)"},
}


class Curve(NamedTuple):
    """One line in a figure: everything but the distance."""

    task: str
    cell: str  # a call, in which {reach} may stand
    remedy: str
    changes: Mapping[str, Any]
    seed: int


@dataclasses.dataclass(frozen=True)
class Size:
    """How much of it is computed."""

    recipe: Recipe
    distances: tuple[int, ...]
    curves: tuple[Curve, ...]
    demo: Mapping[str, Any]
    lags: tuple[int, ...]  # of the demo


def curves(
    cells: Mapping[str, tuple[str, ...]], remedies: Mapping[str, Mapping[str, Any]], seeds: int
) -> Iterator[Curve]:
    """Curves of every task and its cells, with each remedy."""
    for seed in range(seeds):
        for remedy, changes in remedies.items():
            for name, chosen in cells.items():
                yield from (Curve(name, cell, remedy, changes, seed) for cell in chosen)


def starts(cells: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(call for cell in cells for call in STARTS.get(cell, ()))


BASE: dict[str, Mapping[str, Any]] = {"none": {}}
SMALL = {"demo.users": 60, "demo.events": 8, "demo.items": 40, "model.width": 8, "epochs": 1, "batch.size": 8}
SHOP = {
    "demo.users": 3000, "demo.items": 300, "demo.near": 0.02, "demo.far": 0.93, "demo.taste": 0.02, "demo.trend": 0.03,
    "model.width": 64, "model.dropout": 0.1, "epochs": 20, "batch.size": 16, "batch.length": 150,
    "optimizer.lr": 5e-3, "stop.patience": 0, "eval.every": 20,
}  # fmt: skip


def ci() -> Size:
    recipe = Recipe(width=8, batch=8, steps=20, every=10, sequences=64, lr=0.01)
    chosen = curves({"recall": ("elman", "lstm(chrono={reach})"), "demo": ("gru",)}, BASE, 1)
    return Size(recipe, (3, 5), tuple(chosen), SMALL, (2,))


def desk() -> Size:
    recipe = Recipe(width=32, batch=32, steps=2000, sequences=512, lr=5e-3, seconds=3600)
    dense, short = ("elman", "irnn", "gru", "lstm"), ("recall", "adding")
    begun = ("lstm(chrono={reach})", "lstm(forget_bias=0)", "lru(r_min=0.9, r_max=0.999)", "causalconv(width=32)")
    chosen = [
        *curves(dict.fromkeys(TASKS, FAMILIES), BASE, 1),
        *curves(dict.fromkeys(short, begun), BASE, 1),
        *curves(dict.fromkeys(short, dense), CLIPS, 1),
        *curves({"recall": ("gru",)}, OTHERS, 1),
        *curves({"demo": FAMILIES}, BASE, 1),
    ]
    return Size(recipe, (20, 50, 100, 200, 500, 1000), tuple(chosen), SHOP, (5, 20))


def full() -> Size:
    recipe = Recipe(width=128, batch=64, steps=10_000, sequences=2048, lr=2e-3)
    names = tuple(sorted(name.casefold() for name in ours()))
    every = {name: (*names, *starts(names)) for name in (*TASKS, "selective", "parity", "permuted")}
    chosen = [*curves(every, BASE | CLIPS | OTHERS, 3), *curves({"demo": names}, BASE, 3)]
    return Size(recipe, (20, 50, 100, 200, 500, 1000), tuple(chosen), SHOP, (2, 5, 10, 20))


SIZES: dict[str, Callable[[], Size]] = {"ci": ci, "desk": desk, "full": full}


def said(by_lag: Mapping[str, Any]) -> str:
    """The label of a gradient, by its logarithms at lags as a row has them."""
    return label(np.array([np.nan if value is None else float(value) for value in by_lag.values()]))


def by_lag(model: Model, batch: Any, reach: int) -> dict[str, Any]:
    """log10 of the norm of the last loss's gradient by the state so many steps before, the median over sequences."""
    found = by_scan(model, batch).log10()[0]
    with np.errstate(invalid="ignore"):
        middle = np.median(found, axis=0)
    lags = sorted({lag for lag in (*LAGS, reach) if lag < len(middle)})
    return {str(lag): number(round(float(middle[-1 - lag]), 4)) for lag in lags}


def described(before: Model, after: Model, batch: Any, reach: int) -> Record:
    start, end = by_lag(before, batch, reach), by_lag(after, batch, reach)
    return {
        "reach": reach,
        "gradient": {"start": start, "end": end},
        "label": {"start": said(start), "end": said(end)},
    }


def recipe_of(curve: Curve, distance: int, size: Size) -> Recipe:
    """What is trained at a distance."""
    cell = curve.cell.format(reach=task(curve.task, distance).reach)
    steps = size.recipe.steps if distance <= LONG else size.recipe.steps // 2
    given = {"cell": Call.parse(cell), "steps": steps, "seed": curve.seed} | curve.changes
    return dataclasses.replace(size.recipe, **given)


def learnt(curve: Curve, distance: int, size: Size) -> Record:
    """Train a cell on a task; its accuracy and its gradients."""
    given = task(curve.task, distance)
    found = learn(given, recipe_of(curve, distance, size))
    probe = given.draw(jax.random.key(curve.seed + 1), PROBED)
    return found.record | described(found.before, found.after, probe, given.reach)


def flags(curve: Curve, lag: int, size: Size) -> dict[str, Any]:
    """The options of a run on the demo: histories of which half is longer than three lags."""
    events = max(3 * lag, size.demo.get("demo.events", 40))
    return dict(size.demo) | {
        "demo.lag": lag, "demo.events": events, "demo.items": max(size.demo["demo.items"], 5 * events),
        "model.cell": curve.cell, "seed": curve.seed,
    }  # fmt: skip


def probe(prepared: Prepared, steps: int) -> Batch:
    """The first events of the longest histories, each with the next as its target."""
    longest = np.argsort(-np.diff(prepared.offsets), kind="stable")[:PROBED]
    steps = min(steps, int(np.diff(prepared.offsets)[longest].min()) - 1)
    index = np.asarray(prepared.offsets)[longest][:, None] + np.arange(steps)
    items = np.asarray(prepared.items, np.int32)
    gaps = None if prepared.gaps is None else jnp.asarray(np.asarray(prepared.gaps)[index])
    starts = None if prepared.starts is None else jnp.asarray(np.asarray(prepared.starts)[index])
    return Batch(item=jnp.asarray(items[index]), target=jnp.asarray(items[index + 1]), gap=gaps, start=starts)


def recommended(curve: Curve, lag: int, size: Size) -> Record:
    """Train on the shop with a dependency so many events back, as `jaxrec train` does."""
    began, cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        config = resolve(Config, flags=flags(curve, lag, size) | {"run": f"{folder}/run"}).section
        result = train(config, say=lambda sentence: None)
        after = load(f"{folder}/run").model
    prepared = prepare_cached(config, cache(), say=lambda sentence: None)
    before = build.model(config.model, build.offered(prepared), seed=config.seed)
    batch, reading = probe(prepared, 3 * lag), result["headline"]
    accuracy, targets = result["test"][reading]["hr@10"], len(prepared.targets("test"))
    low, high = wilson(accuracy, targets)
    counters = {name: found[reading]["hr@10"] for name, found in result["baselines"].items()}
    return {
        "kind": "demo", "task": "demo", "distance": lag, "cell": curve.cell, "seed": curve.seed, "accuracy": accuracy,
        "low": low, "high": high, "sequences": targets, "chance": max(counters.values()),
        "ceiling": result["ceiling"][reading]["hr@10"], "steps": result["steps"], "test": result["test"][reading],
        "recipe": dict(size.demo), "run_id": result["run_id"],
        "seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu,
    } | described(before, after, batch, batch.item.shape[1] - 1)  # fmt: skip


def key(curve: Curve, distance: int, size: Size) -> str:
    """What a row is the answer to."""
    if curve.task == "demo":
        return fingerprint({"demo": flags(curve, distance, size)})
    given = {name: number(value) for name, value in to_dict(recipe_of(curve, distance, size)).items()}
    return fingerprint({"task": curve.task, "distance": distance, "recipe": given})


def rows() -> dict[str, Record]:
    """Rows that are there, by their key."""
    lines = ROWS.read_text(encoding="utf-8").splitlines() if ROWS.exists() else []
    return {row["key"]: row for row in map(json.loads, lines)}


def climb(curve: Curve, size: Size, until: float) -> None:
    """Add a curve's rows, up to the first failure or the end of time."""
    there = rows()

    def one(distance: int) -> Record:
        name = key(curve, distance, size)
        if name in there:
            return there[name]
        if time.monotonic() > until:
            raise TimeoutError
        found = (recommended if curve.task == "demo" else learnt)(curve, distance, size)
        append_row(ROWS, {"key": name, "remedy": curve.remedy} | found | {"machine": card()})
        print(f"{curve.task:9} {distance:5} {found['cell']:28} {curve.remedy:15} {found['accuracy']:.3f} "
              f"[{found['low']:.3f}, {found['high']:.3f}] gradient {found['label']['start']}, then "
              f"{found['label']['end']}; {found['steps']} steps, {found['seconds']:.0f} s", flush=True)  # fmt: skip
        return found

    for _ in climbed(size.lags if curve.task == "demo" else size.distances, one):
        pass
    jax.clear_caches()  # hundreds of programs would fill the memory


def estimate(size: Size) -> str:
    """The device-hours of all curves, from a measured step of a GRU at a distance of 100."""
    found = learn(task("recall", 100), dataclasses.replace(size.recipe, steps=40, every=20)).record
    step = 1 / found["steps_per_second"] / found["length"]
    asked = [curve for curve in size.curves if curve.task != "demo"]
    whole = [
        (task(curve.task, distance).length * recipe_of(curve, distance, size).steps * step, found["first_seconds"])
        for curve in asked
        for distance in size.distances
    ]
    most = sum(map(sum, whole)) / 3600
    return (
        f"{len(size.curves)} curves, {len(whole)} rows on tasks: up to {most:.1f} device-hours where all of them take"
        f" all their steps (a GRU's step over 100 events took {step * 100 * 1e3:.2f} ms, its compilation "
        f"{found['first_seconds']:.0f} s); curves end at their first failure, and rows when they are solved"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="ci")
    parser.add_argument("--only", nargs="+", metavar="TASK", help="names of tasks; all of the size by default")
    parser.add_argument(
        "--shard", default="0/1", metavar="I/N", help="every Nth curve, from the Ith on, which is 0 first"
    )
    parser.add_argument("--max-seconds", type=float, default=float("inf"), help="begin no row after so long")
    parser.add_argument("--plan", action="store_true", help="print what it would take, and compute nothing")
    options = parser.parse_args()
    index, count = map(int, options.shard.split("/"))
    remember_compilations()
    size = SIZES[options.size]()
    mine = [curve for curve in size.curves if curve.task in (options.only or (curve.task,))][index::count]
    size = dataclasses.replace(size, curves=tuple(mine))
    if options.plan or options.size == "full":
        print(estimate(size), flush=True)
    until = time.monotonic() + options.max_seconds
    for curve in () if options.plan else mine:
        try:
            climb(curve, size, until)
        except TimeoutError:
            print("time is up; the same command goes on from here", flush=True)
            return


if __name__ == "__main__":
    sys.exit(main())
