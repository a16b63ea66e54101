"""Actors: whoever signs events, known by the digest of a first public key."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from nacl.signing import SigningKey

from poa.ledger.events import Event, content_id, event_bytes, signing_bytes


@dataclass(frozen=True)
class ActorKey:
    """An Ed25519 secret key (32-byte seed) of an actor."""

    seed: bytes = field(repr=False)

    @staticmethod
    def generate() -> ActorKey:
        """A fresh key from the operating system's randomness."""
        return ActorKey(os.urandom(32))

    @staticmethod
    def simulated(name: str) -> ActorKey:
        """A key that anybody can derive from `name`: for demonstrations in which contributors are simulated."""
        return ActorKey(hashlib.sha256(b"poa/simulated-actor/v1\n" + name.encode()).digest())

    @cached_property
    def public(self) -> bytes:
        return bytes(SigningKey(self.seed).verify_key)

    @cached_property
    def id(self) -> str:
        """The actor's pseudonym: SHA-256 of this public key, if it is the first."""
        return hashlib.sha256(self.public).hexdigest()

    @cached_property
    def successor(self) -> ActorKey:
        """The next key, promised at registration by its digest and kept by whoever keeps this one."""
        return ActorKey(hashlib.sha256(b"poa/next-key/v1\n" + self.seed).digest())

    def sign(self, data: bytes) -> bytes:
        return SigningKey(self.seed).sign(data).signature


@dataclass(frozen=True)
class Author:
    """An actor writing to one log: `log` is the origin, `ts` the advisory time in seconds put into each event."""

    key: ActorKey
    log: str
    ts: int = 0

    @property
    def id(self) -> str:
        return self.key.id

    def write(self, kind: str, body: Mapping[str, Any], id: str | None = None) -> Event:
        """A signed event of type `kind`; without `id` one that follows from the content, so retries are safe.

        Raises `Refusal` naming the field of the envelope or body that is wrong.
        """
        envelope: dict[str, Any] = {
            "v": 1,
            "type": kind,
            "log": self.log,
            "actor": self.id,
            "ts": self.ts,
            "body": dict(body),
        }
        envelope["id"] = content_id(envelope) if id is None else id
        return Event.parse(event_bytes(envelope, self.key.public, self.key.sign(signing_bytes(envelope))))
