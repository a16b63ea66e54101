"""GradCos: cosine of query and training gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from poa.gradients.lens import Lens, unit_rows
from poa.gradients.linear import LinearIndex, fit_linear

if TYPE_CHECKING:
    from poa.protocols import TrainingRun


@dataclass(frozen=True)
class GradCos:
    """score(q, i) = cos(grad m_q, -grad loss_i); hides magnitude. A zero gradient scores 0, never NaN.

    `coordinates="balanced"`: LoRA factors as `poa.gradients.gauge` writes them down, whoever handed them over."""

    checkpoints: str = "last"
    coordinates: str = "adapter"

    family: ClassVar[str] = "gradient"
    needs: ClassVar[str] = "one checkpoint"
    cost: ClassVar[str] = "N gradients"
    citation: ClassVar[str] = "Hanawa et al., Evaluation of similarity-based explanations, ICLR 2021"

    def fit(self, run: TrainingRun) -> LinearIndex:
        return fit_linear(
            run,
            self,
            self.checkpoints,
            lambda rows, _: unit_rows(rows.values),
            lens=Lens(unit=True),
            coordinates=self.coordinates,
        )
