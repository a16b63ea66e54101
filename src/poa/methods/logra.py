"""LoGra: influence on two-sided projections of each layer's gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from poa.gradients.curvature import damped_fisher_map
from poa.gradients.lens import Lens
from poa.gradients.linear import LinearIndex, positions_of
from poa.gradients.projection import TwoSided
from poa.gradients.store import gradients

if TYPE_CHECKING:
    from poa.protocols import TrainingRun


@dataclass(frozen=True)
class LoGra:
    """Damped Fisher influence on P_out^T G P_in per layer; `width` columns a side, full width = no projection.

    `damping` None is chosen from the spectrum of the projected gradients by `poa.gradients.damping`.
    """

    width: int = 8
    damping: float | None = None
    checkpoints: str = "last"
    seed: int = 0

    family: ClassVar[str] = "gradient"
    needs: ClassVar[str] = "one checkpoint"
    cost: ClassVar[str] = "N gradients; k per record; N^3"
    citation: ClassVar[str] = "Choe et al., What is your data worth to GPT?, 2024, arXiv 2405.13954"

    def fit(self, run: TrainingRun) -> LinearIndex:
        projection = TwoSided(self.width, self.seed)
        positions = positions_of(run, self.checkpoints)
        notes: dict[str, Any] = {"damping": [], "lambda": [], "residual": []}
        maps: list[Any] = []
        for position in positions:
            rows = projection.apply(gradients(run, position, run.corpus, "train"))
            solved = damped_fisher_map(rows, self.damping)
            notes["damping"].append(solved.damping)
            notes["lambda"].append(solved.lam)
            notes["residual"].append(solved.residual)
            maps.append(np.ascontiguousarray(solved.map / len(positions), rows.dtype))
        lenses = (Lens(projection),) * len(positions)
        return LinearIndex(run, repr(self), positions, tuple(maps), lenses, notes=notes)
