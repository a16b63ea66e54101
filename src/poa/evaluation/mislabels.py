"""Mislabel detection: whether records with a wrong label stand out by their influence on themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from poa.errors import PoaError
from poa.evaluation.correlation import average_ranks
from poa.records import Corpus

if TYPE_CHECKING:
    from poa.scores import Scores


def mislabelled(corpus: Corpus, classes: int, fraction: float = 0.1, seed: int = 0) -> tuple[Corpus, frozenset[str]]:
    """`corpus` with a fraction of its labels replaced by other ones, and the ids of those records."""
    if not 0 < fraction < 1:
        raise PoaError(f"fraction is {fraction}, must lie between 0 and 1")
    if classes < 2:
        raise PoaError(f"labels of {classes} class cannot be wrong")
    rng = np.random.default_rng(seed)
    wrong = set(rng.choice(len(corpus), max(1, round(fraction * len(corpus))), replace=False).tolist())
    turn = rng.integers(1, classes, size=len(corpus))
    records = [
        replace(record, label=(record.label + int(turn[place])) % classes) if place in wrong else record
        for place, record in enumerate(corpus)
    ]
    return Corpus(records), frozenset(corpus[place].id for place in wrong)


def shown(corpus: Corpus, wrong: frozenset[str], count: int) -> Corpus:
    """The first `count` records with a wrong label and as many with a right one, in the order of the corpus."""
    left = {True: count, False: count}
    kept: list[int] = []
    for place, record in enumerate(corpus):
        if left[record.id in wrong] > 0:
            left[record.id in wrong] -= 1
            kept.append(place)
    return corpus.take(kept)


def detection(scores: Scores, wrong: frozenset[str]) -> float:
    """AUC of self-influence, the score of a record for itself: 1 = every wrong label above every right one.

    A network fits a wrong label mostly through that record, so its own weight moves its own measurement most (Koh and
    Liang 2017; Pruthi et al. 2020). The queries of `scores` are training records, wrong and right ones.
    """
    column = {name: place for place, name in enumerate(scores.train_ids)}
    for name in scores.query_ids:
        if name not in column:
            raise PoaError(f"self-influence needs training records as queries; {name!r} is none")
    own = np.asarray([row[column[name]] for name, row in zip(scores.query_ids, scores.values, strict=True)])
    marked = np.asarray([name in wrong for name in scores.query_ids])
    if not 0 < marked.sum() < len(marked):
        raise PoaError("the area under a curve needs wrong and right labels")
    return auc(own[marked], own[~marked])


def auc(positive: npt.NDArray[np.floating[Any]], negative: npt.NDArray[np.floating[Any]]) -> float:
    """Probability that a positive lies above a negative, ties half (Mann-Whitney)."""
    ranks = average_ranks(np.concatenate([positive, negative]))
    count = len(positive)
    return float((ranks[:count].sum() - count * (count + 1) / 2) / (count * len(negative)))
