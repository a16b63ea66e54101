"""Earliest text position in a range of suffix ranks: a tree of block minima."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from poa.compiled import jit

Array = npt.NDArray[Any]


def block_minima(suffixes: Array) -> npt.NDArray[np.int32]:
    """The smallest of every 64 entries of `suffixes`, then of every 64 of those, and so on up to one; concatenated."""
    levels: list[Array] = []
    level = suffixes
    while level.size > 1:
        level = np.minimum.reduceat(level, np.arange(0, level.size, 64))
        levels.append(level)
    return np.concatenate(levels).astype(np.int32) if levels else np.zeros(0, np.int32)


@jit
def earliest(suffixes: Array, minima: Array, lo: Array, hi: Array) -> Array:
    """int64[k] smallest entry of `suffixes[lo[i]:hi[i]]`, -1 where the range is empty."""
    out = np.full(lo.size, -1, np.int64)
    for i in range(lo.size):
        if lo[i] < hi[i]:
            out[i] = _least(suffixes, minima, lo[i], hi[i])
    return out


@jit
def _least(suffixes: Array, minima: Array, lo: int, hi: int) -> int:
    best = int(suffixes[lo])
    a, b = (lo + 63) >> 6, hi >> 6
    if a >= b:
        return _scan(suffixes, lo, hi, best)
    best = _scan(suffixes, lo, a << 6, best)
    best = _scan(suffixes, b << 6, hi, best)
    base, size = 0, (suffixes.size + 63) >> 6
    while a < b:
        up, down = (a + 63) >> 6, b >> 6
        if up >= down:
            return _scan(minima, base + a, base + b, best)
        best = _scan(minima, base + a, base + (up << 6), best)
        best = _scan(minima, base + (down << 6), base + b, best)
        base, size = base + size, (size + 63) >> 6
        a, b = up, down
    return best


@jit
def _scan(values: Array, first: int, last: int, best: int) -> int:
    for i in range(first, last):
        best = min(best, int(values[i]))
    return best
