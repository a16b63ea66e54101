"""GraSS: influence on gradients of which most coordinates are left out before the rest is projected sparsely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from poa.gradients.damping import check
from poa.gradients.grass import FactGrass, Grass
from poa.gradients.projected import fit_projected
from poa.gradients.sketch_size import sided, sized
from poa.gradients.store import blocks_of

if TYPE_CHECKING:
    from poa.gradients.linear import LinearIndex
    from poa.gradients.projection import Projection
    from poa.protocols import TrainingRun

# Entries that the mask keeps for each feature of the sparse projection after it.
KEPT = 4


@dataclass(frozen=True)
class GraSS:
    """Damped Fisher influence on a random mask of the gradient, then sparse Johnson-Lindenstrauss.

    `factored` (FactGraSS): masks on both sides of every layer, so that only kept rows and columns are multiplied, and
    `size` features a layer; else one mask and `size` features in all. `size` None is chosen from the gradients
    by `poa.gradients.sketch_size`, `damping` None from the spectrum of the features; both travel with the scores. A
    mask keeps four entries for every feature of a `size` that is given.
    """

    size: int | None = None
    factored: bool = True
    damping: float | None = None
    checkpoints: str = "last"
    seed: int = 0

    family: ClassVar[str] = "gradient"
    needs: ClassVar[str] = "one checkpoint"
    cost: ClassVar[str] = "N gradients of kept entries; k per record; N^3"
    citation: ClassVar[str] = (
        "Hu et al., GraSS: Scalable influence function with sparse gradient compression, 2025, arXiv 2505.18976"
    )

    def __post_init__(self) -> None:
        check("grass", self.damping)

    def fit(self, run: TrainingRun) -> LinearIndex:
        size, evidence = sized(self.size, run)
        if not self.factored:
            projection: Projection = Grass(size, KEPT * size, seed=self.seed)
        elif self.size is not None:
            projection = FactGrass(size, int((KEPT * size) ** 0.5), seed=self.seed)
        else:
            # A mask of some columns is as coarse as a projection to them; what is kept of all layers is `size`.
            blocks = blocks_of(run)
            width, evidence = sided(None, blocks, run)
            projection = FactGrass(-(-size // len(blocks)), width, seed=self.seed)
        notes = {"projection": evidence}
        return fit_projected(run, self, self.checkpoints, projection, self.damping, notes=notes)
