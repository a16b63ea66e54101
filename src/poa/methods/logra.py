"""LoGra: influence on two-sided projections of each layer's gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from poa.gradients.damping import check
from poa.gradients.projected import fit_projected
from poa.gradients.projection import TwoSided
from poa.gradients.sketch_size import sided
from poa.gradients.store import blocks_of

if TYPE_CHECKING:
    from poa.gradients.linear import LinearIndex
    from poa.protocols import TrainingRun


@dataclass(frozen=True)
class LoGra:
    """Damped Fisher influence on P_out^T G P_in per layer; `width` columns a side, full width = no projection.

    `width` None is chosen from the gradients by `poa.gradients.sketch_size`, `damping` None from the spectrum of what
    is projected by `poa.gradients.damping`; both choices travel with the scores. Small models are not projected.
    """

    width: int | None = None
    damping: float | None = None
    checkpoints: str = "last"
    seed: int = 0
    coordinates: str = "adapter"

    family: ClassVar[str] = "gradient"
    needs: ClassVar[str] = "one checkpoint"
    cost: ClassVar[str] = "N gradients; k per record; N^3"
    citation: ClassVar[str] = "Choe et al., What is your data worth to GPT?, 2024, arXiv 2405.13954"

    def __post_init__(self) -> None:
        check("logra", self.damping)

    def fit(self, run: TrainingRun) -> LinearIndex:
        width, evidence = sided(self.width, blocks_of(run, self.coordinates), run, self.coordinates)
        return fit_projected(
            run,
            self,
            self.checkpoints,
            TwoSided(width, self.seed),
            self.damping,
            notes={"projection": evidence},
            coordinates=self.coordinates,
        )
