"""What is measured of one method at one seed, as rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from poa.evaluation.bootstrap import Interval
from poa.evaluation.brittleness import brittleness
from poa.evaluation.mislabels import detection, mislabelled, shown
from poa.evaluation.retrieval import average_above, recall_at, reciprocal_rank
from poa.evaluation.shapley import payout_error, shares
from poa.evaluation.tail_patch import tail_patch
from poa.evaluation.uncertainty import crossed
from poa.fidelity.rows import Row
from poa.pipeline.attribution import attribute
from poa.rewards.credit import UNIT, printed_credit

if TYPE_CHECKING:
    from poa.evaluation.contributors import ContributorTruth
    from poa.fidelity.tasks import FidelityTask, Run
    from poa.fidelity.truth import TaskTruth
    from poa.scores import Scores

Array = npt.NDArray[np.floating[Any]]
OWN, POOLED = "own_run", "ensemble"
TOP = 5


def quantities(
    task: FidelityTask,
    method: Any,
    run: Run,
    seed: int,
    own: Scores,
    pooled: Scores | None,
    payees: Scores | None,
    truth: TaskTruth,
) -> list[Row]:
    """All rows of a job: `own` scores of `run`, `pooled` and `payees` the ensemble's by record and by payee."""
    rows: list[Row] = []
    for scope, scores in ((OWN, own), (POOLED, pooled)):
        if scores is not None:
            rows += _agreement(scope, scores, truth)
    if payees is not None and payees.stderr is not None:
        found = crossed(payees, truth.contributors.mean)
        rows += [_row(f"interval_{name}", POOLED, value) for name, value in found.items()]
    rows.append(_row("tail_patch", OWN, float(tail_patch(run, own, task.queries, k=TOP).mean())))
    if task.brittle:
        lost = brittleness(run, own, task.queries, task.brittle, seed=seed)
        records = len(run.corpus)
        rows += [
            _row("brittleness", OWN, float(gain), removed=f"{100 * count / records:g}")
            for count, gain in zip(lost.counts, lost.gain, strict=True)
        ]
    rows += _mislabels(task, method, seed)
    return rows + list(_retrieval(task, method, run, own))


def _agreement(scope: str, scores: Scores, truth: TaskTruth) -> list[Row]:
    """LDS per fraction; ranks and shares of contributors."""
    rows = [_row("lds", scope, subsets.lds(scores), removed=percent) for percent, subsets in truth.subsets.items()]
    rows.append(_row("left_out_spearman", scope, truth.left_out.agreement(scores)))
    if truth.shapley is not None:
        rows.append(_row("shapley_spearman", scope, truth.shapley.agreement(scores)))
        rows.append(_row("payout_tv", scope, payout_interval(truth.shapley, scores)))
        rows.append(_row("payout_tv_printed", scope, printed_error(truth.shapley, scores)))
    return rows


def payout_interval(truth: ContributorTruth, scores: Scores, resamples: int = 1000) -> Interval:
    """Total variation between the shares of a method and of the truth; queries drawn anew, the same for both."""
    predicted, true = truth.aligned(scores), truth.mean
    rng = np.random.default_rng(0)
    draws: list[float] = []
    for _ in range(resamples):
        picked = rng.integers(len(true), size=len(true))
        draws.append(payout_error(predicted[picked], true[picked]))
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(payout_error(predicted, true), float(low), float(high), 0.95, resamples)


def printed_error(truth: ContributorTruth, scores: Scores) -> float:
    """The same distance for OpenLedger's printed rule on these scores: clipped per record, normalised per query."""
    credit = printed_credit(scores, "payee")
    paid = credit.fractions.sum(0) / (UNIT * len(credit.query_ids))
    order = [credit.payees.index(name) for name in truth.contributors]
    total = paid.sum()
    return float(np.abs((paid / total if total > 0 else paid)[order] - shares(truth.mean)).sum() / 2)


def _mislabels(task: FidelityTask, method: Any, seed: int) -> list[Row]:
    """AUC of self-influence on a run of the same recipe in which a tenth of the labels is wrong."""
    if not task.mislabels:
        return []
    clean = task.run(seed)
    corpus, wrong = mislabelled(clean.corpus, max(record.label for record in clean.corpus) + 1, seed=seed)
    run = task.trained(corpus, seed)
    asked = shown(corpus, wrong, task.mislabels)
    scores = attribute("mislabels", method, run, [asked]).scores
    return [_row("mislabel_auc", OWN, detection(scores, wrong))]


def _retrieval(task: FidelityTask, method: Any, run: Run, own: Scores) -> Iterator[Row]:
    """Planted facts: are the records that state a fact found, above those that deny it, and placebos not answered."""
    planted = task.planted
    if planted is None:
        return
    for k in (1, TOP):
        yield _row(f"recall_at_{k}", OWN, float(recall_at(own, planted.relevant, k).mean()))
    yield _row("mrr", OWN, float(reciprocal_rank(own, planted.relevant).mean()))
    if all(planted.contrary.values()):
        yield _row("told_over_denied", OWN, float(average_above(own, planted.relevant, planted.contrary).mean()))
    if len(planted.placebo):
        none = attribute("placebo", method, run, [planted.placebo]).scores
        told = np.maximum(own.by("payee").values, 0).sum(1).mean()
        # What a placebo is paid, of what a query about a stated fact is paid: 0 would be right.
        share = np.maximum(none.by("payee").values, 0).sum(1).mean() / told if told > 0 else 0.0
        yield _row("placebo_over_real", OWN, float(share))


def _row(quantity: str, scope: str, value: float | Interval, removed: str = "") -> Row:
    if isinstance(value, Interval):
        return Row(quantity=quantity, scope=scope, removed=removed, value=value.value, low=value.low, high=value.high)
    return Row(quantity=quantity, scope=scope, removed=removed, value=value, low=None, high=None)
