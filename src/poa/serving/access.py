"""Access: one bearer key, of which only the digest is kept."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field

from poa.errors import PoaError

VARIABLE = "POA_API_KEY"


@dataclass(frozen=True)
class Access:
    """digest: SHA-256 of the key that opens the interface."""

    digest: bytes = field(repr=False)

    @staticmethod
    def of(key: str) -> Access:
        """For a key of at least 16 visible ASCII characters; raises `PoaError` otherwise."""
        if len(key) < 16 or not key.isascii() or not key.isprintable() or " " in key:
            raise PoaError(f"the API key ({VARIABLE}) must have at least 16 visible ASCII characters")
        return Access(hashlib.sha256(key.encode()).digest())

    def granted(self, header: str | None) -> bool:
        """Whether an `Authorization` header carries the key; compared in constant time."""
        scheme, _, key = (header or "").partition(" ")
        given = hashlib.sha256(key.strip().encode("utf-8", "surrogateescape")).digest()
        return hmac.compare_digest(given, self.digest) and scheme.lower() == "bearer"


def new_key() -> str:
    """A fresh key of 256 random bits."""
    return f"poa-{secrets.token_urlsafe(32)}"
