"""Documents as they enter an index: checked, and laid out in registration order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from poa.digests import sha256
from poa.errors import PoaError

Array = npt.NDArray[Any]
LARGEST_VOCABULARY = 1 << 24


class Document(NamedTuple):
    """One record as token ids.

    registered: position in time, smaller is earlier. digest: the record's content digest, which breaks ties of time;
    without it the digest of the tokens does.
    """

    record_id: str
    owner: str
    registered: int
    tokens: Sequence[int] | Array
    digest: str = ""


def token_type(vocab_size: int) -> type[np.uint16] | type[np.uint32]:
    """uint16 while the all-ones value, which is the separator, is no token id of the vocabulary; uint32 above."""
    if not 1 <= vocab_size <= LARGEST_VOCABULARY:
        raise PoaError(f"vocab_size is {vocab_size}; it must be 1 to {LARGEST_VOCABULARY}")
    return np.uint16 if vocab_size <= 0xFFFF else np.uint32


def separator(vocab_size: int) -> int:
    """The token before each document: all bits one. No vocabulary holds it."""
    return int(np.iinfo(token_type(vocab_size)).max)


def encoded(tokens: Sequence[int] | Array, vocab_size: int, what: str) -> Array:
    """Read-only uint16[m] or uint32[m]; `PoaError` naming `what` and the position of a token outside the vocabulary."""
    given: Array = np.asarray(tokens)
    if given.size == 0 and given.ndim == 1:
        given = np.zeros(0, np.int64)
    if given.ndim != 1 or given.dtype.kind not in "iu":
        raise PoaError(f"{what}: tokens must be a flat sequence of integers, not {given.dtype.name}{list(given.shape)}")
    bad = np.flatnonzero((given < 0) | (given >= vocab_size))
    if bad.size:
        at, token = int(bad[0]), int(given[bad[0]])
        reason = "is the separator" if token == separator(vocab_size) else f"is outside the vocabulary of {vocab_size}"
        raise PoaError(f"{what}: token {token} at position {at} {reason}; ids must be 0 to {vocab_size - 1}")
    out = given.astype(token_type(vocab_size))
    out.flags.writeable = False
    return out


def laid_out(documents: Iterable[Document | tuple[str, str, int, Sequence[int]]], vocab_size: int) -> list[Document]:
    """Checked documents in registration order; equal times by content digest, equal contents by record id."""
    out: list[Document] = []
    for given in documents:
        document = given if isinstance(given, Document) else Document(*given)
        if not -(2**63) <= document.registered < 2**63:
            raise PoaError(f"record {document.record_id!r}: registered is {document.registered}, must fit in 64 bits")
        try:
            (document.record_id + document.owner).encode()
        except UnicodeEncodeError:
            raise PoaError(f"record {document.record_id!r}: id or owner is not valid UTF-8 (lone surrogate)") from None
        tokens = encoded(document.tokens, vocab_size, f"record {document.record_id!r}")
        out.append(document._replace(tokens=tokens, digest=document.digest or sha256(tokens.tobytes())))
    repeated = [name for name, count in Counter(document.record_id for document in out).items() if count > 1]
    if repeated:
        raise PoaError(f"record {repeated[0]!r} occurs more than once; every document needs an id of its own")
    return sorted(out, key=lambda document: (document.registered, document.digest, document.record_id))
