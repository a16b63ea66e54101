"""Influence through AdamW: the derivative of the final measurement by every record's weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from poa.errors import Unsupported
from poa.gradients.replayed import ReplayedIndex, fit_replayed
from poa.gradients.trajectory import optimizer_of

if TYPE_CHECKING:
    from poa.protocols import TrainingRun


@dataclass(frozen=True)
class AdamWInfluence:
    """score(q, i) = d m_q / d w_i through the recursion of (theta, m, nu) that AdamW is.

    Moments, bias corrections, eps and decoupled decay are walked back exactly, on all coordinates (the paper keeps a
    mask of them), with one Hessian product per step and query. Nats. Valid for the factorisation of LoRA that was
    trained: Adam's state has no gauge-free form. Runs by SGD are refused: take `dvemb`.
    """

    family: ClassVar[str] = "gradient"
    needs: ClassVar[str] = "a run by AdamW that can be replayed"
    cost: ClassVar[str] = "one training, and one Hessian product per step and query"
    citation: ClassVar[str] = "AdamW-aware influence by propagating optimizer state, 2026, arXiv 2605.18814"

    def fit(self, run: TrainingRun) -> ReplayedIndex:
        if optimizer_of(run).kind != "adamw":
            raise Unsupported("adamw_influence is for AdamW and this run was trained by SGD: take dvemb")
        return fit_replayed(run, self, "adjoint")
