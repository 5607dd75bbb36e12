"""Tables of recipes for `tables.py`: columns and lines, from rows of experiments/results/recipes.jsonl."""

import tomllib
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]
Table = tuple[list[str], list[list[str]]]
RECIPES = {  # data set -> the two metrics that papers report on it
    "ml-1m": ("hr@10", "ndcg@10"), "ml-1m-lrurec-order": ("hr@10", "ndcg@10"), "beauty-2014": ("hr@10", "ndcg@10"),
    "beauty": ("hr@10", "ndcg@10"), "diginetica": ("hr@20", "mrr@20"), "yoochoose": ("hr@20", "mrr@20"),
    "30music": ("hr@20", "mrr@20"),
}  # fmt: skip


def finals(rows: Sequence[Row]) -> dict[str, dict[str, list[Row]]]:
    """Data set -> recipe -> its seeds."""
    found: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["kind"] == "final":
            found[row["data"]][row["recipe"]].append(row)
    return found


def recipes(rows: Sequence[Row], clicks: Sequence[Row], folder: Path) -> Table:
    """Every data set with its recipes over their seeds, beside the best counter and published numbers; last the clicks
    of `experiments/ctr.py`.
    """
    said = tomllib.loads((folder / "published.toml").read_text(encoding="utf-8"))["number"]
    final, tried = finals(rows), Counter(row["data"] for row in rows if row["kind"] == "trial")
    lines = []
    for data, metrics in RECIPES.items():
        others = [number for number in said if number["data"] == data]
        theirs = [greatest(part, metrics) for part in ([one for one in others if one.get("recurrent")], others)]
        head = [f"{data}, {' / '.join(metrics)}", *theirs]
        if data not in final:
            lines.append([*head, "", "not trained yet", waiting(data, folder), ""])
        for recipe, found in final[data].items() if data in final else ():
            seeds = [several([row["test"][metric] for row in found]) for metric in metrics]
            many = f"{len(found)} seeds" if len(found) > 1 else "1 seed"
            where = " and ".join(sorted({row["machine"]["devices"][0].split(" x ")[1].split(" (")[0] for row in found}))
            budget = f"{many} of {found[0]['epochs']} epochs, {tried[data]} trials, {where.replace('cpu', 'CPU')}"
            counted = greatest(list(found[0]["baselines"].values()), metrics)
            lines.append([*head, counted, f"**{' / '.join(seeds)}**", f"`{recipe}`", budget])
    lines += clicked([row for row in clicks if row["kind"] == "final"], said)
    columns = ["data, metrics", "published, recurrent", "published, any", "best counter", "ours", "recipe", "budget"]
    return columns, lines


def clicked(found: Sequence[Row], said: Sequence[Row]) -> list[list[str]]:
    """The line of `experiments/ctr.py`, once it has seeds."""
    if not found:
        return []
    others = greatest([number for number in said if number["data"] == "ctr-ml-1m"], ["auc"])
    counted, ours = max(found[0]["counters"].values()), several([row["test_auc"] for row in found])
    budget = f"{len(found)} seeds, {found[0]['trials']} trials"
    return [["ctr-ml-1m, auc", "", others, f"{counted:.4f}", f"**{ours}**", "`experiments/ctr.py`", budget]]


def greatest(numbers: Sequence[Row], metrics: Sequence[str]) -> str:
    """The greatest number of each metric, whosever it is; "recalled" where nobody has looked one of them up again."""
    having = [[number for number in numbers if metric in number] for metric in metrics]
    found = [max(part, key=lambda one: one[metric], default=None) for part, metric in zip(having, metrics, strict=True)]
    if not any(found):
        return ""
    shown = ("" if one is None else f"{one[metric]:.4f}" for one, metric in zip(found, metrics, strict=True))
    recalled = any("recalled" in one.get("source", "") for one in found if one)
    return " / ".join(shown) + (" (recalled)" if recalled else "")


def several(values: Sequence[float]) -> str:
    """Mean and standard deviation of seeds."""
    return f"{np.mean(values):.4f}" + (f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else "")


def waiting(data: str, folder: Path) -> str:
    """The command that comes next where no recipe is trained."""
    made = sorted(path.stem for path in folder.glob(f"{data}_*.toml") if ".space" not in path.name)
    searched = [path.name.removesuffix(".space.toml") for path in folder.glob("*.space.toml")]
    nearest = max((name for name in searched if data.startswith(name)), key=len)  # two orders of one file share one
    return f"`{made[0]}`" if made else f"`{nearest} --tune` first"


def ties(rows: Sequence[Row]) -> Table:
    """NDCG@10 of targets whose time another event of the same person has, and of the others."""
    lines = []
    for seeds in (seeds for found in finals(rows).values() for seeds in found.values()):
        kinds = [seeds[0]["kinds"].get(name) for name in ("tied time", "untied time")]
        if all(kinds):
            parts = [[row["test"] for row in seeds]]
            parts += [[row["kinds"][name] for row in seeds] for name in ("tied time", "untied time")]
            numbers = [several([one["ndcg@10"] for one in part]) for part in parts]
            targets = " / ".join(f"{kind['count']:,}" for kind in kinds)
            lines.append([f"`{seeds[0]['recipe']}`", seeds[0]["protocol"]["ties"]["policy"], *numbers, targets])
    return ["recipe", "order of ties", "ndcg@10, all", "tied", "untied", "targets tied / untied"], lines
