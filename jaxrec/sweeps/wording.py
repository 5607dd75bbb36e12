"""A sweep's definition in the words of who asked for it."""

import re
from collections.abc import Mapping
from typing import Any

from jaxrec.sweeps.domains import Choices, Domain, Range
from jaxrec.sweeps.space import HOLE, OPTIONS, Space, literal

NAMES = {"seed": "--sweep-seed", "prune_after": "--prune-after", "strict_code": "--strict-code"}
PLAIN = ("search", "population", "seed", "seeds", "prune", "prune_after", "strict_code")


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What another definition asks otherwise, one part of a sentence each."""
    old, new = worded(before), worded(now)
    return [
        f"{name} was {old.get(name, 'not given')} and is now {new.get(name, 'not given')}"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]


def worded(about: Mapping[str, Any]) -> dict[str, str]:
    """A definition as flags and their values."""
    found = {f"--{name}": text for name, text in texts(Space.of(about["space"])).items()} if "space" in about else {}
    given = {name: about[name] for name in PLAIN if about.get(name) is not None}
    found |= {NAMES.get(name, f"--{name}"): literal(value) for name, value in given.items()}
    if "objectives" in about:
        found["--objectives"] = " ".join(one["name"] for one in about["objectives"])
    return found


def texts(space: Space) -> dict[str, str]:
    """The options of a space as they are written."""
    domains = {one.name: one.domain for one in space.dimensions}
    found = {}
    for one in space.dimensions:
        if one.name in OPTIONS:
            asked = " and ".join(f"{name}={'|'.join(map(literal, values))}" for name, values in one.when)
            found[one.name] = written(space, domains, one.name, one.domain) + (f" if {asked}" if asked else "")
    for name, value in space.constants.items():
        found[name] = filled(space, domains, name, value)
    return found


def written(space: Space, domains: Mapping[str, Domain], name: str, domain: Domain) -> str:
    """A domain as it is written."""
    if isinstance(domain, Choices):
        return "|".join(filled(space, domains, name, value) for value in domain.values)
    return ranged(domain)


def ranged(domain: Range) -> str:
    head = ("log" if domain.log else "") + ("int" if domain.whole else "") or "uniform"
    rest = {"step": domain.step, "n": domain.n}
    told = "".join(f", {name}={value}" for name, value in rest.items() if value is not None)
    return f"{head}({domain.low}, {domain.high}{told})"


def filled(space: Space, domains: Mapping[str, Domain], name: str, value: Any) -> str:
    """A value with what its braces hold."""
    text = space.texts.get(name, {}).get(value) if isinstance(value, str) else None
    if text is None:
        return " ".join(map(literal, value)) if isinstance(value, list) else literal(value)

    def inner(hole: re.Match[str]) -> str:
        there = domains.get(hole[1])
        return "{" + written(space, domains, hole[1], there) + "}" if there is not None else hole[0]

    return HOLE.sub(inner, text)
