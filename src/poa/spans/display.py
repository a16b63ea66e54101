"""The spans that OLMoTrace would show: capped by count, ranked, few. A view; no payment reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from poa.errors import PoaError
from poa.spans.index import SpanIndex
from poa.spans.information import Unigram, span_sums

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class OlmoTrace:
    """Settings of OLMoTrace (arXiv 2504.07096) and its service.

    max_count: a span that occurs more often is common. percent: ceil(percent / 100 * tokens) spans are shown.
    rank: by "length", longest first, or "unigram", least probable first. delimiters: token ids after which a span is
    cut. word_starts: ids of tokens that begin a word; spans begin at one and end before one; None allows partial words.
    """

    max_count: int = 10
    percent: int = 5
    rank: Literal["length", "unigram"] = "length"
    delimiters: frozenset[int] = frozenset()
    word_starts: frozenset[int] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "delimiters", frozenset(self.delimiters))
        if self.word_starts is not None:
            object.__setattr__(self, "word_starts", frozenset(self.word_starts))
        if self.max_count < 1 or not 1 <= self.percent <= 100:
            raise PoaError(f"olmotrace: max_count {self.max_count} must be 1 or more, percent {self.percent} 1 to 100")
        if self.rank not in ("length", "unigram"):
            raise PoaError(f"olmotrace: rank is {self.rank!r}; choose 'length' or 'unigram'")


def olmotrace(
    index: SpanIndex, output: Array, settings: OlmoTrace, unigram: Unigram | None
) -> tuple[Array, Array, Array, Array, Array]:
    """(starts, ends, lo, hi, common) of the spans shown, in order of start.

    Common spans, which OLMoTrace drops, are shown besides the ranked ones: they take no place from them, and neither
    hides the other.
    """
    from poa.spans.search import intervals, reach

    if settings.rank == "unigram" and unigram is None:
        raise PoaError("olmotrace: rank 'unigram' needs a unigram table")
    starts, ends = _cut(output, reach(index, output), settings)
    lo, hi = intervals(index, output, starts, ends)
    rare = np.flatnonzero(hi - lo <= settings.max_count)
    shown = _ranked(output, starts, ends, rare[_rising(ends[rare])], settings, unigram)
    maximal = np.flatnonzero(_rising(ends))
    common = maximal[hi[maximal] - lo[maximal] > settings.max_count]
    both = np.sort(np.concatenate([shown, common]))
    return starts[both], ends[both], lo[both], hi[both], hi[both] - lo[both] > settings.max_count


def _cut(output: Array, reach: Array, settings: OlmoTrace) -> tuple[Array, Array]:
    """The longest match of every start that is allowed, cut after its first delimiter and back to a word's end."""
    m = output.size
    tokens = output.tolist()
    begins = [settings.word_starts is None or token in settings.word_starts for token in tokens] + [True]
    # For each position: the end of a span that starts here and is cut after the first delimiter, were it to go on.
    stop = [m] * (m + 1)
    whole_words = list(range(m + 1))
    for i in range(m - 1, -1, -1):
        stop[i] = i + 1 if tokens[i] in settings.delimiters else stop[i + 1]
    for i in range(1, m + 1):
        whole_words[i] = i if begins[i] else whole_words[i - 1]
    pairs = [(x, whole_words[min(int(reach[x]), stop[x])]) for x in range(m) if begins[x]]
    kept = np.array([pair for pair in pairs if pair[0] < pair[1]], np.int64).reshape(-1, 2)
    return np.ascontiguousarray(kept[:, 0]), np.ascontiguousarray(kept[:, 1])


def _rising(ends: Array) -> npt.NDArray[np.bool_]:
    """Which ends pass all earlier ones."""
    before = np.maximum.accumulate(np.concatenate([np.zeros(1, np.int64), ends]))[:-1]
    return ends > before


def _ranked(
    output: Array, starts: Array, ends: Array, picks: Array, settings: OlmoTrace, unigram: Unigram | None
) -> Array:
    most = -(-output.size * settings.percent // 100)
    if settings.rank == "unigram" and unigram is not None:
        value = span_sums(unigram.information(output), starts[picks], ends[picks])
    else:
        value = ends[picks] - starts[picks]
    return picks[np.argsort(-value, kind="stable")[:most]]
