"""Damped influence with the exact inverse of the empirical Fisher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from poa.gradients.curvature import damped_fisher_map
from poa.gradients.linear import LinearIndex, fit_linear

if TYPE_CHECKING:
    from poa.gradients.store import Gradients
    from poa.protocols import TrainingRun


@dataclass(frozen=True)
class Influence:
    """score(q, i) = grad m_q^T (F + lambda I)^-1 (-grad loss_i) / N, F = mean of -grad loss -grad loss^T.

    Solved exactly in float64 through the N x N Gram matrix; lambda = `damping` x the mean non-zero eigenvalue of F.
    With `checkpoints="all"` the scores of all checkpoints are averaged. lambda and the relative residual of each
    solve travel with the scores. Memory: N x p per checkpoint.
    """

    damping: float = 0.1
    checkpoints: str = "all"

    family: ClassVar[str] = "gradient"
    citation: ClassVar[str] = "Koh & Liang, Understanding black-box predictions via influence functions, ICML 2017"

    def fit(self, run: TrainingRun) -> LinearIndex:
        notes: dict[str, Any] = {"lambda": [], "residual": []}
        count = len(run.checkpoints) if self.checkpoints == "all" else 1

        def solved(rows: Gradients, _: int) -> np.ndarray:
            out, lam, residual = damped_fisher_map(rows.values, self.damping)
            notes["lambda"].append(lam)
            notes["residual"].append(residual)
            return out / count

        return fit_linear(run, self, self.checkpoints, solved, notes=notes)
