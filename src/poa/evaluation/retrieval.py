"""Retrieval of known sources: recall at k and mean reciprocal rank, by records that are relevant by construction."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from poa.errors import PoaError

if TYPE_CHECKING:
    from poa.scores import Scores

Relevant = Mapping[str, Collection[str]]
Rows = npt.NDArray[np.floating[Any]]


def recall_at(scores: Scores, relevant: Relevant, k: int) -> Rows:
    """[queries] fraction of a query's relevant records among its k highest, of at most k that could be there.

    `relevant` maps query ids to record ids. Ties are broken by position, as in `Scores.top`.
    """
    if k < 1:
        raise PoaError(f"k is {k}, must be 1 or more")
    hits = _marked(scores, relevant)
    found = np.take_along_axis(hits, _order(scores)[:, :k], 1).sum(1)
    return found / np.minimum(hits.sum(1), k)


def reciprocal_rank(scores: Scores, relevant: Relevant) -> Rows:
    """[queries] 1 / rank of the first relevant record; the mean over queries is the MRR."""
    hits = np.take_along_axis(_marked(scores, relevant), _order(scores), 1)
    return 1.0 / (1.0 + hits.argmax(1))


def average_above(scores: Scores, first: Relevant, second: Relevant) -> Rows:
    """[queries] probability that a record of `first` scores above one of `second` (AUC, ties half): 1/2 is chance."""
    one, other = _marked(scores, first), _marked(scores, second)
    out = np.zeros(len(scores.values))
    for row, values in enumerate(scores.values):
        gaps = values[one[row]][:, None] - values[other[row]][None, :]
        out[row] = ((gaps > 0) + 0.5 * (gaps == 0)).mean()
    return out


def _order(scores: Scores) -> npt.NDArray[np.intp]:
    return np.argsort(-scores.values, axis=1, kind="stable")


def _marked(scores: Scores, relevant: Relevant) -> npt.NDArray[np.bool_]:
    """[query, train] whether a record is relevant; every query needs one that exists."""
    column = {name: place for place, name in enumerate(scores.train_ids)}
    marked = np.zeros(scores.values.shape, np.bool_)
    for row, query in enumerate(scores.query_ids):
        names = relevant.get(query, ())
        if not names:
            raise PoaError(f"query {query!r} has no relevant record: leave it out")
        for name in names:
            if name not in column:
                raise PoaError(f"record {name!r}, relevant for query {query!r}, is not among the scored ones")
            marked[row, column[name]] = True
    return marked
