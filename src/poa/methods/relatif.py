"""RelatIF: influence relative to how much a record influences at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from poa.errors import PoaError
from poa.gradients.curvature import damped_fisher_map
from poa.gradients.damping import check
from poa.gradients.linear import LinearIndex, fit_linear, positions_of

if TYPE_CHECKING:
    from poa.gradients.store import Gradients
    from poa.protocols import TrainingRun


@dataclass(frozen=True)
class RelatIF:
    """score(q, i) = v_q^T H u_i / sqrt(u_i^T H u_i), H = (F + lambda)^-1, F the empirical Fisher (l-RelatIF, eq. 5).

    `relative_to="parameters"` divides by |H u_i| instead (theta-RelatIF, eq. 3). Records that move every answer, such
    as outliers, no longer lead every list. Magnitudes are gone: rank by it, do not pay by it. A record without a
    gradient scores 0. `damping` None is chosen from the spectrum of F.
    """

    damping: float | None = None
    checkpoints: str = "last"
    relative_to: str = "loss"
    coordinates: str = "adapter"

    family: ClassVar[str] = "gradient"
    needs: ClassVar[str] = "one checkpoint"
    cost: ClassVar[str] = "N gradients; N^3"
    citation: ClassVar[str] = (
        "Barshan et al., RelatIF: Identifying explanatory training samples via relative influence, AISTATS 2020, "
        "arXiv 2003.11630"
    )

    def __post_init__(self) -> None:
        check("relatif", self.damping)
        if self.relative_to not in ("loss", "parameters"):
            raise PoaError(f"relatif.relative_to is {self.relative_to!r}, must be loss or parameters")

    def fit(self, run: TrainingRun) -> LinearIndex:
        notes: dict[str, Any] = {"damping": [], "lambda": [], "residual": []}
        count = len(positions_of(run, self.checkpoints))

        def relative(rows: Gradients, _: int) -> np.ndarray:
            solved = damped_fisher_map(rows.values, self.damping)
            notes["damping"].append(solved.damping)
            notes["lambda"].append(solved.lam)
            notes["residual"].append(solved.residual)
            moved = solved.map * len(rows.values)
            other = moved if self.relative_to == "parameters" else np.asarray(rows.values, np.float64)
            size = np.sqrt(np.einsum("ij,ij->i", moved, other))
            return moved / np.where(size > 0, size, 1.0)[:, None] / count

        return fit_linear(run, self, self.checkpoints, relative, notes=notes, coordinates=self.coordinates)
