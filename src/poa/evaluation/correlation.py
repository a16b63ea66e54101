"""Rank correlation between scores and truth, one number per query."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from poa.errors import PoaError

if TYPE_CHECKING:
    from poa.scores import Scores

_Real = npt.NDArray[np.floating[Any]]
_Rows = npt.NDArray[np.float64]


def average_ranks(values: _Real) -> _Rows:
    """Ranks 1..n along the last axis; equal values share the mean of their ranks."""
    order = np.argsort(values, axis=-1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=-1)
    places = np.broadcast_to(np.arange(values.shape[-1]), values.shape)
    new = np.ones(values.shape, bool)
    new[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    first = np.maximum.accumulate(np.where(new, places, 0), axis=-1)
    # The last place of a group of ties is one before the next group's first place, found from the right.
    ends = np.ones(values.shape, bool)
    ends[..., :-1] = new[..., 1:]
    last = np.flip(np.minimum.accumulate(np.flip(np.where(ends, places, values.shape[-1]), axis=-1), axis=-1), axis=-1)
    ranks = np.empty(values.shape, np.float64)
    np.put_along_axis(ranks, order, (first + last) / 2 + 1, axis=-1)
    return ranks


def spearman_rows(predicted: _Real, truth: _Real) -> _Rows:
    """[queries] Spearman correlation of each row of two [queries, n] arrays, ties at average ranks.

    A row in which either side is constant (or n < 2) carries no order and counts as 0. Raises `PoaError` where shapes
    differ or a value is not finite.
    """
    if predicted.ndim != 2 or predicted.shape != truth.shape:
        raise PoaError(f"predictions have shape {predicted.shape}, truth {truth.shape}; both must be [queries, n]")
    if not bool(np.isfinite(predicted).all()) or not bool(np.isfinite(truth).all()):
        raise PoaError("predictions and truth must be finite")
    if predicted.shape[1] < 2:
        return np.zeros(len(predicted))
    # Deviations are multiples of 1/2, so every sum below is exact and a constant row has a variance of exactly 0.
    middle = (predicted.shape[1] + 1) / 2
    x, y = average_ranks(predicted) - middle, average_ranks(truth) - middle
    shared = (x * y).sum(axis=1)
    spread = np.sqrt((x * x).sum(axis=1)) * np.sqrt((y * y).sum(axis=1))
    return np.divide(shared, spread, out=np.zeros_like(shared), where=spread > 0)


def spearman(scores: Scores, truth: _Real) -> _Rows:
    """[queries] Spearman correlation over the train columns of `scores` with `truth` [query, train] (nats, signed)."""
    return spearman_rows(scores.values, truth)


def mean_spearman(predicted: _Real, truth: _Real) -> float:
    """Mean over queries of `spearman_rows`; with columns = retrained subsets this is the LDS."""
    rows = spearman_rows(predicted, truth)
    return float(rows.mean()) if len(rows) else 0.0
