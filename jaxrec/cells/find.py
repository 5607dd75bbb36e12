"""From a call such as ``gru(hidden=64)`` or ``my_cell.py:MyCell(hidden=64)`` to a cell."""

import hashlib
import inspect
import sys
import traceback
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax import nnx

from jaxrec.cells.cell import Cell
from jaxrec.cells.weights import positive
from jaxrec.config import Call, Mistake, did_you_mean, first_line, squash

GIVEN = ("self", "features", "rngs")  # what the house passes; the rest is the user's to choose
_FILES: dict[tuple[Path, str], types.ModuleType] = {}
_INSTEAD: dict[str, Path] = {}


def find(call: Call, features: int, *, hidden: int, rngs: nnx.Rngs, allow_code: bool = True) -> Cell:
    """Build the cell that ``call`` names, for inputs ``(features,)``.

    ``hidden`` is used when the cell takes it and the call does not give it. A call among the arguments is a cell
    inside a cell, with the ``hidden`` of the call around it unless it gives its own. `Mistake` for a name, file or
    option that does not exist, and for a user's file when ``allow_code`` is False.
    """
    kind = locate(call, allow_code=allow_code)
    options = bind(call, kind)
    for name, value in options.items():
        if isinstance(value, Call):
            inner = options.get("hidden", hidden)
            options[name] = find(value, features, hidden=inner, rngs=rngs, allow_code=allow_code)
    given = {"features": features, "hidden": hidden, "rngs": rngs}
    accepted = inspect.signature(kind.__init__).parameters
    chosen = {name: value for name, value in given.items() if name in accepted} | options
    if call.file is None:
        return kind(**chosen)
    try:
        return kind(**chosen)
    except Exception as error:
        raise failed(call.file, error) from error


def locate(call: Call, *, allow_code: bool = True) -> type[Cell]:
    """The class that ``call`` names: one of ours, or one in the user's file."""
    if call.file is None:
        choices = ours()
    else:
        if not allow_code:
            raise Mistake(f"{call} would run code from {call.file}; if you trust it, --allow-code (allow_code=True)")
        names = vars(load(call.file))
        choices = exported(names)
    squashed = {squash(name): kind for name, kind in choices.items()}
    if squash(call.name) not in squashed:
        if call.file is None:
            there = did_you_mean(call.name, choices) or " (jaxrec list cells shows them)"
            raise Mistake(f"jaxrec has no cell {call.name!r}{there}; a cell of your own is named file.py:Name")
        raise Mistake(missing(call, names, choices))
    return squashed[squash(call.name)]


def missing(call: Call, names: Mapping[str, Any], choices: Mapping[str, type[Cell]]) -> str:
    """What a user's file with ``names`` has where ``call`` finds no cell among its ``choices``."""
    known = f"it has {', '.join(sorted(choices))}" if choices else "it has none"
    example = f"{call.file}:{min(choices, default='NAME')}"
    if not call.name:
        return f"{call.file} is a file, and no cell of it is named ({known}); write {example}"
    found = next((value for name, value in names.items() if squash(name) == squash(call.name)), None)
    if found is None:
        hint = did_you_mean(call.name, choices) or "; a cell is a class with Cell as base that defines its methods"
        return f"{call.file} has no cell {call.name!r} ({known}){hint}"
    if isinstance(found, type) and issubclass(found, Cell):
        if found.__module__ != names["__name__"]:
            return f"{call.name} is imported into {call.file}, not written there ({known}); name where it comes from"
        lacks = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
        return f"{call.name} in {call.file} is abstract ({known}); define {lacks}"
    what = "class" if isinstance(found, type) else type(found).__name__
    return f"{call.name} in {call.file} is a {what} and no cell ({known}); a cell is a class with Cell as base"


def ours() -> dict[str, type[Cell]]:
    """Every cell that `jaxrec.cells` exports, by name."""
    return exported(vars(sys.modules["jaxrec.cells"]), anywhere=True)


def exported(names: Mapping[str, Any], *, anywhere: bool = False) -> dict[str, type[Cell]]:
    """Concrete cell classes in a module's namespace; imported ones only when ``anywhere``."""
    return {
        name: kind
        for name, kind in names.items()
        if isinstance(kind, type)
        and issubclass(kind, Cell)
        and not inspect.isabstract(kind)
        and (anywhere or kind.__module__ == names["__name__"])
    }


def path_of(file: str) -> Path:
    return _INSTEAD.get(file) or Path(file).expanduser().resolve()


def instead(copies: Mapping[str, Path]) -> None:
    """From now on read copies in the place of these files, which this machine may lack: the names of cells, and with
    them what a run is, stay those of the machine that they come from.
    """
    _INSTEAD.update(copies)


def load(file: str) -> types.ModuleType:
    """Run a user's file once per path and content, so that equal cells have equal types and nothing compiles twice."""
    path = path_of(file)
    try:
        source = path.read_bytes()
    except OSError as error:
        raise Mistake(
            f"{file} cannot be read ({error.strerror}); give the path of a Python file that holds a cell"
        ) from error
    key = path, hashlib.sha256(source).hexdigest()
    if key not in _FILES:
        module = types.ModuleType(f"jaxrec_user_{path.stem}_{key[1][:12]}")
        module.__file__ = str(path)
        try:
            code = compile(source, str(path), "exec")
        except SyntaxError as error:
            raise Mistake(f"{file}:{error.lineno}: {error.msg}; correct the file") from error
        sys.modules[module.__name__] = module  # dataclasses and annotations look their module up
        try:
            exec(code, vars(module))
        except Exception as error:
            raise failed(file, error) from error
        _FILES[key] = module
    return _FILES[key]


def failed(file: str, error: Exception) -> Mistake:
    """What a user's file raised, with its line, in a sentence."""
    if isinstance(error, Mistake):
        return error
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path_of(file)
    ]
    place = f"{file}:{lines[-1]}" if lines else file
    return Mistake(f"{place}: {type(error).__name__}: {first_line(error)}; correct the file")


def bind(call: Call, kind: type[Cell]) -> dict[str, Any]:
    """The call's arguments by name, each checked against the class's signature."""
    try:
        signature = inspect.signature(kind.__init__, eval_str=True)
    except NameError:  # an annotation that cannot be evaluated is not checked
        signature = inspect.signature(kind.__init__)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    parameters = {name: p for name, p in signature.parameters.items() if name not in GIVEN}
    places = [name for name, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    if len(call.arguments) > len(places):
        raise Mistake(
            f"{call}: {kind.__name__} takes {len(places)} arguments by place ({', '.join(places)}); name the others"
        )
    options = dict(zip(places, call.arguments, strict=False))
    for name, value in call.options.items():
        if name in options:
            raise Mistake(f"{call} gives {name!r} twice; keep one")
        if name not in parameters and not open_ended:
            accepted = ", ".join(parameters) or "none"
            raise Mistake(f"{kind.__name__} has no option {name!r} (it has {accepted}){did_you_mean(name, parameters)}")
        options[name] = value
    needed = [
        n for n, p in parameters.items() if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]
    for name in needed:
        if name not in options and name != "hidden":
            raise Mistake(f"{kind.__name__} needs {name!r}; write {call.name}({name}=...)")
    return {name: checked(kind, name, value, parameters.get(name)) for name, value in options.items()}


def checked(kind: type[Cell], name: str, value: Any, parameter: inspect.Parameter | None) -> Any:
    """``value`` if it fits the parameter's annotation; a bare word where text is expected is that text."""
    annotation = inspect.Parameter.empty if parameter is None else parameter.annotation
    textual = annotation is str or typing.get_origin(annotation) is typing.Literal
    if textual and isinstance(value, Call) and value.bare:
        value = value.name
    if typing.get_origin(annotation) is typing.Literal:
        choices = typing.get_args(annotation)
        if value not in choices:
            raise Mistake(
                f"{kind.__name__}: {name}={value!r} is not one of {', '.join(map(str, choices))}; choose one of these"
            )
    elif annotation is float and type(value) is int:
        return float(value)
    elif annotation in (bool, int, float, str) and type(value) is not annotation:
        raise Mistake(
            f"{kind.__name__}: {name}={value!r} is not {annotation.__name__}; give {name} as {annotation.__name__}"
        )
    if name == "hidden":
        positive(hidden=value)
    return value
