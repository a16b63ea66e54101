"""The SQLite tables of a ledger, and how the file is opened for reading and for writing."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from poa.errors import PoaError
from poa.ledger.refusal import Refusal

FORMAT = 1

TABLES: dict[str, str] = {
    "log": "CREATE TABLE log (format INTEGER NOT NULL, origin TEXT NOT NULL, vkey TEXT NOT NULL) STRICT",
    "ev": "CREATE TABLE ev (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, type TEXT NOT NULL, "
    "leaf BLOB NOT NULL CHECK (length(leaf) = 32), body BLOB NOT NULL) STRICT",
    "cp": "CREATE TABLE cp (size INTEGER PRIMARY KEY, frontier BLOB NOT NULL, note TEXT NOT NULL) STRICT",
    "acct": "CREATE TABLE acct (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT",
    "xfer": "CREATE TABLE xfer (seq INTEGER NOT NULL, n INTEGER NOT NULL, debit INTEGER NOT NULL, "
    "credit INTEGER NOT NULL, amount INTEGER NOT NULL CHECK (amount > 0), PRIMARY KEY (seq, n)) STRICT",
}


def create(connection: sqlite3.Connection) -> None:
    """Tables and append-only triggers. The triggers stop accidents; the signed root notices everything else."""
    for name, statement in TABLES.items():
        connection.execute(statement)
        for action in ("UPDATE", "DELETE"):
            connection.execute(
                f"CREATE TRIGGER {name}_{action.lower()} BEFORE {action} ON {name} "
                f"BEGIN SELECT RAISE(ABORT, '{name} is append-only'); END"
            )


def connect_to_write(path: Path) -> sqlite3.Connection:
    """A connection in WAL mode with full synchronisation; raises `PoaError` where SQLite does not grant both."""
    connection = sqlite3.connect(path, timeout=60.0, isolation_level=None)
    try:
        # Unread, this answer hides that SQLite stayed in rollback mode.
        mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        connection.execute("PRAGMA synchronous=FULL")
        level = connection.execute("PRAGMA synchronous").fetchone()[0]
        if mode != "wal" or level != 2:
            raise PoaError(f"{path}: SQLite answers journal mode {mode!r} and synchronous {level}, must be wal and 2")
        connection.execute("PRAGMA trusted_schema=OFF")
    except BaseException:
        connection.close()
        raise
    return connection


def connect_to_read(path: Path) -> sqlite3.Connection:
    """A connection that writes nothing; a folder that allows no shared-memory file is read as immutable."""
    wal = path.with_name(path.name + "-wal")
    modes = ["mode=ro", "mode=ro&immutable=1"]
    if not (wal.exists() and wal.stat().st_size):
        # A read-only connection leaves an empty WAL behind. With pending frames it is right all the same: they are
        # brought into the file by a writer, which checks that the sync succeeded.
        modes.insert(0, "mode=rw")
    while True:
        connection = _connect(f"file:{quote(str(path.absolute()))}?{modes.pop(0)}")
        try:
            for pragma in ("query_only=ON", "trusted_schema=OFF", "cell_size_check=ON"):
                connection.execute(f"PRAGMA {pragma}")
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            return connection
        except sqlite3.OperationalError:
            connection.close()
            if not modes:
                raise
        except BaseException:
            connection.close()
            raise


def _connect(uri: str) -> sqlite3.Connection:
    connection = sqlite3.connect(uri, uri=True, timeout=60.0, isolation_level=None)
    # Damaged text must become a difference that is found, not an exception inside the driver.
    connection.text_factory = _lenient
    return connection


@contextmanager
def reading(what: str) -> Generator[None]:
    """Turns SQLite's complaints about damaged data into a `Refusal` with rule "storage" that names `what`."""
    try:
        yield
    except (sqlite3.DatabaseError, OverflowError, UnicodeError) as error:
        if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
            raise
        raise Refusal("storage", f"{what} cannot be read from the database: {error}") from error


def guarded(cursor: sqlite3.Cursor, query: str, what: str) -> Iterator[tuple[Any, ...]]:
    """The rows of `query`, with `reading(what)` around every step."""
    with reading(what):
        cursor.execute(query)
    while True:
        with reading(what):
            row = cursor.fetchone()
        if row is None:
            return
        yield row


def check_tables(connection: sqlite3.Connection) -> None:
    """Raises `Refusal` unless the tables are exactly those that `create` makes (no views, no other types)."""
    found = dict(connection.execute("SELECT name, sql FROM sqlite_schema WHERE type IN ('table', 'view')"))
    for name, statement in TABLES.items():
        if found.get(name) != statement:
            raise Refusal("storage", f"table {name} is missing or not the one a ledger has")


def _lenient(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
