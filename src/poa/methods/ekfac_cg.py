"""Gauss-Newton influence by conjugate gradients that EK-FAC preconditions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from poa.gradients.damping import check
from poa.gradients.krylov import CG, check_tolerance
from poa.gradients.linear import positions_of
from poa.gradients.solved import SolvedIndex, fit_solved

if TYPE_CHECKING:
    from poa.protocols import TrainingRun


@dataclass(frozen=True)
class EKFACCG:
    """score(q, i) = grad m_q^T (G + lambda)^-1 (-grad loss_i) / N, G the Gauss-Newton matrix of the mean loss.

    Solved for each query by conjugate gradients with (E + lambda)^-1 in front, E the EK-FAC approximation of G at the
    *same* lambda: what `exact_influence` gives, in fewer products where EK-FAC is near; on small networks trained far,
    plain cg may need fewer. `draws`: labels drawn from the model for each record of E. lambda = `damping` x the mean
    non-zero eigenvalue, None = chosen from the spectrum. A residual above `tolerance` after `iterations` is refused.
    """

    damping: float | None = None
    checkpoints: str = "last"
    draws: int = 4
    tolerance: float = 1e-10
    iterations: int = 500

    family: ClassVar[str] = "gradient"
    needs: ClassVar[str] = "one checkpoint"
    cost: ClassVar[str] = "(2 draws + 2) N gradients; d^3 per layer; tens of passes per query"
    citation: ClassVar[str] = (
        "Grosse et al. 2023, arXiv 2308.03296 (EK-FAC); Hestenes & Stiefel, Methods of conjugate gradients for solving "
        "linear systems, 1952"
    )

    def __post_init__(self) -> None:
        check("ekfac_cg", self.damping)
        check_tolerance("ekfac_cg", self.tolerance)

    def fit(self, run: TrainingRun) -> SolvedIndex:
        solver = CG(self.tolerance, self.iterations)
        return fit_solved(
            run, self, positions_of(run, self.checkpoints), solver, self.damping, preconditioned=self.draws
        )
