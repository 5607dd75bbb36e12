"""What one swept option may take: one of some values, or a number in a range."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from jaxrec.words import Call, Mistake, did_you_mean

HEADS = ("log", "uniform", "int", "logint")
_RANGE = re.compile(rf"({'|'.join(HEADS)})\s*\(.*\)", re.DOTALL)
_MOST = 2**53  # whole numbers beyond this are not told apart by the floats that draw them
_WIDEST = 1e300  # so that no difference, and no logarithm's way back, overflows


@dataclass(frozen=True)
class Choices:
    """One of some plain values, all different, in the order in which they were written."""

    values: tuple[Any, ...]

    @property
    def count(self) -> int:
        return len(self.values)

    def at(self, u: float) -> Any:
        return self.values[min(int(u * self.count), self.count - 1)]

    def grid(self) -> tuple[Any, ...]:
        return self.values

    def takes(self, value: Any) -> bool:
        return has(self.values, value)

    def plain(self) -> dict[str, Any]:
        return {"choices": list(self.values)}


@dataclass(frozen=True)
class Range:
    """A number between `low` and `high`, both among what it takes: evenly, in its logarithm where `log`, whole where
    `whole`, in steps of `step` from `low`; a grid takes `n` of them.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False
    step: float | None = None
    n: int | None = None

    @property
    def count(self) -> int | None:
        """How many numbers it takes; None where they cannot be counted."""
        if not self.whole and self.step is None:
            return None
        return round((self.high - self.low) / (self.step or 1)) + 1

    def at(self, u: float) -> float:
        """The number at the share `u` in [0, 1) of the range; every whole number and every step has its full share."""
        if self.log:
            half = 0.5 if self.whole else 0.0
            low, high = math.log(self.low - half), math.log(self.high + half)
            found = math.exp(low + u * (high - low))
            return self._inside(round(found) if self.whole else found)
        if (count := self.count) is not None:
            return self.nth(min(int(u * count), count - 1))
        return self._inside(self.low + u * (self.high - self.low))

    def nth(self, k: int) -> float:
        """The k-th of the numbers that can be counted, without the last bits of a sum of steps."""
        found = self.low + k * (self.step or 1)
        return int(found) if self.whole else self._inside(float(f"{found:.12g}"))

    def nearest(self, value: float) -> float:
        """The number it takes that is closest to `value`."""
        if self.count is None:
            return self._inside(float(value))
        return self.nth(min(max(round((value - self.low) / (self.step or 1)), 0), self.count - 1))

    def grid(self) -> tuple[float, ...] | None:
        """The numbers of a grid; None where nobody said how many there are."""
        if self.n is None:
            return None if self.log or self.count is None else tuple(map(self.nth, range(self.count)))
        shares = [k / (self.n - 1) for k in range(self.n)]
        if self.log:
            found = [math.exp(math.log(self.low) * (1 - share) + math.log(self.high) * share) for share in shares]
        else:
            found = [self.low + share * (self.high - self.low) for share in shares]
        numbers = [round(value) if self.whole else float(f"{value:.12g}") for value in found]
        return tuple(dict.fromkeys(self._inside(value) for value in [self.low, *numbers[1:-1], self.high]))

    def takes(self, value: Any) -> bool:
        """Whether it takes `value` more often than never."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and self.count is not None and self.low <= value <= self.high and self.nearest(value) == value

    def plain(self) -> dict[str, Any]:
        return asdict(self)

    def _inside(self, value: float) -> float:
        return min(max(value, self.low), self.high)


Domain: TypeAlias = Choices | Range


def has(values: Sequence[Any], value: Any) -> bool:
    """Whether `value` is one of `values`, where 1, 1.0 and true are three."""
    return any(type(entry) is type(value) and entry == value for entry in values)


def domain(plain: Mapping[str, Any]) -> Domain:
    """What `plain()` was made from."""
    return Choices(tuple(plain["choices"])) if "choices" in plain else Range(**plain)


def is_range(text: str) -> bool:
    return _RANGE.fullmatch(text) is not None


def read_range(text: str) -> Range:
    """`log(1e-4, 1e-2)`, `uniform(0, 1, step=0.1)`, `int(1, 8)`, `logint(16, 512, n=6)`; `Mistake` for what is none."""
    call = Call.parse(text)
    head, whole = call.name, call.name in ("int", "logint")
    rule = f"{head}(lowest, highest{', step=1' if head == 'int' else ', step=0.1' if head == 'uniform' else ''}, n=5)"
    if len(call.arguments) != 2 or not all(_finite(value) for value in call.arguments):
        raise Mistake(f"{text!r} is not a range; give two numbers of at most 1e300, as in {rule}")
    for key in call.options:
        if key not in ("step", "n") or (key == "step" and head not in ("int", "uniform")):
            known = ("step", "n") if head in ("int", "uniform") else ("n",)
            raise Mistake(f"{text!r} has {key!r}, which {head} does not take{did_you_mean(key, known)}; write {rule}")
    low, high = call.arguments
    _bounds(text, head, low, high, whole)
    step, n = _step(text, call.options.get("step"), low, high, whole), call.options.get("n")
    if n is not None and (type(n) is not int or n < 2 or step is not None):
        raise Mistake(f"{text!r}: n = {n!r} is refused; give a whole number from 2, and no step beside it")
    kind = int if whole else float
    return Range(kind(low), kind(high), head in ("log", "logint"), whole, step, n)


def _finite(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= _WIDEST


def _bounds(text: str, head: str, low: float, high: float, whole: bool) -> None:
    if whole and not all(type(value) is int and abs(value) < _MOST for value in (low, high)):
        other = "log" if head == "logint" else "uniform"
        raise Mistake(f"{text!r} has ends that are not whole numbers below 2^53; give such, or write {other}(...)")
    if not low < high:
        raise Mistake(f"{text!r} does not rise from its first number to its second; write the smaller one first")
    if "log" in head and low <= 0:
        other = "int" if whole else "uniform"
        raise Mistake(f"{text!r} begins at {low}, which has no logarithm; begin above 0, or write {other}(...)")


def _step(text: str, step: Any, low: float, high: float, whole: bool) -> float | None:
    if step is None:
        return None
    if not _finite(step) or step <= 0 or (whole and type(step) is not int):
        raise Mistake(f"{text!r}: step = {step!r} is not a {'whole ' if whole else ''}number above 0; give one")
    steps = (high - low) / step
    if steps > _MOST or abs(steps - round(steps)) > 1e-6 * max(1.0, steps * 1e-3) or round(steps) < 1:
        last = low + math.floor(min(steps, _MOST)) * step
        near = f"end at {last:.12g}" if low < last < high else f"take a step below {high - low:.12g}"
        raise Mistake(f"{text!r} does not reach {high} from {low} in steps of {step}; {near}")
    return int(step) if whole else float(step)
