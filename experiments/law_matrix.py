"""Does every cell obey every law on every backend that takes it?

Claim     Every cell of `jaxrec list cells`, in every variant of its closed options, keeps all laws on every backend and
          option of `jaxrec list backends` that accepts it; where one refuses, it says why.
Command   python experiments/law_matrix.py                                   some of them: --only gru mingru
Time      About a CPU-minute a cell and variant: an hour on one core. Programs are compiled without XLA's costly
          optimisations, as in the tests. A cell that has a row of this commit is left out, so that a run that was cut
          goes on; several may run at a time, each with its own cells.
Expect    "0 laws broken", and one row a cell and variant in experiments/results/law_matrix.jsonl: for every backend the
          largest violation of each law, or the reason of the refusal.

The same table of laws is applied by `pytest` (all cells on scan, one of each kind elsewhere) and by `jaxrec check`.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"

import jax

from jaxrec.bench.timing import append_row
from jaxrec.cells import find
from jaxrec.config import Call
from jaxrec.recurrence.backends import named
from jaxrec.recurrence.cases import Case
from jaxrec.recurrence.laws import LAWS, examine
from jaxrec.recurrence.variants import backends, cells
from jaxrec.runs.machine import card

ROWS = Path(__file__).parent / "results" / "law_matrix.jsonl"
FEATURES, HIDDEN = 3, 4


def examined(cell: Call, backend: Call) -> dict[str, float] | str:
    """The largest violation of each law on one backend, or why it refuses the cell."""
    case = Case(lambda rngs: find(cell, FEATURES, hidden=HIDDEN, rngs=rngs), FEATURES, backend=backend)
    if (reason := named(backend).refuses(case.fresh)) is not None:
        return reason
    found = {}
    for law in LAWS:
        if law.concerns(backend):
            result = examine(law, case)
            found[law.name] = result.largest
            if not result.passed:
                print(f"{cell} on {backend}: {result.sentence}", flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", help="names of cells, in small letters; all of them by default")
    options = parser.parse_args()
    machine = card()
    written = [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []
    done = {row["cell"] for row in written if row["machine"]["commit"] == machine["commit"]}
    tolerance = {law.name: law.tolerance for law in LAWS}
    broken = 0
    for cell in cells():
        if str(cell) in done or cell.name.lower() not in (options.only or [cell.name.lower()]):
            continue
        began = time.process_time()
        found = {str(run): examined(cell, run) for run in backends()}
        pairs = [pair for laws in found.values() if isinstance(laws, dict) for pair in laws.items()]
        wrong = sum(not largest <= tolerance[law] for law, largest in pairs)
        row = {"cell": str(cell), "laws_kept": len(pairs) - wrong, "laws_broken": wrong, "backends": finite(found)}
        append_row(ROWS, row | {"cpu_seconds": round(time.process_time() - began, 1), "machine": machine})
        print(f"{cell!s:40} {len(pairs) - wrong} laws kept, {wrong} broken", flush=True)
        broken += wrong
        jax.clear_caches()
    print(f"{broken} laws broken")
    return int(broken > 0)


def finite(found: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity: a law whose measure raised is None."""
    return {
        name: {law: None if value == float("inf") else value for law, value in laws.items()}
        if isinstance(laws, dict)
        else laws
        for name, laws in found.items()
    }


if __name__ == "__main__":
    sys.exit(main())
