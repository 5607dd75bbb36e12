"""Tables of what grows with catalogue, width and mesh for `tables.py`: columns and lines, from rows of
results/bench_scaling.jsonl, results/plan_scaling.jsonl and results/bench_precision.jsonl.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

Row = dict[str, Any]
Rows = Callable[[str], list[Row]]
Table = tuple[list[str], list[list[str]]]
WAYS = ("exact, dense", "sampled, lazy")


def precision(rows: Rows) -> Table:
    """Accuracy by the type that is computed in, each seed's beside the other's, and what a step costs."""
    lines = []
    trained = [row for row in rows("bench_precision") if row["question"] == "accuracy"]
    for metric in ("ndcg@10", "hr@10"):
        one, other = (
            [row["test"][metric] for row in trained if row["compute"] == name] for name in ("float32", "bfloat16")
        )
        told = [" ".join(f"{value:.4f}" for value in part) for part in (one, other)]
        lines.append([f"ml-100k, {metric}, seed by seed", *told, f"{sum(other) / sum(one):.3f}"])
    for row in rows("bench_precision"):
        if row["question"] == "cost":
            sizes = [f"{size / 1e6:.0f} MB on the way" for size in row["temporary_bytes"].values()]
            cost = f"{row['cpu_ratio']:.2f} of the CPU time"
            lines.append([f"a step, {row['items']:,} items x {row['width']}, on a processor", *sizes, cost])
    return ["", "float32", "bfloat16", "bfloat16 / float32"], lines


def of_kind(found: Sequence[Row], kind: str) -> Iterator[tuple[Row, Row]]:
    """Cases of a kind with their rows."""
    return ((row["case"], row) for row in found if row.get("case", {}).get("kind") == kind)


def scaling(rows: Rows) -> Table:
    """Time of steps against that of ten thousand items, targets judged, and memory, by items and width."""
    found = rows("bench_scaling")
    cases = {(case["items"], case["width"], case.get("way", kind)): row
             for kind in ("step", "judging") for case, row in of_kind(found, kind)}  # fmt: skip
    lines = []
    for items, width in sorted({key[:2] for key in cases}, key=lambda key: key[::-1]):
        three = [cases.get((items, width, way)) for way in (*WAYS, "judging")]
        exact, sampled = map(times, three[:2])
        fast = f"{three[2]['targets_per_cpu_second']['median']:,.0f}" if three[2] else ""
        lines.append([f"{items:,} x {width}", exact, sampled, ratio(three[:2]), fast,
                      *(" / ".join(f"{of(row):,.0f}" if row and of(row) else "\N{EN DASH}" for row in some)
                        for of, some in ((held, three), (resident, three[:2])))])  # fmt: skip
    columns = ["items x width", "exact step", "sampled, lazy step", "exact / sampled",
               "targets judged a CPU-second", "MB by XLA: exact / sampled / judging", "MB resident: steps"]  # fmt: skip
    return columns, lines


def times(row: Row | None) -> str:
    """How many times as long as with ten thousand items, with the range over rounds."""
    over = (row or {}).get("over_small")
    return "not run" if over is None else f"{over['median']:.2f} ({over['low']:.2f} to {over['high']:.2f})"


def ratio(both: Sequence[Row | None]) -> str:
    exact, sampled = ((row or {}).get("step_ms", {}).get("median") for row in both)
    return f"{exact / sampled:.1f}" if exact and sampled else ""


def held(row: Row) -> float:
    """Megabytes that a program holds by XLA's count: what goes in, the donated state included, and on the way."""
    return (row["memory_bytes"]["arguments"] + row["memory_bytes"]["temporary"]) / 1e6


def resident(row: Row) -> float:
    """The most megabytes that the process had in memory while it ran; 0 where it did not run."""
    return row.get("resident_bytes", 0) / 1e6


def growth(rows: Rows) -> Table:
    """What programs need on the way, at the corners of all sizes."""
    lines, heads = [], []
    for case, row in of_kind(rows("bench_scaling"), "growth"):
        found = {(one["positions"], one["items"]): one["temporary"] for one in row["programs"]}
        tall, wide = ([pick(place[axis] for place in found) for pick in (min, max)] for axis in (0, 1))
        corners = [(positions, items) for items in wide for positions in tall]
        heads = [f"{positions:,} x {items:,}" for positions, items in corners]
        largest = found[corners[-1]] / (corners[-1][0] * corners[-1][1])
        lines.append([case["way"], *(f"{found[corner] / 1e6:,.0f}" for corner in corners), f"{largest:.2f}"])
    return ["MB on the way, positions x items", *heads, "bytes a score at the largest"], lines


def travels(rows: Rows) -> Table:
    """What each device sends in a step, and how often, by mesh: as compiled, and what the formula says."""
    found = {
        (case["way"], tuple(case["mesh"]), case["mode"]): row for case, row in of_kind(rows("bench_scaling"), "mesh")
    }
    checks = {
        (row["case"]["way"], tuple(row["case"]["mesh"]), row["case"]["mode"], row["what"]): row
        for row in rows("plan_scaling") if row["kind"] == "check" and row["case"]["kind"] == "mesh"
    }  # fmt: skip
    lines = []
    for way, mesh, mode in found:
        if mode != "shard_map" or mesh == (1, 1):
            continue
        both = [found.get((way, mesh, which)) for which in ("shard_map", "jit")]
        lines.append([
            f"{way}, {mesh[0]} x {mesh[1]}", f"{checks[way, mesh, mode, 'sent']['formula'] / 1e3:,.1f}",
            *("" if row is None else f"{row['sent'] / 1e3:,.1f} in {often(row)}" for row in both),
            *("" if row is None else f"{row['memory_bytes']['peak'] / 1e6:,.1f}" for row in both),
        ])  # fmt: skip
    columns = ["data x model", "kB sent, formula", "shard_map: kB in so many collectives", "jit",
               "MB of a device, shard_map", "jit"]  # fmt: skip
    return columns, lines


def often(row: Row) -> int:
    """How many collectives run in a step."""
    return sum(part["times"] for part in row["totals"].values())


def checks(rows: Rows) -> Table:
    """How far formulas are from what was measured: the largest error of each kind."""
    lines = []
    found = [row for row in rows("plan_scaling") if row["kind"] == "check"]
    for (what, words), part in grouped(found).items():
        worst = max(part, key=lambda row: abs(row["error"]))
        error = "none" if abs(worst["error"]) < 1e-9 else f"{worst['error']:+.2%}"
        lines.append([f"{what}: {words}", str(len(part)), error])
    return ["formula against measured", "cases", "largest error"], lines


def grouped(found: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in found:
        groups.setdefault((row["what"], words(row["case"])), []).append(row)
    return groups


def words(case: Row) -> str:
    """Which cases a formula is checked on together."""
    if case["kind"] == "mesh":
        return f"meshes, {case['mode']}"
    if case["kind"] == "checkpoint":
        return "a million items"
    return f"{case.get('way', 'judging')}, {'from a million items' if case['items'] >= 10**6 else 'fewer items'}"


def plan(rows: Rows) -> Table:
    """A billion users by formula."""
    lines = []
    for row in rows("plan_scaling"):
        if row["kind"] == "plan":
            people = "no vectors of users" if row["users"] == "none" else "vectors of users"
            parts = row["step_seconds"]
            lines.append([
                f"{people}, {row['rule']}, width {row['width']}", f"{row['state_bytes'] / 1e9:,.0f}",
                " / ".join(str(count) for count in row["pieces"].values()),
                f"{row['mesh'][0]} x {row['mesh'][1]}", f"{row['sent_bytes'] / 1e6:,.0f}",
                " + ".join(f"{1e3 * parts[name]:.1f}" for name in ("wire", "rows", "products", "recurrence")),
                f"{row['events_per_second'] / 1e6:.1f}", f"{row['epoch_hours']:.1f} / {row['device_hours']:,.0f}",
                f"{row['checkpoint_hours']:.1f}",
            ])  # fmt: skip
    columns = ["by formula", "state, GB", "pieces, H100 / H200", "mesh", "MB sent a step",
               "ms: wire + rows + products + recurrence", "M events a second", "hours / device-hours an epoch",
               "hours a checkpoint"]  # fmt: skip
    return columns, lines


def around(rows: Rows) -> Table:
    """What surrounds a step, from rates that were measured."""
    given = next(row for row in rows("plan_scaling") if row["kind"] == "given")
    known = given["measured"]
    day = given["events"] / 86_400
    lines = [
        ["events a second that an epoch a day needs", f"{day:,.0f}"],
        ["most of a GRU of 128 on one H200 so far (three trainings in one program, 16 rows each)",
         f"{known['events_per_second_of_an_h200']:,.0f}"],
        ["of such steps, milliseconds for each event of a row (judging and compiling in it)",
         f"{1e3 * known['seconds_an_event']:.2f} to {1e3 * known['seconds_an_event_at_most']:.2f}"],
        ["core-hours to prepare the events, at the rate of sixty million", f"{known['preparing_cpu_hours']:,.0f}"],
        ["events, GB (4 bytes each): on every device, or on disk", f"{known['events_bytes'] / 1e9:,.0f}"],
        ["counts and sums to draw by on every device, GB", f"{known['popularity_bytes'] / 1e9:.1f}"],
        ["device-hours to rank all items for a target of every user, width 64",
         f"{known['judging_hours_of_all_users']:,.0f}"],
        ["GB of one device to draw items of width 64, as at ten million", f"{known['drawing_bytes'] / 1e9:,.0f}"],
        ["the same, where eight devices draw a piece each", f"{known['drawing_bytes_of_an_eighth'] / 1e9:,.1f}"],
        ["host memory on the way of a checkpoint, in states of a million items: saving / restoring",
         f"{known['saving_share']:.1f} / {known['restoring_share']:.1f}"],
        ["CPU-seconds to save a GB of state", f"{known['checkpoint_seconds_a_gb']:.1f}"],
    ]  # fmt: skip
    return ["around a step", ""], lines


TABLES: dict[str, Callable[[Rows], Table]] = {
    "precision": precision, "scaling": scaling, "growth": growth, "travels": travels, "checks": checks, "plan": plan,
    "around": around,
}  # fmt: skip
