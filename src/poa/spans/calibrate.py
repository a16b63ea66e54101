"""The information threshold, measured on decoy text that the index does not hold, and chance p-values from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from poa.digests import plain_digest, sha256
from poa.errors import Corrupt, Mismatch, PoaError
from poa.spans.index import SpanIndex
from poa.spans.information import Unigram, require_vocabulary, span_sums
from poa.spans.stored import MANIFEST, load_arrays, save_arrays

Array = npt.NDArray[Any]
SCHEMA = "poa.calibration/1"
_NOTE = {
    "theta": int,
    "alpha": float,
    "upper": float,
    "resamples": int,
    "seed": int,
    "index_digest": str,
    "unigram_digest": str,
    "decoy_digest": str,
}


@dataclass(frozen=True, eq=False, repr=False)
class Calibration:
    """scores: int64[N] ascending, s_t of every decoy token. theta and scores in 1/1024 bit.

    It holds for one index and one unigram table; `require` refuses others.
    """

    scores: Array
    theta: int
    alpha: float
    upper: float
    resamples: int
    seed: int
    index_digest: str
    unigram_digest: str
    decoy_digest: str

    def __repr__(self) -> str:
        return f"Calibration(theta={self.theta}, alpha={self.alpha}, {self.scores.size} decoy tokens)"

    @cached_property
    def digest(self) -> str:
        return plain_digest([SCHEMA, self._note(), sha256(self.scores.tobytes())])

    def p_value(self, information: int) -> float:
        """(1 + decoy tokens with s_t >= `information`) / (1 + N): how often chance does as well; never 0."""
        reached = self.scores.size - int(np.searchsorted(self.scores, information, side="left"))
        return (1 + reached) / (1 + self.scores.size)

    def require(self, index: SpanIndex, unigram: Unigram) -> None:
        """Raise `Mismatch` unless this was measured on `index` with `unigram`."""
        if index.digest != self.index_digest:
            raise Mismatch(f"calibration belongs to index {self.index_digest}, not {index.digest}; calibrate again")
        if unigram.digest != self.unigram_digest:
            raise Mismatch(f"calibration belongs to unigram table {self.unigram_digest}, not {unigram.digest}")

    def save(self, folder: str | Path) -> None:
        save_arrays(Path(folder), SCHEMA, {"scores": self.scores}, self._note())

    @staticmethod
    def load(folder: str | Path) -> Calibration:
        """What `save` wrote; raises `Corrupt`, naming the file."""
        arrays, note = load_arrays(Path(folder), SCHEMA, ("scores",), check=True)
        if set(note) != set(_NOTE) or any(not isinstance(note[name], kind) for name, kind in _NOTE.items()):
            raise Corrupt(f"{Path(folder) / MANIFEST}: its note must give {', '.join(_NOTE)}")
        scores = arrays["scores"]
        if scores.dtype != np.int64 or scores.ndim != 1 or bool((np.diff(scores) < 0).any()):
            raise Corrupt(f"{Path(folder) / 'scores.npy'}: must be flat int64 in ascending order")
        return Calibration(scores, **note)

    def _note(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _NOTE}


def calibrate(
    index: SpanIndex,
    unigram: Unigram,
    decoys: Sequence[Sequence[int] | Array],
    *,
    alpha: float = 0.01,
    resamples: int = 1000,
    upper: float = 0.975,
    seed: int = 0,
) -> Calibration:
    """The smallest theta at which the share of decoy tokens covered is at most `alpha`, with confidence.

    decoys: token ids of documents of the same domain that are *not* in the manifest, near-duplicates of it removed;
    100,000 tokens or more are wanted. The share must hold in a fraction `upper` of `resamples` bootstrap resamples of
    decoy *documents*: tokens of one document are not independent. theta is always above `unigram.cap`, so that no
    single token reaches it. Masks only lower coverage, so decoys are measured without them. Raises `PoaError` for fewer
    than two non-empty decoys and for options out of range.
    """
    for name, value in (("alpha", alpha), ("upper", upper)):
        if not 0 < value < 1:
            raise PoaError(f"{name} is {value}; it must lie between 0 and 1")
    if resamples < 1:
        raise PoaError(f"resamples is {resamples}; it must be 1 or more")
    require_vocabulary(index, unigram)
    texts = [index.encode(tokens, f"decoy {i}") for i, tokens in enumerate(decoys)]
    texts = [tokens for tokens in texts if tokens.size]
    if len(texts) < 2:
        raise PoaError(f"{len(texts)} non-empty decoy documents; a bootstrap over documents needs 2 or more")
    per_document = [covering_information(index, unigram, tokens) for tokens in texts]
    theta = _threshold(per_document, alpha, _draws(len(texts), resamples, seed), upper, unigram.cap + 1)
    scores = np.sort(np.concatenate(per_document))
    decoy_digest = plain_digest([sha256(tokens.tobytes()) for tokens in texts])
    return Calibration(
        scores, theta, float(alpha), float(upper), resamples, seed, index.digest, unigram.digest, decoy_digest
    )


def covering_information(index: SpanIndex, unigram: Unigram, tokens: Array) -> npt.NDArray[np.int64]:
    """int64[m] s_t: the largest information of a maximal span that covers token t, 0 where none does (1/1024 bit).

    A token is covered at threshold theta exactly if s_t >= theta.
    """
    from poa.spans.claims import claimed
    from poa.spans.search import matches

    found = matches(index, tokens)
    sums = span_sums(unigram.information(tokens), found.starts, found.ends)
    order = np.argsort(-sums, kind="stable")
    best = claimed(found.starts[order], found.ends[order], tokens.size)
    return np.append(sums[order], 0)[best]


def _draws(documents: int, resamples: int, seed: int) -> Array:
    """int64[resamples, documents]: how often each document is drawn in each resample."""
    draw = np.random.default_rng(seed)
    rows = [np.bincount(draw.integers(0, documents, documents), minlength=documents) for _ in range(resamples)]
    return np.stack(rows).astype(np.int64)


def _threshold(scores: Sequence[Array], alpha: float, draws: Array, upper: float, least: int) -> int:
    totals = draws @ np.array([one.size for one in scores], np.int64)
    needed = math.ceil(upper * len(draws))

    def holds(theta: int) -> bool:
        covered = draws @ np.array([int((one >= theta).sum()) for one in scores], np.int64)
        return int((covered <= alpha * totals).sum()) >= needed

    # Coverage falls only just above a score, and in every resample it never rises again.
    values = np.unique(np.concatenate(scores))
    steps = [least, *(int(value) + 1 for value in values if value >= least)]
    low, high = 0, len(steps) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(steps[middle]) else (middle + 1, high)
    return steps[low]
