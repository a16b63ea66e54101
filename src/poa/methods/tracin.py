"""TracInCP: gradient products summed over checkpoints, weighted by what the optimizer really did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from poa.gradients.linear import LinearIndex, fit_linear

if TYPE_CHECKING:
    from poa.gradients.store import Gradients
    from poa.protocols import TrainingRun


@dataclass(frozen=True)
class TracInCP:
    """score(q, i) = sum_c w_i(c) <grad m_q, -grad loss_i> at checkpoint c.

    w_i(c) = sum of rate / denominator over the steps between the previous checkpoint and c in which record i took
    part, read from the step log (the paper's eta_c / B for one pass a segment). Nats for plain SGD; under AdamW the
    effective rate differs per coordinate and the magnitude is uncalibrated.
    """

    checkpoints: str = "all"

    family: ClassVar[str] = "gradient"
    needs: ClassVar[str] = "checkpoints, step log"
    cost: ClassVar[str] = "C N gradients"
    citation: ClassVar[str] = (
        "Pruthi et al., Estimating training data influence by tracing gradient descent, NeurIPS 2020, arXiv 2002.08484"
    )

    def fit(self, run: TrainingRun) -> LinearIndex:
        def weighted(rows: Gradients, position: int) -> np.ndarray:
            first = run.checkpoints[position - 1] if position else 0
            return rows.values * record_rates(run, first, run.checkpoints[position])[:, None]

        return fit_linear(run, self, self.checkpoints, weighted)


def record_rates(run: TrainingRun, first: int, last: int) -> np.ndarray:
    """[N] sum of rate/denominator over the occurrences of each record in steps first <= t < last."""
    log = run.steps
    out = np.zeros(len(run.corpus))
    for step in range(first, last):
        places = log.records[step][log.records[step] >= 0]
        np.add.at(out, places, float(log.rate[step]) / float(log.denominator[step]))
    return out
