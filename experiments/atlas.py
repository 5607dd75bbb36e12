"""How far back does every cell learn and look, on the demo shop, untrained, while it trains and after?

Claim     A gradient that reaches far is not memory that is used. Over 50 events 17 of 46 cells have theirs in band
          before training and 12 after it, four of the best seven among them (deltanet, mamba, mamba2, s5) and four of
          the worst six (antisymmetricrnn, gla, rwkv7, rglru). Only seven cells of width 32 rank better than the best
          counter (NDCG@10 .172) after twenty epochs: deltanet .301, mamba, causalconv, lru, mamba2, attentive, s5; all
          seven make use of 3.8 to 4.0 events, and the shop's planted dependency is four back. The other 39 lie between
          .08 and .16: gru alone has .137, and .235 with attention over its last inputs.
Command   python experiments/atlas.py              (some of them: --only gru lru; the page alone: --page atlas.html)
Time      An hour of one core (each row has its CPU-seconds); a cell with rows is left out (--again measures anew).
Expect    The records of `jaxrec diagnose` for each cell in experiments/results/atlas.jsonl, thinned, and with --page
          the page of all of them.

Width 32, twenty epochs, one seed, nothing tuned. Cells that read more than items and gaps get it as in every_cell.py.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from every_cell import WANTED
from flax import nnx

from jaxrec.bench.timing import append_row
from jaxrec.cells import find
from jaxrec.cells.find import ours
from jaxrec.config import Call, Mistake, field_types, resolve, value_at
from jaxrec.reports.atlas_page import write_atlas
from jaxrec.reports.atlas_records import read_records
from jaxrec.runs.diagnose import diagnose
from jaxrec.runs.machine import card
from jaxrec.runs.options import Config, Diagnose
from jaxrec.sweeps.worker import forget as forget_programs

ROWS = Path(__file__).parent / "results" / "atlas.jsonl"
SETTINGS: dict[str, Any] = {
    "model.width": 32, "epochs": 20, "optimizer.schedule": "cosine", "stop.patience": 0, "diagnose_every": 300,
}  # fmt: skip
LENGTHS = "20,50,200"
DROPPED = ("log10_each", "log10_mean", "counts", "thresholds", "per_example", "jacobian")  # a page can do without


def measured(cell: str) -> list[dict[str, Any]]:
    """All records of a cell."""
    wants = find(Call.parse(cell), 8, hidden=8, rngs=nnx.Rngs(0)).wants
    more = {name: value for leaf in wants for name, value in WANTED.get(leaf, {}).items()}
    with tempfile.TemporaryDirectory() as folder:
        config = resolve(Config, flags=SETTINGS | more | {"model.cell": cell}).section
        chosen = {name: value_at(config, name) for name in field_types(Config)}
        return diagnose(Diagnose(**chosen, out=folder, lengths=LENGTHS), say=lambda sentence: None)


def thinned(records: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The records without what a page can do without, numbers to four digits."""
    for record in records:
        if record["kind"] == "weights" or (record["phase"] == "during" and record["kind"] in ("gates", "clipping")):
            continue
        kept = {key: rounded(value) for key, value in record.items() if key not in DROPPED}
        if record["kind"] == "gradient":
            shares = ("0.5",) if record["phase"] == "during" else ("0.25", "0.5", "0.75")
            kept["log10_quantiles"] = {share: kept["log10_quantiles"][share] for share in shares}
        yield kept


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def known() -> set[str]:
    """Cells that have rows."""
    return {record["cell"] for record in read_records(ROWS)} if ROWS.exists() else set()


def forget(cell: str) -> None:
    """Take the rows of a cell out."""
    kept = [record for record in read_records(ROWS) if record["cell"] != cell]
    ROWS.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", help="names of cells; all of them by default")
    parser.add_argument("--again", action="store_true", help="also cells that have rows")
    parser.add_argument("--page", type=Path, help="measure nothing: write the page of all rows to this file")
    options = parser.parse_args()
    if options.page:
        write_atlas(read_records(ROWS), options.page, ["python", *sys.argv])
        return 0
    refused = []
    for cell in options.only or sorted(name.lower() for name in ours()):
        if cell in known():
            if not options.again:
                continue
            forget(cell)
        began = time.process_time()
        try:
            records = list(thinned(measured(cell)))
        except Mistake as mistake:
            refused.append(cell)
            print(f"{cell:18} {mistake}", flush=True)
            continue
        spent = {"cpu_seconds": round(time.process_time() - began, 1), "machine": card()}
        for record in records:
            append_row(ROWS, record | (spent if record["kind"] == "training" else {}))
        print(f"{cell:18} {len(records)} records, {spent['cpu_seconds']} CPU-seconds", flush=True)
        forget_programs()  # those of a dozen cells are more than a process may map
    return int(bool(refused))


if __name__ == "__main__":
    sys.exit(main())
