"""Everything that the laws are applied to: cells and backends with every value of their closed options."""

import inspect
import itertools
import types
import typing
from collections.abc import Iterator
from typing import Any

from jaxrec.cells.find import ours
from jaxrec.config import Call
from jaxrec.recurrence.backends import BACKENDS


def cells() -> list[Call]:
    """Every exported cell in every variant."""
    return [call for name, kind in ours().items() for call in variants(name, kind.__init__)]


# choices that are not closed: chunks shorter than the laws' sequences, and another preference
OPEN = ("associative(chunk=4)", "chunkwise(chunk=4)", "composite(prefer=associative)")


def backends() -> list[Call]:
    """Every backend in every variant."""
    closed = [call for name, kind in BACKENDS.items() for call in variants(name, kind)]
    return closed + [Call.parse(text) for text in OPEN]


def variants(name: str, function: Any) -> Iterator[Call]:
    """The thing as it is by default, and with every other value of each yes-or-no or closed choice."""
    yield Call(name)
    for parameter in inspect.signature(function, eval_str=True).parameters.values():
        for choice in choices(parameter.annotation):
            if choice not in (None, parameter.default):
                yield Call(name, options={parameter.name: choice})


def choices(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) is typing.Literal:
        return typing.get_args(annotation)
    if isinstance(annotation, types.UnionType):
        return tuple(itertools.chain.from_iterable(map(choices, typing.get_args(annotation))))
    return (False, True) if annotation is bool else ()
