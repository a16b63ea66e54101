"""Fingerprints of records: exact digests, and MinHash bits in a faiss binary index that proposes near copies.

An index only proposes; `poa.datanets.clusters` verifies every pair by exact distance before it counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import ceil, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from poa.datanets.canonical import SHINGLE, exact_form, words
from poa.records import Corpus

BITS = 1024

Hashes = npt.NDArray[np.uint64]
Codes = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Fingerprints:
    """One row per record, in corpus order.

    exact: SHA-256 of the canonical form. bits: [n, 128] bytes, one bit for each of 1,024 permutations of the 5-word
    shingles; for two records at Jaccard similarity J a bit differs with probability (1 - J) / 2, so at Hamming
    distance h, J is about 1 - 2 h / 1024 (standard deviation .019 at J = .8; Broder 1997, Li & König 2010).
    shingles: sorted 64-bit hashes of the distinct shingles. Records with features have no shingles and zero bits.
    """

    ids: tuple[str, ...]
    exact: tuple[str, ...]
    bits: Codes
    shingles: tuple[Hashes, ...]

    def similarity(self, i: int, j: int) -> float:
        """Estimated Jaccard similarity of records i and j, from the bits alone."""
        return 1.0 - 2.0 * int(np.unpackbits(self.bits[i] ^ self.bits[j]).sum()) / BITS


def fingerprint(corpus: Corpus) -> Fingerprints:
    """Fingerprints of every record; depends on each record's own content only."""
    known: dict[str, int] = {}
    hashes = tuple(
        np.empty(0, np.uint64) if record.features else _shingle_hashes(words(record), known) for record in corpus
    )
    bits = np.zeros((len(corpus), BITS // 8), np.uint8)
    for row, own in enumerate(hashes):
        if len(own):
            bits[row] = _minhash_bits(own)
    return Fingerprints(corpus.ids, tuple(exact_form(record) for record in corpus), bits, hashes)


def _shingle_hashes(found: Sequence[str], known: dict[str, int]) -> Hashes:
    for word in found:
        if word not in known:
            known[word] = int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "little")
    codes = np.array([known[word] for word in found], np.uint64)
    count = max(1, len(codes) - SHINGLE + 1)
    mixed = np.zeros(count, np.uint64)
    for offset in range(min(SHINGLE, len(codes))):
        mixed = _mix(mixed ^ codes[offset : offset + count])
    return np.unique(mixed)


def _mix(values: Hashes) -> Hashes:
    """The splitmix64 finaliser: every input bit changes half of the output bits."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _permutations() -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    draws = _mix(np.arange(2 * BITS, dtype=np.uint64))
    factors = (draws[:BITS] >> np.uint64(32)).astype(np.uint32) | np.uint32(1)
    return factors, (draws[BITS:] >> np.uint64(32)).astype(np.uint32)


_FACTORS, _OFFSETS = _permutations()


def _minhash_bits(hashes: Hashes) -> Codes:
    """128 bytes: for each permutation one bit of the smallest permuted shingle hash."""
    low = (hashes >> np.uint64(32)).astype(np.uint32)[:, None]
    smallest = np.full(BITS, np.iinfo(np.uint32).max, np.uint32)
    for start in range(0, len(low), 256):  # 256 x 1,024 four-byte values stay in the processor's cache
        smallest = np.minimum(smallest, (low[start : start + 256] * _FACTORS + _OFFSETS).min(axis=0))
    # The minimum's own high bits are nearly always zero, so one bit of a mixed copy is kept instead.
    return np.packbits((_mix(smallest.astype(np.uint64)) & np.uint64(1)).astype(np.uint8))


def lexical_candidates(prints: Fingerprints, reach: float) -> list[Indices]:
    """Per record the records whose estimated Jaccard distance could be at most `reach` (five standard deviations)."""
    import faiss

    flip = reach / 2
    radius = ceil(BITS * flip + 5 * sqrt(BITS * flip * (1 - flip))) + 1
    rows = np.array([i for i, own in enumerate(prints.shingles) if len(own)], np.int64)
    out: list[Indices] = [np.empty(0, np.int64) for _ in prints.ids]
    if not len(rows):
        return out
    codes = np.ascontiguousarray(prints.bits[rows])
    index: Any = faiss.IndexBinaryFlat(BITS)
    index.add(codes)
    limits, _, found = index.range_search(codes, radius)
    for place, row in enumerate(rows):
        out[row] = np.sort(rows[found[limits[place] : limits[place + 1]]])
    return out


def containment_candidates(prints: Fingerprints, reach: float) -> list[Indices]:
    """Per record the records of which it may be a part: all that hold at least one of its rarest shingles.

    Prefix filtering (Chaudhuri, Ganti & Kaushik 2006; Bayardo, Ma & Srikant 2007): where at most a share `reach` of n
    shingles is missing elsewhere, one of any floor(reach n) + 1 is present there, so nothing is missed, and the
    rarest ones keep stock phrases out. MinHash alone would miss these pairs: a short text inside a long one has a
    small Jaccard similarity.
    """
    sizes = [len(own) for own in prints.shingles]
    values, codes = np.unique(np.concatenate([*prints.shingles, np.empty(0, np.uint64)]), return_inverse=True)
    frequency = np.bincount(codes, minlength=len(values))
    owners = np.repeat(np.arange(len(sizes)), sizes)
    by_code = np.argsort(codes, kind="stable")
    holders, ends = owners[by_code], np.cumsum(frequency)
    out: list[Indices] = []
    for row, own in enumerate(np.split(codes, np.cumsum(sizes)[:-1]) if sizes else []):
        rare = own[np.lexsort((own, frequency[own]))][: int(reach * len(own)) + 1]
        found = [holders[ends[code] - frequency[code] : ends[code]] for code in rare]
        others = np.unique(np.concatenate([*found, np.empty(0, np.int64)]))
        out.append(others[others != row])
    return out
