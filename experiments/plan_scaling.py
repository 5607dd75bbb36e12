"""What would a billion users, a hundred million items and 1e11 events need? By formulas that measured rows are held to.

Claim     Bytes of a state, of a step's collectives under shard_map and of a checkpoint follow from few numbers. As
          bench_scaling.py measured them, collectives are the formula to the byte and a state is to a hundredth of a
          percent; a checkpoint is a tenth smaller (it is packed), and what lies on the way is within a tenth from a
          million items on and up to 1.6 times the formula where tables are small. By the same formulas a billion
          users' training fits on a handful of accelerators without vectors of users, and on dozens with them.
Command   python experiments/plan_scaling.py && python scripts/tables.py
Time      A second; it reads rows of bench_scaling.py, recipes.py and prepare_scale.py and runs nothing.
Expect    experiments/results/plan_scaling.jsonl written anew: a row of kind `check` for everything a formula says of a
          measured case, with both numbers and the relative error, and a row of kind `plan` for every way to keep
          vectors and moments. The largest errors are printed. Nothing here has run on more than one accelerator:
          memory and bandwidth are those that makers state, and times add up what would overlap.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jaxrec.losses.fused import block_sizes

RESULTS = Path(__file__).parent / "results"
ROWS = RESULTS / "plan_scaling.jsonl"
FLOAT = 4  # bytes
RANKS, RANKED = 2**22, 256  # scores at one time, of ranking, and targets
NEGATIVES, MEASURED = 1024, 512  # negatives and positions of a step in bench_scaling.py
MOMENTS = {"adamw": 2, "adagrad": 1}  # numbers that a rule keeps of every parameter
Row = dict[str, Any]


class Mesh(NamedTuple):
    """``data`` devices share out rows of a batch, ``model`` devices every table."""

    data: int
    model: int


ONE = Mesh(1, 1)


def ring(numbers: float, devices: int) -> float:
    """Bytes that each device sends where the sum of so many numbers ends up on all."""
    return 2 * (devices - 1) / devices * FLOAT * numbers


def gathered(numbers: float, devices: int) -> float:
    """Bytes that each device sends where its share of so many numbers ends up on all."""
    return (devices - 1) / devices * FLOAT * numbers


def rows_here(count: int, mesh: Mesh) -> int:
    """Rows of a device's piece of a table of ``count``, padding among them."""
    return -(-(count + 1) // mesh.model)


def numbers(items: int, users: int, width: int, network: int, mesh: Mesh) -> int:
    """Parameters of a device: vectors and biases of items, vectors of users, the network."""
    people = rows_here(users, mesh) * width if users else 0
    return rows_here(items, mesh) * (width + 1) + people + network


def sent_exact(positions: int, items: int, width: int, network: int, mesh: Mesh) -> float:
    """Of a step of the full softmax: vectors in, the mean score of each position and its gradient; maximum, sum and
    score of each position in whole blocks; the squares of two gradients for clipping. Over rows of the batch the
    gradient of the piece, loss and count.
    """
    here, piece = positions // mesh.data, rows_here(items, mesh)
    tall = block_sizes(here, piece).positions
    told = here * (2 * width + 1) + 3 * -(-here // tall) * tall + 2
    return ring(told, mesh.model) + ring(piece * (width + 1) + network + 2, mesh.data)


def sent_sampled(positions: int, negatives: int, width: int, network: int, mesh: Mesh) -> float:
    """Of a step that samples: the rows of inputs, targets and draws of the whole batch, to every device; over rows of
    the batch their numbers and the gradient of these rows.
    """
    rows = (2 * positions + negatives) * (width + 1)
    return ring(rows, mesh.model) + gathered(2 * positions, mesh.data) + ring(rows + network + 2, mesh.data)


def sent_judging(targets: int, k: int, mesh: Mesh) -> float:
    """Of ranking: who has the target and its score, four counts, and every piece's best k with their scores."""
    return ring(6 * targets, mesh.model) + gathered(2 * mesh.model * targets * k, mesh.model)


def temporary_exact(positions: int, items: int, width: int, mesh: Mesh) -> float:
    """Of a dense step: the gradient of the piece, its sum over blocks, and one block of scores."""
    piece = rows_here(items, mesh)
    block = block_sizes(positions // mesh.data, piece)
    return FLOAT * (2 * piece * (width + 1) + block.positions * block.items)


def temporary_judging(items: int, mesh: Mesh) -> float:
    """Of ranking: four blocks of scores; rows of the piece are read where they lie."""
    return FLOAT * 4 * RANKED * min(rows_here(items, mesh), RANKS // RANKED)


def kept(items: int, width: int, mesh: Mesh = ONE) -> int:
    """Bytes of parameters and moments of AdamW."""
    return 3 * FLOAT * numbers(items, 0, width, network(width), mesh)


def checked_step(row: Row) -> Iterator[tuple[str, float, float]]:
    memory, items, width, way = row["memory_bytes"], *(row["case"][name] for name in ("items", "width", "way"))
    yield "state", kept(items, width), memory["aliased"]
    if way == "exact, dense":
        yield "temporary", temporary_exact(MEASURED, items, width, ONE), memory["temporary"]
    else:
        yield "state and counts to draw by", kept(items, width) + 2 * FLOAT * items, memory["arguments"]


def checked_judging(row: Row) -> Iterator[tuple[str, float, float]]:
    yield (
        "temporary",
        temporary_judging(row["case"]["items"], ONE),
        row["memory_bytes"]["temporary"],
    )


def checked_save(row: Row) -> Iterator[tuple[str, float, float]]:
    yield "checkpoint", kept(row["case"]["items"], row["case"]["width"]), row["disk_bytes"]


def checked_mesh(row: Row) -> Iterator[tuple[str, float, float]]:
    case, shape, mesh = row["case"], (row["positions"], row["items"], row["width"]), Mesh(*row["case"]["mesh"])
    if case["way"] == "judging":
        yield "sent", sent_judging(row["positions"], row["k"], mesh), row["sent"]
        return
    yield "state", kept(row["items"], row["width"], mesh), row["memory_bytes"]["outputs"]
    if case["way"] == "exact, dense":
        yield "sent", sent_exact(*shape, row["network"], mesh), row["sent"]
        yield "temporary", temporary_exact(*shape, mesh), row["memory_bytes"]["temporary"]
    else:
        yield "sent", sent_sampled(row["positions"], NEGATIVES, row["width"], row["network"], mesh), row["sent"]


def network(width: int) -> int:
    """Parameters of a layer: a GRU, its norm, and the norm at the end."""
    return 6 * width * width + 8 * width


CHECKS = {"step": checked_step, "judging": checked_judging, "mesh": checked_mesh, "checkpoint": checked_save}


def checks(measured: list[Row]) -> Iterator[Row]:
    """What each measured case is held to."""
    for row in (row for row in measured if row["case"]["kind"] in CHECKS):
        for what, formula, found in CHECKS[row["case"]["kind"]](row):
            error = formula / found - 1 if found else float(formula != 0)
            yield {"kind": "check", "what": what, "case": row["case"], "formula": formula, "measured": found,
                   "error": error}  # fmt: skip


USERS, ITEMS, EVENTS = 10**9, 10**8, 10**11
LENGTH, POSITIONS, DRAWN = 50, 65_536, 8_192  # events of a row, of a step; negatives of a step
SHARE = 0.6  # of a device's memory for parameters and moments
CARDS = {"H100": 80e9, "H200": 141e9}  # bytes, as their maker states
WIRE, READ, PRODUCTS = 50e9, 3.35e12, 67e12  # a device, each second: 400 Gb/s between machines, HBM3, float32
WAYS = (("none", "adamw"), ("vectors", "adamw"), ("vectors", "row-wise adagrad"))


def plan(users: str, rule: str, width: int, known: dict[str, float]) -> Row:
    """Arithmetic of one way to keep vectors and moments, on H100s as many as its state fits on."""
    people = USERS if users == "vectors" else 0
    dense = network(width)
    each = 1 + MOMENTS[rule] if rule in MOMENTS else 1 + 1 / width  # numbers that are kept of a parameter
    total = FLOAT * each * numbers(ITEMS, people, width, dense, ONE)
    pieces = {name: power(total / (SHARE * room)) for name, room in CARDS.items()}
    mesh = Mesh(max(1, 32 // pieces["H100"]), pieces["H100"])
    here, read = POSITIONS // mesh.data, 2 * POSITIONS + DRAWN + (POSITIONS // LENGTH if people else 0)
    sent = sent_sampled(POSITIONS, DRAWN, width, dense, mesh)
    if people:
        rows = POSITIONS * width
        sent += ring(rows, mesh.model) + gathered(POSITIONS, mesh.data) + ring(rows, mesh.data)
    parts = {
        "wire": sent / WIRE,
        "rows": 2 * each * FLOAT * read * (width + 1) / READ,
        "products": 6 * here * (dense + DRAWN * width) / PRODUCTS,
        "recurrence": LENGTH * known["seconds_an_event"],
    }
    step = sum(parts.values())
    devices = mesh.data * mesh.model
    return {
        "kind": "plan", "users": users, "rule": rule, "width": width, "state_bytes": total, "pieces": pieces,
        "mesh": list(mesh), "state_bytes_a_device": total / mesh.model, "sent_bytes": sent, "step_seconds": parts,
        "events_per_second": POSITIONS / step, "epoch_hours": EVENTS / POSITIONS * step / 3600,
        "device_hours": devices * EVENTS / POSITIONS * step / 3600,
        "checkpoint_hours": total / 1e9 * known["checkpoint_seconds_a_gb"] / 3600,
    }  # fmt: skip


def power(least: float) -> int:
    """The smallest power of two that is as large."""
    found = 1
    while found < least:
        found *= 2
    return found


def known_rates(measured: list[Row]) -> dict[str, float]:
    """What was measured of time: of an accelerator, of preparing data, of a checkpoint's way through a processor."""
    trained = [row for row in rows("recipes") if row["kind"] == "final" and "H200" in str(row["machine"]["devices"])]
    gru = [row for row in trained if row["model"]["cell"] == "gru"]
    rate = [row["protocol"]["counts"]["train_pairs"] * row["epochs"] / row["seconds"] for row in gru]
    # a row's seconds are its share of three trainings that ran in one program
    slow = [3 * row["seconds"] / row["steps"] / row["config"]["batch"]["length"] for row in gru]
    prepared = [row["rows"] / row["cpu_seconds"] for row in rows("prepare_scale") if row["rows"] == 60_000_000]
    saved, whole, piece = (
        one(measured, *of) for of in (("checkpoint", "rows"), ("drawing", "rows"), ("drawing", "pieces"))
    )
    return {
        "events_per_second_of_an_h200": max(rate), "seconds_an_event": min(slow),
        "seconds_an_event_at_most": max(slow), "prepared_rows_per_cpu_second": min(prepared),
        "preparing_cpu_hours": EVENTS / min(prepared) / 3600,
        "checkpoint_seconds_a_gb": saved["seconds"]["cpu"] / (saved["disk_bytes"] / 1e9),
        "drawing_bytes": whole["memory_bytes"]["peak"] * ITEMS / whole["case"]["items"],
        "drawing_bytes_of_an_eighth": piece["memory_bytes"]["peak"] * ITEMS / piece["case"]["items"],
        "saving_share": added(saved) / kept(saved["case"]["items"], saved["case"]["width"]),
        "restoring_share": added(saved["restoring"]) / kept(saved["case"]["items"], saved["case"]["width"]),
        "events_bytes": 4 * EVENTS, "popularity_bytes": 2 * FLOAT * ITEMS,
        "judging_hours_of_all_users": 4 * USERS * ITEMS * 64 / PRODUCTS / 3600,
    }  # fmt: skip


def one(measured: list[Row], kind: str, by: str) -> Row:
    (found,) = (row for row in measured if row["case"]["kind"] == kind and row["case"].get("by") == by)
    return found


def added(row: Row) -> float:
    """Bytes that were resident at most, beside those before."""
    return float(row["resident_bytes"] - row["resident_before_bytes"])


def rows(name: str) -> list[Row]:
    return [json.loads(line) for line in (RESULTS / f"{name}.jsonl").read_text("utf-8").splitlines()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, default=ROWS, help="file to write")
    options = parser.parse_args()
    measured = rows("bench_scaling")
    found = list(checks(measured))
    known = known_rates(measured)
    plans = [plan(users, rule, width, known) for users, rule in WAYS for width in (64, 128)]
    given = {"users": USERS, "items": ITEMS, "events": EVENTS, "length": LENGTH, "positions": POSITIONS,
             "negatives": DRAWN, "memory_share": SHARE, "cards": CARDS, "wire": WIRE, "read": READ,
             "products": PRODUCTS}  # fmt: skip
    lines = [*found, {"kind": "given", **given, "measured": known}, *plans]
    options.rows.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    for row in sorted(found, key=lambda row: -abs(row["error"]))[:12]:
        print(
            f"{row['error']:+.2%} {row['what']} {json.dumps(row['case'])}: {row['formula']:,.0f}, {row['measured']:,}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
