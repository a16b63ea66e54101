"""ASTRA: Gauss-Newton influence by stochastic steps that EK-FAC preconditions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from poa.gradients.astra import Astra
from poa.gradients.damping import check
from poa.gradients.linear import positions_of
from poa.gradients.solved import SolvedIndex, fit_solved

if TYPE_CHECKING:
    from poa.protocols import TrainingRun


@dataclass(frozen=True)
class ASTRA:
    """score(q, i) = grad m_q^T x_i / N with x ~ (G + lambda)^-1 from EK-FAC's solution by `steps` steps on batches.

    x <- x - a (E + lambda)^-1 [(G_t + lambda) x - v]; see `poa.gradients.astra`. lambda = `damping` x the mean
    non-zero eigenvalue, None = chosen from the spectrum. Each query's residual on all records travels with the scores:
    batches leave more of it than `ekfac_cg` does, at a cost per step that does not grow with the number of records.
    """

    damping: float | None = None
    steps: int = 100
    batch: int = 16
    step: float = 1.0
    checkpoints: str = "last"
    draws: int = 4
    seed: int = 0

    family: ClassVar[str] = "gradient"
    needs: ClassVar[str] = "one checkpoint"
    cost: ClassVar[str] = "(2 draws + 2) N gradients; d^3 per layer; steps x batch examples per query"
    citation: ClassVar[str] = (
        "Wang et al., Better training data attribution via better inverse Hessian-vector products, 2025, "
        "arXiv 2507.14740"
    )

    def __post_init__(self) -> None:
        check("astra", self.damping)

    def fit(self, run: TrainingRun) -> SolvedIndex:
        solver = Astra(self.steps, self.batch, self.step, self.seed)
        positions = positions_of(run, self.checkpoints)
        return fit_solved(run, self, positions, solver, self.damping, preconditioned=self.draws)
