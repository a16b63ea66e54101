"""LoRIF: influence on projected gradients of which a layer at a time is kept by rank one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from poa.gradients.curvature import damped_fisher_map
from poa.gradients.damping import check
from poa.gradients.encodings import RankOne
from poa.gradients.lens import Lens
from poa.gradients.linear import LinearIndex, fit_linear, positions_of
from poa.gradients.projection import TwoSided
from poa.gradients.sketch_size import sided
from poa.gradients.store import blocks_of

if TYPE_CHECKING:
    from poa.gradients.store import Gradients
    from poa.protocols import TrainingRun


@dataclass(frozen=True)
class LoRIF:
    """Damped Fisher influence on P_out^T G P_in per layer, records by their leading singular pair u v^T, queries whole.

    Exact for records of one token, whose projected gradients have rank one. What is kept of a record is
    width x 2 numbers a layer in half precision instead of width^2 (`poa.gradients.shards` with encoding "rank1"); the
    curvature is that of what is kept. `width` None is chosen from the gradients, `damping` None from the
    spectrum; both travel with the scores.
    """

    width: int | None = None
    damping: float | None = None
    checkpoints: str = "last"
    seed: int = 0

    family: ClassVar[str] = "gradient"
    needs: ClassVar[str] = "one checkpoint"
    cost: ClassVar[str] = "N gradients; 2 width per record and layer; N^3"
    citation: ClassVar[str] = (
        "LoRIF: Low-rank influence functions for scalable training data attribution, 2026, arXiv 2601.21929"
    )

    def __post_init__(self) -> None:
        check("lorif", self.damping)

    def fit(self, run: TrainingRun) -> LinearIndex:
        blocks = blocks_of(run)
        width, evidence = sided(self.width, blocks, run)
        projection = TwoSided(width, self.seed)
        pairs = RankOne(tuple(block.shape for block in projection.layout(blocks)))
        notes: dict[str, Any] = {"projection": evidence, "damping": [], "lambda": [], "residual": []}
        count = len(positions_of(run, self.checkpoints))

        def solve(rows: Gradients, _: int) -> np.ndarray:
            kept = pairs.decode(pairs.encode(np.asarray(projection.apply(rows), np.float32)))
            solved = damped_fisher_map(kept, self.damping)
            notes["damping"].append(solved.damping)
            notes["lambda"].append(solved.lam)
            notes["residual"].append(solved.residual)
            return solved.map / count

        return fit_linear(run, self, self.checkpoints, solve, lens=Lens(projection), notes=notes)
