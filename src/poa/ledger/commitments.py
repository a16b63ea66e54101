"""Commitments: digests that bind somebody to private bytes without revealing them."""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Iterable

from poa.ledger.encoding import canonical, fraction
from poa.ledger.merkle import leaf_hash, root
from poa.ledger.refusal import demand

SALT = 32
_UNIT = 10**9


def seal(salt: bytes, data: bytes) -> str:
    """Hex HMAC-SHA256 of private bytes (a query, an output, a row) under a random 32-byte salt.

    Delete bytes and salt and the seal says nothing any more; a bare hash of short personal text can be guessed.
    """
    demand(len(salt) == SALT, "salt", f"a salt has {len(salt)} bytes, must be {SALT}")
    return hmac.new(salt, data, hashlib.sha256).hexdigest()


def rows_root(seals: Iterable[str]) -> str:
    """Hex Merkle root over the seals of rows, in row order."""
    return root([leaf_hash(bytes.fromhex(seal)) for seal in seals]).hex()


def data_commitment(log: str, actor: str, datanet: str, salt: bytes, row_root: str) -> str:
    """`c` of a data.commit: SHA-256 over "poa/commit/v1\\n" and the fields, each behind its 4-byte length.

    The actor is inside, so a copied commit is worth nothing to another actor.
    """
    state = hashlib.sha256(b"poa/commit/v1\n")
    for part in (log.encode(), bytes.fromhex(actor), datanet.encode(), salt, bytes.fromhex(row_root)):
        state.update(len(part).to_bytes(4, "big") + part)
    return state.hexdigest()


def nats(value: float) -> str:
    """A score in nats as a leaf holds it: the nearest multiple of 1e-9, half to even; refuses what is not finite."""
    demand(math.isfinite(value), "score", f"a score is {value}, must be finite")
    return fraction(round(value * _UNIT))


def vector_root(scores: Iterable[tuple[str, float]]) -> str:
    """Hex Merkle root of a full score vector: one leaf {"nats", "record"} per record, in manifest order."""
    leaves = [leaf_hash(canonical({"nats": nats(score), "record": record})) for record, score in scores]
    return root(leaves).hex()
