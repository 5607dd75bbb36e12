"""The rooms and who may import whom, read from the source with `ast`. The test of the test plants violations."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# A room may import only rooms to its left, and itself.
ROOMS = """
    words types config | data cells losses metrics | recurrence | models | parallel training
    | evaluation diagnostics | runs | sweeps serving bench reports | flags | cli __main__ __init__
""".replace("|", " ").split()
APART = ({"data", "cells", "losses", "metrics"},)  # and these do not import each other
WITHOUT_JAX = (
    "jaxrec/data/",
    "jaxrec/metrics/",
    "jaxrec/evaluation/ranks_file.py",
    "jaxrec/evaluation/slices.py",
    "jaxrec/evaluation/summary.py",
    "jaxrec/models/counting.py",
    "jaxrec/reports/",
    "jaxrec/runs/compare.py",
    "jaxrec/runs/options.py",
    "jaxrec/sweeps/domains.py",
    "jaxrec/sweeps/draft.py",
    "jaxrec/sweeps/fields.py",
    "jaxrec/sweeps/grammar.py",
    "jaxrec/sweeps/importance.py",
    "jaxrec/sweeps/pruning.py",
    "jaxrec/sweeps/search.py",
    "jaxrec/sweeps/selection.py",
    "jaxrec/sweeps/space.py",
    "jaxrec/sweeps/study.py",
)
JAX = {"jax", "jaxlib", "flax", "optax", "orbax"}
OUTSIDE = {"experiments", "tests", "scripts"}
NAMELESS = {"utils", "util", "common", "helpers", "helper", "misc"}
# Heavy or optional packages are imported inside functions, except in the one file that is about them.
HEAVY: dict[str, set[str]] = {
    "polars": set(),
    "rich": set(),
    "tyro": set(),
    "tensorflow_datasets": {"jaxrec/data/builders.py"},
    "tensorflow": set(),
    "tensorboardX": set(),
    "mlflow": set(),
    "wandb": set(),
    "matplotlib": set(),
    "pandas": set(),
    "pyarrow": set(),
    "scipy": set(),
    "torch": set(),
    "grain": set(),
    "ray": {"jaxrec/sweeps/on_ray.py"},
    "submitit": {"jaxrec/sweeps/on_slurm.py"},
    "optuna": set(),
    "cmaes": set(),
    "diffrax": set(),
    "pyspark": {
        "jaxrec/serving/spark.py",
        *(f"jaxrec/data/spark{part}.py" for part in ("", "_rows", "_filters", "_arrays")),
    },
}
LINES_OF_FILE, LINES_OF_FUNCTION = 400, 60


def violations(root: Path) -> list[str]:
    """Every broken rule in the tree under `root`, one sentence each."""
    found: list[str] = []
    for folder in ("jaxrec", "experiments", "scripts", "tests"):
        for file in sorted((root / folder).rglob("*.py")):
            name = file.relative_to(root).as_posix()
            tree = ast.parse(file.read_text(encoding="utf-8"), name)
            found += _sizes(name, file.read_text(encoding="utf-8"), tree)
            found += _imports(name, tree)
    return found


def _sizes(name: str, text: str, tree: ast.Module) -> Iterator[str]:
    if NAMELESS & set(Path(name).with_suffix("").parts):
        yield f"{name}: a module is named after what it holds"
    if text.count("\n") > LINES_OF_FILE:
        yield f"{name}: {text.count(chr(10))} lines, more than {LINES_OF_FILE}"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > LINES_OF_FUNCTION:
                yield f"{name}:{node.lineno}: {node.name} has {lines} lines, more than {LINES_OF_FUNCTION}"


def _imports(name: str, tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield f"{name}:{node.lineno}: relative import"
    if not name.startswith("jaxrec/"):
        return
    for line, module in _modules(tree):
        top = module.split(".")[0]
        if top in OUTSIDE:
            yield f"{name}:{line}: jaxrec imports {top}"
        if top in JAX and name.startswith(WITHOUT_JAX):
            yield f"{name}:{line}: imports {top}, which it must do without"
        if top == "jaxrec":
            yield from _direction(name, line, module)
    for line, module in _modules(tree, only_at_import=True):
        top = module.split(".")[0]
        if name not in HEAVY.get(top, {name}):
            yield f"{name}:{line}: {top} is imported at the top of the module"


def _direction(name: str, line: int, module: str) -> Iterator[str]:
    here = Path(name).with_suffix("").parts[1]
    there = [*module.split("."), "__init__"][1]
    for room in (here, there):
        if room not in ROOMS:
            yield f"{name}:{line}: {room!r} is not a room"
            return
    if here == there or (here == "__main__" and there == "cli"):
        return
    apart = any({here, there} <= group for group in APART)
    if ROOMS.index(there) >= ROOMS.index(here) or apart:
        yield f"{name}:{line}: {here} imports {there}"


def _modules(tree: ast.AST, only_at_import: bool = False) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every imported module; `from jaxrec import data` counts as `jaxrec.data`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names if node.module == "jaxrec" else ():
                yield node.lineno, f"jaxrec.{alias.name}" if alias.name in ROOMS else "jaxrec"
            if node.module and node.module != "jaxrec":
                yield node.lineno, node.module
        elif only_at_import and (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or _typing(node)
        ):
            continue
        else:
            yield from _modules(node, only_at_import)


def _typing(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def test_the_house_is_in_order():
    assert violations(ROOT) == []


PLANTED = [
    ("jaxrec/models/a.py", "import jaxrec.training.loop", "models imports training"),
    ("jaxrec/models/a.py", "def f():\n    from jaxrec.runs import run", "models imports runs"),
    ("jaxrec/cells/a.py", "from jaxrec.losses import softmax", "cells imports losses"),
    ("jaxrec/losses/a.py", "from jaxrec import cells", "losses imports cells"),
    ("jaxrec/config.py", "from jaxrec.data.options import Preparation", "config imports data"),
    ("jaxrec/training/a.py", "from jaxrec.evaluation import ranks", "training imports evaluation"),
    ("jaxrec/training/a.py", "import jaxrec.reports.tables", "training imports reports"),
    ("jaxrec/runs/a.py", "import jaxrec", "runs imports __init__"),
    ("jaxrec/data/a.py", "def f():\n    import jax.numpy", "imports jax, which it must do without"),
    ("jaxrec/models/counting.py", "from flax import nnx", "imports flax, which it must do without"),
    (
        "jaxrec/data/a.py",
        "try:\n    import polars\nexcept ImportError:\n    pass",
        "polars is imported at the top",
    ),
    ("jaxrec/cli.py", "from tyro import cli", "tyro is imported at the top"),
    ("jaxrec/cells/a.py", "class A:\n    import torch", "torch is imported at the top"),
    ("jaxrec/cells/a.py", "from .gru import GRU", "relative import"),
    ("tests/a.py", "from . import b", "relative import"),
    ("jaxrec/sweeps/a.py", "import experiments.first", "jaxrec imports experiments"),
    ("jaxrec/kitchen/a.py", "from jaxrec.config import Call", "'kitchen' is not a room"),
    ("jaxrec/data/utils.py", "", "named after what it holds"),
    ("jaxrec/common/a.py", "", "named after what it holds"),
    ("experiments/a.py", "x = 1\n" * 401, "401 lines"),
    ("jaxrec/cells/a.py", "def long():\n" + "    x = 1\n" * 60, "long has 61 lines"),
    ("jaxrec/cells/a.py", "class A:\n    async def slow(self):\n" + "        x = 1\n" * 60, "slow has 61 lines"),
]


@pytest.mark.parametrize(("path", "source", "sentence"), PLANTED, ids=[sentence for _, _, sentence in PLANTED])
def test_a_planted_violation_is_found(tmp_path: Path, path: str, source: str, sentence: str):
    _plant(tmp_path, path, source)
    [found] = violations(tmp_path)
    assert sentence in found
    assert found.startswith(path)


ALLOWED = [
    ("jaxrec/training/a.py", "from jaxrec.parallel import strategy\nfrom jaxrec.cells import GRU\nimport jax"),
    ("jaxrec/data/a.py", "def f():\n    import polars"),
    ("jaxrec/data/a.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import polars"),
    ("jaxrec/cells/a.py", "from jaxrec.cells.cell import Cell\nfrom jaxrec.config import Mistake"),
    ("experiments/a.py", "import torch\nimport jaxrec"),
    ("jaxrec/cells/a.py", "def long():\n" + "    x = 1\n" * 59),
]


@pytest.mark.parametrize(("path", "source"), ALLOWED)
def test_what_is_allowed_is_not_reported(tmp_path: Path, path: str, source: str):
    _plant(tmp_path, path, source)
    assert violations(tmp_path) == []


def _plant(root: Path, path: str, source: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True)
    file.write_text(source)
