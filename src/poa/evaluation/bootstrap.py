"""Two-way bootstrap: how far a number over queries and retrainings would move with other ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from poa.errors import PoaError
from poa.evaluation.correlation import mean_spearman
from poa.evaluation.drawn_ranks import DrawnRanks

_Real: TypeAlias = npt.NDArray[np.floating[Any]]
_Places: TypeAlias = npt.NDArray[np.int64]
Statistic: TypeAlias = Callable[[_Real, _Real], float]


@dataclass(frozen=True)
class Interval:
    """A value with a percentile interval at `level` from `resamples` bootstrap draws, which it always holds."""

    value: float
    low: float
    high: float
    level: float
    resamples: int

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def two_way(
    statistic: Statistic, predicted: _Real, truth: _Real, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Interval of `statistic(predicted, truth)` when queries (rows) and columns are both drawn anew with replacement.

    `predicted` and `truth` are [queries, n]; columns are retrained subsets, contributors or records. Drawing queries
    alone gives intervals that are too narrow. A drawn column appears several times; rank statistics see ties.
    Raises `PoaError` for shapes that differ or are empty and for a level outside (0, 1).
    """
    _check((predicted, truth), resamples, level)
    draws = [statistic(predicted[at], truth[at]) for at in _draws(truth.shape, resamples, seed)]
    return _interval(statistic(predicted, truth), draws, level)


def two_way_spearman(
    predicted: _Real, truth: _Real, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> Interval:
    """`two_way(mean_spearman, ...)` with the same draws, many times faster: rows are sorted once (`DrawnRanks`)."""
    _check((predicted, truth), resamples, level)
    draws = _spearman_draws(predicted, truth, resamples, seed)
    return _interval(mean_spearman(predicted, truth), draws.tolist(), level)


def paired_spearman(
    first: _Real, second: _Real, truth: _Real, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> Interval:
    """`paired(mean_spearman, ...)` with the same draws, as fast as `two_way_spearman`."""
    _check((first, second, truth), resamples, level)
    ours, theirs = (_spearman_draws(predicted, truth, resamples, seed) for predicted in (first, second))
    value = mean_spearman(first, truth) - mean_spearman(second, truth)
    return _interval(value, (ours - theirs).tolist(), level)


def across_runs(interval: Interval, values: Sequence[float]) -> Interval:
    """`interval` of a mean over runs, at least as wide as Student's t interval of `values`, one of each run.

    Runs (seeds) are too few to be drawn anew. One run says nothing about others: the interval stays as it is.
    """
    if len(values) < 2:
        return interval
    from scipy.stats import t

    quantile = float(t.ppf((1 + interval.level) / 2, len(values) - 1))
    half = quantile * float(np.std(values, ddof=1)) / len(values) ** 0.5
    low, high = min(interval.low, interval.value - half), max(interval.high, interval.value + half)
    return replace(interval, low=max(-1.0, low), high=min(1.0, high))


def _spearman_draws(predicted: _Real, truth: _Real, resamples: int, seed: int) -> npt.NDArray[np.float64]:
    """[resamples] mean Spearman correlations; equal seeds draw the same rows and columns."""
    ranks = DrawnRanks(predicted, truth)
    draws: list[float] = []
    for rows, columns in _picks(truth.shape, resamples, seed):
        values = ranks(np.bincount(columns, minlength=truth.shape[1]))
        draws.append(float(values[rows].mean()))
    return np.asarray(draws)


def paired(
    statistic: Statistic,
    first: _Real,
    second: _Real,
    truth: _Real,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of `statistic(first, truth) - statistic(second, truth)` on the same draws for both.

    Much tighter than comparing two intervals, because queries and retrainings that are hard are hard for both.
    Raises as `two_way` does.
    """
    _check((first, second, truth), resamples, level)

    def difference(a: _Real, b: _Real, t: _Real) -> float:
        return statistic(a, t) - statistic(b, t)

    draws = [difference(first[at], second[at], truth[at]) for at in _draws(truth.shape, resamples, seed)]
    return _interval(difference(first, second, truth), draws, level)


def _draws(shape: tuple[int, ...], resamples: int, seed: int) -> Iterator[tuple[npt.NDArray[np.integer[Any]], ...]]:
    for rows, columns in _picks(shape, resamples, seed):
        yield np.ix_(rows, columns)


def _picks(shape: tuple[int, ...], resamples: int, seed: int) -> Iterator[tuple[_Places, _Places]]:
    """Row and column numbers drawn with replacement."""
    rng = np.random.default_rng(seed)
    rows, columns = shape
    for _ in range(resamples):
        yield rng.integers(rows, size=rows), rng.integers(columns, size=columns)


def _interval(value: float, draws: list[float], level: float) -> Interval:
    tail = (1 - level) / 2
    low, high = np.quantile(np.asarray(draws), [tail, 1 - tail])
    # Columns drawn twice tie, which pulls rank correlations down: near 1 all draws may lie below the value itself.
    return Interval(value, min(value, float(low)), max(value, float(high)), level, len(draws))


def _check(arrays: tuple[_Real, ...], resamples: int, level: float) -> None:
    shapes = [array.shape for array in arrays]
    if len(set(shapes)) != 1 or len(shapes[0]) != 2 or 0 in shapes[0]:
        raise PoaError(f"shapes are {shapes}, must be one shape [queries, n] without an empty axis")
    if resamples < 1:
        raise PoaError(f"resamples is {resamples}, must be 1 or more")
    if not 0 < level < 1:
        raise PoaError(f"level is {level}, must lie between 0 and 1")
