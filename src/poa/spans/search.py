"""Longest matches of an output in the indexed text: maximal spans, their ranks, counts and documents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from poa.compiled import jit
from poa.spans.minima import earliest

if TYPE_CHECKING:
    from poa.spans.index import SpanIndex

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Matches:
    """What stands in the text, for one query of m tokens.

    reach: int64[m], e(x) = x + length of the longest match that starts at x. starts, ends, lo, hi: int64[k], the
    maximal spans [start, end) in order of start, and the interval of suffix ranks that begin with each.
    """

    reach: Array
    starts: Array
    ends: Array
    lo: Array
    hi: Array


def matches(index: SpanIndex, query: Array) -> Matches:
    """All maximal spans of `query` (from `index.encode`), with their intervals; count = hi - lo, in occurrences."""
    reach, starts, ends, ranks = _walk(index.text, index.suffixes, query)
    lo, hi = _around(index.text, index.suffixes, query, starts, ends, ranks)
    return Matches(reach, starts, ends, lo, hi)


def reach(index: SpanIndex, query: Array) -> Array:
    """int64[m] as in `Matches`, without the intervals: query[x:y] occurs exactly if y <= reach[x]."""
    return _walk(index.text, index.suffixes, query)[0]


def intervals(index: SpanIndex, query: Array, starts: Array, ends: Array) -> tuple[Array, Array]:
    """(lo, hi): int64[k] suffix ranks that begin with `query[starts[i]:ends[i]]`; lo == hi where it does not occur."""
    return _intervals(index.text, index.suffixes, query, starts, ends)


def first_positions(index: SpanIndex, lo: Array, hi: Array) -> Array:
    """int64[k] earliest text position in each interval, -1 where it is empty: the first registrant holds it."""
    return earliest(index.suffixes, index.minima, lo, hi)


def documents_at(index: SpanIndex, lo: int, hi: int, first: int, k: int) -> list[tuple[int, int]]:
    """(document, text position) of some occurrences: the earliest, then ranks lo + floor(t * count / k) for t < k.

    One entry per document, so at most k + 1. Deterministic; different continuations come out, because ranks sort by
    what follows. first: from `first_positions`.
    """
    ranks = lo + np.arange(k, dtype=np.int64) * (hi - lo) // max(k, 1)
    positions = np.concatenate([np.array([first], np.int64), index.suffixes[ranks].astype(np.int64)])
    seen: dict[int, int] = {}
    for document, position in zip(index.document_of(positions).tolist(), positions.tolist(), strict=True):
        seen.setdefault(document, position)
    return list(seen.items())


def held_by(index: SpanIndex, lo: Array, hi: Array, least: int) -> Array:
    """bool[k]: whether at least `least` documents hold an occurrence of the interval's string; exact."""
    return _held_by(index.suffixes, index.offsets, lo, hi, least)


@jit
def _agree(text: Array, at: int, query: Array, start: int, stop: int, k: int) -> int:
    """Length of the common prefix of text[at:] and query[start:stop], of which the first k tokens are known equal."""
    while start + k < stop and at + k < text.size and text[at + k] == query[start + k]:
        k += 1
    return k


@jit
def _longest(text: Array, suffixes: Array, query: Array, start: int, stop: int) -> tuple[int, int]:
    """(rank, length) of a suffix that shares the longest prefix with query[start:stop]; rank is void at length 0."""
    lo, hi = -1, suffixes.size
    # Everything between two ranks shares what both share with the query, so no comparison starts from token 0.
    below, above = 0, 0
    while hi - lo > 1:
        middle = (lo + hi) >> 1
        at = int(suffixes[middle])
        k = _agree(text, at, query, start, stop, min(below, above))
        if start + k == stop:
            return middle, k
        if at + k == text.size or text[at + k] < query[start + k]:
            lo, below = middle, k
        else:
            hi, above = middle, k
    return (lo, below) if below >= above else (hi, above)


@jit
def _edges(text: Array, suffixes: Array, query: Array, start: int, stop: int, rank: int) -> tuple[int, int]:
    """The interval of query[start:stop] around a rank that holds it: gallop to each side, then bisect."""
    length = stop - start
    inside, step = rank, 1
    while inside - step >= 0 and _agree(text, suffixes[inside - step], query, start, stop, 0) == length:
        inside, step = inside - step, step * 2
    outside = max(inside - step, -1)
    while inside - outside > 1:
        middle = (inside + outside) >> 1
        if _agree(text, suffixes[middle], query, start, stop, 0) == length:
            inside = middle
        else:
            outside = middle
    lo = inside
    inside, step = rank, 1
    while inside + step < suffixes.size and _agree(text, suffixes[inside + step], query, start, stop, 0) == length:
        inside, step = inside + step, step * 2
    outside = min(inside + step, suffixes.size)
    while outside - inside > 1:
        middle = (inside + outside) >> 1
        if _agree(text, suffixes[middle], query, start, stop, 0) == length:
            inside = middle
        else:
            outside = middle
    return lo, outside


@jit
def _walk(text: Array, suffixes: Array, query: Array) -> tuple[Array, Array, Array, Array]:
    """reach[m], and start, end and one rank of every maximal span. Searches only where the reach rises.

    After a span that ends at r, the next one is the span that holds token r: its start is the smallest y with reach
    above r. Long spans are probed backwards from r in doubling steps, short ones forwards.
    """
    m = query.size
    reach = np.empty(m, np.int64)
    starts, ends, ranks = np.empty(m, np.int64), np.empty(m, np.int64), np.empty(m, np.int64)
    found, x, rank, length = 0, 0, -1, -1
    while x < m:
        if length < 0:
            rank, length = _longest(text, suffixes, query, x, m)
        if length == 0:
            reach[x] = x
            x, length = x + 1, -1
            continue
        r = x + length
        starts[found], ends[found], ranks[found] = x, r, rank
        found += 1
        if r == m:
            reach[x:] = m
            break
        y, rank, following = _next(text, suffixes, query, x, r)
        reach[x:y] = r
        x, length = y, following
    return reach, starts[:found].copy(), ends[:found].copy(), ranks[:found].copy()


@jit
def _next(text: Array, suffixes: Array, query: Array, x: int, r: int) -> tuple[int, int, int]:
    """(start, rank, length) of the first match after x that reaches beyond r; (r + 1, -1, -1) where there is none."""
    m = query.size
    if r - x <= 8:
        for y in range(x + 1, r + 1):
            rank, length = _longest(text, suffixes, query, y, m)
            if y + length > r:
                return y, rank, length
        return r + 1, -1, -1
    rank, length = _longest(text, suffixes, query, r, m)
    if length == 0:
        return r + 1, -1, -1
    y, low, step = r, x, 1
    while r - step > x:
        other, reached = _longest(text, suffixes, query, r - step, m)
        if r - step + reached <= r:
            low = r - step
            break
        y, rank, length = r - step, other, reached
        step = 2 * step + 1
    while y - low > 1:
        middle = (y + low) >> 1
        other, reached = _longest(text, suffixes, query, middle, m)
        if middle + reached > r:
            y, rank, length = middle, other, reached
        else:
            low = middle
    return y, rank, length


@jit
def _around(
    text: Array, suffixes: Array, query: Array, starts: Array, ends: Array, ranks: Array
) -> tuple[Array, Array]:
    lo, hi = np.empty(starts.size, np.int64), np.empty(starts.size, np.int64)
    for i in range(starts.size):
        lo[i], hi[i] = _edges(text, suffixes, query, starts[i], ends[i], ranks[i])
    return lo, hi


@jit
def _intervals(text: Array, suffixes: Array, query: Array, starts: Array, ends: Array) -> tuple[Array, Array]:
    lo, hi = np.zeros(starts.size, np.int64), np.zeros(starts.size, np.int64)
    for i in range(starts.size):
        rank, length = _longest(text, suffixes, query, starts[i], ends[i])
        if length > 0 and starts[i] + length == ends[i]:
            lo[i], hi[i] = _edges(text, suffixes, query, starts[i], ends[i], rank)
    return lo, hi


@jit
def _held_by(suffixes: Array, offsets: Array, lo: Array, hi: Array, least: int) -> Array:
    out = np.zeros(lo.size, np.bool_)
    seen = np.empty(min(least, offsets.size), np.int64)
    for i in range(lo.size):
        different = 0
        for rank in range(lo[i], hi[i]):
            document = np.searchsorted(offsets, suffixes[rank], side="right") - 1
            known = False
            for j in range(different):
                known = known or seen[j] == document
            if not known:
                seen[different] = document
                different += 1
            if different == least:
                out[i] = True
                break
    return out
