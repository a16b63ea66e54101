"""Spearman correlations of tables whose columns are drawn anew, without sorting again: the bootstrap's inner loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from poa.compiled import jit

Table = npt.NDArray[np.floating[Any]]
Counts = npt.NDArray[np.int64]


class DrawnRanks:
    """Two [queries, n] tables, each row sorted once.

    A column that is drawn c times stands c times at the same place of the order, so ranks follow from counts: O(n) a
    row and draw. Sums are over multiples of 1/4 and exact: equal to `spearman_rows` of the drawn tables.
    """

    def __init__(self, predicted: Table, truth: Table) -> None:
        self._tables = (*_sorted(predicted), *_sorted(truth))

    def __call__(self, counts: Counts) -> npt.NDArray[np.float64]:
        """[queries] correlations with column j taken counts[j] times."""
        return _correlations(*self._tables, counts)


def _sorted(table: Table) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """(order, whether the next value is another) of every row."""
    order = np.argsort(table, axis=1, kind="stable")
    ordered = np.take_along_axis(table, order, 1)
    ends = np.ones(table.shape, np.bool_)
    ends[:, :-1] = ordered[:, 1:] != ordered[:, :-1]
    return order, ends


@jit
def _correlations(
    first: npt.NDArray[np.int64],
    first_ends: npt.NDArray[np.bool_],
    second: npt.NDArray[np.int64],
    second_ends: npt.NDArray[np.bool_],
    counts: Counts,
) -> npt.NDArray[np.float64]:
    rows, columns = first.shape
    out = np.zeros(rows)
    x, y = np.empty(columns), np.empty(columns)
    for row in range(rows):
        _deviations(first[row], first_ends[row], counts, x)
        _deviations(second[row], second_ends[row], counts, y)
        shared = own = other = 0.0
        for j in range(columns):
            shared += counts[j] * x[j] * y[j]
            own += counts[j] * x[j] * x[j]
            other += counts[j] * y[j] * y[j]
        if own > 0 and other > 0:
            out[row] = shared / (np.sqrt(own) * np.sqrt(other))
    return out


@jit
def _deviations(
    order: npt.NDArray[np.int64], ends: npt.NDArray[np.bool_], counts: Counts, out: npt.NDArray[np.float64]
) -> None:
    """Mid-ranks minus their mean, by column; equal values share one."""
    middle = (counts.sum() + 1) / 2
    start = passed = here = 0
    for place in range(len(order)):
        here += counts[order[place]]
        if ends[place]:
            rank = passed + (here + 1) / 2 - middle
            for inside in range(start, place + 1):
                out[order[inside]] = rank
            start, passed, here = place + 1, passed + here, 0
