"""How near honest records of different contributors come by nature: the measured ground for tau."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from poa.datanets.canonical import jaccard_distance, shingles
from poa.datanets.fingerprints import BITS, Fingerprints, fingerprint
from poa.records import Corpus

Floats = npt.NDArray[np.float64]


def honest_distances(corpus: Corpus, prints: Fingerprints | None = None, nearest: int = 4) -> Floats:
    """[n] Jaccard distance of each text record to the nearest record of any other contributor; 1 where none is near.

    The binary index proposes the `nearest` codes, the smallest exact distance among them counts.
    """
    import faiss

    prints = prints or fingerprint(corpus)
    owners = np.asarray(corpus.contributors)
    usable = np.array([len(own) > 0 for own in prints.shingles], bool)
    sets = [shingles(record) if ok else frozenset[tuple[str, ...]]() for record, ok in zip(corpus, usable, strict=True)]
    out = np.ones(len(corpus))
    for owner in np.unique(owners[usable]):
        own, others = np.flatnonzero(usable & (owners == owner)), np.flatnonzero(usable & (owners != owner))
        if not len(others):
            continue
        index: Any = faiss.IndexBinaryFlat(BITS)
        index.add(np.ascontiguousarray(prints.bits[others]))
        _, found = index.search(np.ascontiguousarray(prints.bits[own]), min(nearest, len(others)))
        for i, row in zip(own.tolist(), found, strict=True):
            out[i] = min(jaccard_distance(sets[i], sets[int(others[j])]) for j in row)
    return out


def calibrated_jaccard(corpus: Corpus, rate: float = 0.01) -> float:
    """The Jaccard tau at which at most a share `rate` of honest records lies within tau of another contributor's.

    Honest corpora hold near copies by nature (shared parameter descriptions, licence texts), and this counts them
    as false positives. 0 where exact copies alone already exceed the rate.
    """
    distances = np.sort(honest_distances(corpus))
    allowed = int(rate * len(distances))
    limit = float(distances[allowed]) if allowed < len(distances) else 1.0
    return max(0.0, float(np.nextafter(limit, 0.0)))
