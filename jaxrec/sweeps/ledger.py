"""What a sweep knows: trials, who tries them, what came out. One SQLite file; every change is one transaction.

A trial is waiting, running, or has an end: done, pruned, diverged, out_of_memory, failed. One that has the id of an
earlier trial is the same run: it is answered with what came out there.
"""

import json
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from jaxrec.config import Mistake
from jaxrec.sweeps.presence import Worker, clock, gone, place
from jaxrec.sweeps.rows import assembled
from jaxrec.sweeps.store import Store
from jaxrec.sweeps.wording import differences

ENDS = ("done", "pruned", "diverged", "out_of_memory", "failed")
OPTIONS: dict[str, Any] = {"retries": 2, "lease_seconds": 60.0}
# Found by their state, which few have: with a plus SQLite does not read all that the worker has ever held instead.
OF_WORKER = "+worker = ? AND +pid = ?"
RUNNING = 3  # failures of a worker, one after the other and in as many trials, that put it aside


class New(NamedTuple):
    """A trial to add."""

    number: int
    id: str
    point: dict[str, Any]
    config: dict[str, Any]
    bucket: str = ""
    seed: int = 0
    repeat: int = 0
    notes: Mapping[str, Any] = {}
    refused: str = ""  # why it cannot be trained at all


class Lease(NamedTuple):
    """A trial that a worker holds, by the number of its attempt."""

    number: int
    attempt: int
    id: str
    config: dict[str, Any]
    point: dict[str, Any]
    bucket: str
    seed: int = 0
    repeat: int = 0
    notes: Mapping[str, Any] = {}


class Spent(NamedTuple):
    """What a sweep has used, over all its starts: trials that have an end, its own seconds, seconds of devices."""

    trials: int
    seconds: float
    device_seconds: float


class Ledger:
    """The ledger at ``path``, created where there is none; for one thread. `Mistake` where it is damaged."""

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self._store = Store(self.path)
        self._seen: dict[int, tuple[float, float]] = {}  # attempts elsewhere: their last beat, and when it was new here

    def check(self) -> None:
        """Read all of it. `Mistake` where it is damaged."""
        self._store.check()

    def close(self) -> None:
        self._store.close()

    def again(self) -> Self:
        """The same for another thread."""
        return type(self)(self.path)

    # the sweep

    @property
    def about(self) -> dict[str, Any] | None:
        """The sweep's definition, None before `begin`."""
        return self._fact("about")

    def agreed(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """The definition under which this ledger goes on; `Mistake` names what differs from the one before."""
        about = dict(json.loads(json.dumps(about)))
        known = self.about
        if known is None or not self.next_number():
            return about
        if lines := differences(known, about):
            what = "; ".join(lines[:5]) + (f"; and {len(lines) - 5} more" if len(lines) > 5 else "")
            raise Mistake(f"{self.path.parent} holds another sweep: {what}; choose another --out, or ask as before")
        return known | {name: about[name] for name in ("trials",) if name in about}

    def begin(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """Make this the ledger of a sweep, or go on with it; returns its definition. `Mistake` where they differ."""
        about = self.agreed(about)
        self._set("about", about)
        return about

    @property
    def options(self) -> dict[str, Any]:
        """What the last start of the sweep was told, for its workers."""
        return OPTIONS | (self._fact("options") or {})

    def start(self, options: Mapping[str, Any]) -> int:
        """A sweep starts, again perhaps: its options hold, and no worker is in quarantine. The number of this start."""
        self._set("options", dict(options))
        with self._store.writing() as db:
            db.execute("DELETE FROM workers")
            made = db.execute("INSERT INTO sessions (start, seconds) VALUES (?, 0)", (time.time(),))
            return int(made.lastrowid or 0)

    def last(self, session: int, seconds: float) -> None:
        """This start of the sweep has lasted so long."""
        with self._store.writing() as db:
            db.execute("UPDATE sessions SET seconds = ? WHERE session = ?", (seconds, session))

    def spent(self) -> Spent:
        [[seconds]] = self._store.all("SELECT coalesce(sum(seconds), 0) FROM sessions")
        [[devices]] = self._store.all("SELECT coalesce(sum(seconds * devices), 0) FROM attempts")
        counts = self.counts()
        return Spent(sum(counts.get(state, 0) for state in ENDS), seconds, devices)

    def counts(self) -> dict[str, int]:
        """Trials by state; one that is the same as another has the state of that."""
        query = """SELECT coalesce(first.state, trials.state), count(*) FROM trials
                   LEFT JOIN trials AS first ON first.number = trials.same_as GROUP BY 1"""
        return dict(self._store.all(query))

    # trials

    def add(self, trials: Sequence[New]) -> None:
        """Let these wait to be trained; those whose id is known are the same as the first with it."""
        with self._store.writing() as db:
            tick = self._tick(db)
            for new in trials:
                known = db.execute("SELECT number FROM trials WHERE id = ? AND same_as IS NULL", (new.id,)).fetchone()
                there = db.execute("SELECT id FROM trials WHERE number = ?", (new.number,)).fetchone()
                if there is not None and there[0] != new.id:
                    raise Mistake(
                        f"trial {new.number} is {there[0]} in {self.path}, not {new.id}; choose another --out"
                    )
                if there is None:
                    state = "same" if known else "failed" if new.refused else "waiting"
                    notes = dict(new.notes) | ({"refused": new.refused} if new.refused else {})
                    db.execute(
                        """INSERT INTO trials (number, id, state, same_as, bucket, seed, repeat, touched, point, config,
                        notes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
                        (new.number, new.id, state, known and known[0], new.bucket, new.seed,
                         new.repeat, tick, _text(new.point), _text(new.config), _text(notes)),
                    )  # fmt: skip

    def restore(self, new: New, state: str, result: Mapping[str, Any], readings: Sequence[Mapping[str, Any]]) -> None:
        """Add a trial as its run folder has it; see `sweeps.rebuilding`."""
        with self._store.writing() as db:
            db.execute(
                """INSERT INTO trials (number, id, state, bucket, seed, repeat, touched, point, config, notes, result)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
                (new.number, new.id, state if state in ENDS else "waiting", new.bucket, new.seed, new.repeat,
                 self._tick(db), _text(new.point), _text(new.config), _text(dict(new.notes)), _text(dict(result))),
            )  # fmt: skip
            rows = [(new.number, each["epoch"], 0, each["seconds"], _text(dict(each))) for each in readings]
            db.executemany("INSERT OR REPLACE INTO readings VALUES (?, ?, ?, ?, ?)", rows)

    def missing(self, below: int) -> list[int]:
        """Numbers of trials that are not there."""
        there = {row[0] for row in self._store.all("SELECT number FROM trials")}
        return [number for number in range(below) if number not in there]

    def first(self) -> list[tuple[int, str, dict[str, Any]]]:
        """Number, id and configuration of the first trial, where there is one."""
        rows = self._store.all("SELECT number, id, config FROM trials WHERE config != '{}' ORDER BY number LIMIT 1")
        return [(number, run_id, json.loads(config)) for number, run_id, config in rows]

    def id(self, number: int) -> str:
        """The id of a trial's run."""
        return str(self._store.all("SELECT id FROM trials WHERE number = ?", number)[0][0])

    def next_number(self) -> int:
        """One more than the largest number of a trial."""
        return int(self._store.all("SELECT coalesce(max(number), -1) + 1 FROM trials")[0][0])

    def lease(self, worker: Worker, most: int = 1, bucket: str | None = None) -> list[Lease]:
        """Give waiting trials of one bucket to ``worker``, the oldest first; none where none waits or it is in
        quarantine. One that failed before waits for the others and comes alone: it may take its process with it.
        """
        with self._store.writing() as db:
            if most < 1 or worker.name in self.quarantined():
                return []
            first = (bucket, 0) if bucket is not None else self._first(db)
            if first is None:
                return []
            query = """SELECT number, id, config, point, bucket, seed, repeat, notes FROM trials
                       WHERE state = 'waiting' AND bucket = ? AND failures = ? ORDER BY number LIMIT ?"""
            found = db.execute(query, (*first, 1 if first[1] else most)).fetchall()
            share = 1 / max(
                1, len(found) + len(self.held(worker.name, worker.pid))
            )  # of the device: they run in one program
            tick, now = self._tick(db) if found else 0, clock()
            return [self._leased(db, tick, worker, now, row, share) for row in found]

    def _first(self, db: Any) -> tuple[str, int] | None:
        """Bucket and failures of the trial that is next."""
        query = "SELECT bucket, failures FROM trials WHERE state = 'waiting' ORDER BY failures, number LIMIT 1"
        return db.execute(query).fetchone()

    def _leased(self, db: Any, tick: int, worker: Worker, now: float, row: Sequence[Any], share: float) -> Lease:
        number, run_id, config, point, bucket, seed, repeat, notes = row
        found = Lease(number, 0, run_id, json.loads(config), json.loads(point), bucket, seed, repeat, json.loads(notes))
        devices = share * found.config.get("devices", 1)
        db.execute("UPDATE trials SET state = 'running', touched = ? WHERE number = ?", (tick, number))
        made = db.execute(
            """INSERT INTO attempts (number, state, worker, host, pid, born, place, device, code, devices, start, begun,
            beat, clock) VALUES (?, 'running', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
            (number, worker.name, worker.host, worker.pid, worker.born, worker.place, worker.device, worker.code,
             devices, time.time(), now, now, place()),
        )  # fmt: skip
        return found._replace(attempt=int(made.lastrowid))

    def beat(self, worker: Worker) -> list[int]:
        """``worker`` lives: what it holds stays its own. Returns its attempts that somebody has taken from it."""
        now, mine = clock(), f"{OF_WORKER} AND +born = ?"
        who = (worker.name, worker.pid, worker.born)
        with self._store.writing() as db:
            db.execute(
                f"UPDATE attempts SET beat = ?, seconds = ? - begun WHERE {mine} AND state = 'running'",
                (now, now, *who),
            )
        return self.taken(worker.name, worker.pid)

    def held(self, name: str, pid: int) -> list[int]:
        """Attempts that a worker's process holds."""
        query = f"SELECT attempt FROM attempts WHERE {OF_WORKER} AND state = 'running'"
        return [row[0] for row in self._store.all(query, name, pid)]

    def taken(self, name: str, pid: int) -> list[int]:
        """Attempts that were taken from a worker's process."""
        query = f"SELECT attempt FROM attempts WHERE {OF_WORKER} AND state IN ('expired', 'died')"
        return [row[0] for row in self._store.all(query, name, pid)]

    def began(self, name: str, pid: int) -> bool:
        """Whether a worker's process has ever begun a trial."""
        return bool(self._store.all("SELECT 1 FROM attempts WHERE worker = ? AND pid = ? LIMIT 1", name, pid))

    def read(self, attempt: int, reading: Mapping[str, Any]) -> bool:
        """Write down a validation; False, and nothing is written, where the attempt has ended or was taken away.

        An epoch that is trained again, as after a kill, is read again.
        """
        content = _text(dict(reading))
        with self._store.writing() as db:
            held = db.execute(
                "SELECT number FROM attempts WHERE attempt = ? AND state = 'running'", (attempt,)
            ).fetchone()
            if held is not None:
                row = (held[0], reading["epoch"], attempt, reading["seconds"], content)
                db.execute("INSERT OR REPLACE INTO readings VALUES (?, ?, ?, ?, ?)", row)
                db.execute("UPDATE trials SET touched = ? WHERE number = ?", (self._tick(db), held[0]))
            return held is not None

    def readings(self, number: int | None = None) -> list[dict[str, Any]]:
        """The validations of one trial, or of all with the ``number`` of each, by epoch."""
        if number is not None:
            query = "SELECT content FROM readings WHERE number = ? ORDER BY epoch"
            return [json.loads(row[0]) for row in self._store.all(query, number)]
        rows = self._store.all("SELECT number, content FROM readings ORDER BY number, epoch")
        return [{"number": row[0]} | json.loads(row[1]) for row in rows]

    def end(
        self, attempt: int, state: str, *, result: Mapping[str, Any] | None = None, reason: str = "",
        signature: str = "", again: bool = True, counts: bool = True, log: Sequence[str] = (),
        compile_seconds: float = 0.0,
    ) -> str | None:  # fmt: skip
        """An attempt is over; returns the state of its trial, or None, changing nothing, where it was not running.

        ``waiting`` gives the trial back. After ``failed`` it waits ``again``, unless it has failed more than
        ``retries`` times with this ``signature``. Of many that failed with one process, one ``counts`` for the worker.
        """
        with self._store.writing() as db:
            held = db.execute(
                "SELECT number, worker FROM attempts WHERE attempt = ? AND state = 'running'", (attempt,)
            ).fetchone()
            if held is None:
                return None
            number, worker = held
            db.execute(
                """UPDATE attempts SET state = ?, end = ?, seconds = max(seconds, ? - begun), compile_seconds = ?,
                reason = ?, signature = ?, log = ? WHERE attempt = ?""",
                ("stopped" if state == "waiting" else state, time.time(), clock(), compile_seconds, reason, signature,
                 _text(list(log)), attempt),
            )  # fmt: skip
            retried = state == "failed" and again and self._retried(db, number, signature)
            after = "waiting" if retried else state
            db.execute(
                "UPDATE trials SET state = ?, failures = failures + ?, result = ?, touched = ? WHERE number = ?",
                (after, state == "failed", _text(dict(result or {})), self._tick(db), number),
            )
            if counts and state != "waiting" and (state != "failed" or again):  # a refusal says nothing of a worker
                self._judge(db, worker, number, failed=state == "failed")
            return after

    def _retried(self, db: Any, number: int, signature: str) -> bool:
        query = "SELECT count(*) FROM attempts WHERE number = ? AND signature = ? AND state = 'failed'"
        return bool(db.execute(query, (number, signature)).fetchone()[0] <= self.options["retries"])

    def _judge(self, db: Any, worker: str, number: int, failed: bool) -> None:
        """Count a worker's failures in a row; one trial counts once."""
        found = db.execute("SELECT failing, last FROM workers WHERE name = ?", (worker,)).fetchone()
        failing, last = found or (0, None)
        failing = failing + (last != number) if failed else 0
        row = (worker, failing, number if failed else None, failing >= RUNNING)
        db.execute("INSERT OR REPLACE INTO workers VALUES (?, ?, ?, ?)", row)

    def quarantined(self) -> list[str]:
        """Workers that failed in three trials one after the other since the last `start`."""
        return [row[0] for row in self._store.all("SELECT name FROM workers WHERE quarantined ORDER BY name")]

    def reclaim(self, children: Collection[int] = ()) -> list[int]:
        """Let trials wait again whose worker is gone or has not been heard of in time; returns their numbers.

        Whoever started ``children`` is told by the system when one of them dies, and why. No clock of another machine
        is trusted: a lease from there ends when its beat has stood still for that long.
        """
        limit, found = self.options["lease_seconds"], []
        query = """SELECT attempt, number, beat, clock, worker, host, pid, born, place FROM attempts
                   WHERE state = 'running'"""
        for attempt, number, beat, where, *who in self._store.all(query):
            if who[2] not in children and gone(Worker(*who)):
                state, reason = "died", f"process {who[2]} on {who[1]} is gone"
            elif self._silent(attempt, beat, where) > limit:
                state, reason = "expired", f"{who[0]} was not heard of for {limit:g} seconds"
            else:
                continue
            if self._take(attempt, number, beat, state, reason):
                found.append(number)
        return found

    def _silent(self, attempt: int, beat: float, where: str) -> float:
        """Seconds since an attempt's last beat; infinite where that was before a restart of this machine."""
        now = clock()
        if where == place():
            return now - beat if beat <= now else float("inf")
        if self._seen.get(attempt, (None, 0.0))[0] != beat:
            self._seen[attempt] = beat, now
        return now - self._seen[attempt][1]

    def _take(self, attempt: int, number: int, beat: float, state: str, reason: str) -> bool:
        """Take an attempt away, unless it has moved meanwhile."""
        with self._store.writing() as db:
            changed = db.execute(
                """UPDATE attempts SET state = ?, reason = ?, end = ?, seconds = max(seconds, beat - begun)
                WHERE attempt = ? AND beat = ? AND state = 'running'""",
                (state, reason, time.time(), attempt, beat),
            ).rowcount
            if changed:
                query = "UPDATE trials SET state = 'waiting', touched = ? WHERE number = ?"
                db.execute(query, (self._tick(db), number))
            return bool(changed)

    # what it says

    def rows(self, since: int = 0) -> list[dict[str, Any]]:
        """One row a trial, by number; only those that changed after ``tick() == since``."""
        return assembled(self._store, since)

    def attempts(self) -> list[dict[str, Any]]:
        """All attempts of all trials, by the number of the attempt."""
        found = [each | {"number": row["number"]} for row in self.rows() for each in row["attempts"]]
        return sorted(found, key=lambda row: row["attempt"])

    def tick(self) -> int:
        """A number that grows with every change of a trial."""
        return int(self._store.all("SELECT value FROM facts WHERE name = 'tick'")[0][0])

    def _tick(self, db: Any) -> int:
        db.execute("UPDATE facts SET value = value + 1 WHERE name = 'tick'")
        return int(db.execute("SELECT value FROM facts WHERE name = 'tick'").fetchone()[0])

    def _fact(self, name: str) -> Any:
        rows = self._store.all("SELECT value FROM facts WHERE name = ?", name)
        return json.loads(rows[0][0]) if rows else None

    def _set(self, name: str, value: Any) -> None:
        with self._store.writing() as db:
            db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, _text(value)))


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
