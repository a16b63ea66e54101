"""Exported logs and single receipts: complete, checkable without SQLite, and sensitive to every byte."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poa.errors import PoaError
from poa.ledger import Checkpoint, Ledger, Signer, check_proof, export, journal, prove, verify, verify_export
from poa.ledger.events import event_bytes, signing_bytes
from poa.ledger.merkle import leaf_hash, node_hash
from poa.ledger.proof import proof_text
from poa.ledger.refusal import Refusal
from poa.ledger.tiles import bundle, hash_tiles, read_bundle, spans, tile_path


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ (1 << (at % 8))]) + data[at + 1 :]


@pytest.fixture
def exported(written: Any, tmp_path: Path) -> Path:
    return export(written.path, tmp_path / "log")


@pytest.fixture
def receipt(written: Any, tmp_path: Path) -> Path:
    return prove(written.path, "receipt-3", tmp_path / "receipt-3")


def test_tile_paths() -> None:
    assert tile_path(0, 1234067) == "tile/0/x001/x234/067"
    assert tile_path(2, 7, 112) == "tile/2/007.p/112"
    assert tile_path("entries", 1000) == "tile/entries/x001/000"


def test_widths_of_seventy_thousand() -> None:
    """The worked example of the format: 273 full and 112; 1 full and 17; width 1."""
    leaves = [n.to_bytes(32, "big") for n in range(70_000)]
    widths: dict[str, list[int]] = {}
    for path, data in hash_tiles(leaves):
        widths.setdefault(path.split("/")[1], []).append(len(data) // 32)
    assert {level: (w.count(256), w[-1]) for level, w in widths.items()} == {"0": (273, 112), "1": (1, 17), "2": (0, 1)}
    assert list(spans(0)) == []
    assert list(spans(256)) == [(0, 256)]


def test_upper_tiles_are_subtree_roots() -> None:
    leaves = [leaf_hash(n.to_bytes(2, "big")) for n in range(600)]
    level = leaves[256:512]
    while len(level) > 1:
        level = [node_hash(level[i], level[i + 1]) for i in range(0, len(level), 2)]
    assert dict(hash_tiles(leaves))["tile/1/000.p/2"][32:] == level[0]


def test_bundles_come_back() -> None:
    entries = [b"", b"x", b"y" * 60_000]
    assert read_bundle(bundle(entries), 3) == entries
    for bad, width in ((bundle(entries) + b"\x00", 3), (bundle(entries), 2), (bundle(entries)[:-1], 3), (b"\x00", 0)):
        with pytest.raises(Refusal):
            read_bundle(bad, width)


def test_an_export_verifies_like_its_ledger(exported: Path, written: Any) -> None:
    size = len(written.events)
    files = sorted(str(file.relative_to(exported)) for file in exported.rglob("*") if file.is_file())
    assert files == ["checkpoint", "payouts/1.jsonl", f"tile/0/000.p/{size}", f"tile/entries/000.p/{size}", "vkey"]
    assert verify_export(exported, written.vkey, written.policy) == verify(written.path, written.vkey, written.policy)
    rows = [json.loads(line) for line in (exported / "payouts" / "1.jsonl").read_text().splitlines()]
    settle = written.events["settle"].body
    assert len(rows) == settle["payout_rows"]
    totals = {row["id"]: int(row["amount"]) for row in settle["totals"]}
    assert sum(int(row["amount"]) for row in rows) == totals["payouts"] + totals["licence"]


def test_an_export_replaces_the_one_before(exported: Path, written: Any, tmp_path: Path) -> None:
    (exported / "stray").write_text("x")
    export(written.path, exported)
    assert not (exported / "stray").exists()
    assert verify_export(exported, written.vkey).ok


def test_every_byte_of_an_export(exported: Path, written: Any) -> None:
    """Each file, sampled; entries are named with their seq."""
    names = [str(file.relative_to(exported)) for file in sorted(exported.rglob("*")) if file.is_file()]
    for name in names:
        honest = (exported / name).read_bytes()
        step = max(1, len(honest) // 120)
        for at in range(0, len(honest), step):
            (exported / name).write_bytes(flipped(honest, at))
            verdict = verify_export(exported)
            assert (verdict.ok, verdict.code) == (False, 1), (name, at, verdict.message)
            if name.startswith("tile/0/"):
                assert verdict.seq == at // 32
            if name.startswith("tile/entries/"):
                assert verdict.seq is not None
        (exported / name).write_bytes(honest)
    assert verify_export(exported, written.vkey).ok


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_every_byte_of_one_entry_in_its_bundle(exported: Path, written: Any, step: int) -> None:
    bundle_file = next((exported / "tile" / "entries").rglob("*.p")) / str(len(written.events))
    honest = bundle_file.read_bytes()
    seq = list(written.events).index("receipt 2")
    first = honest.index(written.events["receipt 2"].raw)
    for at in range(first - 2, first + len(written.events["receipt 2"].raw), step):
        bundle_file.write_bytes(flipped(honest, at))
        verdict = verify_export(exported, written.vkey)
        assert (verdict.code, verdict.seq) == (1, seq), (at - first, verdict.message)
        assert f"entry {seq}" in verdict.message


def test_a_missing_file_cannot_be_decided(exported: Path, written: Any, tmp_path: Path) -> None:
    names = [str(file.relative_to(exported)) for file in sorted(exported.rglob("*")) if file.is_file()]
    for name in names:
        data = (exported / name).read_bytes()
        (exported / name).unlink()
        verdict = verify_export(exported)
        assert (verdict.ok, verdict.code) == (False, 3)
        assert name in verdict.message
        (exported / name).write_bytes(data)
    assert verify_export(tmp_path / "absent").code == 2
    assert verify_export(exported, "no key").code == 2
    assert verify_export(exported, Signer("poa.example/poa/test", b"\x09" * 32).verifier.vkey).code == 1


def test_a_remembered_head_against_an_export(exported: Path, written: Any, tmp_path: Path) -> None:
    note = (exported / "checkpoint").read_text("utf-8")
    copy = tmp_path / "copy.sqlite"
    shutil.copy(written.path, copy)
    with Ledger.open(copy, written.signer) as ledger:
        ledger.append([journal.register(written.author("eve"), ["payer"])])
        newer = ledger.head().note
    longer = export(copy, tmp_path / "longer")
    assert verify_export(longer, written.vkey, remembered=note).ok
    verdict = verify_export(exported, written.vkey, remembered=newer)
    assert (verdict.code, verdict.rule) == (1, "rollback")


def test_more_than_one_tile(route: Any, tmp_path: Path) -> None:
    operator = route.author("operator")
    first = journal.register(operator, ["operator", "payer"])
    events = [journal.deposit(operator, operator.id, 1, f"{n}") for n in range(299)]
    with Ledger.init(route.path, route.signer.name, route.signer) as ledger:
        ledger.append([first, *events])
    folder = export(route.path, tmp_path / "log")
    assert (folder / "tile" / "0" / "000").stat().st_size == 256 * 32
    assert (folder / "tile" / "1" / "000.p" / "1").stat().st_size == 32
    assert verify_export(folder, route.vkey).size == 300
    upper = folder / "tile" / "1" / "000.p" / "1"
    upper.write_bytes(flipped(upper.read_bytes(), 3))
    assert verify_export(folder, route.vkey).rule == "tile"
    for n in (0, 255, 256, 298):
        proof = prove(route.path, events[n].id, tmp_path / f"proof-{n}")
        verdict = check_proof(proof, route.vkey)
        assert verdict.ok
        assert verdict.seq == n + 1


def test_tampered_rows_are_not_exported(written: Any, copied: Path, tmp_path: Path) -> None:
    import sqlite3

    connection = sqlite3.connect(copied)
    connection.execute("DROP TRIGGER ev_update")
    connection.execute("UPDATE ev SET body = CAST(replace(body, '14', '15') AS BLOB) WHERE type = 'data.reveal'")
    connection.commit()
    connection.close()
    with pytest.raises(PoaError, match="signed root"):
        export(copied, tmp_path / "log")
    assert not (tmp_path / "log").exists()


def test_a_proof_shows_only_what_was_proven(receipt: Path, written: Any) -> None:
    verdict = check_proof(receipt, written.vkey)
    assert (verdict.ok, verdict.code) == (True, 0)
    assert verdict.event == written.events["receipt 3"]
    assert verdict.seq == list(written.events).index("receipt 3")
    assert sorted(file.name for file in receipt.iterdir()) == ["event.json", "event.tlog-proof"]
    assert (receipt / "event.json").read_bytes() == written.events["receipt 3"].raw
    lines = (receipt / "event.tlog-proof").read_text("utf-8").split("\n")
    assert lines[:2] == ["c2sp.org/tlog-proof@v1", f"index {verdict.seq}"]
    blank = lines.index("")
    assert all(len(base64.b64decode(line)) == 32 for line in lines[2:blank])
    assert lines[blank + 1] == "poa.example/poa/test"


def test_every_byte_of_a_receipt(receipt: Path, written: Any) -> None:
    for name in ("event.json", "event.tlog-proof"):
        honest = (receipt / name).read_bytes()
        for at in range(len(honest)):
            (receipt / name).write_bytes(flipped(honest, at))
            verdict = check_proof(receipt, written.vkey)
            assert (verdict.ok, verdict.code, verdict.event) == (False, 1, None), (name, at, verdict.message)
            if name == "event.json":
                assert verdict.message.startswith(f"entry {list(written.events).index('receipt 3')}: ")
        (receipt / name).write_bytes(honest)
    assert check_proof(receipt, written.vkey).ok


@pytest.mark.parametrize("name", ["event.json", "event.tlog-proof"])
@pytest.mark.parametrize("change", [lambda d: d + b"\n", lambda d: d[:-1], lambda d: b"", lambda d: b" " + d])
def test_longer_and_shorter_files(receipt: Path, written: Any, name: str, change: Callable[[bytes], bytes]) -> None:
    (receipt / name).write_bytes(change((receipt / name).read_bytes()))
    assert check_proof(receipt, written.vkey).code == 1


def test_bytes_of_another_receipt_are_not_covered(receipt: Path, written: Any) -> None:
    (receipt / "event.json").write_bytes(written.events["receipt 4"].raw)
    verdict = check_proof(receipt, written.vkey)
    assert (verdict.code, verdict.rule) == (1, "inclusion")


@pytest.mark.parametrize(("fault", "rule"), [("none", ""), ("log", "log"), ("actor", "actor.key")])
def test_a_logged_event_that_is_not_what_it_says(tmp_path: Path, written: Any, fault: str, rule: str) -> None:
    """A log may hold and sign anything; the event must still be for this log and by the actor it names."""
    key = written.author("ada").key
    envelope = {
        "v": 1,
        "type": "data.commit",
        "id": "one",
        "log": "poa.example/poa/elsewhere" if fault == "log" else written.signer.name,
        "actor": written.id("bob") if fault == "actor" else key.id,
        "ts": 0,
        "body": {"datanet": "net", "c": "ab" * 32},
    }
    raw = event_bytes(envelope, key.public, key.sign(signing_bytes(envelope)))
    head = Checkpoint(written.signer.name, 1, leaf_hash(raw)).signed(written.signer)
    (tmp_path / "event.json").write_bytes(raw)
    (tmp_path / "event.tlog-proof").write_text(proof_text(0, [], head), "utf-8")
    verdict = check_proof(tmp_path, written.vkey)
    assert (verdict.code, verdict.rule) == (1 if fault != "none" else 0, rule)


def test_the_extra_line_is_allowed_and_means_nothing(receipt: Path, written: Any) -> None:
    file = receipt / "event.tlog-proof"
    header, rest = file.read_text("utf-8").split("\n", 1)
    file.write_text(f"{header}\nextra aGVsbG8=\n{rest}", "utf-8")
    assert check_proof(receipt, written.vkey).ok
    file.write_text(f"{header}\nextra aGVsbG9=\n{rest}", "utf-8")
    assert check_proof(receipt, written.vkey).code == 1


def test_wrong_use_of_proofs(receipt: Path, written: Any, tmp_path: Path) -> None:
    assert check_proof(tmp_path / "absent", written.vkey).code == 2
    assert check_proof(receipt, "no key").code == 2
    assert check_proof(receipt, Signer("poa.example/poa/test", b"\x09" * 32).verifier.vkey).code == 1
    with pytest.raises(PoaError, match="no event 'nothing'"):
        prove(written.path, "nothing", tmp_path / "x")
    assert not (tmp_path / "x").exists()
