"""How the words of a command line become the options of a verb, by one rule for all of them."""

import contextlib
import io
import itertools
import re
import types
import typing
from collections.abc import Callable
from typing import Any, TypeVar

from jaxrec.config import Call, Mistake, Section, did_you_mean, keys

S = TypeVar("S", bound=Section)

# verbs whose required options are written without their names
POSITIONAL = ("list", "check", "compare", "inspect", "report")
PAIRED = (
    "train",
    "diagnose",
)  # verbs whose truth values have a flag for yes and one for no: a file may have said the other


def given(argv: list[str], cls: type[Section]) -> list[str]:
    """Dotted keys that the flags name."""
    words = {word[2:].partition("=")[0].replace("-", "_") for word in argv if word.startswith("--")}
    named = words | {_positive(word) for word in words}
    return [key for key in keys(cls) if key in named]


def parse(cls: type[S], argv: list[str], verb: str, *, default: S | None = None) -> S:
    import tyro

    _refuse_unknown(argv, cls)
    registry = tyro.constructors.ConstructorRegistry()
    registry.primitive_rule(_primitive)
    markers: list[Any] = [] if verb in PAIRED else [tyro.conf.FlagCreatePairsOff]
    markers += [tyro.conf.PositionalRequiredArgs] if verb in POSITIONAL else []
    extra: dict[str, Any] = {} if default is None else {"default": default}
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(cls, prog=f"jaxrec {verb}", args=argv, registry=registry, config=markers, **extra)
    except SystemExit as end:
        if end.code in (0, None):  # --help
            raise
        raise Mistake(f"{_sentence(said.getvalue())}; jaxrec {verb} --help shows what it takes") from None


def _sentence(box: str) -> str:
    """What tyro says in the first part of a message, framed or ruled below its title."""
    lines = [line.strip("\u2502 ") for line in box.splitlines()[1:]]
    rule = lambda line: not line.strip("\u2500-")  # noqa: E731
    said = " ".join(itertools.takewhile(lambda line: not rule(line), itertools.dropwhile(rule, lines))).rstrip(".")
    if missing := re.match(r"Missing from [^:]*: (--\S+)", said):
        return f"{missing[1]} is missing"
    return re.sub(r"^Error parsing ([A-Z]\w*: )?", "", said)  # a class of ours is nothing that a reader knows


def _primitive(info: Any) -> Any:
    """How tyro reads a `Call` and anything that may be none; help shows `INT`, not `{None}|INT`."""
    from tyro.constructors import PrimitiveConstructorSpec

    if info.type == tuple[str, ...]:
        return PrimitiveConstructorSpec(
            nargs="*",
            metavar="STR ...",
            instance_from_str=lambda words: () if words == ["none"] else tuple(words),
            is_instance=lambda value: isinstance(value, tuple) and all(isinstance(word, str) for word in value),
            str_from_instance=lambda value: list(value) or ["none"],
        )
    union = typing.get_origin(info.type) in (typing.Union, types.UnionType)
    choices = [_bare(choice) for choice in (typing.get_args(info.type) if union else (info.type,))]
    optional = union and type(None) in choices
    kind = next((choice for choice in choices if choice is not type(None)), None)
    if optional and typing.get_origin(kind) is typing.Literal:
        return _one_of(typing.get_args(kind))
    if kind is None or kind not in READERS or (kind is str and not optional):
        return None
    read = READERS[kind]
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=("NAME(OPTION=VALUE,...)|none" if optional else "NAME(...)") if kind is Call else kind.__name__.upper(),
        instance_from_str=lambda words: None if optional and words[0].lower() == "none" else read(words[0]),
        is_instance=lambda value: isinstance(value, kind) or (optional and value is None),
        str_from_instance=lambda value: ["none" if value is None else str(value)],
    )


def _one_of(words: tuple[str, ...]) -> Any:
    """How tyro reads one of some words, or none."""
    from tyro.constructors import PrimitiveConstructorSpec

    def read(given: list[str]) -> str | None:
        if given[0].lower() == "none":
            return None
        if given[0] not in words:
            raise ValueError(f"{given[0]!r} is not one of none, {', '.join(words)}{did_you_mean(given[0], words)}")
        return given[0]

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{{none,{','.join(words)}}}",
        instance_from_str=read,
        is_instance=lambda value: value is None or value in words,
        str_from_instance=lambda value: ["none" if value is None else value],
    )


def _number(kind: type[Any], description: str) -> Callable[[str], Any]:
    def read(word: str) -> Any:
        try:
            return kind(word)
        except ValueError:
            raise ValueError(f"{word!r} is not {description}") from None

    return read


READERS: dict[Any, Callable[[str], Any]] = {
    Call: Call.parse,
    str: str,
    int: _number(int, "a whole number"),
    float: _number(float, "a number"),
}


def _bare(annotation: Any) -> Any:
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is typing.Annotated else annotation


def _refuse_unknown(argv: list[str], cls: type[Section]) -> None:
    known = ["help", *keys(cls)]
    for word in argv:
        name = word[2:].partition("=")[0].replace("-", "_")
        if word.startswith("--") and name not in known and _positive(name) not in known:
            close = did_you_mean(_positive(name), known).replace("_", "-").replace("'", "'--", 1)
            raise Mistake(f"{word.partition('=')[0]!r} is not an option{close or '; --help lists them'}")


def _positive(name: str) -> str:
    """`model.no_bias` is the flag that sets `model.bias` to false."""
    return re.sub(r"(^|\.)no_(?=\w+$)", r"\1", name)
