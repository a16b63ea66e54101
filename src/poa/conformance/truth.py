"""Laws of sign: positive means helped, measured against retraining on a convex problem."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from poa.conformance.contract import family
from poa.conformance.law import NotApplicable, require, rounding
from poa.conformance.views import isolated
from poa.errors import PoaError
from poa.evaluation.correlation import mean_spearman
from poa.records import Corpus

if TYPE_CHECKING:
    from poa.factory.classifier import ClassifierRun
    from poa.protocols import Attributor, TrainingRun

LEAST_CORRELATION = 0.3


def measured(run: TrainingRun, queries: Corpus) -> npt.NDArray[np.float64]:
    """[queries] measurement of the final model (nats), one query at a time."""
    import torch

    model = run.model()
    with torch.no_grad():
        return np.asarray([float(run.task.measurement(model, run.task.batch([query]))) for query in queries])


@lru_cache(maxsize=4)
def leave_one_out(run: ClassifierRun, queries: Corpus) -> npt.NDArray[np.float64]:
    """[queries, train] measurement with the record minus without it (nats), by masked retraining of every record."""
    columns: list[npt.NDArray[np.float64]] = []
    for position in range(len(run.corpus)):
        weights = run.weights.copy()
        weights[position] = 0.0
        columns.append(measured(run.retrained(weights), queries))
    return measured(run, queries)[:, None] - np.stack(columns, axis=1)


def sign(method: Attributor, run: TrainingRun, queries: Corpus) -> None:
    """On logistic regression the scores of a gradient method rank records as leave-one-out retraining does."""
    from poa.factory.classifier import ClassifierRun

    _require_gradient(method)
    if not isinstance(run, ClassifierRun) or run.recipe.hidden:
        raise NotApplicable("needs logistic regression, where leave-one-out truth is cheap and clean")
    with isolated(run) as view:
        scores = method.fit(view).attribute(queries)
    agreement = mean_spearman(scores.values, leave_one_out(run, queries))
    require(
        agreement > LEAST_CORRELATION,
        f"mean Spearman with leave-one-out truth is {agreement:.3f}, must exceed {LEAST_CORRELATION}",
    )


def self_influence(method: Attributor, run: TrainingRun, queries: Corpus) -> None:
    """A training record asked as a query helped itself: its own score is not negative."""
    _require_gradient(method)
    positions = [i for i in range(len(run.corpus)) if _askable(run, i)][:8]
    if not positions:
        raise NotApplicable("no training record fits the task as a query")
    with isolated(run) as view:
        scores = method.fit(view).attribute(run.corpus.take(positions))
    for row, position in enumerate(positions):
        own, scale = float(scores.values[row, position]), float(np.abs(scores.values[row]).max())
        require(
            own >= -rounding(run) * scale,
            f"record {run.corpus.ids[position]!r} has score {own!r} for itself, must be 0 or more",
        )


def _askable(run: TrainingRun, position: int) -> bool:
    try:
        run.task.batch([run.corpus[position]], whole=True)
    except PoaError:
        return False
    return True


def _require_gradient(method: Attributor) -> None:
    if family(method) != "gradient":
        raise NotApplicable(f"family {family(method)!r} makes no claim about gradients")
