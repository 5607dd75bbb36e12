"""How the text of a space is taken apart: choices, conditions, and braces inside calls."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from jaxrec.words import Call, Mistake

_OPENS, _CLOSES = "([{", {")": "(", "]": "[", "}": "{"}
_DEEPEST, _LONGEST = 40, 4000  # brackets within brackets, and characters of a choice: more is nothing that people write
_SLOT = "_slot{}_"


def outside(text: str) -> list[bool]:
    """Of every character, whether it stands outside quotes and brackets; `Mistake` where one is never closed."""
    found, stack, quote, escaped = [], "", "", False
    for place, letter in enumerate(text):
        found.append(not stack and not quote)
        if quote:
            quote = "" if letter == quote and not escaped else quote
            escaped = letter == "\\" and not escaped
        elif letter in "'\"" and not _inside_a_word(text, place):
            quote, found[-1] = letter, False
        elif letter in _OPENS:
            stack, found[-1] = stack + letter, False
        elif letter in _CLOSES:
            if not stack.endswith(_CLOSES[letter]):
                raise Mistake(f"{text!r} closes {letter!r} at character {place + 1}, which is not open; {_QUOTES}")
            stack, found[-1] = stack[:-1], False
        if len(stack) > _DEEPEST:
            raise Mistake(f"{text!r:.60} has brackets {len(stack)} deep; {_DEEPEST} are read, so write it flatter")
    if quote or stack:
        raise Mistake(f"{text!r} never closes {(quote or stack)[-1]!r}; close it, or {_QUOTES}")
    return found


_QUOTES = "put text that has brackets or quotes of its own in quotes"


def _inside_a_word(text: str, place: int) -> bool:
    """Whether a quote at `place` is the apostrophe of `it's.csv`."""
    return place > 0 and (text[place - 1].isalnum() or text[place - 1] in "_.")


def split(text: str, separator: str) -> list[str]:
    """Parts between the matches of a regular expression outside quotes and brackets, without blanks around them."""
    free, parts, start = outside(text), [], 0
    for match in re.finditer(separator, text):
        if free[match.start()] and free[match.end() - 1]:
            parts.append(text[start : match.start()].strip())
            start = match.end()
    return [*parts, text[start:].strip()]


def choices(text: str) -> list[str]:
    """The parts between bars; `Mistake` for an empty one."""
    parts = split(text, r"\|")
    for part in parts:
        if len(part) > _LONGEST:
            raise Mistake(
                f"{part!r:.60} has {len(part)} characters; a value has at most {_LONGEST}, so write a shorter one"
            )
        if not part and len(parts) > 1:
            raise Mistake(
                f"{text!r} has an empty choice; write a value on both sides of every '|', or put it in quotes"
            )
    return parts


def condition(text: str) -> tuple[str, list[tuple[str, list[str]]]]:
    """`VALUE if OPTION=a|b and OTHER=c` -> the value, and what every option must be one of."""
    body, *rest = split(text, r"\sif\s")
    if not rest:
        return body, []
    if len(rest) > 1 or not body:
        raise Mistake(f"{text!r} is not one value with one condition; write VALUE if OPTION=a|b and OTHER=c")
    found = []
    for clause in split(rest[0], r"\sand\s"):
        name, *values = split(clause, "=")
        if len(values) != 1 or not name or not values[0]:
            raise Mistake(
                f"{clause!r} is not a condition; write OPTION=a|b after 'if', or put the whole value in quotes"
            )
        found.append((name.removeprefix("--").replace("-", "_"), choices(values[0])))
    return body, found


def unquoted(text: str) -> str:
    """Text without the quotes around it, where it is one quoted text."""
    if len(text) > 1 and text[0] in "'\"" and text[-1] == text[0] and not any(outside(text)):
        try:
            found = Call.parse(f"f({text})").arguments
        except Mistake:
            return text
        if len(found) == 1 and isinstance(found[0], str):
            return found[0]
    return text


class Slot(NamedTuple):
    """An argument of a call that braces leave open: the word that stands in for it, its name, and what it may be."""

    word: str
    name: str
    text: str


class Shape(NamedTuple):
    """A call with slots: its text with their words, the same without these arguments, its name, and the slots."""

    text: str
    label: str
    head: str
    slots: tuple[Slot, ...]


def shape(text: str) -> Shape:
    """A call's text with the braces taken out; `Mistake` where it is no call or a brace holds less than an argument."""
    probe, inner = _take_out(text)
    try:
        call = Call.parse(probe)
    except Mistake as mistake:
        raise Mistake(_put_back(str(mistake), inner)) from None
    places = dict(_places(call, "", inner))
    for word, hole in inner.items():
        if word not in places or call.name == word:
            raise Mistake(f"{text!r}: {{{hole}}} is not a whole argument; write it as in f(name={{1|2}})")
    slots = tuple(Slot(word, places[word], hole) for word, hole in inner.items())
    if len({slot.name for slot in slots}) < len(slots):
        raise Mistake(f"{text!r} has two braces for one name; give one of them a value, or write out the choices")
    return Shape(str(call), str(_without(call, inner)), call.name, slots)


def _take_out(text: str) -> tuple[str, dict[str, str]]:
    """Text with a word for every outermost pair of braces, and what stood in them."""
    inner: dict[str, str] = {}
    pieces, start, quoted, depth = [], 0, _quoted(text), 0
    for place, letter in enumerate(text):
        if letter not in "{}" or quoted[place]:
            continue
        depth += 1 if letter == "{" else -1
        if letter == "{" and depth == 1:
            pieces.append(text[start:place])
            start = place + 1
        elif letter == "}" and depth == 0:
            word = _SLOT.format(len(inner))
            inner[word] = text[start:place].strip()
            pieces.append(word)
            start = place + 1
    return "".join([*pieces, text[start:]]), inner


def _quoted(text: str) -> list[bool]:
    """Of every character, whether it stands in quotes, whatever the brackets."""
    outside(text)
    return [not free for free in outside(re.sub(r"[()\[\]{}]", " ", text))]


def _put_back(text: str, inner: Mapping[str, str]) -> str:
    for word, hole in inner.items():
        text = text.replace(word, f"{{{hole}}}")
    return text


def _places(value: Any, name: str, words: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The words in a value, and the names of the arguments that they stand for; a position has its number."""
    if isinstance(value, Call) and value.bare and value.name in words:
        yield value.name, name
    elif isinstance(value, Call):
        for key, entry in (*enumerate(value.arguments, 1), *value.options.items()):
            yield from _places(entry, str(key), words)
    elif isinstance(value, tuple):
        for place, entry in enumerate(value, 1):
            yield from _places(entry, f"{name}.{place}", words)


def _without(value: Any, words: Mapping[str, str]) -> Any:
    """A value without the arguments that words stand for."""
    if isinstance(value, tuple):
        return tuple(_without(entry, words) for entry in value if not _open(entry, words))
    if not isinstance(value, Call):
        return value
    arguments = tuple(_without(entry, words) for entry in value.arguments if not _open(entry, words))
    options = {key: _without(entry, words) for key, entry in value.options.items() if not _open(entry, words)}
    return Call(value.name, arguments, options, value.file)


def _open(value: Any, words: Mapping[str, str]) -> bool:
    return isinstance(value, Call) and value.bare and value.name in words
