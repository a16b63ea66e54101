"""Distance between feature rows: images count as copies when one is the other moved by a pixel."""

from __future__ import annotations

from math import isqrt
from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.floating[Any]]


def shifted(rows: Rows) -> Rows:
    """[n, s, d]: the nine versions of each row moved by at most one pixel, zeros moved in, the unmoved one first.

    Rows whose length is no square number have no neighbours to move to: s = 1.
    """
    n, d = rows.shape
    side = isqrt(d)
    if side * side != d or side < 2:
        return rows[:, None, :]
    padded = np.pad(rows.reshape(n, side, side), ((0, 0), (1, 1), (1, 1)))
    moves = sorted(((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)), key=lambda move: (move != (0, 0), move))
    views = [padded[:, 1 + dy : 1 + dy + side, 1 + dx : 1 + dx + side].reshape(n, d) for dy, dx in moves]
    return np.stack(views, axis=1)


def shift_distance(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Smallest L2 distance between `b` and `a` moved by at most one pixel, or the reverse, over the larger norm.

    0 for a moved copy, about 1.4 for unrelated non-negative rows; 1 where the lengths differ.
    """
    if len(a) != len(b):
        return 1.0
    left, right = np.asarray(a, np.float64)[None], np.asarray(b, np.float64)[None]
    scale = max(float(np.linalg.norm(left)), float(np.linalg.norm(right)))
    if scale == 0.0:
        return 0.0
    forward = np.linalg.norm(shifted(left)[0] - right, axis=1).min()
    backward = np.linalg.norm(shifted(right)[0] - left, axis=1).min()
    return float(min(forward, backward) / scale)


def shift_candidates(rows: Rows, reach: float) -> list[tuple[int, int]]:
    """Pairs of rows i < j whose shift distance may be at most `reach`; exact up to float32 rounding."""
    import faiss

    index = faiss.IndexFlatL2(rows.shape[1])
    plain = np.ascontiguousarray(rows, np.float32)
    index.add(plain)  # pyright: ignore[reportCallIssue]
    norms = np.linalg.norm(plain, axis=1)
    views = shifted(plain)
    pairs: set[tuple[int, int]] = set()
    radius = float((reach * norms.max()) ** 2 * 1.001 + 1e-6) if len(norms) else 0.0
    for view in range(views.shape[1]):
        limits, _, found = index.range_search(np.ascontiguousarray(views[:, view]), radius)  # pyright: ignore[reportCallIssue]
        owners = np.repeat(np.arange(len(rows)), np.diff(limits.astype(np.int64)))
        low, high = np.minimum(owners, found), np.maximum(owners, found)
        pairs.update((int(i), int(j)) for i, j in zip(low[low < high], high[low < high], strict=True))
    return sorted(pairs)
