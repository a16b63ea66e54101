"""Data value embedding: what a step on a record still does to the final weights, for training by SGD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from poa.errors import Unsupported
from poa.gradients.replayed import ReplayedIndex, fit_replayed
from poa.gradients.trajectory import optimizer_of

if TYPE_CHECKING:
    from poa.protocols import TrainingRun


@dataclass(frozen=True)
class DVEmb:
    """score(q, i) = sum_t grad m_q^T prod_{s > t} (I - rate_s H_s) rate_t (-grad loss_i) / D_t over record i's steps t.

    H_s: the exact Hessian of the batch loss of step s, momentum and weight decay included. From the query's side: one
    walk back through the training, one Hessian product per step and query; the paper stores the record's side,
    projected, with an approximate Hessian. Nats: the derivative of the measurement by the record's weight. SGD only:
    for AdamW take `adamw_influence`.
    """

    family: ClassVar[str] = "gradient"
    needs: ClassVar[str] = "a run by SGD that can be replayed"
    cost: ClassVar[str] = "one training, and one Hessian product per step and query"
    citation: ClassVar[str] = (
        "Wang et al., Capturing the temporal dependence of training data influence, ICLR 2025, arXiv 2412.09538"
    )

    def fit(self, run: TrainingRun) -> ReplayedIndex:
        if optimizer_of(run).kind != "sgd":
            raise Unsupported("dvemb assumes SGD and this run was trained by AdamW: take adamw_influence")
        return fit_replayed(run, self, "adjoint")
