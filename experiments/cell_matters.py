"""Does the cell matter? Eight cells in one block, with one loss and one budget, on two data sets.

Claim     It does, by more than seeds and less than tuning. On MovieLens 1M slstm, lstm and gru (NDCG@10 .186, .186,
          .184) are above the five others (mamba .177, mingru .177, rglru .174, lru .171, mlstm .163; p .003, Holm) and
          not told apart; on 30Music mamba (.279) is above all (lru .272, mingru .272, slstm .272, lstm .270, gru .270,
          mlstm .265, rglru .265). Seeds differ by .001 to .003.
Command   python experiments/cell_matters.py --data ../shared/data                (--only ml-1m, --max-seconds 7000)
          pip install -c constraints.txt -e '.[sweep]' first; the same command goes on with what is missing.
Time      Stands in every row. On one H200, eight cells at a time, seven minutes for both data sets; on a core
          some 25 seconds an epoch of MovieLens 1M (mamba 100) and 13 of 30Music.
Expect    Rows in experiments/results/cell_matters.jsonl: `rate` has one of three learning rates of a cell and its
          validation number, after a third of the epochs; `final` has the test numbers of one of three seeds at the
          best of them, with the place of every target. `--tests` prints every pair on the same targets, `--page FILE`
          makes a page of them with intervals.

All cells stand in the same two blocks (norm, cell, residual, then norm, feed-forward, residual), with the same width,
dropout, weight decay, full softmax and number of updates. Only the learning rate is each cell's own: what is best for
one is not for another, and a rate chosen for the first cell of a table is a handicap for the others. Every cell took
the highest of the three. Rows of kind `wider` and `wider-final` say what lies beyond, tried afterwards on a CPU: after
a third of the epochs .027 is better for the linear cells (but mingru on 30Music) and for mlstm on 30Music, and no
better for the others; .081 is worse for all four that tried it. Trained to the end on 30Music .027 gives lru .271
instead of .272, rglru .268 instead of .265, and mlstm .181, one of three seeds broken: a short search prefers rates
that do not last.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recipes import keep, reading, rows, say, there

from jaxrec.reports.leaderboard import boards, chosen, paired, write_leaderboard
from jaxrec.sweeps.options import Sweep
from jaxrec.sweeps.sweep import sweep

ROWS = Path(__file__).parent / "results" / "cell_matters.jsonl"
CELLS = ("gru", "lstm", "lru", "rglru", "mingru", "mlstm", "mamba", "slstm")
RATES = (1e-3, 3e-3, 9e-3)
SEEDS = 3
BLOCK: dict[str, Any] = {
    "model.width": 64, "model.depth": 2, "model.feedforward": 4, "model.dropout": 0.3, "optimizer.weight_decay": 0.01,
    "optimizer.schedule": "cosine", "optimizer.warmup": 100, "batch.size": 16, "stop.patience": 0,
}  # fmt: skip
SETS: dict[str, dict[str, Any]] = {
    "ml-1m": {"epochs": 9, "batch.length": 200, "eval.every": 9},
    "30music": {"epochs": 9, "batch.length": 50, "eval.every": 3},
}


def trained(
    name: str, folder: str, space: dict[str, Any], options: argparse.Namespace, **how: Any
) -> Iterator[dict[str, Any]]:
    """The rows of a sweep over a grid, each with its cell."""
    out = options.runs / f"{name}-{folder}"
    choice = Sweep(
        out=str(out), search="grid", workers=options.workers, together=options.together,
        max_seconds=options.max_seconds, **how,
    )  # fmt: skip
    sweep(choice, BLOCK | reading(name, options) | SETS[name] | space, command=sys.argv, say=say)
    for found in rows(f"{name}_cells", out):
        yield found | {"cell": found["model"]["cell"]}


def rates(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Every cell's best learning rate, by validation targets."""
    epochs = SETS[name]["epochs"] // 3
    choices = {"model.cell": "|".join(options.cells), "optimizer.lr": "|".join(map(str, RATES))}
    found = [
        one | {"kind": "rate"}
        for one in trained(name, "rates", {"epochs": epochs, "eval.every": epochs} | choices, options)
    ]
    for one in found:
        keep(options.rows, one)
    best = chosen_rates(found)
    if missing := [cell for cell in options.cells if cell not in best]:
        say(f"{name}: no learning rate for {', '.join(missing)} yet; the same command goes on")
    return best


def chosen_rates(found: list[dict[str, Any]]) -> dict[str, float]:
    """The learning rate of each cell's best validation, of cells that have tried them all."""
    values: dict[str, dict[float, float]] = {}
    for one in found:
        values.setdefault(one["cell"], {})[one["config"]["optimizer"]["lr"]] = one["valid"]["ndcg@10"]
    return {cell: max(of, key=lambda rate: of[rate]) for cell, of in values.items() if len(of) == len(RATES)}


def seeds(name: str, cell: str, rate: float, options: argparse.Namespace) -> None:
    """Three seeds of a cell at its learning rate."""
    space = {"model.cell": cell, "optimizer.lr": rate}
    for found in trained(name, cell, space, options, trials=SEEDS, seeds=SEEDS):
        keep(options.rows, found | {"recipe": cell})
        print(f"{name:8} {cell:8} seed {found['seed']} ndcg@10 {found['test']['ndcg@10']:.4f}", flush=True)


def finals(path: Path) -> list[dict[str, Any]]:
    """The rows of seeds, each with how many learning rates were tried for its cell."""
    return [found | {"trials": len(RATES)} for found in there(path) if found["kind"] == "final"]


def tests(path: Path) -> None:
    """Every pair of cells, on the same targets."""
    for one in boards(finals(path)):
        metric = chosen(one.metrics)
        print(f"{one.name}: {metric}, means over {SEEDS} seeds, permutation of people, Holm over all pairs")
        for pair in paired(one, metric):
            print(f"  {pair['first']:8} {pair['second']:8} {pair['delta']:+.4f} ({pair['low']:+.4f} to "
                  f"{pair['high']:+.4f}) p {pair['p_holm']:.4f}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument("--prepared", type=Path, help="folder of prepared data, one folder a data set, instead")
    parser.add_argument("--only", nargs="+", choices=tuple(SETS), default=tuple(SETS), help="data sets")
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=CELLS, help="train these alone")
    parser.add_argument("--runs", type=Path, default=Path("runs/cell_matters"), help="folder of the sweeps")
    parser.add_argument("--rows", type=Path, default=ROWS, help="file of the rows")
    parser.add_argument("--workers", type=int, default=1, help="processes that train")
    parser.add_argument("--together", type=int, default=1, help="trainings in one program")
    parser.add_argument(
        "--max-seconds", type=float, help="stop a sweep after so many seconds; the same command goes on"
    )
    parser.add_argument("--tests", action="store_true", help="train nothing: print the paired tests of the rows")
    parser.add_argument("--page", type=Path, help="train nothing: write a page of the rows, with intervals and tests")
    options = parser.parse_args()
    if options.tests:
        tests(options.rows)
    if options.page:
        write_leaderboard(finals(options.rows), (), options.page, " ".join(("python", *sys.argv)))
    if options.tests or options.page:
        return
    for name in options.only:
        for cell, rate in rates(name, options).items():
            seeds(name, cell, rate, options)


if __name__ == "__main__":
    sys.exit(main())
