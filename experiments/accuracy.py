"""How well does a plain GRU recommend on real data, beside counting?

Claim     One stack of GRU blocks, full softmax over all positions, nothing tuned beyond what is written below, clears
          the counting floor on every data set. Aims: HR@10 .330 / NDCG@10 .193 on ml-1m.txt (seen items masked) and
          P@20 47 % / MRR@20 12.8 % on Diginetica: both reached.
Command   python experiments/accuracy.py ml-100k --seeds 0 1 2 3 4 --data ../shared/data
          names: demo ml-100k ml-1m beauty-2014 diginetica 30music; --print shows the jaxrec commands instead;
          --collect DIR adds the row of a run that was trained by such a command elsewhere
Time      CPU-minutes on one core: demo 1, ml-100k 2 a seed, 30music 5, beauty-2014 4, diginetica 25, ml-1m 50.
          A run that is cut goes on where it was; a run that is complete only adds its row.
Expect    Rows in experiments/results/accuracy.jsonl, one a run; `python scripts/tables.py` puts them into the README.

The data sets are named in README.md; none of them is part of this repository.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from jaxrec.bench.timing import append_row
from jaxrec.config import resolve
from jaxrec.runs.folder import read_json
from jaxrec.runs.options import Config
from jaxrec.runs.run import train

ROWS = Path(__file__).parent / "results" / "accuracy.jsonl"

BLOCK = {"model.width": 128, "model.dropout": 0.3, "optimizer.schedule": "cosine"}
TOP20 = {"eval.metrics": ("hr@20", "mrr@20", "ndcg@10"), "stop.metric": "mrr@20"}
SETTINGS: dict[str, dict[str, Any]] = {
    "demo": {},
    "ml-100k": BLOCK | {"data": "ml-100k/ml-100k.inter.gz", "batch.length": 100, "batch.size": 8, "epochs": 20},
    "ml-1m": BLOCK
    | {"data": "ml-1m/ml-1m.txt.gz", "model.depth": 2, "model.feedforward": 4, "batch.length": 200, "epochs": 20}
    | {"batch.size": 8, "optimizer.lr": 1e-3, "optimizer.warmup": 200}
    | {"eval.every": 4, "stop.patience": 0},
    "beauty-2014": BLOCK
    | {"data": "amazon-beauty-2014/interactions.tsv.gz", "model.width": 64, "model.dropout": 0.5, "batch.size": 8}
    | {"optimizer.lr": 4e-3, "optimizer.warmup": 200, "epochs": 12, "eval.every": 3},
    "diginetica": BLOCK
    | TOP20
    | {"data": "diginetica/train_sessions.txt.gz", "test": "diginetica/test_sessions.txt.gz", "epochs": 3}
    | {"held_out": 0.02, "batch.size": 16}
    | {"optimizer.lr": 2e-3, "optimizer.warmup": 100, "eval.users": 3000, "stop.patience": 0},
    "30music": BLOCK
    | TOP20
    | {"data": "30music/sessions.parquet", "split": "time", "mask_seen": "none", "batch.size": 8, "epochs": 8}
    | {"optimizer.lr": 4e-3, "optimizer.warmup": 200, "eval.every": 2},
}


def flags(name: str, seed: int, data: Path, runs: Path) -> dict[str, Any]:
    """The options of one run, under the names of the command line."""
    chosen = {"run": str(runs / f"{name}-s{seed}"), "seed": seed} | SETTINGS[name]
    return chosen | {key: str(data / chosen[key]) for key in ("data", "test") if key in chosen}


def command(chosen: dict[str, Any]) -> list[str]:
    """The same options as a command."""
    words = ["jaxrec", "train"]
    for key, value in chosen.items():
        values = value if isinstance(value, tuple) else (value,)
        words += [f"--{key.replace('_', '-')}", *map(str, values)]
    return words


def row(run: Path, setting: str) -> dict[str, Any]:
    """What a finished run leaves behind: its numbers with their circumstances, without the places of files."""
    result, config = read_json(run / "result.json"), read_json(run / "config.json")
    config = {name: value for name, value in config.items() if name not in ("data", "test", "valid", "run")}
    kept = (
        "run_id",
        "seed",
        "headline",
        "test",
        "valid",
        "baselines",
        "ceiling",
        "model",
        "epochs",
        "steps",
        "seconds",
    )
    card = {
        name: result["protocol"][name]
        for name in ("name", "split", "catalogue", "unknown_targets", "mask_seen", "counts")
    }
    return {
        "setting": setting,
        **{name: result[name] for name in kept},
        "protocol": card,
        "config": config,
        "machine": read_json(run / "machine.json"),
        "command": f"python experiments/accuracy.py {setting} --seeds {result['seed']}",
    }


def known(run_id: str) -> bool:
    return ROWS.exists() and f'"run_id": "{run_id}"' in ROWS.read_text(encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=SETTINGS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the run folders")
    parser.add_argument("--collect", type=Path, help="add the row of this finished run of NAME and stop")
    parser.add_argument("--print", action="store_true", help="print the commands and stop")
    options = parser.parse_args()
    if options.collect:
        append_row(ROWS, row(options.collect, options.names[0]))
        return
    for name in options.names:
        for seed in options.seeds:
            chosen = flags(name, seed, options.data, options.runs)
            if options.print:
                print(*command(chosen))
                continue
            result = train(resolve(Config, flags=chosen).section, command=command(chosen), say=print)
            if result["complete"] and not known(result["run_id"]):
                append_row(ROWS, row(Path(chosen["run"]), name))


if __name__ == "__main__":
    sys.exit(main())
