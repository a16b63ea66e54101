"""GradDot: inner product of query and training gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from poa.gradients.linear import LinearIndex, fit_linear

if TYPE_CHECKING:
    from poa.protocols import TrainingRun


@dataclass(frozen=True)
class GradDot:
    """score(q, i) = <grad m_q, -grad loss_i> at the last checkpoint (or summed over all).

    Uncalibrated: driven by gradient norms and length. Never projects. `coordinates="balanced"` gives scores that do not
    move when LoRA factors are written down otherwise.
    """

    checkpoints: str = "last"
    coordinates: str = "adapter"

    family: ClassVar[str] = "gradient"
    needs: ClassVar[str] = "one checkpoint"
    cost: ClassVar[str] = "N gradients"
    citation: ClassVar[str] = "Charpiat et al., Input similarity from the neural network perspective, NeurIPS 2019"

    def fit(self, run: TrainingRun) -> LinearIndex:
        return fit_linear(run, self, self.checkpoints, lambda rows, _: rows.values, coordinates=self.coordinates)
