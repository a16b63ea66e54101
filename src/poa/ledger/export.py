"""The whole log as static files that a stranger can check without SQLite: tiles, checkpoint, key, payout tables."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from poa.errors import PoaError
from poa.files import atomic_folder
from poa.ledger import replay, tiles
from poa.ledger.audit import Audit, remembered_head
from poa.ledger.checkpoint import Checkpoint
from poa.ledger.durable import sync_folder
from poa.ledger.epochs import payout_rows
from poa.ledger.events import Event
from poa.ledger.merkle import leaf_hash, root
from poa.ledger.note import Verifier
from poa.ledger.refusal import Refusal, Undecided, demand
from poa.ledger.state import State
from poa.ledger.store import Ledger
from poa.ledger.verdict import Finding, Verdict, wrong_use
from poa.rewards.policy import Policy

CHECKPOINT = "checkpoint"
VKEY = "vkey"


def export(path: str | Path, folder: str | Path) -> Path:
    """Write the log at `path` to `folder` (replaced whole, or untouched on failure) and return it.

    Files: `checkpoint`, `vkey`, hash tiles and entry bundles under `tile/` (C2SP tlog-tiles), and
    `payouts/<epoch>.jsonl` per settled epoch. Works from the raw rows; raises `PoaError` where they do not have the
    signed root.
    """
    with Ledger.open(path) as ledger:
        head, vkey = ledger.head(), ledger.verifier.vkey
        bodies = ledger.leaves(head.size)
    leaves = [leaf_hash(body) for body in bodies]
    same = (len(leaves), root(leaves)) == (head.size, head.root)
    demand(same, "root", f"{path}: the entries do not have the signed root")
    files = dict(tiles.hash_tiles(leaves)) | dict(_bundles(bodies)) | _payout_files(head.origin, bodies)
    folder = Path(folder)
    with atomic_folder(folder) as work:
        for name, data in files.items():
            _write(work / name, data)
        _write(work / VKEY, f"{vkey}\n".encode())
        # The checkpoint promises the rest, so it comes last.
        _write(work / CHECKPOINT, head.note.encode())
    sync_folder(folder.parent)
    return folder


def verify_export(
    folder: str | Path, vkey: str | None = None, policy: Policy | None = None, remembered: str | None = None
) -> Verdict:
    """Like `verify`, for an exported folder; a missing file is "cannot decide" (code 3)."""
    folder = Path(folder)
    if not folder.is_dir():
        return wrong_use(f"no exported ledger at {folder}")
    audit: Audit | None = None
    try:
        expected = None if vkey is None else Verifier.parse(vkey)
        known = remembered_head(remembered, expected)
    except PoaError as error:
        return wrong_use(str(error))
    try:
        audit = Audit(_verifier(folder, expected), policy, known)
        _read(folder, audit)
        return audit.verdict(expected is not None)
    except (Finding, Refusal) as found:
        finding = found if isinstance(found, Finding) else Finding(None, found)
        return finding.verdict(audit.size if audit else 0, audit.frontier.root.hex() if audit else "")


def _bundles(bodies: list[bytes]) -> Iterator[tuple[str, bytes]]:
    for index, width in tiles.spans(len(bodies)):
        first = index * tiles.WIDTH
        yield tiles.tile_path("entries", index, width), tiles.bundle(bodies[first : first + width])


def _payout_files(origin: str, bodies: list[bytes]) -> dict[str, bytes]:
    state = State(origin)
    for body in bodies:
        replay.apply(state, Event.parse(body))
    return _payout_tables(state)


def _payout_tables(state: State) -> dict[str, bytes]:
    return {
        f"payouts/{epoch}.jsonl": b"".join(row + b"\n" for row in payout_rows(payouts))
        for epoch, payouts in sorted(state.payouts.items())
    }


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _verifier(folder: Path, expected: Verifier | None) -> Verifier:
    text = _file(folder, VKEY)
    try:
        stored = Verifier.parse(text.decode())
    except (PoaError, UnicodeDecodeError) as error:
        raise Refusal("log", f"the file vkey is damaged: {error}") from error
    demand(f"{stored.vkey}\n".encode() == text, "log", "the file vkey is damaged")
    demand(expected in (None, stored), "log", f"the export is of {stored.vkey}, another key was given")
    return stored


def _read(folder: Path, audit: Audit) -> None:
    note = _file(folder, CHECKPOINT)
    try:
        head = Checkpoint.open(note.decode(), audit.verifier)
    except (Refusal, UnicodeDecodeError) as error:
        reason = error.reason if isinstance(error, Refusal) else str(error)
        raise Finding(None, Refusal("checkpoint", reason), "checkpoint") from error
    leaves: list[bytes] = []
    for index, width in tiles.spans(head.size):
        leaves += _read_tile(folder, audit, index, width)
    audit.head(head.note, head.size)
    for name, data in tiles.hash_tiles(leaves):
        demand(_file(folder, name) == data, "tile", f"{name} does not follow from the entries")
    if audit.undecided is None:
        _check_payouts(folder, audit)


def _read_tile(folder: Path, audit: Audit, index: int, width: int) -> list[bytes]:
    hashes = _file(folder, tiles.tile_path(0, index, width))
    name = tiles.tile_path("entries", index, width)
    data = _file(folder, name)
    first = audit.size
    try:
        entries = tiles.read_bundle(data, width)
        demand(len(hashes) == 32 * width, "tile", f"{tiles.tile_path(0, index, width)} must hold {width} hashes")
        framing = None
    except Refusal as refusal:
        # A damaged length shifts all that follows; the entries before it still say where it begins.
        entries, framing = tiles.readable(data), refusal
    for position, entry in enumerate(entries[:width]):
        audit.take(entry, hashes[32 * position : 32 * position + 32])
    if framing is not None:
        raise Finding(audit.size if audit.size < first + width else None, framing, name)
    return [hashes[at : at + 32] for at in range(0, len(hashes), 32)]


def _check_payouts(folder: Path, audit: Audit) -> None:
    for name, data in _payout_tables(audit.state).items():
        epoch = int(name.removeprefix("payouts/").removesuffix(".jsonl"))
        if _file(folder, name) != data:
            reason = f"{name} is not the payout table that follows from the receipts"
            raise Finding(audit.settled[epoch], Refusal("payouts", reason))


def _file(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise Undecided("file", f"{name} cannot be read: {error.strerror}") from error
