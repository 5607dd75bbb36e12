"""Names and calls as people write them: `RG-LRU`, `gru(hidden=128)`, `my_cell.py:MyCell(hidden=64)`."""

import ast
import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

__all__ = ["Call", "Mistake", "did_you_mean", "first_line", "squash"]


class Mistake(ValueError):
    """A user's mistake, in one sentence that names the value, the rule and the remedy."""


def squash(name: str) -> str:
    """Fold case and drop punctuation, so that `RG-LRU`, `rg_lru` and `rglru` are one name."""
    return re.sub(r"[\W_]", "", name).casefold()


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the closest choice, or `""` when nothing is close."""
    squashed = {squash(choice): choice for choice in choices}
    close = difflib.get_close_matches(squash(name), squashed, n=1, cutoff=0.6)
    return f"; did you mean {squashed[close[0]]!r}?" if close else ""


def first_line(error: BaseException, silent: str = "no message") -> str:
    """What an exception says, without its appendix and its full stop; ``silent`` where it says nothing."""
    return (str(error).strip() or silent).splitlines()[0].rstrip(".")


_WORDS: dict[str, Any] = {
    "True": True, "true": True, "False": False, "false": False,
    "None": None, "none": None, "inf": float("inf"), "nan": float("nan"),
}  # fmt: skip
_NAME = r"[^\W\d][\w.]*(?:-[\w.]+)*"
_FILE = r"[^\s()\[\]{}=,:'\"]*\.py"
_TOKEN = re.compile(
    rf"""\s*(?:(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    |(?P<number>[+-]?(?:inf\b|nan\b|(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?))
    |(?P<file>{_FILE})(?=\s*[:(,)\]]|\s*$)|(?P<name>{_NAME})|(?P<mark>[()\[\]=,:]))""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, eq=False)
class Call:
    """A thing and its arguments as the user wrote them: `gru(hidden=128)`, `normed(gru)`, `my_cell.py:My(rate=2)`.

    Arguments are literals (numbers, strings, booleans, none, tuples) or calls; a bare word is a call without arguments,
    and a file without a name stands for what is in it: whoever looks it up says what that is. Two calls are equal when
    their canonical texts are; lists become tuples, so that a call never changes.
    """

    name: str
    arguments: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    file: str | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(_NAME, self.name) and (self.name or self.file is None):
            raise Mistake(
                f"{self.name!r} is not a name; begin with a letter, go on with letters, digits, '_', '.' and '-'"
            )
        object.__setattr__(self, "arguments", tuple(_frozen(value) for value in self.arguments))
        object.__setattr__(self, "options", {key: _frozen(value) for key, value in sorted(self.options.items())})

    @classmethod
    def parse(cls, text: str) -> "Call":
        """Read a call; a malformed text is a `Mistake` that names the character where reading stopped."""
        reader = _Reader(text)
        call = reader.value()
        if isinstance(call, str) and call.endswith(".py"):  # quoted, as where its path has blanks
            call = Call("", file=call)
        if not isinstance(call, Call):
            if text.strip() not in _WORDS:
                reader.fail("a name such as gru(hidden=64)")
            call = Call(text.strip())
        reader.end()
        return cls(call.name, call.arguments, call.options, call.file)

    @property
    def bare(self) -> bool:
        """Whether it is a word and nothing else, so that it may stand for a text."""
        return not (self.arguments or self.options or self.file)

    def __str__(self) -> str:
        parts = [_text(value) for value in self.arguments]
        parts += [f"{key}={_text(value)}" for key, value in self.options.items()]
        plain = not parts and (self.file is not None or self.name not in _WORDS)
        return self._head() + ("" if plain else f"({', '.join(parts)})")

    def _head(self) -> str:
        if self.file is None:
            return self.name
        file = self.file if re.fullmatch(_FILE, self.file) else repr(self.file)
        return f"{file}:{self.name}" if self.name else file

    def __eq__(self, other: object) -> bool:
        return str(self) == str(other) if isinstance(other, Call) else NotImplemented

    def __hash__(self) -> int:
        return hash(str(self))


def _frozen(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_frozen(entry) for entry in value)
    if value is None or isinstance(value, Call) or type(value) in (bool, int, float, str):
        return value
    raise Mistake(
        f"{value!r} cannot be an argument of a call; give a number, text, true, false, none, a tuple or a call"
    )


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_text, value))}{',' if len(value) == 1 else ''})"
    return repr(value) if isinstance(value, str) else str(value)


class _Reader:
    """Recursive descent over one text: value := literal | tuple | [file ':'] name [ '(' items ')' ]."""

    def __init__(self, text: str):
        self.text, self.place = text, 0

    def fail(self, expected: str) -> NoReturn:
        rest = self.text[self.place :].strip()
        found = repr(rest[:20]) if rest else "the end"
        raise Mistake(f"{self.text!r} is not a call: expected {expected} at character {self.place + 1}, found {found}")

    def peek(self) -> tuple[str, str, int]:
        match = _TOKEN.match(self.text, self.place)
        if match is None or match.lastgroup is None:
            return "end", "", self.place
        return match.lastgroup, match[match.lastgroup], match.end()

    def take(self, mark: str) -> bool:
        kind, text, after = self.peek()
        if kind == "mark" and text == mark:
            self.place = after
            return True
        return False

    def end(self) -> None:
        if self.text[self.place :].strip():
            self.fail("nothing more")

    def value(self) -> Any:
        kind, text, after = self.peek()
        start, self.place = self.place, after
        if kind == "number":
            return self.number(text)
        if kind == "file" or (kind == "text" and self.take(":")):
            if kind == "file" and not self.take(":"):
                if self.peek()[:2] == ("mark", "("):
                    self.fail("':' and the name of something in that file")
                return Call("", file=text)
            return self.call(text if kind == "file" else self.string(text))
        if kind == "text":
            return self.string(text)
        if kind == "mark" and text in "([":
            return self.items(")" if text == "(" else "]")
        self.place = start
        if kind != "name":
            self.fail("a value")
        return self.call(None)

    def call(self, file: str | None) -> Any:
        kind, name, after = self.peek()
        if kind != "name":
            self.fail("a name")
        self.place = after
        if not self.take("("):
            return _WORDS[name] if file is None and name in _WORDS else Call(name, file=file)
        arguments: list[Any] = []
        options: dict[str, Any] = {}
        while not self.take(")"):
            key = self.key()
            if key is None and options:
                self.fail("name=value after the first option")
            if key in options:
                raise Mistake(f"{self.text!r} gives {key!r} twice; keep one")
            value = self.value()
            if key is None:
                arguments.append(value)
            else:
                options[key] = value
            self.separator(")")
        return Call(name, tuple(arguments), options, file)

    def key(self) -> str | None:
        start = self.place
        kind, name, self.place = self.peek()
        if kind == "name" and name.isidentifier() and self.take("="):
            return name
        self.place = start
        return None

    def number(self, text: str) -> int | float:
        try:
            return _number(text)
        except ValueError:  # 6_, 1__0, thousands of digits
            raise Mistake(
                f"{self.text!r:.200} is not a call: {text!r:.40} is not a number; write it as in 1_000 or 1e-3"
            ) from None

    def string(self, text: str) -> str:
        try:
            return str(ast.literal_eval(text))
        except (SyntaxError, ValueError):
            self.fail("a string with Python's escapes")

    def items(self, closing: str) -> Any:
        entries: list[Any] = []
        comma = closing == "]"
        while not self.take(closing):
            entries.append(self.value())
            comma |= self.separator(closing)
        return tuple(entries) if comma or len(entries) != 1 else entries[0]

    def separator(self, closing: str) -> bool:
        if self.take(","):
            return True
        if self.peek()[:2] != ("mark", closing):
            self.fail(f"',' or {closing!r}")
        return False


def _number(text: str) -> int | float:
    return int(text) if re.fullmatch(r"[+-]?\d[\d_]*", text) else float(text)
