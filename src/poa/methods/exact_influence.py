"""Influence with the curvature of the loss itself, by the solver of your choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from poa.errors import PoaError
from poa.gradients.damping import check
from poa.gradients.krylov import check_tolerance
from poa.gradients.linear import positions_of
from poa.gradients.solved import SOLVERS, SolvedIndex, fit_solved, operator_of

if TYPE_CHECKING:
    from poa.protocols import TrainingRun

KNOWN = ("auto", "explicit", "cg", "block_cg", "lissa", "arnoldi", "nystrom")


@dataclass(frozen=True)
class ExactInfluence:
    """score(q, i) = grad m_q^T (H + lambda)^-1 (-grad loss_i) / N, H the curvature of the mean loss over all records.

    curvature: "gauss-newton" (default; the Hessian without its indefinite part) or "fisher" (the empirical one).
    lambda = `damping` x trace(H) / N, the trace estimated from one drawn label a record; None = chosen from the
    spectrum. The solve is for the queries: nothing is inverted for records that nobody asks about. solver: "explicit"
    (p^2 numbers), "cg", "block_cg" (all queries in one Krylov space: fewest passes, last digits depend on the queries
    beside), "lissa", "arnoldi" and "nystrom" (of rank `rank`; their residual says what they leave out), "auto" =
    explicit where the matrix is small enough, else cg. `tolerance`: relative residual at which cg, block_cg and lissa
    stop; one that is not reached is refused. Residual of every query, lambda and products travel with the scores.
    """

    solver: str = "auto"
    curvature: str = "gauss-newton"
    damping: float | None = None
    checkpoints: str = "last"
    tolerance: float = 1e-8
    rank: int = 100
    seed: int = 0
    coordinates: str = "adapter"

    family: ClassVar[str] = "gradient"
    needs: ClassVar[str] = "one checkpoint"
    cost: ClassVar[str] = "2 N gradients; tens to hundreds of passes per query, or p^3 once"
    citation: ClassVar[str] = (
        "Koh & Liang, Understanding black-box predictions via influence functions, ICML 2017, arXiv 1703.04730; "
        "Agarwal et al. 2017, arXiv 1602.03943 (LiSSA); Schioppa et al. 2022, arXiv 2112.03052 (Arnoldi); Hataya & "
        "Yamada 2023, arXiv 2302.09726 (Nystrom)"
    )

    def __post_init__(self) -> None:
        check("exact_influence", self.damping)
        check_tolerance("exact_influence", self.tolerance)
        if self.solver not in KNOWN:
            raise PoaError(f"exact_influence.solver is {self.solver!r}, must be one of {', '.join(KNOWN)}")

    def fit(self, run: TrainingRun) -> SolvedIndex:
        positions = positions_of(run, self.checkpoints)
        name = self.solver
        if name == "auto":
            last = operator_of(run, positions[-1], self.curvature, self.coordinates)
            name = "explicit" if last.writable else "cg"
        return fit_solved(
            run,
            self,
            positions,
            SOLVERS[name](**self._settings(name)),
            self.damping,
            curvature=self.curvature,
            coordinates=self.coordinates,
        )

    def _settings(self, name: str) -> dict[str, Any]:
        if name in ("arnoldi", "nystrom"):
            return {"rank": self.rank, "seed": self.seed}
        return {} if name == "explicit" else {"tolerance": self.tolerance}
