"""The durable store: one SQLite file that survives `kill -9` at any instant.

Write-ahead log with `synchronous=FULL`: a commit is on disk before it is acknowledged. The connection holds the file
in exclusive mode, which needs no shared memory, and which is also the lock that keeps a second platform out; the
lock ends with its process, so a restarted platform only waits for the old one to be gone.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hekla.platform.api.meta import Ref
from hekla.platform.base.clock import Clock
from hekla.platform.base.errors import HeklaError, Permanent, Unavailable
from hekla.platform.base.ids import Ids
from hekla.platform.base.limits import WATCH_HISTORY_EVENTS_MAX
from hekla.platform.store.core import TableStore
from hekla.platform.store.table import Change, Row

SCHEMA_VERSION = 1
"""In the file's `user_version`; a change of the tables below is a new number and a migration."""

LOCK_WAIT_S = 5.0
"""How long to wait for the process that holds the file: a killed platform is gone within a second or two."""

SCHEMA = """
CREATE TABLE objects (
  kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, uid TEXT NOT NULL UNIQUE, body TEXT NOT NULL,
  PRIMARY KEY (kind, namespace, name));
CREATE TABLE owners (
  owner TEXT NOT NULL, kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
  PRIMARY KEY (owner, kind, namespace, name)) WITHOUT ROWID;
CREATE INDEX owners_of ON owners (kind, namespace, name);
CREATE TABLE events (
  version INTEGER PRIMARY KEY, type TEXT NOT NULL, kind TEXT NOT NULL, uid TEXT NOT NULL, body TEXT NOT NULL);
"""


class SqliteStore(TableStore):
    """Raises Unavailable when another process holds the file, Permanent when it is not a store this hekla can read."""

    def __init__(self, path: str | Path, clock: Clock, ids: Ids, *, lock_wait_s: float = LOCK_WAIT_S) -> None:
        super().__init__(SqliteTable(Path(path), lock_wait_s), clock, ids)


class SqliteTable:
    def __init__(self, path: Path, lock_wait_s: float) -> None:
        self._path = path
        self._depth = 0
        self._connection = _connect(path, lock_wait_s)

    def get(self, ref: Ref) -> str | None:
        rows = self._run("SELECT body FROM objects WHERE kind=? AND namespace=? AND name=?", *_key(ref))
        return rows[0][0] if rows else None

    def scan(self, kind: str, namespace: str | None) -> list[str]:
        rows = self._run(
            "SELECT body FROM objects WHERE kind=?1 AND (?2 IS NULL OR namespace=?2) ORDER BY namespace, name",
            kind,
            namespace,
        )
        return [row[0] for row in rows]

    def owned_by(self, uid: str) -> list[Ref]:
        rows = self._run("SELECT kind, namespace, name FROM owners WHERE owner=? ORDER BY kind, namespace, name", uid)
        return [Ref(*row) for row in rows]

    def has_uid(self, uid: str) -> bool:
        return bool(self._run("SELECT 1 FROM objects WHERE uid=?", uid))

    def put(self, row: Row) -> None:
        key = _key(row.ref)
        self._write("DELETE FROM owners WHERE kind=? AND namespace=? AND name=?", *key)
        self._write(
            "INSERT INTO objects VALUES (?,?,?,?,?)"
            " ON CONFLICT (kind, namespace, name) DO UPDATE SET uid=excluded.uid, body=excluded.body",
            *(*key, row.uid, row.text),
        )
        for owner in row.owners:
            self._write("INSERT INTO owners VALUES (?,?,?,?)", owner, *key)

    def remove(self, ref: Ref) -> None:
        self._write("DELETE FROM owners WHERE kind=? AND namespace=? AND name=?", *_key(ref))
        self._write("DELETE FROM objects WHERE kind=? AND namespace=? AND name=?", *_key(ref))

    def push(self) -> None:
        if self._depth:
            self._write(f"SAVEPOINT s{self._depth}")
        else:
            self._run("BEGIN IMMEDIATE")
        self._depth += 1

    def pop(self) -> None:
        self._depth -= 1
        self._write(f"RELEASE s{self._depth}")

    def undo(self) -> None:
        self._depth -= 1
        # SQLite has already rolled back by itself after some errors, such as a full disk.
        if not self._connection.in_transaction:
            return
        if self._depth:
            self._run(f"ROLLBACK TO s{self._depth}")
            self._run(f"RELEASE s{self._depth}")
        else:
            self._run("ROLLBACK")

    def commit(self, changes: Sequence[Change]) -> None:
        try:
            for change in changes:
                self._write(
                    "INSERT INTO events VALUES (?,?,?,?,?)",
                    *(change.version, change.type, change.kind, change.uid, change.text),
                )
            if changes:
                self._write("DELETE FROM events WHERE version <= ?", changes[-1].version - WATCH_HISTORY_EVENTS_MAX)
            self._write("COMMIT")
        except BaseException:
            self.undo()
            raise
        self._depth -= 1

    def history(self) -> list[Change]:
        return [Change(*row) for row in self._run("SELECT version, type, kind, uid, body FROM events ORDER BY version")]

    def close(self) -> None:
        self._connection.close()

    def _write(self, sql: str, *values: Any) -> None:
        # Outside a transaction SQLite would commit each statement by itself: half of a transaction.
        if not self._connection.in_transaction:
            raise Unavailable(f"store {self._path}: the transaction was rolled back by an earlier error")
        self._run(sql, *values)

    def _run(self, sql: str, *values: Any) -> list[Any]:
        try:
            return self._connection.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise _translated(self._path, error) from error

    def __repr__(self) -> str:
        return f"SqliteTable({str(self._path)!r})"


def _connect(path: Path, lock_wait_s: float) -> sqlite3.Connection:
    _make_file(path)
    with ExitStack() as on_failure:
        try:
            connection = sqlite3.connect(path, timeout=lock_wait_s, isolation_level=None, check_same_thread=False)
            on_failure.callback(connection.close)
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("BEGIN EXCLUSIVE")
            _prepare(connection, path)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise _translated(path, error, lock_wait_s) from error
        on_failure.pop_all()
    return connection


def _make_file(path: Path) -> None:
    """An empty file that only its owner can read, as objects may hold tokens; nothing when there is one.

    An existing file is not opened here: closing a descriptor of it would drop the lock that another connection of
    this process holds (POSIX record locks belong to the process).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        pass
    except OSError as error:
        raise Permanent(f"store {path}: can't make the file: {error.strerror}") from error


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Create the tables, or make sure that they are the ones this code knows."""
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found > SCHEMA_VERSION:
        known = f"this hekla reads up to {SCHEMA_VERSION}"
        raise Permanent(
            f"store {path} has schema version {found}, {known}: use the hekla that wrote it, or a newer one"
        )
    if found == SCHEMA_VERSION:
        return
    if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise Permanent(f"store {path} is an SQLite file of something else: it has tables but no schema version")
    for statement in SCHEMA.split(";"):
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


def _translated(path: Path, error: sqlite3.Error, waited_s: float | None = None) -> HeklaError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_BUSY:
        waited = "" if waited_s is None else f" (waited {waited_s:g} s)"
        return Unavailable(f"store {path} is in use by another process{waited}: one platform at a time may hold it")
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_CANTOPEN):
        return Permanent(f"store {path} is damaged or no store: {error}")
    return Unavailable(f"store {path}: {error}")


def _key(ref: Ref) -> tuple[str, str, str]:
    return ref.kind, ref.namespace, ref.name
