"""What an option may be told, as text or as a value: checked as its field checks it."""

import functools
import math
import typing
from typing import Any

from jaxrec.config import Call, Mistake, checked, did_you_mean, field_types, keys
from jaxrec.runs.options import Config
from jaxrec.sweeps import grammar
from jaxrec.sweeps.domains import Range, is_range, read_range


@functools.cache
def annotations() -> dict[str, Any]:
    found = {}
    for key in keys(Config):
        *sections, name = key.split(".")
        found[key] = field_types(functools.reduce(lambda cls, part: field_types(cls)[part], sections, Config))[name]
    return found


def close(name: str) -> str:
    for leaf in annotations():
        if name.startswith(f"{leaf}."):
            return f'; {leaf} is one option, so write {leaf} = "name({name.removeprefix(leaf + ".")}={{1|2}})"'
    return did_you_mean(name, annotations()) or "; jaxrec train --help lists them"


def bare(annotation: Any) -> tuple[Any, bool]:
    """An annotation without bounds, and whether it admits none."""
    if typing.get_origin(annotation) is typing.Annotated:
        return bare(typing.get_args(annotation)[0])
    arguments = typing.get_args(annotation)
    if type(None) in arguments:
        return bare(next(entry for entry in arguments if entry is not type(None)))[0], True
    return annotation, False


def kind_of(annotation: Any) -> Any:
    return bare(annotation)[0]


def plain_value(name: str, annotation: Any, value: Any) -> Any:
    """A value as JSON has it, checked as the option's field checks it."""
    try:
        found = checked(value, annotation, name)
    except OverflowError:
        raise Mistake(f"{name} = {short(value)} is beyond every float; give a smaller number") from None
    if isinstance(found, float) and not math.isfinite(found):
        raise Mistake(f"{name} = {value!r} is not finite; give a number")
    return list(found) if isinstance(found, tuple) else str(found) if isinstance(found, Call) else found


def value_of(name: str, annotation: Any, text: str) -> Any:
    """The plain value that a text means for an option."""
    kind, optional = bare(annotation)
    if is_range(text):
        raise Mistake(f"{text!r} is a range among choices; a range stands alone, so write it without '|'")
    if optional and text.lower() == "none":
        return None
    return plain_value(name, annotation, typed(kind, text))


def typed(kind: Any, text: str) -> Any:
    """A text in a field's type; itself where it cannot be, for the field to refuse."""
    if kind in (int, float):
        found = number(text)
        return found if kind is float or isinstance(found, int) else text
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    if typing.get_origin(kind) is tuple:
        return words(text)
    return text if kind is Call else grammar.unquoted(text)


def number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def words(text: str) -> list[Any]:
    """A list as TOML has it, or words with blanks between them, as on the command line."""
    if not text.startswith("["):
        return [] if text == "none" else [grammar.unquoted(word) for word in grammar.split(text, r"\s+") if word]
    entries = Call.parse(f"f({text})").arguments
    if len(entries) != 1 or not isinstance(entries[0], tuple) or not all(isinstance(word, str) for word in entries[0]):
        raise Mistake(f'{text!r} is not a list of texts; write ["a", "b"], or a b')
    return list(entries[0])


def range_of(name: str, annotation: Any, text: str) -> Range:
    """A range whose ends the option takes."""
    kind, found = kind_of(annotation), read_range(text)
    if kind not in (int, float):
        raise Mistake(f"{text!r} is a range of numbers, and {name} takes none; write its values as in a|b")
    if kind is int and not found.whole:
        raise Mistake(f"{text!r} is not whole, and {name} is; write {'logint' if found.log else 'int'}(...)")
    for end in (found.low, found.high):
        plain_value(name, annotation, end)
    return found


def short(value: Any) -> str:
    """A value as a message shows it."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:160]}...{text[-1]}"
