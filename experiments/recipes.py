"""How well do recurrent recommenders recommend, each tuned on validation targets and trained to its end?

Claim     On Beauty 2014 a plain GRU of width 128 with full softmax has HR@10 .0993 and NDCG@10 .0593 over three seeds,
          above all that was published on the file (.0928, .0531). With attention over the last inputs it has .0970 and
          .0579 (p .005), though after the six epochs of the search attention led. Targets tied in time are worth .09,
          the others .036; with ties drawn instead of sorted by product attention has .0543 instead of .0579. On
          MovieLens 1M two GRU blocks have HR@10 .352 and NDCG@10 .208 over three seeds (`ml-1m.txt`; published: .316,
          .186), .353 and .212 in LRURec's order (.326, .193). On Diginetica attention beside a GRU has P@20 .535 and
          MRR@20 .189, the GRU alone .530 and .182; on Yoochoose 1/64 a GRU has .715 and .311 (.706, .326); on Beauty
          (one pass of five) attention has .074 and .044 (.053, .031). Seeds 0 and 1 of Diginetica were trained on a
          CPU as well: .5342 and .5359, on the GPU .5340 and .5356.
Command   python experiments/recipes.py ml-1m_gru --data ../shared/data        three seeds of a recipe
          python experiments/recipes.py ml-1m --tune                           the search that it came from
          python experiments/recipes.py --list                                 what there is, as `jaxrec train` commands
Time      Stands in every row, with the device. The same command goes on where it was; a seed that has a row adds none.
Expect    Rows in experiments/results/recipes.jsonl: `trial` has a point of the search and its validation numbers, never
          a test number; `final` has the test numbers of one seed, with the place of every target. `--page FILE`
          makes the leaderboard of all rows, one table a protocol.

A recipe is a file of options, recipes/DATA_MODEL.toml; beside it DATA.space.toml (or DATA_MODEL.space.toml) is what was
searched: Sobol points, fewer epochs, the best of each model by the first validation metric. `--collect DIR` takes the
rows from the folder of a sweep that ran elsewhere; `--prepared DIR` reads data that `jaxrec prepare` wrote to DIR/DATA,
where a machine has nothing else.
"""

import argparse
import json
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxrec.bench.timing import append_row
from jaxrec.evaluation.ranks_file import load
from jaxrec.evaluation.summary import counts_of
from jaxrec.reports.leaderboard import kept, write_leaderboard
from jaxrec.runs.folder import read_json
from jaxrec.sweeps.options import Sweep
from jaxrec.sweeps.space import read
from jaxrec.sweeps.sweep import sweep

HERE = Path(__file__).parent
RECIPES, ROWS = HERE / "recipes", HERE / "results" / "recipes.jsonl"
TRIALS, SEEDS = 12, 3
DATA: dict[str, dict[str, Any]] = {
    "ml-1m": {"data": "ml-1m/ml-1m.txt.gz"},
    "ml-1m-lrurec-order": {"data": "ml-1m/ml-1m-lrurec-order.txt.gz"},
    "beauty-2014": {"data": "amazon-beauty-2014/interactions.tsv.gz"},
    "beauty-2014-shuffled": {"data": "amazon-beauty-2014/interactions.tsv.gz", "ties": "shuffle"},
    "beauty": {"data": "amazon-beauty/Beauty.txt.gz", "min_user_events": 5, "min_item_events": 5},
    "diginetica": {
        "data": "diginetica/train_sessions.txt.gz", "test": "diginetica/test_sessions.txt.gz", "held_out": 0.02,
    },
    "yoochoose": {
        "data": "yoochoose-1-64/train_sessions.txt.gz", "test": "yoochoose-1-64/test_sessions.txt.gz", "held_out": 0.02,
    },
    "30music": {"data": "30music/sessions.parquet", "split": "time", "mask_seen": "none"},
}  # fmt: skip
KINDS = ("tied time", "untied time", "repeat", "new")  # of targets, told apart
CARD = ("name", "split", "catalogue", "unknown_targets", "mask_seen", "ties", "filters", "counts", "fingerprint")


def say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def names() -> list[str]:
    return sorted(
        path.name.removesuffix(".toml")
        for path in RECIPES.glob("*.toml")
        if path.name != "published.toml" and ".space." not in path.name
    )


def searched() -> list[str]:
    return sorted(path.name.removesuffix(".space.toml") for path in RECIPES.glob("*.space.toml"))


def reading(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """The options that say which data a recipe is for."""
    data = name.partition("_")[0]
    return files(data, options.data) if options.prepared is None else {"data": str(options.prepared / data)}


def files(data: str, folder: Path) -> dict[str, Any]:
    """The options of a data set whose files lie in a folder."""
    return {key: str(folder / value) if key in ("data", "test") else value for key, value in DATA[data].items()}


def swept(name: str, options: argparse.Namespace) -> Path:
    """The folder of a finished sweep: the search of a recipe, or its seeds."""
    out = options.runs / (f"{name}-tune" if options.tune else name)
    given = read(RECIPES / f"{name}{'.space' if options.tune else ''}.toml") | reading(name, options)
    how = (
        {"trials": options.trials, "search": "sobol"}
        if options.tune
        else {"trials": SEEDS, "seeds": SEEDS, "search": "grid"}
    )
    chosen = Sweep(
        out=str(out), objectives=(given.get("stop.metric", "ndcg@10"),), workers=options.workers,
        together=options.together, max_seconds=options.max_seconds, **how,
    )  # fmt: skip
    sweep(chosen, given, command=sys.argv, say=say)
    return out


def rows(name: str, out: Path) -> Iterator[dict[str, Any]]:
    """The rows of a sweep's trials that are done."""
    about = read_json(out / "sweep.json")
    kind = "final" if about["seeds"] > 1 else "trial"
    for line in (out / "trials.jsonl").read_text(encoding="utf-8").splitlines():
        trial = json.loads(line)
        if trial["state"] == "done" and trial["same_as"] is None:
            yield row(name, kind, trial, out / trial["run"], about)


def row(name: str, kind: str, trial: dict[str, Any], run: Path, about: dict[str, Any]) -> dict[str, Any]:
    """What a finished run leaves behind; of a trial, which others are chosen by, no test numbers."""
    result = read_json(run / "result.json")
    head = result["headline"]
    found = {
        "kind": kind, "data": name.partition("_")[0], "recipe": name, "run_id": result["run_id"],
        "seed": result["seed"], "reading": head,
        "valid": result["valid"][head], "epochs": result["epochs"], "steps": result["steps"],
        "seconds": trial["seconds"], "model": result["model"], "config": told(read_json(run / "config.json")),
        "code": trial["code"], "machine": read_json(run / "machine.json"),
    }  # fmt: skip
    if kind == "trial":
        return found | {"number": trial["number"], "point": trial["point"], "space": searched_in(about)}
    ranks, _ = load(run / "ranks.npz")
    slices = result["test"]["slices"]
    return found | {
        "test": result["test"][head], "baselines": {key: part[head] for key, part in result["baselines"].items()},
        "protocol": {key: result["protocol"][key] for key in CARD}, **kept(*counts_of(ranks, head), ranks.example),
        "kinds": {name: slices[name] for name in KINDS if name in slices},
    }  # fmt: skip


def told(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration without the places of files."""
    return {name: value for name, value in config.items() if name not in ("data", "test", "valid", "run")}


def searched_in(about: dict[str, Any]) -> dict[str, Any]:
    """The space of a sweep without the places of files."""
    return about["space"] | {"constants": told(about["space"]["constants"])}


def there(path: Path) -> list[dict[str, Any]]:
    """The rows of a file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def keep(path: Path, found: dict[str, Any]) -> None:
    """Append a row that is not there."""
    if (found["kind"], found["run_id"]) not in {(row["kind"], row["run_id"]) for row in there(path)}:
        append_row(path, found)


def leaderboard(rows: Path, page: Path) -> None:
    """The page of all final rows, each with how many trials its recipe was chosen from."""
    found = there(rows)
    tried = Counter(row["data"] for row in found if row["kind"] == "trial")
    final = [row | {"trials": tried[row["data"]]} for row in found if row["kind"] == "final"]
    published = tomllib.loads((RECIPES / "published.toml").read_text(encoding="utf-8"))["number"]
    write_leaderboard(final, published, page, f"python experiments/recipes.py --page {page}")


def listed() -> None:
    """Every recipe as a command."""
    for name in names():
        files = DATA[name.partition("_")[0]]
        words = " ".join(f"--{key.replace('_', '-')} {value}" for key, value in files.items())
        print(f"jaxrec train --config experiments/recipes/{name}.toml {words}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of a recipe: {', '.join(names()) or 'none yet'}")
    parser.add_argument("--tune", action="store_true", help=f"search for: {', '.join(searched())}")
    parser.add_argument("--trials", type=int, default=TRIALS, help="points of a search")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument("--prepared", type=Path, help="folder of prepared data, one folder a data set, instead")
    parser.add_argument("--runs", type=Path, default=Path("runs/recipes"), help="folder of the sweeps")
    parser.add_argument("--rows", type=Path, default=ROWS, help="file of the rows")
    parser.add_argument("--workers", type=int, default=1, help="processes that train")
    parser.add_argument("--together", type=int, default=1, help="trainings in one program")
    parser.add_argument(
        "--max-seconds", type=float, help="stop a sweep after so many seconds; the same command goes on"
    )
    parser.add_argument("--collect", type=Path, help="train nothing: take the rows of NAME from this folder of a sweep")
    parser.add_argument("--page", type=Path, help="train nothing: write the leaderboard of all rows to this file")
    parser.add_argument("--list", action="store_true", help="print every recipe as a command and stop")
    options = parser.parse_args()
    if options.list:
        listed()
        return 0
    if options.page:
        leaderboard(options.rows, options.page)
        return 0
    for name in options.names:
        for found in rows(name, options.collect or swept(name, options)):
            keep(options.rows, found)
            shown = found["point"] if found["kind"] == "trial" else f"seed {found['seed']}"
            numbers = {key: round(value, 4) for key, value in (found.get("test") or found["valid"]).items()}
            print(f"{name:24} {found['kind']} {shown} {numbers} {found['seconds']:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
