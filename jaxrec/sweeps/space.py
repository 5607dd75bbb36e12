"""A space of configurations, declared once: in TOML, or as flags with the names of `jaxrec train`.

    model.cell = "gru|lstm(forget_bias={0|1|2})"                     choices, one with an argument of its own
    optimizer.lr = "log(1e-4, 1e-2)"                                 also uniform, int, logint; step=, n= for a grid
    optimizer.weight_decay = "log(1e-6, 1e-2) if optimizer.name=adamw"   otherwise the option keeps its default
    loss = "sampled_softmax(negatives=512, alpha={uniform(0, 1)})"   the dimension loss.alpha

Anything else is a constant. A bar, a brace or an ` if ` in quotes is text.
"""

import itertools
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeAlias

from jaxrec.config import Mistake, keys, resolve
from jaxrec.runs.options import Config
from jaxrec.sweeps.domains import Choices, Domain, domain, has

Point: TypeAlias = dict[str, Any]
OPTIONS = frozenset(keys(Config))
HOLE = re.compile(r"\{([\w.]+)\}")


@dataclass(frozen=True)
class Dimension:
    """An option, or an argument inside one, that a sweep varies; `when` says what others must be for it to be there."""

    name: str
    domain: Domain
    when: tuple[tuple[str, tuple[Any, ...]], ...] = ()

    def active(self, point: Mapping[str, Any]) -> bool:
        return all(name in point and has(values, point[name]) for name, values in self.when)


@dataclass(frozen=True)
class Space:
    """Dimensions, each behind those that it depends on, constants, and how values with open arguments are written."""

    dimensions: tuple[Dimension, ...]
    constants: dict[str, Any] = field(default_factory=dict)
    texts: dict[str, dict[Any, str]] = field(default_factory=dict)

    def at(self, u: Sequence[float]) -> Point:
        """The point at `u` in [0, 1)^d, a coordinate for every dimension, those that are not active included."""
        if len(u) != len(self.dimensions):
            raise ValueError(f"{len(u)} coordinates for {len(self.dimensions)} dimensions")
        point: Point = {}
        for dimension, share in zip(self.dimensions, u, strict=True):
            if not 0 <= share <= 1:
                raise ValueError(f"coordinate {share} is not in [0, 1)")
            if dimension.active(point):
                point[dimension.name] = dimension.domain.at(float(share))
        return point

    def grid(self) -> Iterator[Point]:
        """Every point of the grid, the last dimension fastest; `Mistake` for a dimension without steps."""
        for dimension in self.dimensions:
            if dimension.domain.grid() is None:
                raise Mistake(
                    f"{dimension.name} has no steps for a grid; give it n=5, a step, or values as in 1|2, or search "
                    "another way"
                )
        return self._points({}, 0, grid=True)

    def points(self) -> Iterator[Point]:
        """Every point, where they can be counted; see `size`."""
        if self.size() is None:
            raise ValueError("the points of a continuous space cannot be listed")
        return self._points({}, 0, grid=False)

    def size(self, most: int = 100_000) -> int | None:
        """How many points there are, counted up to `most`; None where a dimension is continuous."""
        if any(dimension.domain.count is None for dimension in self.dimensions):
            return None
        if not any(dimension.when for dimension in self.dimensions):
            found = 1
            for dimension in self.dimensions:
                found = min(found * (dimension.domain.count or 1), most)
            return found
        return sum(1 for _ in itertools.islice(self._points({}, 0, grid=False), most))

    def _points(self, point: Point, place: int, *, grid: bool) -> Iterator[Point]:
        if place == len(self.dimensions):
            yield dict(point)
            return
        dimension = self.dimensions[place]
        if not dimension.active(point):
            yield from self._points(point, place + 1, grid=grid)
            return
        for value in _values(dimension.domain, grid):
            yield from self._points(point | {dimension.name: value}, place + 1, grid=grid)

    def flags(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """Constants and a point as `config.resolve(Config, flags=...)` takes them."""
        found = {name: self._written(name, value, point) for name, value in self.constants.items()}
        for name, value in point.items():
            if name in OPTIONS:
                found[name] = self._written(name, value, point)
        return found

    def _written(self, name: str, value: Any, point: Mapping[str, Any]) -> Any:
        """A value with the arguments that a point has for it."""
        text = self.texts.get(name, {}).get(value) if isinstance(value, str) else None
        if text is None:
            return value

        def filled(hole: re.Match[str]) -> str:
            inner = hole[1]
            return literal(self._written(inner, point[inner], point)) if inner in point else hole[0]

        return HOLE.sub(filled, text)

    def plain(self) -> dict[str, Any]:
        """The space as JSON has it."""
        dimensions = [
            {"name": entry.name, **entry.domain.plain(), "when": {name: list(values) for name, values in entry.when}}
            for entry in self.dimensions
        ]
        texts = {name: dict(entries) for name, entries in self.texts.items()}
        return {"dimensions": dimensions, "constants": dict(self.constants), "texts": texts}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """What `plain()` was made from."""
        dimensions = []
        for entry in plain["dimensions"]:
            rest = {key: value for key, value in entry.items() if key not in ("name", "when")}
            when = tuple((name, tuple(values)) for name, values in entry.get("when", {}).items())
            dimensions.append(Dimension(entry["name"], domain(rest), when))
        texts = {name: dict(text) for name, text in plain.get("texts", {}).items()}
        return cls(tuple(dimensions), dict(plain.get("constants", {})), texts)


def _values(found: Domain, grid: bool) -> Iterator[Any]:
    if grid or isinstance(found, Choices):
        yield from found.grid() or ()
    else:
        yield from (found.nth(k) for k in range(found.count or 0))


def literal(value: Any) -> str:
    """A plain value as the text of a call has it."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else repr(value)


def parse(given: Mapping[str, Any]) -> Space:
    """A space from dotted option names and their values, or texts in the grammar above.

    `Mistake` for anything that is not in the grammar, that `jaxrec train` would refuse, or that cannot be swept.
    """
    from jaxrec.sweeps.draft import Draft

    draft = Draft()
    for name, value in given.items():
        draft.option(name, value)
    found = Space(*draft.finished())
    refuse_impossible(found)
    return found


def refuse_impossible(space: Space) -> None:
    """`Mistake` for a value that no configuration of the space may have, whatever the others are."""
    for name, value, points in covering(space):
        refused = None
        for point in points:
            refused = _mistake(space, point)
            if refused is None:
                break
        if refused is not None:
            if name:
                raise Mistake(f"{name} = {value!r} fits nothing else of this space: {refused}")
            unnamed = not any(fixed in refused for fixed in space.constants)
            given = ", ".join(f"{fixed} = {known!r}" for fixed, known in space.constants.items())
            raise Mistake(f"{given}: {refused}" if unnamed else refused)


def _mistake(space: Space, point: Point) -> str | None:
    try:
        resolve(Config, flags=space.flags(point))
    except Mistake as mistake:
        return str(mistake).removeprefix("flags: ")
    return None


def covering(space: Space) -> Iterator[tuple[str, Any, Iterator[Point]]]:
    """Every choice and both ends of every range, with points that have it: others in the middle, lowest, highest.

    Without a dimension one empty name with the point that the constants are.
    """
    if not space.dimensions:
        yield "", None, iter([{}])
    for dimension in space.dimensions:
        domain = dimension.domain
        for value in domain.values if isinstance(domain, Choices) else (domain.low, domain.high):
            points = (_with(space, dimension, value, share) for share in (0.5, 0.0, 1.0))
            yield dimension.name, value, (point for point in points if point.get(dimension.name) == value)


def _with(space: Space, dimension: Dimension, value: Any, share: float) -> Point:
    """A point with a value of a dimension, and what its conditions ask for; the others at a share of their range."""
    wanted: Point = {dimension.name: value}
    point: Point = {}
    for other in reversed(space.dimensions):
        if other.name in wanted:
            wanted |= {name: values[0] for name, values in other.when if name not in wanted}
    for other in space.dimensions:
        if other.active(point):
            point[other.name] = wanted.get(other.name, other.domain.at(share))
    return point


def read(path: Path) -> dict[str, Any]:
    """The options of a TOML file by dotted name, nested as `jaxrec train --config` takes them; the table [sweep] under
    "sweep.".
    """
    try:
        return dict(_flat(tomllib.loads(path.read_text(encoding="utf-8")), ""))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Mistake(
            f"{path}: not a TOML file: {error}; the first lines of a space are in jaxrec sweep --help"
        ) from None
    except OSError as error:
        raise Mistake(f"{path}: cannot be read ({error.strerror}); give the path of a TOML file") from None


def _flat(mapping: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in mapping.items():
        key = prefix + name.replace("-", "_")
        if isinstance(value, Mapping):
            yield from _flat(value, f"{key}.")
        else:
            yield key, value
