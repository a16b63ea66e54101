"""The store: idempotence, one order for two writers, crashes, full disks, files that belong to others."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from poa.errors import PoaError
from poa.ledger import Event, Ledger, Refusal, Signer, journal, schema, verify
from poa.ledger.merkle import leaf_hash, root
from poa.ledger.schema import TABLES

ORIGIN = "poa.example/poa/test"

WRITER = """
import os, sys
from pathlib import Path
from poa.ledger import ActorKey, Author, Ledger, Signer, journal
ledger = Ledger.open(Path(sys.argv[1]), Signer("poa.example/poa/test", b"\\x01" * 32))
author = Author(ActorKey.simulated("operator"), ledger.origin)
payer = Author(ActorKey.simulated("payer"), ledger.origin).id
for n in range(int(sys.argv[3])):
    batch = [journal.deposit(author, payer, 1, f"{sys.argv[2]}/{n}/{i}") for i in range(3)]
    seqs = ledger.append(batch)
    os.write(1, "".join(f"{seq} {event.id}\\n" for seq, event in zip(seqs, batch)).encode())
ledger.close()
"""


def start(path: Path, name: str, batches: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), name, str(batches)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def funded(route: Any) -> Any:
    """A ledger with an operator and a payer."""
    operator, payer = route.author("operator"), route.author("payer")
    with Ledger.init(route.path, ORIGIN, route.signer) as ledger:
        ledger.append([journal.register(operator, ["operator"]), journal.register(payer, ["payer"])])
    return route


def deposit(route: Any, reference: str) -> Any:
    return journal.deposit(route.author("operator"), route.id("payer"), 5, reference)


def test_a_new_ledger_has_a_signed_empty_head(route: Any) -> None:
    with Ledger.init(route.path, ORIGIN, route.signer) as ledger:
        head = ledger.head()
    assert (head.size, head.root, head.origin) == (0, root([]), ORIGIN)
    assert verify(route.path, route.vkey).ok
    assert sorted(os.listdir(route.path.parent)) == ["ledger.sqlite"]


def test_init_never_replaces_a_file(route: Any) -> None:
    route.path.write_text("something")
    with pytest.raises(PoaError, match="exists already"):
        Ledger.init(route.path, ORIGIN, route.signer)
    assert route.path.read_text() == "something"
    assert os.listdir(route.path.parent) == ["ledger.sqlite"]


def test_the_key_must_be_named_like_the_log(route: Any) -> None:
    with pytest.raises(PoaError, match="log key is named"):
        Ledger.init(route.path, "another/origin", route.signer)
    assert not route.path.exists()


def test_opening_needs_the_right_file_and_key(funded: Any, tmp_path: Path) -> None:
    with pytest.raises(PoaError, match="no ledger at"):
        Ledger.open(tmp_path / "absent")
    with pytest.raises(PoaError, match="belongs to the key"):
        Ledger.open(funded.path, Signer(ORIGIN, b"\x02" * 32))
    with Ledger.open(funded.path) as ledger, pytest.raises(PoaError, match="opened for reading"):
        ledger.append([deposit(funded, "x")])
    (tmp_path / "noise").write_bytes(b"not a database at all" * 100)
    with pytest.raises(PoaError, match="not a database"):
        Ledger.open(tmp_path / "noise")


def test_writing_is_fully_synchronous_and_in_wal_mode(funded: Any) -> None:
    with Ledger.open(funded.path, funded.signer) as ledger:
        connection: sqlite3.Connection = ledger._connection  # pyright: ignore[reportPrivateUsage]
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert (funded.path.parent / "ledger.sqlite-wal").exists()
    assert not (funded.path.parent / "ledger.sqlite-wal").exists()


def test_an_ungranted_journal_mode_is_noticed() -> None:
    """An in-memory database answers "memory" where "wal" was asked for."""
    with pytest.raises(PoaError, match="must be wal"):
        schema.connect_to_write(Path(":memory:"))


def test_the_folder_is_synced_at_init_and_at_opening(route: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bool] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(handle).st_mode))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with Ledger.init(route.path, ORIGIN, route.signer):
        assert synced.count(True) == 2
    with Ledger.open(route.path, route.signer):
        assert synced.count(True) == 3


def test_other_bytes_in_the_database_are_not_signed(funded: Any) -> None:
    connection = sqlite3.connect(funded.path)
    connection.execute("DROP TRIGGER ev_update")
    connection.execute(
        "CREATE TRIGGER swap AFTER INSERT ON ev BEGIN UPDATE ev SET body = x'7b7d' WHERE seq = new.seq; END"
    )
    connection.close()
    with Ledger.open(funded.path, funded.signer) as ledger:
        with pytest.raises(Refusal, match="other bytes than were written"):
            ledger.append([deposit(funded, "a")])
        assert ledger.head().size == 2
    assert verify(funded.path, funded.vkey).ok


def test_events_come_back_in_order(written: Any) -> None:
    with Ledger.open(written.path) as ledger:
        assert [event for _, event in ledger.events()] == written.list()
        assert [seq for seq, _ in ledger.events()] == list(range(len(written.events)))
        receipts = [event.id for _, event in ledger.events("inference.receipt")]
        head = ledger.head()
    assert len(receipts) == 9
    assert (head.size, head.root) == (len(written.events), root([leaf_hash(e.raw) for e in written.list()]))


def test_a_retry_keeps_its_seq(funded: Any) -> None:
    first, second = deposit(funded, "a"), deposit(funded, "b")
    with Ledger.open(funded.path, funded.signer) as ledger:
        assert ledger.append([first]) == [2]
        note = ledger.head().note
        assert ledger.append([first]) == [2]
        assert ledger.head().note == note
        assert ledger.append([second, first, second]) == [3, 2, 3]
        assert ledger.head().size == 4
    with Ledger.open(funded.path, funded.signer) as ledger:
        assert ledger.append([second]) == [3]
        assert ledger.append([]) == []


def test_the_same_id_with_other_bytes_is_refused(funded: Any) -> None:
    operator, payer = funded.author("operator"), funded.id("payer")
    one, two = (
        operator.write("fund.deposit", {"account": payer, "amount": "5", "reference": text}, id="same")
        for text in ("one", "two")
    )
    with Ledger.open(funded.path, funded.signer) as ledger:
        with pytest.raises(Refusal, match="already used by entry 2"):
            ledger.append([one, two])
        assert ledger.head().size == 2
        ledger.append([one])
        with pytest.raises(Refusal, match="already used by entry 2"):
            ledger.append([two])
        assert ledger.head().size == 3
    assert verify(funded.path, funded.vkey).ok


def test_one_append_is_one_transaction_and_reads_the_head_inside(funded: Any) -> None:
    with Ledger.open(funded.path, funded.signer) as ledger:
        statements: list[str] = []
        connection: sqlite3.Connection = ledger._connection  # pyright: ignore[reportPrivateUsage]
        connection.set_trace_callback(statements.append)
        ledger.append([deposit(funded, "a"), deposit(funded, "b")])
        connection.set_trace_callback(None)
    verbs = [statement.split()[0] for statement in statements]
    assert statements[0] == "BEGIN IMMEDIATE"
    assert statements[-1] == "COMMIT"
    assert verbs.count("BEGIN") == verbs.count("COMMIT") == 1
    head = next(n for n, statement in enumerate(statements) if "FROM cp" in statement)
    assert 0 < head < verbs.index("INSERT")
    last_entry = max(n for n, statement in enumerate(statements) if statement.startswith("INSERT INTO ev"))
    read_back = next(n for n, s in enumerate(statements) if n > last_entry and s.startswith("SELECT body FROM ev"))
    signed = next(n for n, statement in enumerate(statements) if statement.startswith("INSERT INTO cp"))
    assert last_entry < read_back < signed


def test_a_refused_batch_leaves_nothing(funded: Any) -> None:
    with Ledger.open(funded.path, funded.signer) as ledger:
        stranger = journal.register(funded.author("ada"), ["contributor"])
        bad = journal.deposit(funded.author("operator"), funded.id("nobody"), 5, "x")
        with pytest.raises(Refusal, match=r"entry 4 \(fund.deposit") as refusal:
            ledger.append([deposit(funded, "a"), stranger, bad])
        assert refusal.value.rule == "deposit.account"
        assert ledger.head().size == 2
        assert ledger.append([stranger]) == [2]
    assert verify(funded.path, funded.vkey).ok


def test_a_hand_made_event_is_judged_by_its_bytes(funded: Any) -> None:
    from dataclasses import replace

    honest = deposit(funded, "a")
    forged = replace(honest, body={**honest.body, "amount": "500"})
    with Ledger.open(funded.path, funded.signer) as ledger:
        ledger.append([forged])
        assert ledger.state().balances[f"avail:{funded.id('payer')}"] == 5
    assert verify(funded.path, funded.vkey).ok


def test_tables_are_append_only(copied: Path) -> None:
    connection = sqlite3.connect(copied)
    for table in TABLES:
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(f"DELETE FROM {table}")
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute("UPDATE ev SET type = 'x'")
    connection.close()


def test_a_tampered_ledger_is_not_appended_to(copied: Path, written: Any) -> None:
    connection = sqlite3.connect(copied)
    connection.execute("DROP TRIGGER ev_delete")
    connection.execute("DELETE FROM ev WHERE seq = (SELECT max(seq) FROM ev)")
    connection.commit()
    connection.close()
    with pytest.raises(Refusal, match="signed root"):
        Ledger.open(copied, written.signer)


def test_two_processes_make_one_order(funded: Any) -> None:
    writers = [start(funded.path, name, 4) for name in ("one", "two")]
    outputs = [writer.communicate(timeout=60) for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0], outputs
    seqs = sorted(int(line.split()[0]) for out, _ in outputs for line in out.splitlines())
    assert seqs == list(range(2, 26))
    assert verify(funded.path, funded.vkey).ok


def test_two_ledgers_in_one_process_see_each_other(funded: Any) -> None:
    with Ledger.open(funded.path, funded.signer) as one, Ledger.open(funded.path, funded.signer) as two:
        assert one.append([deposit(funded, "a")]) == [2]
        assert two.append([deposit(funded, "b")]) == [3]
        assert two.append([deposit(funded, "a")]) == [2]
        assert one.append([deposit(funded, "c")]) == [4]
    assert verify(funded.path, funded.vkey).ok


def test_no_acknowledged_event_is_lost_by_kill_9(funded: Any) -> None:
    acknowledged: dict[int, str] = {}
    for kill in range(5):
        writer = start(funded.path, f"kill {kill}", 10_000)
        assert writer.stdout is not None
        for _ in range(4 + 3 * kill):
            line = writer.stdout.readline()
            acknowledged[int(line.split()[0])] = line.split()[1]
        os.kill(writer.pid, signal.SIGKILL)
        rest, _ = writer.communicate(timeout=60)
        acknowledged |= {int(n): name for n, name in (line.split() for line in rest.splitlines() if line.count(" "))}
        verdict = verify(funded.path, funded.vkey)
        assert verdict.ok, verdict.message
        assert (verdict.size - 2) % 3 == 0
        with Ledger.open(funded.path) as ledger:
            logged = {seq: event.id for seq, event in ledger.events()}
        assert {seq: logged.get(seq) for seq in acknowledged} == acknowledged
    assert len(acknowledged) >= 50


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_every_acknowledgement_follows_a_sync(funded: Any, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-e", "trace=fdatasync,fsync,write", "-o", str(trace), sys.executable, "-c", WRITER]
    done = subprocess.run([*command, str(funded.path), "t", "6"], capture_output=True, text=True, timeout=60)
    if "PTRACE" in done.stderr or "ptrace" in done.stderr:
        pytest.skip("tracing is not permitted here")
    assert done.returncode == 0, done.stderr
    synced, checked = False, 0
    for line in trace.read_text().splitlines():
        if ("fdatasync(" in line or "fsync(" in line) and line.rstrip().endswith("= 0"):
            synced = True
        elif "write(1, " in line:
            checked += 1
            assert synced, line
            synced = False
    assert checked == 6


FULL = """
import resource, sys
from pathlib import Path
from poa.errors import PoaError
from poa.ledger import ActorKey, Author, Ledger, Signer, journal
path = Path(sys.argv[1])
ledger = Ledger.open(path, Signer("poa.example/poa/test", b"\\x01" * 32))
author = Author(ActorKey.simulated("operator"), ledger.origin)
payer = Author(ActorKey.simulated("payer"), ledger.origin).id
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
done = 0
try:
    for n in range(500):
        ledger.append([journal.deposit(author, payer, 1, f"full/{n}")])
        done = n + 1
except PoaError as error:
    print(done, error)
"""


def test_a_full_disk_is_one_clear_error_and_nothing_half_written(funded: Any) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, str(funded.path)], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    count, message = done.stdout.split(" ", 1)
    assert int(count) > 5
    assert message.startswith(f"ledger {funded.path}: ")
    assert message.count("\n") == 1
    verdict = verify(funded.path, funded.vkey)
    assert (verdict.ok, verdict.size) == (True, 2 + int(count))
    with Ledger.open(funded.path, funded.signer) as ledger:
        assert ledger.append([deposit(funded, "after")]) == [2 + int(count)]


def _append_one_by_one(ledger: Ledger, events: list[Event]) -> None:
    for event in events:
        ledger.append([event])


def test_a_full_database_can_be_written_again_once_there_is_room(funded: Any) -> None:
    with Ledger.open(funded.path, funded.signer) as ledger:
        connection: sqlite3.Connection = ledger._connection  # pyright: ignore[reportPrivateUsage]
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages}")
        with pytest.raises(PoaError, match="full"):
            _append_one_by_one(ledger, [deposit(funded, f"{n}") for n in range(200)])
        size = ledger.head().size
        connection.execute("PRAGMA max_page_count=100000")
        assert ledger.append([deposit(funded, "room")]) == [size]
    assert verify(funded.path, funded.vkey).ok


def test_reading_works_in_a_folder_without_write_permission(written: Any, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    target = folder / "ledger.sqlite"
    shutil.copy(written.path, target)
    target.chmod(stat.S_IRUSR)
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert verify(target, written.vkey).ok
    finally:
        folder.chmod(0o700)


def test_reading_beside_a_writer(funded: Any) -> None:
    with Ledger.open(funded.path, funded.signer) as ledger:
        sizes: list[int] = []
        reader = threading.Thread(target=lambda: sizes.extend(verify(funded.path).size for _ in range(5)))
        reader.start()
        for n in range(10):
            ledger.append([deposit(funded, f"{n}")])
        reader.join()
    assert sizes == sorted(sizes)
    assert verify(funded.path).size == 12
