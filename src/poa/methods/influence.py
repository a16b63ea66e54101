"""Damped influence with the exact inverse of the empirical Fisher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from poa.errors import PoaError, Unsupported
from poa.gradients.curvature import Solved, damped_fisher_map
from poa.gradients.damping import NOTHING, check
from poa.gradients.linear import LinearIndex, fit_linear

if TYPE_CHECKING:
    from poa.gradients.store import Gradients
    from poa.protocols import TrainingRun


@dataclass(frozen=True)
class Influence:
    """score(q, i) = grad m_q^T (F + lambda I)^-1 (-grad loss_i) / N, F = mean of -grad loss -grad loss^T.

    Solved exactly in float64 through the N x N Gram matrix; lambda = `damping` x trace(F) / N,
    None = chosen from the spectrum of F by `poa.gradients.damping`.
    `blocks="layers"` takes F as block-diagonal, one solve and one lambda per tracked layer: layers whose gradients
    are large no longer decide the damping of all others. With `checkpoints="all"` the scores of all checkpoints are
    averaged. `coordinates="balanced"` takes LoRA factors as `poa.gradients.gauge` writes them down, so that an adapter
    handed over in another factorisation scores the same. Damping, lambda and the relative residual of each solve
    travel with the scores. Memory: N x p per checkpoint.
    """

    damping: float | None = None
    checkpoints: str = "all"
    blocks: str = "whole"
    coordinates: str = "adapter"

    family: ClassVar[str] = "gradient"
    needs: ClassVar[str] = "checkpoints"
    cost: ClassVar[str] = "C N gradients; N^3"
    citation: ClassVar[str] = "Koh & Liang, Understanding black-box predictions via influence functions, ICML 2017"

    def __post_init__(self) -> None:
        check("influence", self.damping)
        if self.blocks not in ("whole", "layers"):
            raise PoaError(f"influence.blocks is {self.blocks!r}, must be whole or layers")

    def fit(self, run: TrainingRun) -> LinearIndex:
        notes: dict[str, Any] = {"damping": [], "lambda": [], "residual": []}
        count = len(run.checkpoints) if self.checkpoints == "all" else 1

        def solve(rows: Gradients, _: int) -> np.ndarray:
            parts = [rows.values] if self.blocks == "whole" else [rows.block(block) for block in rows.blocks]
            found = [self._solved(part) for part in parts]
            if not any(solved.lam for solved in found):
                raise Unsupported(NOTHING)
            notes["damping"] += [solved.damping for solved in found]
            notes["lambda"] += [solved.lam for solved in found]
            notes["residual"] += [solved.residual for solved in found]
            return np.concatenate([solved.map for solved in found], 1) / count

        return fit_linear(run, self, self.checkpoints, solve, notes=notes, coordinates=self.coordinates)

    def _solved(self, rows: np.ndarray) -> Solved:
        if self.blocks == "layers" and not rows.any():
            # LoRA's A before B has left zero: this layer says nothing
            return Solved(np.zeros(rows.shape), 0.0, 0.0, {"rule": "no gradient", "damping": 0.0})
        return damped_fisher_map(rows, self.damping)
