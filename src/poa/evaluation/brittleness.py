"""Brittleness: what queries lose when the records that a method ranks highest are taken out of the training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from poa.errors import PoaError
from poa.factory.counterfactual import retrain

if TYPE_CHECKING:
    from poa.factory.classifier import ClassifierRun
    from poa.factory.run import LoRARun
    from poa.records import Corpus
    from poa.scores import Scores

Array = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Brittleness:
    """losses[k, query] in nats: measurement of the query with everybody minus without its own top k (masked removal).

    chance[k, query]: the same without k records drawn at random. Also known as counterfactual top-k or QLD.
    """

    counts: tuple[int, ...]
    losses: Array
    chance: Array

    @property
    def gain(self) -> Array:
        """[k] mean over queries of what the top k cost beyond random records."""
        return (self.losses - self.chance).mean(1)


def brittleness(
    run: LoRARun | ClassifierRun,
    scores: Scores,
    queries: Corpus,
    counts: Sequence[int],
    *,
    seed: int = 0,
    draw: int = 0,
) -> Brittleness:
    """2 x k x Q + 1 trainings with the recipe's order and `seed`; `draw` picks the random records."""
    records = len(run.corpus)
    for count in counts:
        if not 1 <= count < records:
            raise PoaError(f"cannot take {count} of {records} records out, must be 1 to {records - 1}")
    if scores.train_ids != run.corpus.ids or scores.query_ids != queries.ids:
        raise PoaError("the scores are for other records or queries than these")
    order = np.argsort(-scores.values, axis=1, kind="stable")
    # Drawn once for all methods, and trained in a call of its own, so that it is trained once for all of them.
    rng = np.random.default_rng(draw)
    random = np.stack([rng.permutation(records) for _ in range(len(queries))])
    full = retrain(run, np.ones((1, records)), queries, [seed])[0, 0]
    lost = [full - _without(run, picked, queries, counts, seed) for picked in (order, random)]
    return Brittleness(tuple(counts), lost[0], lost[1])


def _without(
    run: LoRARun | ClassifierRun, order: npt.NDArray[np.integer[Any]], queries: Corpus, counts: Sequence[int], seed: int
) -> Array:
    """[k, query] measurement of each query in the model that lacks the first k records of its row of `order`."""
    rows: list[Array] = []
    for count in counts:
        for picked in order[:, :count]:
            row = np.ones(order.shape[1])
            row[picked] = 0.0
            rows.append(row)
    measured = retrain(run, np.stack(rows), queries, [seed])[0]
    return np.diagonal(measured.reshape(len(counts), len(queries), len(queries)), axis1=1, axis2=2)
