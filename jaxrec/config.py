"""Strict configuration: frozen sections with one rule for Python, TOML files and the command line.

Every option is a field of a `Section`. A value is checked when its section is built, wherever it came from, so
`Model(width="x")`, `width = "x"` in a file and `--model.width x` fail alike. This module knows no other room.
"""

import dataclasses
import functools
import hashlib
import json
import sys
import tomllib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, Union

from jaxrec.words import Call, Mistake, did_you_mean, first_line, squash

__all__ = [
    "Call",
    "Mistake",
    "Resolved",
    "Section",
    "Watch",
    "Within",
    "changed",
    "checked",
    "did_you_mean",
    "field_types",
    "fingerprint",
    "first_line",
    "from_dict",
    "idle",
    "keys",
    "resolve",
    "squash",
    "to_dict",
    "value_at",
    "watch",
]

S = TypeVar("S", bound="Section")


@dataclasses.dataclass(frozen=True)
class Within:
    """Bounds of a number, as `Annotated[float, Within(0, 1)]`; both ends belong, except `low` when `above` is true."""

    low: float = float("-inf")
    high: float = float("inf")
    above: bool = False

    def admits(self, value: float) -> bool:
        return (self.low < value if self.above else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        low = f"{'above' if self.above else 'at least'} {self.low:g}" if self.low > float("-inf") else ""
        high = f"at most {self.high:g}" if self.high < float("inf") else ""
        return " and ".join(part for part in (low, high) if part)


class Section:
    """Base of configuration sections: `@dataclass(frozen=True, kw_only=True) class Model(Section)`.

    Building one checks and converts every field (a whole number for a float field, text for a `Call`); an illegal
    value is a `Mistake`. While a `watch` is open, reading a field is recorded. A subclass with its own
    `__post_init__` calls `super().__post_init__()` first.
    """

    def __post_init__(self) -> None:
        for name, annotation in field_types(type(self)).items():
            object.__setattr__(self, name, checked(object.__getattribute__(self, name), annotation, name))

    def __getattribute__(self, name: str) -> Any:
        if _WATCHES and sys._getframe(1).f_code.co_name not in _SILENT:
            for open_watch in _WATCHES:
                open_watch.saw(self, name)
        return object.__getattribute__(self, name)


def field_types(cls: type[Section]) -> dict[str, Any]:
    """The resolved annotation of every field of a section, in the order of the fields."""
    return _annotations(cls)  # type: ignore[arg-type]  # a class is hashable


@functools.cache
def _annotations(cls: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return {entry.name: hints[entry.name] for entry in dataclasses.fields(cls)}


def keys(cls: type[Section], prefix: str = "") -> list[str]:
    """Dotted names of all leaf options of a section class, in order: `["data", ..., "model.cell", ...]`."""
    found = []
    for name, annotation in field_types(cls).items():
        inner = _section(annotation)
        found += keys(inner, f"{prefix}{name}.") if inner else [f"{prefix}{name}"]
    return found


def value_at(section: Section, key: str) -> Any:
    """The value at a dotted key, without counting as a read."""
    value: Any = section
    for name in key.split("."):
        value = object.__getattribute__(value, name)
    return value


def _section(annotation: Any) -> type[Section] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


# One rule for values. `checked` returns the value in the field's type or raises a Mistake that starts with the key.


def checked(value: Any, annotation: Any, key: str) -> Any:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        value = checked(value, arguments[0], key)
        for rule in arguments[1:]:
            if isinstance(rule, Within) and value is not None and not rule.admits(value):
                raise Mistake(f"{key} = {value!r} is out of range; give a number {rule}")
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return checked(value, next(choice for choice in arguments if choice is not type(None)), key)
    if origin is Literal:
        return _choice(value, arguments, key)
    if origin is tuple:
        return _tuple(value, arguments, key)
    if annotation is Call and isinstance(value, str):
        return _parsed(value, key)
    if annotation is float and type(value) is int:
        return float(value)
    if isinstance(value, annotation) and not (annotation is not bool and isinstance(value, bool)):
        return value
    raise Mistake(f"{key} = {value!r} is not {_WANTED.get(annotation, annotation.__name__)}")


_WANTED = {
    int: "a whole number; write it without quotes, as in 3",
    float: "a number; write it without quotes, as in 0.5",
    bool: "a truth value; write true or false without quotes",
    str: "text; put it in quotes",
    Call: 'a name with options; write it as in "gru(hidden=64)"',
}


def _choice(value: Any, choices: tuple[Any, ...], key: str) -> Any:
    if value in choices and type(value) in map(type, choices):
        return value
    listed = ", ".join(map(repr, choices))
    raise Mistake(f"{key} = {value!r} is not one of {listed}{did_you_mean(str(value), map(str, choices))}")


def _tuple(value: Any, arguments: tuple[Any, ...], key: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise Mistake(f'{key} = {value!r} is not a list; write it as in ["a", "b"]')
    if arguments[-1] is Ellipsis:
        arguments = arguments[:1] * len(value)
    if len(arguments) != len(value):
        raise Mistake(f"{key} = {value!r} has {len(value)} entries; give {len(arguments)}")
    return tuple(
        checked(entry, kind, f"{key}[{n}]") for n, (entry, kind) in enumerate(zip(value, arguments, strict=True))
    )


def _parsed(value: str, key: str) -> Call:
    try:
        return Call.parse(value)
    except Mistake as mistake:
        raise Mistake(f"{key} = {mistake}") from None


def changed(section: S, **changes: Any) -> S:
    """A copy with other values. Unlike `dataclasses.replace` this reads nothing; reading the copy does."""
    kept = {name: object.__getattribute__(section, name) for name in field_types(type(section))}
    copy = type(section)(**kept | changes)
    for open_watch in _WATCHES:
        open_watch.follow(section, copy)
    return copy


def to_dict(section: Section) -> dict[str, Any]:
    """Plain nested dict of JSON values; calls become their canonical text. Does not count as reading."""
    return {name: _plain(object.__getattribute__(section, name)) for name in field_types(type(section))}


def _plain(value: Any) -> Any:
    if isinstance(value, Section):
        return to_dict(value)
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, Call) else value


def from_dict(cls: type[S], mapping: Mapping[str, Any], where: str = "configuration") -> S:
    """Build a section from a nested mapping; missing keys keep their defaults.

    An unknown key, a wrong type or a value out of range is a `Mistake` that starts with `where` and names the key.
    """
    try:
        return _built(cls, mapping, "")
    except Mistake as mistake:
        raise Mistake(f"{where}: {mistake}") from None


def _built(cls: type[S], mapping: Mapping[str, Any], prefix: str) -> S:
    known = field_types(cls)
    given: dict[str, Any] = {}
    for raw, value in mapping.items():
        name = raw.replace("-", "_")
        if name not in known:
            raise Mistake(f"unknown key {prefix + raw!r}{_hint(cls, prefix, name)}")
        if name in given:
            raise Mistake(f"{prefix + name!r} is given twice, once with '-' and once with '_'; keep one")
        inner = _section(known[name])
        if inner is None:
            given[name] = checked(value, known[name], prefix + name)
        elif isinstance(value, Mapping):
            given[name] = _built(inner, value, f"{prefix}{name}.")
        else:
            raise Mistake(
                f"{prefix + name} = {value!r} is not a section; set its keys: {', '.join(field_types(inner))}"
            )
    return cls(**given)


def _hint(cls: type[Section], prefix: str, name: str) -> str:
    close = did_you_mean(name, field_types(cls))
    return close.replace("'", f"'{prefix}", 1) if close else f"; the keys here are {', '.join(field_types(cls))}"


def fingerprint(mapping: Mapping[str, Any]) -> str:
    """Twelve hexadecimal characters of the SHA-256 of the canonical JSON; independent of key order and process."""
    text = json.dumps(mapping, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclasses.dataclass(frozen=True)
class Resolved(Generic[S]):
    """A configuration and where each dotted key got its value: "default", the name of the TOML file, or "flag"."""

    section: S
    origins: dict[str, str]

    def explicit(self) -> list[str]:
        return [key for key, origin in self.origins.items() if origin != "default"]


def resolve(
    cls: type[S], toml: Path | None = None, flags: Mapping[str, Any] | None = None, profile: Path | None = None
) -> Resolved[S]:
    """Defaults, then the profile and the TOML file, then flags (`{"model.width": 1}`); the later wins. Strict."""
    origins = dict.fromkeys(keys(cls), "default")
    nested = to_dict(cls())
    for path, name in ((profile, f"profile {profile.stem}" if profile else ""), (toml, toml.name if toml else "")):
        if path is None:
            continue
        found = _read_toml(path)
        from_dict(cls, found, name)  # strict about this file alone, under its own name
        origins.update(dict.fromkeys((key for key in _flat(found) if key in origins), name))
        nested = _laid(nested, found)
    for key, value in (flags or {}).items():
        if key not in origins:
            raise Mistake(f"unknown option {key!r}{did_you_mean(key, origins)}")
        *parents, name = key.split(".")
        functools.reduce(lambda inner, parent: inner[parent], parents, nested)[name] = value
        origins[key] = "flag"
    return Resolved(from_dict(cls, nested, "flags"), origins)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Mistake(f"{path}: not a TOML file: {error}") from None
    except OSError as error:
        raise Mistake(f"{path}: cannot be read ({error.strerror}); give the path of a TOML file") from None


def _laid(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """One nested mapping laid over another."""
    found = dict(under)
    for raw, value in over.items():
        name = raw.replace("-", "_")
        found[name] = _laid(found[name], value) if isinstance(value, Mapping) else value
    return found


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in mapping.items():
        key = prefix + name.replace("-", "_")
        if isinstance(value, Mapping):
            yield from _flat(value, f"{key}.")
        else:
            yield key


class Watch:
    """Which fields of one section (and of the sections inside it) were read while the watch was open."""

    def __init__(self, section: Section):
        self._section = section  # kept alive, as copies are: ids below stay unique
        self._copies: list[Section] = []
        self._prefixes: dict[int, str] = {}
        self._read: set[str] = set()
        self._enter(section, "")

    def _enter(self, section: Section, prefix: str) -> None:
        self._prefixes[id(section)] = prefix
        for name in field_types(type(section)):
            value = object.__getattribute__(section, name)
            if isinstance(value, Section):
                self._enter(value, f"{prefix}{name}.")

    def saw(self, section: Section, name: str) -> None:
        prefix = self._prefixes.get(id(section))
        if prefix is not None:
            self._read.add(prefix + name)

    def follow(self, section: Section, copy: Section) -> None:
        """Let reads of a copy count as reads of what it was made from."""
        if id(section) in self._prefixes:
            self._copies.append(copy)
            self._enter(copy, self._prefixes[id(section)])

    def unread(self, explicit: Iterable[str]) -> list[str]:
        """The dotted keys among `explicit` that nobody read, in order."""
        return [key for key in explicit if key not in self._read]


def idle(key: str) -> str:
    """What is said of an option that somebody set and nobody read."""
    return f"{key} was set, but nothing in this configuration reads it"


_WATCHES: list[Watch] = []
_SILENT = frozenset({"__eq__", "__hash__", "__repr__"})  # comparing or printing a section uses none of its options


@contextmanager
def watch(section: Section) -> Iterator[Watch]:
    """Record reads of a section's fields: `with watch(config) as seen: ...; seen.unread(resolved.explicit())`."""
    opened = Watch(section)
    _WATCHES.append(opened)
    try:
        yield opened
    finally:
        _WATCHES.remove(opened)
