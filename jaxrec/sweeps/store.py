"""The SQLite file behind a ledger: its tables, transactions, and its errors as sentences."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxrec.config import Mistake

VERSION = 1
WAIT = 60.0  # seconds for another process's transaction; each takes milliseconds
TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS trials (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL, state TEXT NOT NULL, same_as INTEGER, bucket TEXT NOT NULL,
    seed INTEGER NOT NULL, repeat INTEGER NOT NULL, failures INTEGER NOT NULL DEFAULT 0, touched INTEGER NOT NULL,
    point TEXT NOT NULL, config TEXT NOT NULL, notes TEXT NOT NULL, result TEXT);
CREATE INDEX IF NOT EXISTS trials_id ON trials (id);
CREATE INDEX IF NOT EXISTS trials_waiting ON trials (state, failures, number);
CREATE INDEX IF NOT EXISTS trials_bucket ON trials (state, bucket, failures, number);
CREATE INDEX IF NOT EXISTS trials_touched ON trials (touched);
CREATE INDEX IF NOT EXISTS trials_same ON trials (same_as);
CREATE TABLE IF NOT EXISTS attempts (
    attempt INTEGER PRIMARY KEY AUTOINCREMENT, number INTEGER NOT NULL, state TEXT NOT NULL,
    worker TEXT NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL, born TEXT NOT NULL, place TEXT NOT NULL,
    device TEXT NOT NULL, code TEXT NOT NULL, devices REAL NOT NULL, start REAL NOT NULL, end REAL,
    begun REAL NOT NULL, beat REAL NOT NULL, clock TEXT NOT NULL, seconds REAL NOT NULL DEFAULT 0,
    compile_seconds REAL NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT '', signature TEXT NOT NULL DEFAULT '',
    log TEXT NOT NULL DEFAULT '[]');
CREATE INDEX IF NOT EXISTS attempts_number ON attempts (number);
CREATE INDEX IF NOT EXISTS attempts_state ON attempts (state);
CREATE INDEX IF NOT EXISTS attempts_worker ON attempts (worker, pid);
CREATE TABLE IF NOT EXISTS readings (
    number INTEGER NOT NULL, epoch INTEGER NOT NULL, attempt INTEGER NOT NULL, seconds REAL NOT NULL,
    content TEXT NOT NULL, PRIMARY KEY (number, epoch));
CREATE TABLE IF NOT EXISTS workers (
    name TEXT PRIMARY KEY, failing INTEGER NOT NULL, last INTEGER, quarantined INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS sessions (session INTEGER PRIMARY KEY, start REAL NOT NULL, seconds REAL NOT NULL);
"""
DAMAGE = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_FORMAT")
DISK = ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")


class NoRoom(Mistake):
    """The disk is full or refuses."""


class Store:
    """One connection, for one thread. Readers never wait; writers take turns."""

    def __init__(self, path: Path):
        self.path = path
        with self.speaking():
            self._db = sqlite3.connect(path, timeout=WAIT, isolation_level=None)
            self._db.execute("PRAGMA synchronous = NORMAL")  # a kill loses nothing; a power cut the last moments
            if self._db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
                raise Mistake(f"{path} lies where SQLite cannot keep a log beside it; take a local disk for --out")
            self._create()

    def _create(self) -> None:
        found = self._db.execute("PRAGMA user_version").fetchone()[0]
        if found not in (0, VERSION):
            raise Mistake(
                f"{self.path} is of version {found}, and this jaxrec knows {VERSION}; use the one that wrote it"
            )
        if not found:
            with self.writing() as db:
                for statement in TABLES.split(";")[:-1]:
                    db.execute(statement)
                db.execute("INSERT OR IGNORE INTO facts VALUES ('tick', '0')")
                db.execute(f"PRAGMA user_version = {VERSION}")

    def check(self) -> None:
        """Read every page. Mistake for a file that is damaged."""
        with self.speaking():
            found = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise damaged(self.path, found)

    def all(self, query: str, *values: Any) -> list[Any]:
        with self.speaking():
            return self._db.execute(query, values).fetchall()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it or nothing, and no other writer in between."""
        with self.speaking():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextmanager
    def speaking(self) -> Iterator[None]:
        """What SQLite raises becomes a `Mistake` where a person can mend it."""
        try:
            yield
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", "") or ""
            if name.startswith(DISK):
                remedy = "free some space there" if name == "SQLITE_FULL" else "see to that"
                raise NoRoom(f"{self.path}: {error}; {remedy}, and the same command goes on from there") from error
            if name.startswith("SQLITE_BUSY"):
                raise Mistake(
                    f"{self.path} was locked by another process for {WAIT:g} seconds; end that one"
                ) from error
            if name.startswith(DAMAGE) or str(error).startswith("no such"):  # a table or column: another file
                raise damaged(self.path, str(error)) from error
            raise

    def close(self) -> None:
        self._db.close()


def damaged(path: Path, why: str) -> Mistake:
    """What is said of a ledger that cannot be read."""
    return Mistake(
        f"{path} is damaged ({why.splitlines()[0]}); the same command with --rebuild makes it anew from the run folders"
        " and keeps this one beside it"
    )
