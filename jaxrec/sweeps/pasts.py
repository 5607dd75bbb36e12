"""What a ledger says to who searches and who prunes; each look reads only what has changed since the one before."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxrec.sweeps.ledger import ENDS
from jaxrec.sweeps.remote import Books
from jaxrec.sweeps.search import Past


class Pasts:
    """The trials of a ledger as a past. Readings are of the first objective."""

    def __init__(self, objectives: Sequence[Mapping[str, str]]):
        self.names = [entry["name"] for entry in objectives]
        self._trials: dict[int, Past] = {}
        self._tick = 0

    def look(self, ledger: Books) -> None:
        """See what has changed."""
        tick = ledger.tick()
        for row in ledger.rows(self._tick) if tick != self._tick else ():
            self._trials[row["number"]] = self._past(row)
        self._tick = tick

    def _past(self, row: Mapping[str, Any]) -> Past:
        values = tuple(row["objectives"].get(name) for name in self.names)
        readings = ((each["epoch"], each["values"].get(self.names[0])) for each in row["readings"])
        return Past(
            number=row["number"], point=row["point"], state=row["state"], notes=row["notes"],
            values=None if None in values else values,
            readings=tuple((epoch, value) for epoch, value in readings if value is not None),
        )  # fmt: skip

    def trial(self, number: int) -> Past:
        return self._trials[number]

    def trials(self) -> list[Past]:
        """Every training, by number."""
        return [self._trials[number] for number in sorted(self._trials)]

    def configurations(self, seeds: int) -> list[Past]:
        """Every configuration: with several seeds it is over when all are, and has the mean of their values."""
        if seeds == 1:
            return self.trials()
        groups: dict[int, list[Past]] = {}
        for past in self.trials():
            groups.setdefault(past.number // seeds, []).append(past)
        return [joined(number, group, seeds) for number, group in groups.items()]


def joined(number: int, group: Sequence[Past], seeds: int) -> Past:
    """The trainings of one configuration as one."""
    first, over = group[0], len(group) == seeds and all(past.state in ENDS for past in group)
    found = [past.values for past in group if past.values is not None] if over else []
    values = tuple(sum(column) / len(column) for column in zip(*found, strict=True)) if found else None
    state = ("done" if found else first.state) if over else "running"
    return Past(number, first.point, state, values, first.readings, first.notes)
