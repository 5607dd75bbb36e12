"""From texts to a space: every value is checked as the option it is for, every condition against what it looks at."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxrec.config import Call, Mistake, squash
from jaxrec.sweeps import grammar
from jaxrec.sweeps.domains import HEADS, Choices, Domain, is_range, read_range
from jaxrec.sweeps.fields import annotations, close, kind_of, number, plain_value, range_of, short, value_of
from jaxrec.sweeps.space import Dimension, literal

REFUSED = {
    "run": "every trial has its own folder under the sweep's; leave it out",
    "fresh": "a sweep goes on from what is there; leave it out, or give another --out",
    "seed": "seeds are repeats of one configuration, not a choice between them; give --seeds K",
}
IDLE = (  # runs of one identity may differ in these
    *("max_seconds", "checkpoint_seconds", "tensorboard", "verify", "parallel", "devices", "shards"),
    *("tfds_data_dir", "tfds_manual_dir", "trace", "diagnose", "diagnose_every", "events_on", "readers"),
)
When = tuple[tuple[str, tuple[Any, ...]], ...]
Read = Callable[[str], Any]


class Rough(NamedTuple):
    """A dimension before its conditions are looked up: `read` turns a text into one of its plain values."""

    domain: Domain
    when: When
    asked: list[tuple[str, list[str]]]
    read: Read
    text: str


class Draft:
    """Options one by one; `finished` gives the parts of a `Space`."""

    def __init__(self) -> None:
        self.rough: dict[str, Rough] = {}
        self.constants: dict[str, Any] = {}
        self.texts: dict[str, dict[Any, str]] = {}

    def option(self, raw: str, value: Any) -> None:
        """Take what was given for an option; `Mistake` names it, its value, what is wrong and what to write."""
        name = raw.removeprefix("--").replace("-", "_")
        annotation = annotations().get(name)
        if annotation is None:
            raise Mistake(f"{raw!r} = {value!r}: there is no such option{close(name)}")
        if name in REFUSED:
            raise Mistake(f"{name} = {value!r} cannot be part of a space: {REFUSED[name]}")
        if name in self.rough or name in self.constants:
            raise Mistake(f"{name} = {value!r} is given twice, once with '-' and once with '_'; keep one")
        try:
            self._value(name, annotation, value)
        except Mistake as mistake:
            raise Mistake(_about(name, value, mistake)) from None
        if name in self.rough and name in IDLE:
            raise Mistake(
                f"{name} = {value!r} cannot be swept: it does not decide what a run finds, so that all its values are "
                "one trial; give one value"
            )

    def _value(self, name: str, annotation: Any, value: Any) -> None:
        if not isinstance(value, str):
            self.constants[name] = plain_value(name, annotation, value)
            return
        body, asked = grammar.condition(value)
        parts = grammar.choices(body)
        if is_range(body) and len(parts) == 1:
            self.rough[name] = Rough(range_of(name, annotation, body), (), asked, number, value)
            return
        read = functools.partial(value_of, name, annotation)
        if kind_of(annotation) is Call:
            found = self._calls(name, annotation, parts, swept=len(parts) > 1 or bool(asked))
        else:
            found = [read(part) for part in parts]
        if len(found) == 1 and not asked:
            self.constants[name] = found[0]
        else:
            self.rough[name] = Rough(_choices(parts, found), (), asked, read, value)

    def _calls(self, name: str, annotation: Any, parts: list[str], *, swept: bool) -> list[Any]:
        """Calls by their labels, with a dimension for every argument in braces; one that several share is one."""
        shapes = [None if part.lower() == "none" else grammar.shape(part) for part in parts]
        named = _names(name, [found for found in shapes if found])
        holders: dict[str, list[str]] = {}
        labels: list[Any] = []
        for found in shapes:
            if found is None:
                labels.append(value_of(name, annotation, "none") if name in annotations() else None)
                continue
            if is_range(found.text):
                raise Mistake(f"{found.text!r} is a range of numbers, and {name} takes a name with options; write a|b")
            labels.append(found.label)
            text = found.text
            for slot in found.slots:
                inner = named[found.head, slot.name]
                text = text.replace(slot.word, f"{{{inner}}}")
                if inner not in holders:
                    self._argument(inner, slot, found.text)
                holders.setdefault(inner, []).append(found.label)
            if found.slots:
                self.texts.setdefault(name, {})[found.label] = text
        for inner, holding in holders.items():
            when: When = ((name, tuple(holding)),) if swept else ()
            self.rough[inner] = self.rough[inner]._replace(when=when)
        return labels

    def _argument(self, name: str, slot: grammar.Slot, around: str) -> None:
        """The dimension of an argument in braces, whose every value must leave the call a call."""
        if name in self.rough:
            raise Mistake(f"{{{slot.text}}} would be called {name}, as another argument is; give one of them a value")
        body, asked = grammar.condition(slot.text)
        if asked:
            raise Mistake(
                f"{{{slot.text}}} has a condition, and an argument always has a value; put it behind the call"
            )
        parts = grammar.choices(body)
        if is_range(body) and len(parts) == 1:
            self.rough[name] = Rough(read_range(body), (), [], number, slot.text)
            return
        found = self._inner(name, parts)
        for value in found:
            Call.parse(around.replace(slot.word, literal(value)))
        self.rough[name] = Rough(_choices(parts, found), (), [], _argument_value, slot.text)

    def _inner(self, name: str, parts: list[str]) -> list[Any]:
        if not any("{" in part for part in parts):
            return [_argument_value(part) for part in parts]
        return self._calls(name, Call, parts, swept=True)

    def finished(self) -> tuple[tuple[Dimension, ...], dict[str, Any], dict[str, dict[Any, str]]]:
        """Dimensions in order, constants, texts; `Mistake` for a condition that cannot be looked up or goes round."""
        when = {name: self._when(name, rough) for name, rough in self.rough.items()}
        order: list[str] = []
        while len(order) < len(when):
            ready = [name for name in when if name not in order and all(other in order for other, _ in when[name])]
            if not ready:
                around = [name for name in when if name not in order]
                first = self.rough[around[0]]
                raise Mistake(
                    f"{around[0]} = {first.text!r}: the conditions of {', '.join(around)} go round in a circle; let "
                    "one of them stand without a condition"
                )
            order.append(ready[0])
        dimensions = tuple(Dimension(name, self.rough[name].domain, when[name]) for name in order)
        return dimensions, self.constants, self.texts

    def _when(self, name: str, rough: Rough) -> When:
        found = dict(rough.when)
        for other, texts in rough.asked:
            try:
                values = self._wanted(other, texts)
            except Mistake as mistake:
                raise Mistake(f"{name} = {rough.text!r}: {mistake}") from None
            both = [value for value in values if other not in found or value in found[other]]
            if not both:
                raise Mistake(
                    f"{name} = {rough.text!r} asks {other} to be two things at once; ask for one of them, a|b"
                )
            found[other] = tuple(both)
        return tuple(found.items())

    def _wanted(self, other: str, texts: list[str]) -> list[Any]:
        """The values of another dimension that the texts of a condition mean."""
        if other not in self.rough:
            known = other in self.constants or other in annotations()
            why = "is not swept, so that this always or never holds" if known else "is no option of this space"
            raise Mistake(f"its condition looks at {other}, which {why}; name one of {', '.join(self.rough)}")
        there = self.rough[other]
        found = [value for text in texts for value in _matching(there, text)]
        return list({literal(value): value for value in found}.values())


def _matching(rough: Rough, text: str) -> list[Any]:
    """The values of a dimension that a text means: itself, or every call of that name."""
    try:
        value = rough.read(text)
    except Mistake as mistake:
        raise Mistake(f"its condition cannot be read: {mistake}") from None
    if rough.domain.takes(value):
        return [value]
    if isinstance(rough.domain, Choices) and isinstance(value, str):
        if same := [entry for entry in rough.domain.values if _names_it(value, entry)]:
            return same
        raise Mistake(f"its condition asks for {text!r}, which is not among {rough.text!r}; ask for one of these")
    rule = "which it never takes" if isinstance(rough.domain, Choices) or rough.domain.count else _NEVER
    raise Mistake(f"its condition asks for {text!r} of {rough.text!r}, {rule}; ask for a value of that, or drop it")


_NEVER = "and a continuous range takes no single value"


def _names_it(word: str, entry: Any) -> bool:
    """Whether a word without arguments is the name of a call."""
    try:
        asked, there = Call.parse(word), Call.parse(entry)
    except (Mistake, TypeError):
        return False
    bare = not asked.arguments and not asked.options
    return bare and asked.file == there.file and squash(asked.name) == squash(there.name)


def _about(name: str, value: Any, mistake: Mistake) -> str:
    """A mistake that says which option and which value it is about."""
    said, shown = str(mistake).replace(repr(value), short(value)), short(value)
    if not said.startswith(f"{name} ") and not said.startswith(f"{name}["):
        return f"{name} = {said}" if said.startswith(shown) else f"{name} = {shown}: {said}"
    return said if shown in said or not isinstance(value, str) else f"{said} (in {shown})"


def _argument_value(text: str) -> Any:
    """The plain value of an argument: a number, true, false, none, or its text."""
    call = Call.parse(f"f({text})")
    if len(call.arguments) != 1 or call.options:
        raise Mistake(f"{{{text}}} is not one argument; write every argument with its own braces")
    value = call.arguments[0]
    if value is None or type(value) in (bool, int) or (type(value) is float and math.isfinite(value)):
        return value
    if isinstance(value, Call) and value.name in HEADS:
        raise Mistake(f"{text!r} is a range among choices; a range stands alone, so write it without '|'")
    return str(Call("f", (value,)))[2:-1]


def _choices(parts: list[str], found: list[Any]) -> Choices:
    seen: dict[tuple[type, str], str] = {}
    for part, value in zip(parts, found, strict=True):
        first = seen.setdefault((type(value), literal(value)), part)
        if first is not part:
            raise Mistake(f"choice {part!r} is the same as {first!r}; keep one of them")
    return Choices(tuple(found))


def _names(option: str, shapes: list[grammar.Shape]) -> Mapping[tuple[str, str], str]:
    """The dimension of every argument in braces: arguments of one name that may be the same things are one."""
    texts: dict[str, dict[str, set[str]]] = {}
    for found in shapes:
        for slot in found.slots:
            texts.setdefault(slot.name, {}).setdefault(found.head, set()).add(slot.text)
    named = {}
    for argument, heads in texts.items():
        one = len({text for held in heads.values() for text in held}) == 1
        for head, held in heads.items():
            if len(held) > 1:
                raise Mistake(
                    f"{head} has {argument} in braces twice, with {' and '.join(sorted(held))}; give both one"
                )
            named[head, argument] = f"{option}.{argument}" if one else f"{option}.{head}.{argument}"
    return named
