"""SOURCE: unrolled differentiation in a few segments, each with one curvature and one rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from poa.errors import PoaError
from poa.gradients.lens import Lens
from poa.gradients.linear import LinearIndex
from poa.gradients.segments import segmented, unrolled

if TYPE_CHECKING:
    from poa.protocols import TrainingRun


@dataclass(frozen=True)
class SOURCE:
    """score(q, i) = sum_l grad m_q^T [prod_{k > l} e^{-T_k H_k}] (I - e^{-T_l H_l}) H_l^-1 (-mean grad loss_i) / N.

    The checkpoints are cut into `segments`; H_l is the EK-FAC curvature averaged over those of segment l, T_l the sum
    over its steps of rate x records / denominator (over 1 - momentum). Nothing is damped: the exponentials are. Under
    AdamW everything happens in the coordinates P^-1/2 theta, P the diagonal 1 / (sqrt(nu) + eps) at the end of the
    segment: gradients are multiplied by P^1/2, and the eigenvalues of H_l are those that fit the scaled gradients best
    in the unscaled eigenbasis. Heavy ball and EK-FAC are approximations: nats in size, not by a guarantee.
    """

    segments: int = 3
    draws: int = 1

    family: ClassVar[str] = "gradient"
    needs: ClassVar[str] = "checkpoints, step log, optimizer (AdamW: its state)"
    cost: ClassVar[str] = "C (2 draws + 1) N gradients; d^3 per layer and segment"
    citation: ClassVar[str] = (
        "Bae et al., Training data attribution via approximate unrolled differentiation, NeurIPS 2024, arXiv 2405.12186"
    )

    def __post_init__(self) -> None:
        if self.segments < 1:
            raise PoaError(f"source.segments is {self.segments}, must be 1 or more")

    def fit(self, run: TrainingRun) -> LinearIndex:
        parts = segmented(run, self.segments, self.draws)
        rows = unrolled(parts)
        last = len(run.checkpoints) - 1
        notes = {"segments": [part.told for part in parts]}
        dtype = parts[-1].rows.dtype
        return LinearIndex(run, repr(self), (last,), (np.ascontiguousarray(rows, dtype),), (Lens(),), notes=notes)
