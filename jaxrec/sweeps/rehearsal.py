"""Names and options of cells and losses in a space, looked at before anything is trained.

What is wrong with a value alone is said at once; what only some of its company makes wrong is a trial's own result.
"""

import ast
from pathlib import Path

from jaxrec.cells.find import GIVEN, bind, locate, path_of
from jaxrec.config import Call, Mistake, did_you_mean, resolve, squash
from jaxrec.runs import build
from jaxrec.runs.options import Config
from jaxrec.sweeps.space import Space, covering


def rehearse(space: Space) -> None:
    """`Mistake` for a cell or a loss that is not there, or that does not take an option given to it.

    Nothing is built: this process must not take hold of a device. So a file of the user's is read and not run.
    """
    seen = set()
    for _, _, points in covering(space):
        for point in points:
            try:
                config = resolve(Config, flags=space.flags(point)).section
            except Mistake:
                continue  # `Space` has looked at that
            for name, call, look in (("model.cell", config.model.cell, cell), ("loss", config.loss, build.loss)):
                if str(call) not in seen:
                    seen.add(str(call))
                    _about(name, call, look)
            break


def _about(name: str, call: Call, look: object) -> None:
    try:
        look(call)  # type: ignore[operator]
    except Mistake as mistake:
        raise Mistake(f"{name} = {str(call)!r}: {mistake}") from None


def cell(call: Call) -> None:
    """`Mistake` where a cell, or one inside it, is not there or is called wrongly."""
    if call.file is not None:
        named(call)
        return
    for value in bind(call, locate(call)).values():
        if isinstance(value, Call):
            cell(value)


def named(call: Call) -> None:
    """`Mistake` where a file of the user's defines nothing of that name."""
    path = path_of(str(call.file))
    try:
        body = ast.parse(path.read_bytes(), str(path)).body
    except OSError as error:
        raise Mistake(f"{call.file}: cannot be read ({error.strerror}); give the path of a file with a cell") from None
    except (SyntaxError, ValueError) as error:
        raise Mistake(f"{Path(path).name}: {error}; correct the file") from None
    defined = _defined(body)
    if not defined & {squash(call.name)} and not _open(body):
        known = [node.name for node in body if isinstance(node, ast.ClassDef)]
        there = f"it has {', '.join(known)}" if known else "it has no class"
        raise Mistake(f"{call.file} has no cell {call.name!r} ({there}){did_you_mean(call.name, known)}")
    for node in body:
        if isinstance(node, ast.ClassDef) and squash(node.name) == squash(call.name):
            accepts(call, node)


def accepts(call: Call, node: ast.ClassDef) -> None:
    """`Mistake` where a class has an ``__init__`` of its own without an option that is given."""
    made = next((one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"), None)
    if made is None or made.args.kwarg is not None:
        return
    taken = [one.arg for one in (*made.args.posonlyargs, *made.args.args, *made.args.kwonlyargs)]
    known = [name for name in taken if name not in GIVEN]
    for name in call.options:
        if name not in known:
            has = ", ".join(known) or "none"
            raise Mistake(f"{node.name} has no option {name!r} (it has {has}){did_you_mean(name, known)}")


def _defined(body: list[ast.stmt]) -> set[str]:
    """Names that a module gives something to, squashed."""
    names = {node.name for part in body for node in ast.walk(part) if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    names |= {node.id for part in body for node in ast.walk(part) if isinstance(node, ast.Name)}
    return {squash(name) for name in names}


def _open(body: list[ast.stmt]) -> bool:
    """Whether a module has names that reading it does not show."""
    return any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in body)
