"""What do steps, judging and checkpoints need as catalogue, width and mesh grow, in time, in memory and on the wire?

Claim     A step with sampled negatives and row-sparse AdamW takes about as long at ten million items as at ten
          thousand; the exact softmax takes time in proportion to items, and judging less than that. No program holds
          positions x items scores: what the exact loss needs on the way grows with the table, and with positions by
          their vectors alone; what judging needs stays the same. On a mesh with its tables cut, a step under shard_map
          sends what the formulas of experiments/plan_scaling.py say to the byte, and no whole table.
Command   python experiments/bench_scaling.py && python experiments/plan_scaling.py && python scripts/tables.py
          && python scripts/scaling_pictures.py
Time      About three quarters of an hour on one shared core; 9 GB of memory for ten million items. A case that has a
          row is not run again.
Expect    One row a case in experiments/results/bench_scaling.jsonl, each from a process of its own. `step`: CPU
          milliseconds as in bench_catalogue.py, whose rows have Adagrad, and the ratio to 10,000 items in turns.
          `judging`: targets a CPU-second, 256 at a time. `growth`: temporary bytes of loss and judging by
          positions and items, beside what holds all scores, from compiled programs that are never run. `mesh`: every
          collective of a compiled step with its bytes and the loops around it, memory of a device, losses of two
          steps. `checkpoint`: bytes and CPU-seconds of a saved state, and what was resident. `drawing`: bytes to draw a
          model. Rows of these two that do not say `by` what are of before: whole arrays.

Steps are of a GRU on 16 rows of 32 events, 1,024 negatives. The exact softmax of ten million items is compiled and not
run: bench_catalogue.py did. The meshes are eight devices forced out of one processor, which show that numbers are right
and what travels; how fast a mesh is they do not show.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import bench_catalogue as catalogue  # first: it says how many threads XLA has
import jax
import jax.numpy as jnp
import numpy as np
from bench_catalogue import BATCH, LENGTH, NEGATIVES, SMALL, popularity, some

from jaxrec.bench.collectives import collectives, repeated, totals
from jaxrec.bench.timing import alternate, append_row
from jaxrec.config import resolve
from jaxrec.evaluation.ranks import ROWS as TOGETHER, TARGETS, rank
from jaxrec.losses.softmax import Softmax, cross_entropy
from jaxrec.models import pieces
from jaxrec.models.catalogue import counts
from jaxrec.models.drawing import Drawing, whole
from jaxrec.models.recommender import Recommender
from jaxrec.models.tables import normal
from jaxrec.parallel.programs import memory_of
from jaxrec.parallel.strategy import meshed
from jaxrec.runs import build
from jaxrec.runs.machine import card
from jaxrec.runs.options import Config
from jaxrec.training.checkpoints import Checkpoints
from jaxrec.training.loop import informed
from jaxrec.training.optimisers import Hyper
from jaxrec.training.spread import Spread
from jaxrec.training.step import State, Step

ROWS = Path(__file__).parent / "results" / "bench_scaling.jsonl"
SIZES = [(items, width) for width in (64, 256) for items in (10_000, 100_000, 1_000_000)] + [(10_000_000, 64)]
WAYS: dict[str, dict[str, Any]] = {
    "exact, dense": {"loss": "softmax"},
    "sampled, lazy": {"loss": f"sampled_softmax(negatives={NEGATIVES}, alpha=0.5)", "optimizer.lazy": True},
}
MESHES = ((1, 1), (8, 1), (4, 2), (2, 4), (1, 8))
CUT_ITEMS, WIDTH, STEPS = 100_000, 64, 2  # of steps on meshes
MOST = 5e8  # items x width of an exact step that is run
GROWTH = ((512, 2048, 8192), (10_000, 100_000, 1_000_000))
Case = dict[str, Any]


def cases() -> Iterator[Case]:
    for items, width in SIZES:
        for way in WAYS:
            yield {"kind": "step", "way": way, "items": items, "width": width}
        yield {"kind": "judging", "items": items, "width": width}
    for way in NEEDS:
        yield {"kind": "growth", "way": way}
    for way in WAYS:
        for mesh in MESHES:
            for mode in ("shard_map", "jit"):
                yield {"kind": "mesh", "way": way, "mesh": list(mesh), "mode": mode}
    for count in (1, 2, 4, 8):
        yield {"kind": "mesh", "way": "judging", "mesh": [1, count], "mode": "shard_map"}
    yield {"kind": "checkpoint", "items": 1_000_000, "width": 64, "by": "rows"}
    for by in ("rows", "pieces"):
        yield {"kind": "drawing", "items": 10_000_000, "width": 64, "by": by}


def made(flags: dict[str, Any], items: int, width: int) -> tuple[Step, Hyper, Callable[[], State]]:
    """A step, its numbers, and what makes the state before the first one."""
    shape = {"data": "synthetic", "model.width": width, "batch.size": BATCH, "batch.length": LENGTH}
    config = resolve(Config, flags=shape | flags).section
    step, hyper = build.step(config, 1000)
    offer = build.Offer(items, 0, gaps=False, starts=False)
    return step, hyper, lambda: step.init(build.model(config.model, offer, seed=0), hyper, jax.random.key(0))


def of_step(way: str, items: int, width: int) -> dict[str, Any]:
    make = partial(catalogue.training, WAYS[way], width=width)
    if way.startswith("exact") and items * width > MOST:
        return {"memory_bytes": make(items)[1], "not_run": "bench_catalogue.py has the time of such a step"}
    return catalogue.timed(make, items, rounds=5)


def of_judging(items: int, width: int) -> dict[str, Any]:
    """What ranks `TARGETS` targets of `TOGETHER` histories, whose vectors are given."""
    run, memory = judge(items, width)
    small = judge(SMALL, width)[0]
    jax.block_until_ready(run())  # the model is drawn when it is first needed
    first = alternate({"one": run}, 1, 0, 0)["one"].cpu_seconds
    rounds = max(3, min(5, round(catalogue.LIMIT / first)))
    times = alternate({"here": run, "small": small}, rounds=rounds, least=0)
    cpu = {name: np.array(one.cpu) for name, one in times.items()}
    return {
        "targets": TARGETS, "rounds": rounds, "targets_per_cpu_second": catalogue.spread(TARGETS / cpu["here"]),
        "over_small": catalogue.spread(cpu["here"] / cpu["small"]), "memory_bytes": memory,
        "cpu_seconds": {name: list(one) for name, one in cpu.items()},
    }  # fmt: skip


def judge(items: int, width: int) -> tuple[Callable[[], Any], dict[str, int]]:
    fresh = made(WAYS["exact, dense"], items, width)[2]
    model = jax.jit(lambda: fresh().model)()
    args = asked(items, width)
    program = rank.lower(model, *args, candidates=items, k=0).compile()
    return partial(program, model, *args), bytes_of(program)


def asked(items: int, width: int) -> tuple[Any, ...]:
    """What `rank` is asked of a model: histories' vectors, targets, and what was seen before them."""
    draw = np.random.default_rng(0)
    hidden = jnp.asarray(draw.normal(size=(TOGETHER, LENGTH, width)), jnp.float32)
    row, col = np.arange(TARGETS, dtype=np.int32) % TOGETHER, draw.integers(0, LENGTH, TARGETS).astype(np.int32)
    target, seen = (some(draw, popularity(items), shape).astype(np.int32) for shape in ((TARGETS,), (TOGETHER, LENGTH)))
    at = np.tile(np.arange(LENGTH, dtype=np.int32), (TOGETHER, 1))
    return hidden, row, col, target, seen, at, col + 1


def bytes_of(program: Any) -> dict[str, int]:
    found = memory_of(program)
    assert found is not None, "a processor's compiler tells"
    return {"arguments": found.arguments, "outputs": found.outputs, "temporary": found.temporary, "peak": found.peak}


def exact(hidden: Any, rows: Any, bias: Any, targets: Any) -> Any:
    return Softmax()(hidden, rows, bias, targets, jnp.ones(len(hidden)))


def all_scores(hidden: Any, rows: Any, bias: Any, targets: Any) -> Any:
    return jnp.sum(cross_entropy(hidden @ rows[1:].T + bias[None, 1:], targets - 1))


def ranked(hidden: Any, rows: Any, bias: Any, targets: Any) -> Any:
    return counts(Recommender({"item": rows, "bias": bias}, None), hidden, targets, None, candidates=len(rows) - 1)


def ranked_by_all_scores(hidden: Any, rows: Any, bias: Any, targets: Any) -> Any:
    scores = hidden @ rows[1:].T + bias[None, 1:]
    own = jnp.take_along_axis(scores, targets[:, None] - 1, axis=1)
    return jnp.sum(scores > own, axis=1), jnp.sum(scores == own, axis=1) - 1


NEEDS: dict[str, Callable[..., Any]] = {
    "exact loss, in blocks": jax.value_and_grad(exact, argnums=(0, 1, 2)),
    "exact loss, all scores": jax.value_and_grad(all_scores, argnums=(0, 1, 2)),
    "judging, in chunks": ranked,
    "judging, all scores": ranked_by_all_scores,
}


def of_growth(way: str) -> dict[str, Any]:
    """Bytes that programs need besides what goes in and what comes out."""
    found = []
    for positions in GROWTH[0]:
        for items in GROWTH[1]:
            shapes = [(positions, WIDTH), (items + 1, WIDTH), (items + 1,)]
            args = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
            program = jax.jit(NEEDS[way]).lower(*args, jax.ShapeDtypeStruct((positions,), jnp.int32)).compile()
            found.append({"positions": positions, "items": items, "temporary": bytes_of(program)["temporary"]})
    return {"width": WIDTH, "programs": found}


def of_mesh(way: str, mesh: list[int], mode: str) -> dict[str, Any]:
    jax.config.update("jax_num_cpu_devices", 8)
    return judged_in_pieces(mesh[1]) if way == "judging" else trained_on(way, mesh, mode)


def trained_on(way: str, mesh: list[int], mode: Any) -> dict[str, Any]:
    """Two steps on a mesh, and what the compiled program of one sends."""
    step, hyper, fresh = made(WAYS[way], CUT_ITEMS, WIDTH)
    source, index, reset = catalogue.events(CUT_ITEMS, STEPS)
    state, bounds = fresh(), np.array([0, STEPS], np.int32)
    run = Spread(step, mode, mesh[0] * mesh[1], mesh[1])
    placed, events_placed, numbers = run.place(state, informed(step, source, hyper), hyper)
    program = run.program(placed, events_placed, index, reset, bounds, numbers)
    metrics = run(placed, events_placed, index, reset, bounds, numbers)[1]
    network = sum(leaf.size for leaf in jax.tree.leaves(state.network))
    return {
        "items": CUT_ITEMS, "width": WIDTH, "positions": BATCH * LENGTH, "network": network,
        "events": len(source.items), "losses": np.asarray(metrics.loss).tolist(), "memory_bytes": bytes_of(program),
        **travelling(repeated(collectives(program.as_text()))),
    }  # fmt: skip


def judged_in_pieces(count: int) -> dict[str, Any]:
    model = made(WAYS["exact, dense"], CUT_ITEMS, WIDTH)[2]().model
    names, args = tuple(sorted(model.tables)), asked(CUT_ITEMS, WIDTH)
    if count > 1:
        model = pieces.in_pieces(model, jax.local_devices()[:count])
        static = (("candidates", CUT_ITEMS), ("k", 10))
        place: Any = model.tables["item"].sharding
        lowered = pieces.compiled(rank, place.mesh, names, model.cuts, static).lower(model, *args)
    else:
        lowered = rank.lower(model, *args, candidates=CUT_ITEMS, k=10)
    program = lowered.compile()
    found = program(model, *args)
    return {
        "items": CUT_ITEMS, "width": WIDTH, "positions": TARGETS, "k": 10, "memory_bytes": bytes_of(program),
        "losses": [int(jnp.sum(found.greater)), int(jnp.sum(found.equal))],
        **travelling(collectives(program.as_text())),
    }  # fmt: skip


def travelling(found: list[Any]) -> dict[str, Any]:
    listed = [{"kind": one.kind, "shapes": one.shapes, "bytes": one.size, "group": one.group,
               "times": one.times, "sent": one.sent} for one in found]  # fmt: skip
    return {"totals": totals(found), "sent": sum(one.sent for one in found), "collectives": listed}


def of_checkpoint(items: int, width: int, by: str) -> dict[str, Any]:
    """A state of AdamW saved and restored as training does, its moments no longer zero: Orbax packs what repeats."""
    fresh = made(WAYS["exact, dense"], items, width)[2]

    def later(leaf: Any) -> Any:
        drawing = Drawing(leaf.shape, "normal", jax.random.key_data(jax.random.key(1)), 1.0)
        return whole(drawing) if leaf.ndim == 2 else leaf

    state = fresh()
    state = jax.block_until_ready(state._replace(optimiser=jax.tree.map(later, state.optimiser)))
    network = sum(leaf.size for leaf in jax.tree.leaves(state.network))
    with tempfile.TemporaryDirectory() as folder:
        shelf = Checkpoints(folder)
        saved = watched(partial(shelf.save, 1, state, {}))
        on_disk = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
        form = jax.eval_shape(fresh)
        del state
        restored = watched(partial(shelf.restore, 1, form))
    return {"network": network, "disk_bytes": on_disk, **saved, "restoring": restored}


def watched(go: Callable[[], Any]) -> dict[str, Any]:
    """Seconds of a call, and the memory that was resident before it and at most."""
    catalogue.forget()
    before, wall, cpu = catalogue.resident(), time.perf_counter(), time.process_time()
    go()
    spent = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    return {"seconds": spent, "resident_bytes": catalogue.resident(), "resident_before_bytes": before}


def of_drawing(items: int, width: int, by: str) -> dict[str, Any]:
    """What a device needs to draw a model whole, or its piece of eight of the vectors; the programs are never run."""
    if by == "rows":
        fresh = made(WAYS["exact, dense"], items, width)[2]
        return {"memory_bytes": bytes_of(jax.jit(lambda: fresh().model).lower().compile())}
    jax.config.update("jax_num_cpu_devices", 8)
    drawing = normal(jax.random.key(0), items, width, width**-0.5)
    return {"memory_bytes": bytes_of(pieces.drawer(meshed(jax.devices(), "jit", 8)).lower(drawing, None).compile())}


KINDS: dict[str, Callable[..., dict[str, Any]]] = {
    "step": of_step, "judging": of_judging, "growth": of_growth, "mesh": of_mesh, "checkpoint": of_checkpoint,
    "drawing": of_drawing,
}  # fmt: skip


def measure(case: Case) -> dict[str, Any]:
    """The row of a case."""
    found = KINDS[case["kind"]](**{name: value for name, value in case.items() if name != "kind"})
    return {"case": case} | found | {"machine": card()}


def apart(case: Case) -> dict[str, Any] | None:
    """The row of a process of its own, whose memory is nobody else's."""
    words = [sys.executable, __file__, "--here", json.dumps(case)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False, env=os.environ)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None


def known(path: Path) -> list[Case]:
    """The cases that have a row."""
    return [json.loads(line)["case"] for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--rows", type=Path, default=ROWS, help="file to append to")
    parser.add_argument("--here", type=json.loads, metavar="CASE", help="print this case's row and write none")
    options = parser.parse_args()
    if options.here is not None:
        print(json.dumps(measure(options.here)))
        return 0
    failed = 0
    for case in cases():
        if case["kind"] in options.kinds and case not in known(options.rows):
            row = apart(case)
            failed += row is None
            if row is not None:
                append_row(options.rows, row)
            print("failed" if row is None else "done", json.dumps(case), flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
