"""The rows of a ledger, and the file of them that lies beside it."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any, Protocol

from jaxrec.data.replacing import replacing
from jaxrec.sweeps.store import Store

NOTHING: dict[str, Any] = {
    "valid": {}, "test": {}, "objectives": {}, "seconds": None, "epochs": None, "parameters": None,
}  # fmt: skip
CHANGED = "number IN (SELECT number FROM trials WHERE touched > ? UNION SELECT same_as FROM trials WHERE touched > ?)"


def assembled(store: Store, since: int = 0) -> list[dict[str, Any]]:
    """One row a trial that changed after the tick ``since``, by number, with its readings and attempts."""
    trials = store.all(
        """SELECT number, id, state, same_as, seed, repeat, point, config, notes, result FROM trials WHERE touched > ?
        OR same_as IN (SELECT number FROM trials WHERE touched > ?) ORDER BY number""",
        since, since,
    )  # fmt: skip
    readings, attempts = _readings(store, since), _attempts(store, since)
    firsts = {row[0]: row for row in trials}
    if missing := {row[3] for row in trials if row[3] is not None} - firsts.keys():
        query = "SELECT number, id, state, same_as, seed, repeat, point, config, notes, result FROM trials WHERE number"
        for number in missing:
            firsts[number] = store.all(f"{query} = ?", number)[0]
    found = []
    for row in trials:
        number, same_as = row[0], row[3]
        first = firsts[number if same_as is None else same_as]
        tries = attempts[first[0]]
        found.append(
            {
                "number": number, "id": row[1], "state": first[2], "point": json.loads(row[6]), "seed": row[4],
                "repeat": row[5], "config": json.loads(row[7]), "run": f"runs/{row[1]}", "same_as": same_as,
                **NOTHING, **json.loads(first[9] or "{}"),
                "readings": readings[first[0]], "code": tries[-1]["code"] if tries else None,
                "notes": json.loads(row[8]), "attempts": tries if same_as is None else [],
            }
        )  # fmt: skip
    return found


def _readings(store: Store, since: int) -> dict[int, list[dict[str, Any]]]:
    found = defaultdict(list)
    query = f"SELECT number, content FROM readings WHERE {CHANGED} ORDER BY number, epoch"
    for number, content in store.all(query, since, since):
        found[number].append(json.loads(content))
    return found


def _attempts(store: Store, since: int) -> dict[int, list[dict[str, Any]]]:
    found = defaultdict(list)
    names = (
        *("attempt", "worker", "host", "pid", "device", "start", "end", "seconds", "compile_seconds", "state"),
        *("reason", "signature", "code", "log"),
    )
    query = f"SELECT number, {', '.join(names)} FROM attempts WHERE {CHANGED} ORDER BY attempt"
    for number, *values in store.all(query, since, since):
        row = dict(zip(names, values, strict=True))
        found[number].append(row | {"log": json.loads(row["log"])})
    return found


class Rows(Protocol):
    """What a table is made from: a ledger."""

    def tick(self) -> int: ...

    def rows(self, since: int = 0) -> list[dict[str, Any]]: ...


class Table:
    """``trials.jsonl``: one row a trial, by number. Rewritten whole; rows that did not change are not made again."""

    def __init__(self, path: Path):
        self.path = path
        self._lines: dict[int, bytes] = {}
        self._tick = 0

    def write(self, ledger: Rows) -> bool:
        """Bring the file up to date; False where nothing has changed since."""
        tick = ledger.tick()
        if tick == self._tick and self.path.exists():
            return False
        for row in ledger.rows(self._tick):
            self._lines[row["number"]] = (json.dumps(row, ensure_ascii=False) + "\n").encode()
        with replacing(self.path) as file:
            file.writelines(self._lines[number] for number in sorted(self._lines))
        self._tick = tick
        return True


def timeless(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what depends on when and where it was made: two sweeps are the same where these rows are."""
    kept = {name: value for name, value in row.items() if name not in ("attempts", "seconds", "code", "objectives")}
    objectives = {name: value for name, value in row["objectives"].items() if name != "seconds"}
    readings = [{"epoch": each["epoch"], "values": each["values"]} for each in row["readings"]]
    return kept | {"objectives": objectives, "readings": readings}
