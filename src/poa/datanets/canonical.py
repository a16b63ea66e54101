"""The canonical form of a text, its word shingles, and the exact distances between two of them."""

from __future__ import annotations

import html
import re
import unicodedata

from poa.digests import sha256
from poa.records import Record

SHINGLE = 5

_TAG = re.compile(r"</?[A-Za-z][^<>]{0,500}>|<!--.*?-->", re.S)
_LINK = re.compile(r"!?\[([^\]\[]*)\]\([^()\s]*\)")
_EMPHASIS = re.compile(r"[*_`~#>|]+")
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
# Scripts without spaces are read character by character: one endless "word" would never be near another.
_WORD = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+")


def canonical(text: str) -> str:
    """NFKC, casefolded, without markup and invisible characters, white space collapsed (GAMING step 1).

    Idempotent on prose; two texts with equal canonical forms are exact duplicates.
    """
    plain = _TAG.sub(" ", html.unescape(text))
    plain = _EMPHASIS.sub(" ", _LINK.sub(r"\1", plain))
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", plain).casefold())
    return " ".join(_INVISIBLE.sub("", folded).split())


def exact_form(record: Record) -> str:
    """SHA-256 of the canonical prompt and text, or of the features, each with the label."""
    if record.features:
        return record.digest
    prompt, text = canonical(record.prompt), canonical(record.text)
    return sha256(f"{len(prompt)}\n{prompt}\n{text}\n{record.label}".encode())


def words(record: Record) -> list[str]:
    """Canonical words of prompt and text; a record without any word gives its visible characters."""
    form = f"{canonical(record.prompt)} {canonical(record.text)}"
    return _WORD.findall(form) or list(form.replace(" ", "")) or list(record.text.strip())


def shingles(record: Record) -> frozenset[tuple[str, ...]]:
    """Every run of five words; a shorter record is one shingle."""
    found = words(record)
    return frozenset(tuple(found[i : i + SHINGLE]) for i in range(max(1, len(found) - SHINGLE + 1)))


def jaccard_distance(a: frozenset[tuple[str, ...]], b: frozenset[tuple[str, ...]]) -> float:
    """1 - |A ∩ B| / |A ∪ B|."""
    shared = len(a & b)
    return 1.0 - shared / (len(a) + len(b) - shared)


def containment_distance(inner: frozenset[tuple[str, ...]], outer: frozenset[tuple[str, ...]]) -> float:
    """1 - |A ∩ B| / |A|: how much of `inner` is not already in `outer`."""
    return 1.0 - len(inner & outer) / len(inner)
