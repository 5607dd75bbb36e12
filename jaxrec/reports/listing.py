"""What there is to choose from, read from the source with `ast`: listing cells never imports jax."""

import ast
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
Definition = ast.ClassDef | ast.FunctionDef


@dataclass(frozen=True)
class Entry:
    """One thing that can be named: its name, how to write it with its options, a sentence, and the file it is in."""

    name: str
    call: str
    sentence: str
    file: str


@dataclass(frozen=True)
class CellEntry(Entry):
    """A cell. ``kind``, ``state``, ``parameters`` and ``backends`` are the `Facts` at inputs and ``hidden`` of 128 that
    `scripts/tables.py` has written; None where it has not run since the cell was added.
    """

    family: str
    source: str  # authors and year
    link: str
    kind: str | None = None
    state: int | None = None
    parameters: int | None = None
    backends: Sequence[str] = ()


def entries(what: str, root: Path = ROOT) -> list[Entry]:
    """All `cells`, `data`, `losses`, `metrics` or `backends` of the package under `root`, sorted by name."""
    return sorted(_KINDS[what](root), key=lambda entry: entry.name)


def _cells(root: Path) -> Iterator[Entry]:
    written = root / "cells" / "facts.json"
    facts = json.loads(written.read_text(encoding="utf-8")) if written.exists() else {}
    for name, node, file in _exports(root, "jaxrec.cells"):
        if not isinstance(node, ast.ClassDef) or _abstract(node):
            continue
        above = list(_ancestors(root, node, file))
        if "Cell" in [base for base, _ in above]:
            entry = _entry(name.lower(), node, file, root)
            family = next(filter(None, map(_family, [node, *[found for _, found in above]])), "")
            source, link = _source(node)
            yield CellEntry(**asdict(entry), family=family, source=source, link=link, **facts.get(entry.name, {}))


def _family(node: ast.stmt | None) -> str | None:
    """The text that a class assigns to `family`."""
    for part in node.body if isinstance(node, ast.ClassDef) else ():
        target = part.targets[0] if isinstance(part, ast.Assign) else getattr(part, "target", None)
        value = getattr(part, "value", None)
        if isinstance(target, ast.Name) and target.id == "family" and isinstance(value, ast.Constant):
            return str(value.value)
    return None


def _source(node: ast.ClassDef) -> tuple[str, str]:
    """Authors with year, and the first link of a docstring."""
    text = " ".join((ast.get_docstring(node) or "").split())
    authors, link = re.search(r"\(([A-Z][^()]*? \d{4})[a-z]?[^()]*\)", text), re.search(r"https?://[^\s,;)]+", text)
    return authors[1] if authors else "", link[0].rstrip(".:") if link else ""


def _losses(root: Path) -> Iterator[Entry]:
    for name, node, file in _exports(root, "jaxrec.losses"):
        if isinstance(node, ast.ClassDef):
            above = [found for _, found in _ancestors(root, node, file) if isinstance(found, ast.ClassDef)]
            fields = {one.partition("=")[0]: one for kind in [*reversed(above), node] for one in _options(kind)}
            written = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z0-9])(?=[A-Z][a-z])", "_", name).lower()
            yield Entry(written, f"{written}({', '.join(fields.values())})", _sentence(node), _relative(file, root))


def _metrics(root: Path) -> Iterator[Entry]:
    for entry in _table(root, "jaxrec.metrics.ranking", "METRICS"):
        yield replace(entry, call=f"{entry.name}@K")
    for entry in _table(root, "jaxrec.metrics.lists", "LISTS"):
        yield replace(entry, call=f"{entry.name}@K", sentence=f"About the lists of a run. {entry.sentence}")


def _backends(root: Path) -> Iterator[Entry]:
    yield from _table(root, "jaxrec.recurrence.backends", "BACKENDS")


def _data(root: Path) -> Iterator[Entry]:
    """The generator, and every kind of file that `read.py` has a `read_KIND` for; its content says which."""
    demo, home = _definition(root, _file(root, "jaxrec.data.demo"), "Demo")
    yield Entry("demo", "demo", _sentence(demo), _relative(home, root))
    file = _file(root, "jaxrec.data.read")
    for node in _parse(file).body:
        names = (
            [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else [getattr(node, "name", "")]
        )
        for name in (name for name in names if name.startswith("read_")):
            found, home = _definition(root, file, name)
            kind = name.removeprefix("read_")
            yield Entry(kind, "tfds:NAME" if kind == "tfds" else "FILE", _sentence(found), _relative(home, root))


_KINDS: dict[str, Callable[[Path], Iterator[Entry]]] = {
    "cells": _cells,
    "data": _data,
    "losses": _losses,
    "metrics": _metrics,
    "backends": _backends,
}


def _table(root: Path, module: str, table: str) -> Iterator[Entry]:
    """The rows of a dict in plain sight, `TABLE = {"name": Class, ...}`."""
    file = _file(root, module)
    for node in _parse(file).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == table for target in targets):
            value = getattr(node, "value", None)
            for key, row in zip(value.keys, value.values, strict=True) if isinstance(value, ast.Dict) else ():
                if isinstance(key, ast.Constant) and isinstance(row, ast.Name):
                    found, home = _definition(root, file, row.id)
                    yield _entry(str(key.value), found, home, root)


def _exports(root: Path, package: str) -> Iterator[tuple[str, Definition, Path]]:
    """Name, definition and file behind every `from ... import name` in the package's `__init__.py`."""
    file = _file(root, package)
    for node in _parse(file).body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                found, home = _definition(root, file, alias.asname or alias.name)
                if isinstance(found, ast.ClassDef | ast.FunctionDef):
                    yield alias.asname or alias.name, found, home


def _definition(root: Path, file: Path, name: str) -> tuple[ast.stmt | None, Path]:
    """Follow imports from `file` to the statement that defines `name`; None where it is none of ours."""
    for node in _parse(file).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return node, file
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jaxrec"):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _definition(root, _file(root, node.module or ""), alias.name)
    return None, file


def _ancestors(root: Path, node: ast.ClassDef, file: Path) -> Iterator[tuple[str, ast.stmt | None]]:
    for base in node.bases:
        name = base.value if isinstance(base, ast.Subscript) else base
        if isinstance(name, ast.Name):
            found, home = _definition(root, file, name.id)
            yield name.id, found
            if isinstance(found, ast.ClassDef):
                yield from _ancestors(root, found, home)


def _abstract(node: ast.ClassDef) -> bool:
    """A class that cannot be built: it declares an abstract method, or has no `__init__` of its own."""
    methods = [part for part in node.body if isinstance(part, ast.FunctionDef)]
    declared = any("abstractmethod" in ast.unparse(mark) for method in methods for mark in method.decorator_list)
    return declared or not _method(node, "__init__")


def _entry(name: str, node: ast.stmt | None, file: Path, root: Path) -> Entry:
    options = ", ".join(_options(node)) if isinstance(node, ast.ClassDef) else ""
    return Entry(name, f"{name}({options})" if options else name, _sentence(node), _relative(file, root))


def _options(node: ast.ClassDef) -> Iterator[str]:
    """What a user may give: the arguments of `__init__` but those the house passes, or the fields of a dataclass."""
    init = _method(node, "__init__")
    if init is None:
        for part in node.body:
            if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                yield part.target.id + (f"={ast.unparse(part.value)}" if part.value else "")
        return
    positional = init.args.posonlyargs + init.args.args
    defaults = [None] * (len(positional) - len(init.args.defaults)) + list(init.args.defaults)
    pairs = [*zip(positional, defaults, strict=True), *zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True)]
    for argument, default in pairs:
        if argument.arg not in ("self", "features", "rngs"):
            yield argument.arg + (f"={ast.unparse(default)}" if default else "")


def _method(node: ast.ClassDef, name: str) -> ast.FunctionDef | None:
    return next((part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == name), None)


def _sentence(node: ast.stmt | None) -> str:
    text = ast.get_docstring(node) if isinstance(node, ast.ClassDef | ast.FunctionDef) else None
    first = (text or "").split("\n\n")[0].replace("\n", " ").replace("``", "")
    return re.split(r"(?<=\.) (?=[A-Z])", first)[0]


def _file(root: Path, module: str) -> Path:
    inside = root.joinpath(*module.split(".")[1:])
    return inside / "__init__.py" if inside.is_dir() else inside.with_suffix(".py")


def _relative(file: Path, root: Path) -> str:
    return file.relative_to(root.parent).as_posix()


def _parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))
