"""Tail-patch: how much one further step on a retrieved record raises the query's measurement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from poa.errors import PoaError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from poa.protocols import Task, TrainingRun
    from poa.records import Corpus, Record
    from poa.scores import Scores


def tail_patch(
    run: TrainingRun, scores: Scores, queries: Corpus, *, k: int = 10, rate: float = 1e-3
) -> npt.NDArray[np.float64]:
    """[queries] rise in nats by one gradient step of `rate` on one record alone, mean over the k highest records.

    From the final checkpoint, each step from the same weights (Chang et al. 2024, TrackStar, arXiv 2410.17413, section
    3.3; there with the optimizer's rate). The loss is the record's own, divided by its supervised predictions.
    Removal is another question: what a model would gain from a record once more is not what it owes to it.
    """
    if k < 1 or not rate > 0:
        raise PoaError(f"k is {k} and rate {rate}; both must be positive")
    if scores.train_ids != run.corpus.ids or scores.query_ids != queries.ids:
        raise PoaError("the scores are for other records or queries than these")
    model, task = run.model(), run.task
    weights: list[Tensor] = [value for value in model.parameters() if value.requires_grad]
    kept = [value.detach().clone() for value in weights]
    out = np.zeros(len(queries))
    best = np.argsort(-scores.values, axis=1, kind="stable")[:, :k]
    wanted: dict[int, list[int]] = {}
    for query, places in enumerate(best):
        for place in places:
            wanted.setdefault(int(place), []).append(query)
    before = _measured(task, model, list(queries))
    for place, asking in wanted.items():
        _step(task, model, weights, run.corpus[place], rate)
        after = _measured(task, model, [queries[query] for query in asking])
        out[asking] += after - before[asking]
        with torch.no_grad():
            for value, old in zip(weights, kept, strict=True):
                value.copy_(old)
    return out / best.shape[1]


def _step(task: Task, model: nn.Module, weights: list[Tensor], record: Record, rate: float) -> None:
    batch = task.batch([record], whole=False)
    count = len(task.predictions(model, batch).labels)
    loss = task.loss(model, batch).sum() / max(1, count)
    found = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
    with torch.no_grad():
        for value, slope in zip(weights, found, strict=True):
            value.sub_(rate * slope)


def _measured(task: Task, model: nn.Module, records: list[Any]) -> npt.NDArray[np.float64]:
    with torch.no_grad():
        return task.measurement(model, task.batch(records)).double().numpy()
