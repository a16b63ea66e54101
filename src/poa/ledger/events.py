"""The envelope around every event: who says what to which log, signed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from poa.ledger.bodies import BODIES
from poa.ledger.encoding import canonical, parse
from poa.ledger.form import Form, anything, count, digest, event_id, matching, record, text, token
from poa.ledger.note import signature_holds
from poa.ledger.refusal import Refusal, Undecided, demand

VERSION = 1
CONTEXT = b"poa/event/v1\n"
_SIGNATURE = re.compile(r"[0-9a-f]{128}")


_ENVELOPE = record(
    {
        "v": count(1),
        "type": token,
        "id": event_id,
        "log": text,
        "actor": digest,
        "ts": count(),
        "body": anything,
        "auth": record({"key": digest, "sig": matching(_SIGNATURE, "128 lowercase hex digits")}),
    }
)


@dataclass(frozen=True)
class Event:
    """One entry of the log. `raw` is the exact leaf; every other member was read from it.

    `actor`: SHA-256 of the actor's first public key. `ts`: advisory seconds, never an order. `key`, `signature`: the
    Ed25519 key and its signature over "poa/event/v1\\n" and the canonical envelope without `auth`.
    """

    raw: bytes
    type: str
    id: str
    log: str
    actor: str
    ts: int
    body: Mapping[str, Any]
    key: bytes
    signature: bytes

    @staticmethod
    def parse(raw: bytes) -> Event:
        """Read a leaf: canonical bytes, known version, whole envelope, true signature by the key it names.

        Raises `Undecided` on another version or an unknown type, `Refusal` on everything else. Whether the key may
        speak for the actor is for the log's history to say.
        """
        value = parse(raw)
        demand(isinstance(value, dict), "envelope", "an event must be an object")
        version = value.get("v")
        if type(version) is int and version != VERSION:
            raise Undecided("version", f"event version {version} is unknown; this program knows {VERSION}")
        _in_rule("envelope", _ENVELOPE, value, "event")
        auth = value["auth"]
        unsigned = {name: member for name, member in value.items() if name != "auth"}
        key, signature = bytes.fromhex(auth["key"]), bytes.fromhex(auth["sig"])
        demand(
            signature_holds(key, signing_bytes(unsigned), signature),
            "signature",
            f"the signature of event {value['id']} does not verify",
        )
        if value["type"] not in BODIES:
            raise Undecided("type", f"event type {value['type']!r} is unknown")
        event = Event(
            raw, value["type"], value["id"], value["log"], value["actor"], value["ts"], value["body"], key, signature
        )
        BODIES[event.type](event.body, event.type)
        return event


def event_bytes(envelope: Mapping[str, Any], key: bytes, signature: bytes) -> bytes:
    """The leaf of a signed envelope."""
    return canonical({**envelope, "auth": {"key": key.hex(), "sig": signature.hex()}})


def signing_bytes(envelope: Mapping[str, Any]) -> bytes:
    """What the actor signs: the context line and the canonical envelope without `auth`."""
    return CONTEXT + canonical(dict(envelope))


def content_id(envelope: Mapping[str, Any]) -> str:
    """An id that follows from the content, so that a retry repeats it: half of SHA-256 over the envelope without it."""
    return hashlib.sha256(b"poa/id/v1\n" + canonical(dict(envelope))).hexdigest()[:32]


def _in_rule(rule: str, form: Form, value: object, where: str) -> None:
    try:
        form(value, where)
    except Refusal as refusal:
        raise Refusal(rule, refusal.reason) from refusal
