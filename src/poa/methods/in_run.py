"""In-run attribution: what every step on a record did to the query, to first order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from poa.gradients.replayed import ReplayedIndex, fit_replayed

if TYPE_CHECKING:
    from poa.protocols import TrainingRun


@dataclass(frozen=True)
class InRun:
    """score(q, i) = sum over steps t with record i of rate_t / denominator_t <grad m_q, -grad loss_i> at step t.

    TracIn with every step as a checkpoint. The training is replayed for the queries: the paper's runs know them
    beforehand. First order and blind to the optimizer's state: nats for small steps of plain SGD, too small or large
    under AdamW.
    """

    family: ClassVar[str] = "gradient"
    needs: ClassVar[str] = "a run that can be replayed"
    cost: ClassVar[str] = "one training with a gradient of every record and query at each step"
    citation: ClassVar[str] = "Wang et al., Data Shapley in one training run, 2024, arXiv 2406.11011"

    def fit(self, run: TrainingRun) -> ReplayedIndex:
        return fit_replayed(run, self, "first-order")
