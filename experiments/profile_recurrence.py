"""Where does the time of one pass over time go?

Claim     On one CPU thread most of a GRU's or LSTM's training pass on `adjoint` is matrix products, which torch needs
          as well; what is left is copies into and out of what the loops keep, and elementwise work.
Command   taskset -c 0 python experiments/profile_recurrence.py --cells gru lstm --shapes small medium wide
Time      About half a minute for each cell, shape and backend.
Expect    The ten dearest operations of each, and a row in experiments/results/profile_recurrence.jsonl: milliseconds of
          products, copies and elementwise work, and of the pass when nobody looks. It is wall time: on a busy core all
          of them grow alike, and only the shares mean something.

Operations are those of the compiled program, timed by jax.profiler; a fusion with a product inside counts as one.
"""

import argparse
import collections
import re
import sys
import tempfile
import time
from pathlib import Path

import bench_recurrence as bench
import jax

from jaxrec.bench.timing import append_row
from jaxrec.config import Mistake
from jaxrec.runs.machine import card

ROWS = Path(__file__).parent / "results" / "profile_recurrence.jsonl"
MOVES = re.compile("copy|transpose|broadcast|slice|bitcast|concatenate|pad")


def products(program: str) -> set[str]:
    """Names of the instructions that are products, or fusions and calls of a computation that has one."""
    inside, name = set(), ""
    for line in program.splitlines():
        if opened := re.match(r"(?:ENTRY )?%?(\S+) \(.*\{$", line):
            name = opened[1]
        elif re.search(r" dot\(", line):
            inside.add(name)
    called = re.findall(r"%?(\S+) = .*(?:calls|to_apply)=%?([\w.\-]+)", program)
    alone = re.findall(r"%?(\S+) = \S+ dot\(", program)
    return {*alone, *(name for name, other in called if other in inside)}


def kind(name: str, known: set[str]) -> str:
    if name in known:
        return "products"
    return "copies" if MOVES.search(name) else "elementwise"


def timed(run: bench.Run, names: set[str], passes: int) -> collections.Counter[str]:
    """Milliseconds a pass of each operation."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(passes):
                jax.block_until_ready(run())
        [path] = Path(folder).rglob("*.xplane.pb")
        found: collections.Counter[str] = collections.Counter()
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
            for line in plane.lines:
                for event in line.events:
                    if event.name in names:
                        found[event.name] += event.duration_ns / 1e6 / passes
    return found


def measure(group: bench.Group, backend: str, passes: int) -> dict[str, float]:
    """Milliseconds by kind, printed with the dearest operations."""
    run, done = bench.backend(group, backend)
    program = done.compiled.as_text()
    names = set(re.findall(r"%?([\w.\-]+) = ", program)) - set(
        re.findall(r"%?([\w.\-]+) = .* (?:while|call)\(", program)
    )
    known = products(program)
    jax.block_until_ready(run())
    began = time.perf_counter()
    for _ in range(passes):
        jax.block_until_ready(run())
    whole = (time.perf_counter() - began) * 1e3 / passes
    found = timed(run, names, passes)
    parts = dict.fromkeys(("products", "copies", "elementwise"), 0.0)
    for name, milliseconds in found.items():
        parts[kind(name, known)] += milliseconds
    for name, milliseconds in found.most_common(10):
        print(f"  {milliseconds:8.3f} ms  {kind(name, known):12} {name}")
    return {"pass": whole} | parts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", default=["gru", "lstm"])
    parser.add_argument("--shapes", nargs="+", default=["small", "medium", "wide"])
    parser.add_argument("--backends", nargs="+", default=["adjoint", "scan"])
    parser.add_argument("--passes", type=int, default=5, help="over which an operation's time is averaged")
    options = parser.parse_args()
    if jax.default_backend() != "cpu":
        raise Mistake(
            f"profile_recurrence reads a CPU's profile and this is a {jax.default_backend()}; set JAX_PLATFORMS=cpu"
        )
    for cell in options.cells:
        for shape in options.shapes:
            for backend in options.backends:
                group = bench.Group(bench.spelled(cell), shape, True)
                print(f"{cell} {shape} {backend}", flush=True)
                parts = {name: round(value, 3) for name, value in measure(group, backend, options.passes).items()}
                print(f"  {parts}", flush=True)
                append_row(ROWS, group.row() | {"backend": backend, "milliseconds": parts, "machine": card()})
                jax.clear_caches()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Mistake as mistake:
        sys.exit(f"profile_recurrence: {mistake}")
