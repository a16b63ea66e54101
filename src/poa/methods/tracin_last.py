"""TracIn on the last layer alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from poa.gradients.lens import Lens
from poa.gradients.linear import LinearIndex, fit_linear
from poa.gradients.masks import Layers
from poa.gradients.store import blocks_of
from poa.gradients.trajectory import record_rates

if TYPE_CHECKING:
    from poa.gradients.store import Gradients
    from poa.protocols import TrainingRun


@dataclass(frozen=True)
class TracInLast:
    """score(q, i) = sum_c w_i(c) <grad m_q, -grad loss_i> over the parameters of the last layer with a matrix.

    w_i(c) as in `tracin`. Cheap to keep, and most of the signal is lost with the other layers. captum's TracInCPFast.
    """

    checkpoints: str = "all"

    family: ClassVar[str] = "gradient"
    needs: ClassVar[str] = "checkpoints, step log"
    cost: ClassVar[str] = "C N gradients; k of one layer per record"
    citation: ClassVar[str] = (
        "Pruthi et al., Estimating training data influence by tracing gradient descent, NeurIPS 2020, arXiv "
        "2002.08484, section 3.4"
    )

    def fit(self, run: TrainingRun) -> LinearIndex:
        blocks = blocks_of(run)
        last = next((block for block in reversed(blocks) if min(block.shape) > 1), blocks[-1])
        kept = Layers((last.name,))

        def weighted(rows: Gradients, position: int) -> np.ndarray:
            first = run.checkpoints[position - 1] if position else 0
            return kept.apply(rows) * record_rates(run, first, run.checkpoints[position])[:, None]

        return fit_linear(run, self, self.checkpoints, weighted, lens=Lens(kept), notes={"layer": last.name})
