"""The ledger on disk: one SQLite file, appended to in signed, durable transactions."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from poa.errors import PoaError
from poa.ledger import replay, schema
from poa.ledger.checkpoint import Checkpoint
from poa.ledger.durable import sync_folder
from poa.ledger.events import Event
from poa.ledger.merkle import Frontier, leaf_hash
from poa.ledger.money import Transfer
from poa.ledger.note import Signer, Verifier
from poa.ledger.refusal import Refusal
from poa.ledger.state import State


class Ledger:
    """An append-only log of events. Use as a context manager, or call `close`.

    Reading needs no key. With the log's `Signer` events can be appended; a second process may append to the same
    file, each transaction sees what the other wrote. Not for use from several threads.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, verifier: Verifier, signer: Signer | None) -> None:
        self.path = path
        self.origin = verifier.name
        self.verifier = verifier
        self._connection = connection
        self._signer = signer
        self._state: State | None = None
        self._frontier = Frontier()

    @staticmethod
    def init(path: str | Path, origin: str, signer: Signer) -> Ledger:
        """A new, empty ledger with a signed checkpoint of size 0; `signer` must be named `origin`.

        Raises `PoaError` where `path` exists: a new log is never started silently over a lost one.
        """
        path = Path(path)
        head = Checkpoint(origin, 0, Frontier().root).signed(signer)
        path.parent.mkdir(parents=True, exist_ok=True)
        with _said_plainly(path), tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            work = Path(folder) / "new"
            with closing(schema.connect_to_write(work)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                schema.create(connection)
                connection.execute("INSERT INTO log VALUES (?, ?, ?)", (schema.FORMAT, origin, signer.verifier.vkey))
                connection.execute("INSERT INTO cp VALUES (0, x'', ?)", (head.note,))
                connection.execute("COMMIT")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            # link, unlike rename, refuses to replace a file that appeared meanwhile.
            try:
                os.link(work, path)
            except FileExistsError as error:
                raise PoaError(f"{path} exists already; open it, or choose another path for a new ledger") from error
            sync_folder(path.parent)
        return Ledger.open(path, signer)

    @staticmethod
    def open(path: str | Path, signer: Signer | None = None) -> Ledger:
        """An existing ledger; raises `PoaError` where it is absent, damaged or belongs to another key."""
        path = Path(path)
        if not path.is_file():
            raise PoaError(f"no ledger at {path}; Ledger.init makes a new one")
        with _said_plainly(path):
            connection = schema.connect_to_read(path) if signer is None else schema.connect_to_write(path)
            try:
                with schema.reading("the log's name and key"):
                    schema.check_tables(connection)
                    row = connection.execute("SELECT format, origin, vkey FROM log").fetchone()
                number, origin, vkey = row or (0, "", "")
                verifier = Verifier.parse(vkey)
                if number != schema.FORMAT or verifier.name != origin:
                    raise PoaError(f"{path} has format {number}, this program reads {schema.FORMAT}")
                if signer is not None and signer.verifier != verifier:
                    raise PoaError(f"{path} belongs to the key {vkey}, the one given is {signer.verifier.vkey}")
                ledger = Ledger(path, connection, verifier, signer)
                if signer is not None:
                    ledger._prepare_to_write()
                return ledger
            except BaseException:
                connection.close()
                raise

    def append(self, events: Sequence[Event]) -> list[int]:
        """Log `events` in one durable transaction and return their seqs; either all of them or none.

        An event that is already logged with the same bytes keeps its old seq, so retries are safe; the same id with
        other bytes is refused. Every rule of the log is checked first. Returns only after commit. Raises `PoaError`
        (also on a full disk), after which the ledger is as before.
        """
        if self._signer is None:
            raise PoaError(f"{self.path} was opened for reading; open it with the log's key to append")
        with _said_plainly(self.path), self._transaction():
            state = self._caught_up()
            first = state.size
            seqs: list[int] = []
            fresh: list[tuple[Event, tuple[Transfer, ...]]] = []
            for event in events:
                known = state.ids.get(event.id)
                if known is not None:
                    self._demand_equal(event, known, [pending for pending, _ in fresh], first)
                else:
                    # Events are parsed again from their bytes: an Event can also be built by hand.
                    fresh.append((event, _apply(state, Event.parse(event.raw))))
                seqs.append(state.ids[event.id])
            if fresh:
                self._write(first, fresh, self._signer)
        return seqs

    def head(self) -> Checkpoint:
        """The newest signed checkpoint; its signature is checked."""
        with _said_plainly(self.path), schema.reading("the newest checkpoint"):
            row = self._connection.execute("SELECT note FROM cp ORDER BY size DESC LIMIT 1").fetchone()
        if row is None:
            raise Refusal("checkpoint", f"{self.path} holds no checkpoint")
        return Checkpoint.open(row[0], self.verifier)

    def events(self, type: str | None = None) -> Iterator[tuple[int, Event]]:
        """(seq, event) in order, of one type or all. Signatures are checked, history is not: see `verify`."""
        with closing(self._connection.cursor()) as cursor:
            query = "SELECT seq, type, body FROM ev NOT INDEXED ORDER BY seq"
            for seq, kind, body in schema.guarded(cursor, query, "an entry"):
                if type is None or kind == type:
                    yield seq, Event.parse(bytes(body))

    def seq_of(self, event_id: str) -> int:
        """The position of an event; raises `PoaError` where no event has that id."""
        with _said_plainly(self.path), schema.reading("the event ids"):
            row = self._connection.execute("SELECT seq FROM ev WHERE id = ?", (event_id,)).fetchone()
        if row is None:
            raise PoaError(f"no event {event_id!r} in {self.path}")
        return int(row[0])

    def leaves(self, size: int) -> list[bytes]:
        """The stored bytes of the first `size` entries, in order, read from the table without its index."""
        with schema.reading("the entries"):
            rows = self._connection.execute("SELECT body FROM ev NOT INDEXED WHERE seq < ? ORDER BY seq", (size,))
            return [bytes(row[0]) for row in rows]

    def state(self) -> State:
        """What all entries mean together, replayed afresh; raises `Refusal` at the first that breaks a rule."""
        state = State(self.origin)
        for _, event in self.events():
            replay.apply(state, event)
        return state

    def close(self) -> None:
        """Bring everything into the main file, so that a failed sync is reported here, and close."""
        with _said_plainly(self.path):
            try:
                if self._signer is not None:
                    self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                self._connection.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _prepare_to_write(self) -> None:
        with self._transaction():
            self._caught_up()
        # The WAL file exists since this first transaction asked for the write lock; its name must survive too.
        sync_folder(self.path.parent)

    def _caught_up(self) -> State:
        """The state and frontier after all rows, re-derived from the stored bytes and held against the signed head."""
        state = self._state or State(self.origin)
        # Whatever fails from here on leaves a half-changed state behind; it is then rebuilt from the rows.
        self._state = None
        frontier = self._frontier if state.size else Frontier()
        rows = self._connection.execute("SELECT seq, body FROM ev WHERE seq >= ? ORDER BY seq", (state.size,))
        for seq, body in rows:
            if seq != state.size:
                raise Refusal("seq", f"{self.path}: entry {state.size} is missing")
            _apply(state, Event.parse(body))
            frontier = frontier.append([leaf_hash(body)])
        head = self.head()
        if (head.size, head.root) != (frontier.size, frontier.root):
            raise Refusal("root", f"{self.path}: the entries do not have the signed root of size {head.size}")
        self._state, self._frontier = state, frontier
        return state

    def _demand_equal(self, event: Event, seq: int, pending: list[Event], first: int) -> None:
        if seq >= first:
            stored = pending[seq - first].raw
        else:
            stored = self._connection.execute("SELECT body FROM ev WHERE seq = ?", (seq,)).fetchone()[0]
        if stored != event.raw:
            raise Refusal("id", f"event id {event.id} was already used by entry {seq} with other content")

    def _write(self, first: int, fresh: list[tuple[Event, tuple[Transfer, ...]]], signer: Signer) -> None:
        execute = self._connection.execute
        for seq, (event, transfers) in enumerate(fresh, first):
            row = (seq, event.id, event.type, leaf_hash(event.raw), event.raw)
            execute("INSERT INTO ev VALUES (?, ?, ?, ?, ?)", row)
            for n, transfer in enumerate(transfers):
                accounts = (self._account(transfer.debit), self._account(transfer.credit))
                execute("INSERT INTO xfer VALUES (?, ?, ?, ?, ?)", (seq, n, *accounts, transfer.amount))
        # What gets signed is what the database gives back, not what was handed to it.
        stored = [row[0] for row in execute("SELECT body FROM ev WHERE seq >= ? ORDER BY seq", (first,))]
        if stored != [event.raw for event, _ in fresh]:
            raise Refusal("storage", f"{self.path}: the database returns other bytes than were written")
        frontier = self._frontier.append(leaf_hash(body) for body in stored)
        head = Checkpoint(self.origin, frontier.size, frontier.root).signed(signer)
        execute("INSERT INTO cp VALUES (?, ?, ?)", (head.size, frontier.to_bytes(), head.note))
        self._frontier = frontier

    def _account(self, name: str) -> int:
        self._connection.execute("INSERT OR IGNORE INTO acct (name) VALUES (?)", (name,))
        return int(self._connection.execute("SELECT id FROM acct WHERE name = ?", (name,)).fetchone()[0])

    @contextmanager
    def _transaction(self) -> Generator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            self._state = None
            # SQLite has already rolled back by itself after some errors (a full disk among them).
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise


def _apply(state: State, event: Event) -> tuple[Transfer, ...]:
    try:
        return replay.apply(state, event)
    except Refusal as refusal:
        where = f"entry {state.size} ({event.type} {event.id}): {refusal.reason}"
        raise type(refusal)(refusal.rule, where) from refusal


@contextmanager
def _said_plainly(path: Path) -> Generator[None]:
    """SQLite's and the system's errors as one clear line."""
    try:
        yield
    except sqlite3.Error as error:
        raise PoaError(f"ledger {path}: {error}") from error
    except OSError as error:
        raise PoaError(f"ledger {path}: {error.strerror or error}") from error
