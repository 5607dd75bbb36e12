"""What went wrong in a cell, for the person who wrote it: the line of their file, what happened there, the remedy."""

import ast
import linecache
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FunctionType, TracebackType
from typing import Any, NamedTuple

import jax
from flax import nnx

from jaxrec.cells import Cell, Event
from jaxrec.config import first_line
from jaxrec.recurrence.checks import checked_initial

HOUSE = Path(__file__).resolve().parent.parent
TRACED: tuple[tuple[type[Exception], str], ...] = (  # the first that an error is an instance of
    (
        jax.errors.TracerBoolConversionError,
        "choose with jnp.where or jax.lax.cond: a Python if, while, and, or, not cannot look at an array's values",
    ),
    (
        jax.errors.TracerIntegerConversionError,
        "pick with jnp.take and repeat with jax.lax.fori_loop: Python cannot count with an array's values",
    ),
    (jax.errors.TracerArrayConversionError, "write jnp instead of np: numpy cannot look at an array's values"),
    (jax.errors.NonConcreteBooleanIndexError, "keep the shape, with jnp.where(mask, x, 0) instead of x[mask]"),
    (
        jax.errors.ConcretizationTypeError,
        "keep it an array, as for jnp.where or jax.lax.cond: float(), int(), .item() and shapes cannot look at values",
    ),
)
MADE: Mapping[str, str] = {  # how an operation comes to nan or inf
    "log": "log needs more than 0: use jnp.log1p, or jnp.log(jnp.maximum(x, small))",
    "div": "nothing can be divided by 0: add a small number below, or choose the divisor with jnp.where",
    "exp": "exp overflows above 88: keep its argument negative, or bound it",
    "sqrt": "sqrt needs 0 or more: use jnp.sqrt(jnp.maximum(x, 0))",
    "rsqrt": "a root to divide by needs more than 0: add a small number inside",
    "pow": "a power needs a base above 0: bound it from below",
}
NO_SLOPE = (
    "sqrt, log, norm, powers and division have none at 0, not even in the branch that jnp.where leaves out: put a safe "
    "number inside, as in jnp.sqrt(jnp.where(x > 0, x, 1))"
)


class NotFinite(Exception):
    """A cell made nan or inf; the message says how, and what to do."""


class Fault(NamedTuple):
    """``place`` is FILE:LINE, or empty where no frame lies in the cell's file; ``remedy`` is empty where none fits."""

    place: str
    said: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.place}: {self.said}" if self.place else self.said


def fault(error: BaseException, cell: Cell) -> Fault:
    """What ``error``, raised by running ``cell``, says to the person who wrote the cell."""
    found = frames(error, cell)
    text = first_line(error)
    known = next((remedy for kind, remedy in TRACED if isinstance(error, kind)), "")
    known = known or (TRACED[-1][1] if "concrete" in text else "")  # a shape of traced numbers is but a TypeError
    remedy = known or absent(text, found, cell) or shapes(text, found) or ("correct that line" if found else "")
    return Fault(place(found), f"{type(error).__name__}: {text}", remedy)


def place(found: list[TracebackType]) -> str:
    """FILE:LINE of the last frame; the file as seen from here where it lies below."""
    if not found:
        return ""
    file, here = Path(found[-1].tb_frame.f_code.co_filename), Path.cwd()
    return f"{file.relative_to(here) if file.is_relative_to(here) else file}:{found[-1].tb_lineno}"


def frames(error: BaseException, cell: Cell) -> list[TracebackType]:
    """The traceback's frames in the file of the cell's author: in ours only where the cell is ours."""
    files = {
        method.__code__.co_filename
        for part in parts(cell)
        for kind in type(part).__mro__
        if issubclass(kind, Cell)
        for method in vars(kind).values()
        if isinstance(method, FunctionType)
    }
    theirs = {file for file in files if not Path(file).is_relative_to(HOUSE)}
    chosen, found, trace = theirs or files, [], error.__traceback__
    while trace is not None:
        found += [trace] if trace.tb_frame.f_code.co_filename in chosen else []
        trace = trace.tb_next
    return found


def parts(cell: Cell) -> Iterator[Cell]:
    """A cell and the cells in it."""
    yield cell
    for value in vars(cell).values():
        for inner in value if isinstance(value, nnx.List) else (value,):
            if isinstance(inner, Cell):
                yield from parts(inner)


def absent(text: str, found: list[TracebackType], cell: Cell) -> str:
    """The remedy for work with a leaf that is None, because the cell does not say that it wants it."""
    if "NoneType" not in text:
        return ""
    used = [name for name in Event._fields if any(name in trace.tb_frame.f_code.co_names for trace in found)]
    missing = [name for name in used if name not in cell.wants and name != "key"]
    if missing:
        wants = ", ".join(f'"{name}"' for name in (*cell.wants, *missing))
        one = f"event.{missing[0]} is None for a cell that does not want it"
        return f"{one}; add it to wants, as in wants = ({wants})"
    return "event.key is None where nothing is random: be deterministic then" if "key" in used else ""


def shapes(text: str, found: list[TracebackType]) -> str:
    """The shapes of what stands in the expression that failed, where a mismatch of shapes is what failed."""
    if "shape" not in text.lower() or not found:
        return ""
    seen = ", ".join(f"{name} has shape {shape}" for name, shape in arrays(found[-1]).items())
    return f"{seen + ': ' if seen else ''}make them agree (a cell has neither a batch nor a time axis)"


def arrays(trace: TracebackType) -> dict[str, tuple[int, ...]]:
    """The shape of each name and attribute in the expression at which a frame stopped."""
    frame = trace.tb_frame
    first, last, begin, end = list(frame.f_code.co_positions())[trace.tb_lasti // 2]
    if first is None or last is None or begin is None or end is None:
        return {}
    lines = [line.encode() for line in linecache.getlines(frame.f_code.co_filename)[first - 1 : last]]
    if not lines:
        return {}
    lines[-1] = lines[-1][:end]
    lines[0] = lines[0][begin:]
    try:
        tree = ast.parse(f"({b''.join(lines).decode()})", mode="eval")
    except SyntaxError:
        return {}
    names = {**frame.f_globals, **frame.f_locals}
    found = {ast.unparse(node): value(node, names) for node in ast.walk(tree)}
    return {name: tuple(array.shape) for name, array in found.items() if isinstance(array, jax.Array | nnx.Variable)}


def value(node: ast.AST, names: Mapping[str, Any]) -> Any:
    """What ``a`` or ``a.b`` stands for; None for any other expression."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    return getattr(value(node.value, names), node.attr, None) if isinstance(node, ast.Attribute) else None


def not_finite(cell: Cell, events: Event, count: int) -> NotFinite:
    """Which line first makes a number of the ``count`` that are not finite, found by running event after event."""
    said = f"{count} numbers of states and outputs are nan or inf"
    ties = "; gap is 0 where events tie" if "gap" in cell.wants else ""
    try:
        with jax.debug_nans(True), jax.debug_infs(True), jax.disable_jit():
            step_by_step(cell, events)
    except FloatingPointError as error:
        operation = re.search(r"encountered in ([a-z_]+)", str(error))
        name = operation[1] if operation else "it"
        remedy = MADE.get(name, "keep what this line works with in bounds")
        where = place(frames(error, cell)) or type(cell).__name__
        return NotFinite(f"{where}: {said}, first of all what {name} gives there; {remedy}{ties}")
    return NotFinite(f"{said}; keep logarithms, divisions and powers away from 0{ties}")


def step_by_step(cell: Cell, events: Event) -> None:
    """Run every row of ``events (batch, time, ...)`` from its start, one operation at a time."""
    ready = cell.prepare()
    for row in range(events.x.shape[0]):
        state = checked_initial(ready)
        for time in range(events.x.shape[1]):
            projected = ready.project(jax.tree.map(lambda leaf, at=(row, time): leaf[at], events))
            state = ready.step(state, projected)
            ready.read(state, projected)
