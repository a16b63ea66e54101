"""C2SP tlog-proof: one event with everything that a stranger needs to check that it was logged."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from poa.errors import PoaError
from poa.files import atomic_folder
from poa.ledger.checkpoint import Checkpoint
from poa.ledger.events import Event
from poa.ledger.merkle import HASH, inclusion_proof, leaf_hash, verify_inclusion
from poa.ledger.note import Verifier, strict_base64
from poa.ledger.refusal import Refusal, demand
from poa.ledger.store import Ledger
from poa.ledger.verdict import VERIFIED, Finding, Verdict, wrong_use

HEADER = "c2sp.org/tlog-proof@v1"
EVENT_FILE = "event.json"
PROOF_FILE = "event.tlog-proof"
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,18})")


def prove(path: str | Path, event_id: str, folder: str | Path) -> Path:
    """Write the exact bytes of an event and its proof against the newest checkpoint into `folder`, and return it.

    `folder` holds event.json and event.tlog-proof afterwards, nothing else. Raises `PoaError` where no event has
    that id.
    """
    with Ledger.open(path) as ledger:
        head = ledger.head()
        bodies, seq = ledger.leaves(head.size), ledger.seq_of(event_id)
    text = proof_text(seq, inclusion_proof([leaf_hash(body) for body in bodies], seq), head)
    with atomic_folder(Path(folder)) as work:
        (work / EVENT_FILE).write_bytes(bodies[seq])
        (work / PROOF_FILE).write_text(text, "utf-8", newline="\n")
    return Path(folder)


def proof_text(index: int, siblings: list[bytes], head: Checkpoint) -> str:
    """The proof file: header, index, sibling hashes from the leaf up, an empty line, the checkpoint's note."""
    lines = [HEADER, f"index {index}", *(base64.b64encode(sibling).decode() for sibling in siblings)]
    return "\n".join(lines) + "\n\n" + head.note


def check_proof(folder: str | Path, vkey: str) -> Verdict:
    """Check an exported event offline against the log's verifier key.

    Everything that the verdict's `event` shows was read from the bytes whose hash the signed tree holds, and is
    signed by the actor's first key. It does not show that the event keeps the log's rules: that takes `verify`.
    """
    folder = Path(folder)
    try:
        verifier = Verifier.parse(vkey)
    except PoaError as error:
        return wrong_use(str(error))
    try:
        raw, text = (folder / EVENT_FILE).read_bytes(), (folder / PROOF_FILE).read_bytes()
    except OSError as error:
        return wrong_use(f"cannot read {error.filename}: {error.strerror}")
    index: int | None = None
    try:
        index, siblings, head = _read_proof(text, verifier)
        included = verify_inclusion(index, head.size, leaf_hash(raw), siblings, head.root)
        demand(included, "inclusion", f"these bytes are not at this place of the signed tree of size {head.size}")
        event = Event.parse(raw)
        demand(event.log == head.origin, "log", f"the event is for log {event.log!r}")
        demand(hashlib.sha256(event.key).hexdigest() == event.actor, "actor.key", "signed with another's key")
    except Refusal as refusal:
        return Finding(index, refusal, _named(index, raw, folder)).verdict()
    message = f"entry {index} ({event.type} {event.id}) is in the signed log of size {head.size}"
    return Verdict(True, VERIFIED, index, "", message, head.size, head.root.hex(), event=event)


def _named(index: int | None, raw: bytes, folder: Path) -> str:
    """The entry that a broken proof is about: its place where the proof still says it, else the event's own id."""
    if index is not None:
        return f"entry {index}"
    try:
        event = Event.parse(raw)
    except Refusal:
        return f"proof {folder.name}"
    return f"proof of entry {event.type} {event.id}"


def _read_proof(data: bytes, verifier: Verifier) -> tuple[int, list[bytes], Checkpoint]:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise Refusal("proof", "the proof is not UTF-8") from error
    proof, separator, note = text.partition("\n\n")
    lines = proof.split("\n")
    demand(bool(separator) and lines.pop(0) == HEADER, "proof", f"a proof must begin with {HEADER}")
    # The extra line is allowed and unauthenticated, so nothing is read from it.
    if lines and lines[0].startswith("extra "):
        strict_base64(lines.pop(0)[6:])
    found = _INDEX.fullmatch(lines[0]) if lines else None
    if found is None:
        raise Refusal("proof", "the index line is missing")
    siblings = [strict_base64(line) for line in lines[1:]]
    demand(all(len(sibling) == HASH for sibling in siblings), "proof", "a sibling hash must have 32 bytes")
    return int(found[1]), siblings, Checkpoint.open(note, verifier)
