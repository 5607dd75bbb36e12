"""What a compiled program sends between devices, read from its HLO: what the compiler made, not what somebody meant."""

import math
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")
HEAD = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.-]+) .*\{$")
SENDS = re.compile(rf" = (?P<type>.*?) (?P<kind>{'|'.join(KINDS)})(?P<start>-start)?\(")
SHAPE = re.compile(r"(?P<dtype>[a-z]+(?P<bits>\d*)\w*)\[(?P<sizes>[\d,]*)\]")
CALLS = re.compile(r"(?P<role>body|condition|calls|to_apply|true_computation|false_computation)=%?(?P<name>[\w.-]+)")
BRANCHES = re.compile(r"branch_computations=\{(?P<names>[^}]*)\}")
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')

Loops = tuple[int | None, ...]


class Collective(NamedTuple):
    """One instruction that devices run together: what it hands out on each of them, how many they are, and how often
    each loop around it runs, the outermost first (None where the program does not tell).
    """

    kind: str
    shapes: tuple[str, ...]
    size: int  # bytes of what each device has afterwards
    group: int
    loops: Loops = ()

    @property
    def times(self) -> int:
        """How often it runs; a loop that does not tell counts once."""
        found = 1
        for trips in self.loops:
            found *= 1 if trips is None else trips
        return found

    @property
    def sent(self) -> float:
        """Bytes that each device sends, all times together, where the devices of a group are a ring."""
        others = self.group - 1
        rounds = {
            "all-reduce": 2 * others / self.group, "all-gather": others / self.group, "reduce-scatter": others,
            "all-to-all": others / self.group, "collective-permute": 1,
        }  # fmt: skip
        return self.times * self.size * rounds[self.kind]


def collectives(program: str) -> list[Collective]:
    """Every collective of a compiled program's text, ``compiled.as_text()``, with the loops around it.

    Of a conditional all branches count. A computation that is called from two places is read at both.
    """
    bodies, entry = computations(program)
    return list(found_in(bodies, entry, (), devices(program)))


def computations(program: str) -> tuple[dict[str, list[str]], str]:
    """The lines of every computation, and the name of the first one to run."""
    bodies: dict[str, list[str]] = {}
    entry, lines = "", None
    for line in program.splitlines():
        if lines is None and (head := HEAD.match(line)) and not line.startswith("HloModule"):
            lines = bodies.setdefault(head["name"], [])
            entry = head["name"] if head["entry"] else entry
        elif line.startswith("}"):
            lines = None
        elif lines is not None:
            lines.append(line)
    if not entry:
        raise ValueError("this is not the text of a compiled program: no computation in it is the ENTRY")
    return bodies, entry


def devices(program: str) -> int:
    """How many devices run the program together."""
    head = program.partition("\n")[0]
    found = (re.search(rf"{name}=(\d+)", head) for name in ("replica_count", "num_partitions"))
    counts = [int(one[1]) for one in found if one]
    return max(counts, default=1)


def found_in(bodies: dict[str, list[str]], name: str, loops: Loops, crowd: int) -> Iterator[Collective]:
    for line in bodies.get(name, ()):
        if sends := SENDS.search(line):
            yield read(line, sends, loops, crowd)
        trips = TRIPS.search(line)
        for call in CALLS.finditer(line):
            inside = (*loops, int(trips[1]) if trips else None) if call["role"] == "body" else loops
            yield from found_in(bodies, call["name"], inside, crowd)
        if branches := BRANCHES.search(line):
            for one in branches["names"].split(","):
                yield from found_in(bodies, one.strip().lstrip("%"), loops, crowd)


def read(line: str, sends: re.Match[str], loops: Loops, crowd: int) -> Collective:
    shapes = [(found[0], size(found)) for found in SHAPE.finditer(sends["type"])]
    if sends["start"] and sends["kind"] in ("all-gather", "collective-permute"):
        shapes = [shape for shape in shapes if "[]" not in shape[0]]  # contexts of the transfer
        shapes = shapes[len(shapes) // 2 :]  # what goes in stands before what comes out
    words, sizes = zip(*shapes, strict=True)
    return Collective(sends["kind"], words, sum(sizes), group(line, crowd), loops)


def size(shape: re.Match[str]) -> int:
    """Bytes of an array by its type as HLO writes it; predicates take one."""
    count = 1
    for length in filter(None, shape["sizes"].split(",")):
        count *= int(length)
    return count * max(1, int(shape["bits"] or 8) // 8)


def group(line: str, crowd: int) -> int:
    """How many devices take part together; a pair where each sends to one other."""
    if "source_target_pairs=" in line:
        return 2
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return listed[1].count(",") + 1
    if counted := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
        return int(counted[1])
    if meshed := re.search(r"replica_groups=mesh\[([^\]]*)\] *\{([^}]*)\}", line):  # since jax 0.12
        sizes = dict(axis.split("=") for axis in meshed[1].split(","))
        return math.prod(int(sizes[name.strip()]) for name in meshed[2].split(","))
    return crowd


def repeated(found: Iterable[Collective]) -> list[Collective]:
    """Those within a loop that does not tell how often it runs, as if it ran once: of a dispatch of training steps,
    whose number is traced, one step.
    """
    return [one for one in found if None in one.loops]


def totals(found: Iterable[Collective]) -> dict[str, dict[str, Any]]:
    """By kind, how often, and bytes: those handed out on each device, and those that each sends."""
    sums = {kind: {"times": 0, "bytes": 0, "sent": 0.0} for kind in KINDS}
    for one in found:
        part = sums[one.kind]
        part["times"] += one.times
        part["bytes"] += one.times * one.size
        part["sent"] += one.sent
    return {kind: part for kind, part in sums.items() if part["times"]}
