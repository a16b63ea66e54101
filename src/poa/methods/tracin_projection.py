"""TracIn on randomly projected gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from poa.gradients.dense_jl import Rademacher
from poa.gradients.lens import Lens
from poa.gradients.linear import LinearIndex, fit_linear
from poa.gradients.sketch_size import sized
from poa.gradients.trajectory import record_rates

if TYPE_CHECKING:
    from poa.gradients.store import Gradients
    from poa.protocols import TrainingRun


@dataclass(frozen=True)
class TracInProjection:
    """score(q, i) = sum_c w_i(c) <P^T grad m_q, -P^T grad loss_i>, P random signs: the scores of `tracin` on average.

    The standard error of a product of two gradients is about their lengths over sqrt(`projection`). `projection` None
    is chosen from the gradients by `poa.gradients.sketch_size`; the choice travels with the scores.
    """

    projection: int | None = None
    checkpoints: str = "all"
    seed: int = 0

    family: ClassVar[str] = "gradient"
    needs: ClassVar[str] = "checkpoints, step log"
    cost: ClassVar[str] = "C N gradients; k per record"
    citation: ClassVar[str] = (
        "Pruthi et al., Estimating training data influence by tracing gradient descent, NeurIPS 2020, arXiv "
        "2002.08484, appendix F"
    )

    def fit(self, run: TrainingRun) -> LinearIndex:
        size, evidence = sized(self.projection, run)
        projection = Rademacher(size, self.seed)

        def weighted(rows: Gradients, position: int) -> np.ndarray:
            first = run.checkpoints[position - 1] if position else 0
            return projection.apply(rows) * record_rates(run, first, run.checkpoints[position])[:, None]

        notes = {"projection": evidence}
        return fit_linear(run, self, self.checkpoints, weighted, lens=Lens(projection), notes=notes)
