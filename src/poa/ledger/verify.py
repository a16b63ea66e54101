"""Verifying a ledger's database from its raw rows, trusting nothing but the log's public key."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from poa.errors import PoaError
from poa.ledger import schema
from poa.ledger.audit import Audit, remembered_head
from poa.ledger.events import Event
from poa.ledger.money import Transfer
from poa.ledger.note import Verifier
from poa.ledger.refusal import Refusal, Undecided, demand
from poa.ledger.verdict import UNDECIDED, Finding, Verdict, wrong_use
from poa.rewards.policy import Policy


class _Head(NamedTuple):
    size: int
    peaks: Any
    note: Any


def verify(
    path: str | Path, vkey: str | None = None, policy: Policy | None = None, remembered: str | None = None
) -> Verdict:
    """Re-derive everything that the ledger at `path` claims and report the first entry that is wrong.

    vkey: the log's verifier key; without it the one stored in the file is used, which proves consistency but not
    whose log it is. policy: the split policy that every receipt must be under. remembered: the note of a checkpoint
    seen earlier; without it a log that was cut back to an older signed head cannot be told from an older log.
    Checked: table shapes, contiguous seqs, columns against bytes, canonical bytes, leaf hashes, every checkpoint's
    signature, root and frontier, unique ids, event signatures, every rule of `poa.ledger.replay` (links, receipts,
    settlements, balances), the booked transfers, and SQLite's own integrity check.
    """
    path = Path(path)
    if not path.is_file():
        return wrong_use(f"no ledger database at {path}")
    try:
        expected = None if vkey is None else Verifier.parse(vkey)
        known = remembered_head(remembered, expected)
    except PoaError as error:
        return wrong_use(str(error))
    audit: Audit | None = None
    try:
        with schema.reading("the file"):
            connection = schema.connect_to_read(path)
        with closing(connection):
            audit = Audit(_verifier(connection, expected), policy, known)
            _read(connection, audit)
            return audit.verdict(expected is not None)
    except (Finding, Refusal) as found:
        finding = found if isinstance(found, Finding) else Finding(None, found)
        return finding.verdict(audit.size if audit else 0, audit.frontier.root.hex() if audit else "")
    except sqlite3.OperationalError as error:
        return Verdict(False, UNDECIDED, None, "storage", f"{path}: {error}")


def _verifier(connection: sqlite3.Connection, expected: Verifier | None) -> Verifier:
    with schema.reading("the log's name and key"):
        schema.check_tables(connection)
        rows = connection.execute("SELECT format, origin, vkey FROM log").fetchall()
    demand(len(rows) == 1, "log", f"the table log has {len(rows)} rows, must have one")
    number, origin, vkey = rows[0]
    if number != schema.FORMAT:
        raise Undecided("log", f"database format {number} is unknown; this program reads {schema.FORMAT}")
    try:
        stored = Verifier.parse(vkey)
    except PoaError as error:
        raise Refusal("log", f"the stored verifier key is damaged: {error}") from error
    whole = stored.vkey == vkey and stored.name == origin
    demand(whole, "log", f"the stored name {origin!r} or key {vkey!r} is damaged")
    demand(expected in (None, stored), "log", f"the ledger is of {stored.vkey}, another key was given")
    return stored


def _read(connection: sqlite3.Connection, audit: Audit) -> None:
    with schema.reading("the checkpoints"):
        heads = [_Head(*row) for row in connection.execute("SELECT size, frontier, note FROM cp ORDER BY size")]
    demand(bool(heads) and heads[0].size == 0, "checkpoint", "the checkpoint of size 0 is missing")
    waiting = iter(heads)
    _take_head(audit, next(waiting))
    head = next(waiting, None)
    # Open cursors would keep the file locked for as long as a raised error is remembered somewhere.
    with closing(connection.cursor()) as entries, closing(connection.cursor()) as transfers:
        booked = _Booked(transfers)
        for row in _rows(entries, audit):
            _take_entry(audit, booked, row)
            if head is not None and head.size == audit.size:
                _take_head(audit, head)
                head = next(waiting, None)
        if head is not None:
            raise Finding(audit.size, Refusal("seq", f"missing; a checkpoint of size {head.size} is signed"))
        if heads[-1].size != audit.size:
            raise Finding(heads[-1].size, Refusal("root", "no signed checkpoint covers it"))
        if audit.undecided is None and (extra := booked.next_seq()) is not None:
            raise Finding(extra, Refusal("transfers", "transfers are booked for an entry that does not exist"))
    with schema.reading("the whole file"):
        problems = [row[0] for row in connection.execute("PRAGMA integrity_check(1)")]
    demand(problems == ["ok"], "storage", f"the database is damaged: {problems[:1]}")


def _rows(cursor: sqlite3.Cursor, audit: Audit) -> Iterator[tuple[Any, ...]]:
    query = "SELECT seq, id, type, leaf, body FROM ev NOT INDEXED ORDER BY seq"
    rows = schema.guarded(cursor, query, "it or one after it")
    while True:
        try:
            row = next(rows, None)
        except Refusal as refusal:
            raise Finding(audit.size, refusal) from refusal
        if row is None:
            return
        yield row


def _take_entry(audit: Audit, booked: _Booked, row: tuple[Any, ...]) -> None:
    seq, name, kind, leaf, raw = row
    expected = audit.size
    if seq != expected:
        raise Finding(expected, Refusal("seq", f"missing; the next row has seq {seq}"))
    if type(leaf) is not bytes or type(raw) is not bytes:
        raise Finding(seq, Refusal("storage", "leaf and body must be stored as bytes"))
    judged = audit.take(raw, leaf)
    if judged is None:
        return
    event, transfers = judged
    try:
        demand((name, kind) == (event.id, event.type), "columns", f"columns say {kind!r} {name!r}, the bytes do not")
        _check_booked(booked.of(seq), transfers)
    except Refusal as refusal:
        raise Finding(seq, refusal, _named(seq, event)) from refusal


def _check_booked(stored: list[tuple[Any, ...]], transfers: tuple[Transfer, ...]) -> None:
    derived = [(n, *transfer) for n, transfer in enumerate(transfers)]
    demand(stored == derived, "transfers", f"booked transfers {stored} differ from {derived}")


def _take_head(audit: Audit, head: _Head) -> None:
    if type(head.peaks) is not bytes or type(head.note) is not str:
        raise Finding(
            head.size - 1 if head.size else None, Refusal("storage", f"checkpoint of size {head.size} is damaged")
        )
    audit.head(head.note, head.size, head.peaks)


def _named(seq: int, event: Event) -> str:
    return f"entry {seq} ({event.type} {event.id})"


class _Booked:
    """The stored transfers, walked beside the entries."""

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        query = (
            "SELECT x.seq, x.n, d.name, c.name, x.amount FROM xfer x "
            "LEFT JOIN acct d ON d.id = x.debit LEFT JOIN acct c ON c.id = x.credit ORDER BY x.seq, x.n"
        )
        rows = schema.guarded(cursor, query, "the booked transfers")
        self._groups = groupby(rows, key=lambda row: row[0])
        self._pending: tuple[int, list[tuple[Any, ...]]] | None = None
        self._advance()

    def of(self, seq: int) -> list[tuple[Any, ...]]:
        """(n, debit, credit, amount) rows booked for entry `seq`; entries must be asked for in order."""
        if self._pending is None or self._pending[0] != seq:
            return []
        rows = self._pending[1]
        self._advance()
        return rows

    def next_seq(self) -> int | None:
        """The entry of the first transfer that nobody asked for."""
        return None if self._pending is None else self._pending[0]

    def _advance(self) -> None:
        found = next(self._groups, None)
        self._pending = None if found is None else (found[0], [row[1:] for row in found[1]])
