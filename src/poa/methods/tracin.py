"""TracInCP: gradient products summed over checkpoints, weighted by what the optimizer really did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from poa.gradients.linear import LinearIndex, fit_linear
from poa.gradients.trajectory import record_rates

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
    coordinates: str = "adapter"

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

        return fit_linear(run, self, self.checkpoints, weighted, coordinates=self.coordinates)
