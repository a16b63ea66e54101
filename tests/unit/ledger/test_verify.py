"""Verification: whatever byte of a ledger changes, the verdict is "proven wrong" and names the place."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from poa.ledger import Event, Ledger, Signer, journal, verify
from poa.ledger.events import event_bytes
from poa.ledger.merkle import Frontier, leaf_hash
from poa.ledger.schema import TABLES
from poa.rewards.policy import Policy

Edit = Callable[[sqlite3.Connection], object]


@contextmanager
def tampering(path: Path) -> Generator[sqlite3.Connection]:
    """A connection that writes behind the ledger's back: triggers dropped, constraints and syncs off."""
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("ignore_check_constraints=ON", "journal_mode=MEMORY", "synchronous=OFF"):
        connection.execute(f"PRAGMA {pragma}").fetchone()
    for table in TABLES:
        for action in ("update", "delete"):
            connection.execute(f"DROP TRIGGER IF EXISTS {table}_{action}")
    try:
        yield connection
    finally:
        connection.close()


def edit(path: Path, change: Edit) -> None:
    with tampering(path) as connection:
        change(connection)


def flipped(data: bytes, at: int, bit: int = 1) -> bytes:
    return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]


def forge_last(path: Path, signer: Signer, body: bytes) -> None:
    """What somebody with the log's own key can do: another last entry under a newly signed head."""
    from poa.ledger import Checkpoint

    def change(connection: sqlite3.Connection) -> None:
        bodies = [row[0] for row in connection.execute("SELECT body FROM ev ORDER BY seq")]
        event = json.loads(body)
        connection.execute("DELETE FROM ev WHERE seq = ?", (len(bodies) - 1,))
        connection.execute("DELETE FROM xfer WHERE seq = ?", (len(bodies) - 1,))
        row = (len(bodies) - 1, event["id"], event["type"], leaf_hash(body), body)
        connection.execute("INSERT INTO ev VALUES (?, ?, ?, ?, ?)", row)
        frontier = Frontier().append(leaf_hash(raw) for raw in [*bodies[:-1], body])
        head = Checkpoint(signer.name, frontier.size, frontier.root).signed(signer)
        connection.execute("DELETE FROM cp WHERE size = ?", (frontier.size,))
        connection.execute("INSERT INTO cp VALUES (?, ?, ?)", (frontier.size, frontier.to_bytes(), head.note))

    edit(path, change)


def test_an_honest_ledger_verifies(written: Any) -> None:
    for vkey, policy in ((None, None), (written.vkey, None), (written.vkey, written.policy)):
        verdict = verify(written.path, vkey, policy)
        assert (verdict.ok, verdict.code, verdict.seq) == (True, 0, None), verdict.message
        assert verdict.size == len(written.events)
    with Ledger.open(written.path) as ledger:
        assert verdict.root == ledger.head().root.hex()
    totals = dict(verdict.totals)
    assert sum(totals.values()) == 0
    assert -totals["ext:deposits"] == 1_000_000
    assert totals["escrow"] == 500
    assert totals["payable"] > 0


def test_verifying_changes_no_file(written: Any) -> None:
    before = {file.name: file.read_bytes() for file in written.path.parent.iterdir()}
    verify(written.path)
    assert {file.name: file.read_bytes() for file in written.path.parent.iterdir()} == before


def test_dropped_triggers_alone_change_nothing(copied: Path, written: Any) -> None:
    edit(copied, lambda connection: None)
    assert verify(copied, written.vkey).ok


def test_every_byte_of_entries_in_the_columns(copied: Path, written: Any) -> None:
    """All bytes of some early entries, every seventh of the settlement and of the last entry."""
    names = list(written.events)
    steps = {0: 1, 4: 1, names.index("reveal ada"): 1, names.index("settle"): 7, len(names) - 1: 7}
    with tampering(copied) as connection:
        for seq, step in steps.items():
            row = connection.execute("SELECT body, leaf FROM ev WHERE seq = ?", (seq,)).fetchone()
            for column, honest in zip(("body", "leaf"), row, strict=True):
                update = f"UPDATE ev SET {column} = ? WHERE seq = ?"
                for at in range(0, len(honest), step):
                    connection.execute(update, (flipped(honest, at, 1 << (at % 8)), seq))
                    verdict = verify(copied)
                    assert (verdict.code, verdict.seq, verdict.rule) == (1, seq, "leaf"), (column, at)
                    assert verdict.message.startswith(f"entry {seq}: ")
                connection.execute(update, (honest, seq))
        assert verify(copied).ok


def test_every_byte_of_a_body_with_its_leaf_hash_mended(copied: Path) -> None:
    """The leaf is re-hashed, so what speaks is canonical form, signature or rule; the entry is still the first bad."""
    seq = 2
    update = "UPDATE ev SET body = ?, leaf = ? WHERE seq = ?"
    rules: set[str] = set()
    with tampering(copied) as connection:
        honest = connection.execute("SELECT body FROM ev WHERE seq = ?", (seq,)).fetchone()[0]
        for at in range(len(honest)):
            bad = flipped(honest, at, 1 << (at % 7))
            connection.execute(update, (bad, leaf_hash(bad), seq))
            verdict = verify(copied)
            assert (verdict.code, verdict.seq) == (1, seq), (at, verdict.message)
            rules.add(verdict.rule)
    assert {"encoding", "signature"} <= rules


def test_every_byte_of_checkpoints(copied: Path, written: Any) -> None:
    with tampering(copied) as connection:
        rows = connection.execute("SELECT size, frontier, note FROM cp ORDER BY size").fetchall()
        for size, frontier, note in (rows[0], rows[1], rows[-1]):
            for at in range(len(frontier)):
                connection.execute("UPDATE cp SET frontier = ? WHERE size = ?", (flipped(frontier, at), size))
                verdict = verify(copied)
                assert (verdict.code, verdict.rule, verdict.seq) == (1, "frontier", size - 1)
                assert f"checkpoint of size {size}:" in verdict.message
            connection.execute("UPDATE cp SET frontier = ? WHERE size = ?", (frontier, size))
            for at in range(len(note.encode())):
                # A cast, so that invalid UTF-8 can be stored as text too.
                statement = "UPDATE cp SET note = CAST(? AS TEXT) WHERE size = ?"
                connection.execute(statement, (flipped(note.encode(), at), size))
                verdict = verify(copied)
                assert (verdict.code, verdict.seq) == (1, size - 1 if size else None), (at, verdict.message)
                assert f"checkpoint of size {size}:" in verdict.message
            connection.execute("UPDATE cp SET note = ? WHERE size = ?", (note, size))
            moved = next(n for n in range(size + 1, size + 9) if n not in {row[0] for row in rows})
            connection.execute("UPDATE cp SET size = ? WHERE size = ?", (moved, size))
            assert verify(copied).code == 1
            connection.execute("UPDATE cp SET size = ? WHERE size = ?", (size, moved))
    assert verify(copied, written.vkey).ok


def _places(data: bytes, part: bytes) -> list[int]:
    places: list[int] = []
    at = data.find(part)
    while at >= 0:
        places.append(at)
        at = data.find(part, at + 1)
    return places


def _contents(path: Path) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return [connection.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES]


def test_bytes_of_entries_in_the_raw_file(copied: Path, written: Any) -> None:
    """Flips in the file itself, wherever bytes of an entry or a checkpoint lie, in the id index too."""
    honest = copied.read_bytes()
    with closing(sqlite3.connect(copied)) as connection:
        rows = connection.execute("SELECT id, leaf, body FROM ev WHERE seq IN (1, 6, 14)").fetchall()
        note = connection.execute("SELECT note FROM cp ORDER BY size DESC LIMIT 1").fetchone()[0].encode()
    spots: set[int] = set()
    for name, leaf, body in rows:
        for part, step in ((leaf, 1), (body[:150], 7), (body[-150:], 7), (name.encode(), 5)):
            for at in _places(honest, part):
                spots |= set(range(at, at + len(part), step))
    for at in _places(honest, note):
        spots |= set(range(at, at + len(note), 5))
    assert len(spots) > 400
    for at in sorted(spots):
        copied.write_bytes(flipped(honest, at, 1 << (at % 8)))
        verdict = verify(copied, written.vkey)
        assert (verdict.ok, verdict.code) == (False, 1), (at, verdict.message)
        assert verdict.message


def test_bytes_of_record_headers_in_the_raw_file(copied: Path, written: Any) -> None:
    """Lengths and types before a row: found, or (SQLite never reads the type of a rowid) without any meaning."""
    honest, contents = copied.read_bytes(), _contents(copied)
    with closing(sqlite3.connect(copied)) as connection:
        rows = connection.execute("SELECT id || type FROM ev WHERE seq IN (2, 9, 20)").fetchall()
    unread = 0
    for (columns,) in rows:
        (start,) = _places(honest, columns.encode())
        for at in range(start - 10, start):
            for bit in range(8):
                copied.write_bytes(flipped(honest, at, 1 << bit))
                verdict = verify(copied, written.vkey)
                if verdict.ok:
                    unread += 1
                    assert _contents(copied) == contents
                else:
                    assert verdict.code == 1, verdict.message
    assert unread <= 8 * len(rows)


def test_a_database_damaged_beyond_reading(copied: Path, written: Any, tmp_path: Path) -> None:
    honest = copied.read_bytes()
    page = 4096
    for start in range(0, len(honest), page):
        copied.write_bytes(honest[:start] + b"\xa5" * page + honest[start + page :])
        verdict = verify(copied, written.vkey)
        assert (verdict.ok, verdict.code) == (False, 1), (start, verdict.message)
    copied.write_bytes(b"\x00" * len(honest))
    verdict = verify(copied)
    assert (verdict.code, verdict.rule) == (1, "storage")
    assert "cannot be read" in verdict.message
    copied.write_bytes(honest[: page + 100])
    assert verify(copied).code == 1
    copied.write_bytes(b"")
    assert verify(copied).code == 1


@pytest.mark.parametrize(
    ("statement", "rule", "nickname"),
    [
        ("DELETE FROM ev WHERE seq = 5", "seq", "cyd"),
        ("DELETE FROM ev WHERE seq = (SELECT max(seq) FROM ev)", "seq", "free"),
        ("DELETE FROM cp WHERE size = (SELECT max(size) FROM cp)", "root", "free"),
        ("UPDATE ev SET seq = 1000 WHERE seq = 5", "seq", "cyd"),
        ("UPDATE ev SET id = 'other' WHERE seq = 5", "columns", "cyd"),
        ("UPDATE ev SET type = 'data.commit' WHERE seq = 5", "columns", "cyd"),
        ("UPDATE xfer SET amount = amount + 1 WHERE seq = (SELECT min(seq) FROM xfer)", "transfers", "deposit"),
        ("DELETE FROM xfer WHERE seq = (SELECT min(seq) FROM xfer)", "transfers", "deposit"),
        ("UPDATE xfer SET credit = debit WHERE seq = (SELECT min(seq) FROM xfer)", "transfers", "deposit"),
        ("INSERT INTO xfer VALUES (3, 0, 1, 2, 5)", "transfers", "ada"),
        ("UPDATE acct SET name = 'avail:me' WHERE name LIKE 'avail:%'", "transfers", "deposit"),
    ],
)
def test_changed_rows(copied: Path, written: Any, statement: str, rule: str, nickname: str) -> None:
    edit(copied, lambda connection: connection.execute(statement))
    verdict = verify(copied, written.vkey)
    assert (verdict.code, verdict.rule, verdict.seq) == (1, rule, list(written.events).index(nickname))


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        ("INSERT INTO xfer VALUES (5000, 0, 1, 2, 5)", "transfers"),
        ("DELETE FROM cp WHERE size = 0", "checkpoint"),
        ("UPDATE log SET origin = 'other'", "log"),
        ("UPDATE log SET vkey = vkey || ' '", "log"),
        ("UPDATE log SET vkey = 'x'", "log"),
        ("INSERT INTO log SELECT * FROM log", "log"),
        ("DELETE FROM log", "log"),
        ("DROP TABLE xfer", "storage"),
        ("ALTER TABLE ev RENAME TO old; CREATE VIEW ev AS SELECT * FROM old", "storage"),
    ],
)
def test_changed_tables(copied: Path, statement: str, rule: str) -> None:
    edit(copied, lambda connection: connection.executescript(statement))
    verdict = verify(copied)
    assert (verdict.code, verdict.rule) == (1, rule), verdict.message


def test_an_unknown_database_format_cannot_be_decided(copied: Path) -> None:
    edit(copied, lambda connection: connection.execute("UPDATE log SET format = 2"))
    assert verify(copied).code == 3


def test_a_body_stored_as_text_is_refused(copied: Path) -> None:
    edit(copied, lambda connection: _loosen_and_store_text(connection))
    assert verify(copied).code == 1


def _loosen_and_store_text(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA writable_schema=ON")
    connection.execute("UPDATE sqlite_schema SET sql = replace(sql, ') STRICT', ')') WHERE name = 'ev'")
    connection.execute("PRAGMA schema_version=999")
    connection.execute("PRAGMA writable_schema=OFF")


def test_entries_swapped_with_their_hashes(copied: Path, written: Any) -> None:
    names = list(written.events)
    one, two = names.index("receipt 1"), names.index("receipt 2")

    def swap(connection: sqlite3.Connection) -> None:
        for old, new in ((one, -1), (two, one), (-1, two)):
            connection.execute("UPDATE ev SET seq = ? WHERE seq = ?", (new, old))
            connection.execute("UPDATE xfer SET seq = ? WHERE seq = ?", (new, old))

    edit(copied, swap)
    verdict = verify(copied, written.vkey)
    assert (verdict.code, verdict.rule) == (1, "root")
    assert verdict.seq is not None
    assert verdict.seq <= one


def test_an_overpaying_settlement_signed_by_everybody(copied: Path, written: Any, tmp_path: Path) -> None:
    """Operator and log collude: correct signatures, correct tree, one micro-credit too much."""
    made = type(written)(tmp_path / "cut.sqlite")
    made.prepare()
    made.serve()
    operator = made.author("operator")
    with Ledger.init(made.path, made.signer.name, made.signer) as ledger:
        ledger.append(made.list())
        ledger.append([journal.close_epoch(operator, ledger.state())])
        settle = journal.settle_epoch(operator, ledger.state())
        ledger.append([settle])
        last = ledger.head().size - 1
    totals = [dict(row) for row in settle.body["totals"]]
    totals[0]["amount"] = str(int(totals[0]["amount"]) + 1)
    forge_last(made.path, made.signer, operator.write("epoch.settle", {**settle.body, "totals": totals}).raw)
    verdict = verify(made.path, made.vkey)
    assert (verdict.code, verdict.seq, verdict.rule) == (1, last, "settlement")


def test_a_receipt_paying_a_stranger_signed_by_everybody(copied: Path, written: Any) -> None:
    forge_last(copied, written.signer, written.receipt("forged", 500, {"operator": 10**8}).raw)
    verdict = verify(copied, written.vkey)
    assert (verdict.code, verdict.seq, verdict.rule) == (1, len(written.events) - 1, "receipt.payee")


def test_a_receipt_logged_twice_under_another_id(copied: Path, written: Any) -> None:
    twice = written.author("operator").write("inference.receipt", written.events["receipt 3"].body, id="twice")
    forge_last(copied, written.signer, twice.raw)
    verdict = verify(copied, written.vkey)
    assert (verdict.code, verdict.seq, verdict.rule) == (1, len(written.events) - 1, "receipt.once")


def _unknown(written: Any, **changes: Any) -> bytes:
    from poa.ledger.events import signing_bytes

    key = written.author("operator").key
    event: Event = written.events["free"]
    envelope = {name: value for name, value in json.loads(event.raw).items() if name != "auth"} | changes
    return event_bytes(envelope, key.public, key.sign(signing_bytes(envelope)))


@pytest.mark.parametrize(("changes", "rule"), [({"v": 2}, "version"), ({"type": "gov.vote"}, "type")])
def test_what_this_program_does_not_know_is_undecided(
    copied: Path, written: Any, changes: dict[str, Any], rule: str
) -> None:
    forge_last(copied, written.signer, _unknown(written, id="new", **changes))
    verdict = verify(copied, written.vkey)
    assert (verdict.ok, verdict.code, verdict.rule) == (False, 3, rule)
    assert verdict.seq == len(written.events) - 1


def test_a_broken_tree_beats_an_unknown_entry(copied: Path, written: Any) -> None:
    forge_last(copied, written.signer, _unknown(written, id="new", type="gov.vote"))
    edit(copied, lambda c: c.execute("UPDATE cp SET frontier = x'' WHERE size = ?", (len(written.events),)))
    assert verify(copied, written.vkey).code == 1


def test_a_rollback_is_seen_with_a_remembered_head_only(copied: Path, written: Any) -> None:
    with Ledger.open(copied) as ledger:
        note = ledger.head().note
    size = len(written.events) - 1
    for statement in (
        f"DELETE FROM cp WHERE size > {size}",
        f"DELETE FROM ev WHERE seq >= {size}",
        f"DELETE FROM xfer WHERE seq >= {size}",
    ):
        edit(copied, lambda connection, s=statement: connection.execute(s))
    assert verify(copied, written.vkey).ok
    verdict = verify(copied, written.vkey, remembered=note)
    assert (verdict.code, verdict.rule, verdict.seq) == (1, "rollback", size)
    with Ledger.open(copied, written.signer) as ledger:
        ledger.append([written.receipt("another", 7, {"bob": 10**8})])
    verdict = verify(copied, written.vkey, remembered=note)
    assert (verdict.code, verdict.rule) == (1, "fork")
    assert verify(written.path, written.vkey, remembered=note).ok


def test_wrong_use(written: Any, tmp_path: Path) -> None:
    other = Signer(written.signer.name, b"\x09" * 32)
    assert verify(tmp_path / "absent").code == 2
    assert verify(tmp_path).code == 2
    assert verify(written.path, "no key").code == 2
    assert verify(written.path, remembered="anything").code == 2
    assert verify(written.path, written.vkey, remembered="anything").code == 2
    verdict = verify(written.path, other.verifier.vkey)
    assert (verdict.code, verdict.rule) == (1, "log")


def test_another_policy_than_the_given_one(written: Any) -> None:
    verdict = verify(written.path, written.vkey, Policy.preset("net-epoch"))
    assert (verdict.code, verdict.rule) == (1, "policy.expected")
    assert verdict.seq == list(written.events).index("receipt 0")


def test_a_broken_index_is_noticed_though_the_log_is_whole(copied: Path, written: Any) -> None:
    def change(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA writable_schema=ON")
        root = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_autoindex_ev_1'").fetchone()
        other = connection.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_autoindex_acct_1'"
        ).fetchone()
        update = "UPDATE sqlite_schema SET rootpage = ? WHERE name = ?"
        connection.execute(update, (other[0], "sqlite_autoindex_ev_1"))
        connection.execute(update, (root[0], "sqlite_autoindex_acct_1"))
        connection.execute("PRAGMA schema_version=998")

    edit(copied, change)
    verdict = verify(copied, written.vkey)
    assert (verdict.code, verdict.rule) == (1, "storage")
    assert verdict.size == len(written.events)
