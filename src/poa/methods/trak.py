"""TRAK: the linear model that a network is near its end, on projected gradients of log-odds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from poa.gradients.damping import check
from poa.gradients.dense_jl import Rademacher
from poa.gradients.doubt import doubts
from poa.gradients.linear import positions_of
from poa.gradients.projected import fit_projected
from poa.gradients.sketch_size import sized

if TYPE_CHECKING:
    from poa.gradients.linear import LinearIndex
    from poa.protocols import TrainingRun


@dataclass(frozen=True)
class TRAK:
    """score(q, i) = mean_c [phi_q^T (Phi^T Phi + N lambda)^-1 phi_i] x mean_c Q_i, phi = P^T grad log-odds.

    Q_i = 1 - p_i, for text the mean over tokens. The ensemble is over checkpoints of the run
    (`checkpoints="all"`); indexes of several runs are averaged by `poa.Ensemble`. Damped by default: undamped
    the Gram matrix is singular as soon as there are as many features as records. `projection` None is chosen from the
    gradients, `damping` None from the spectrum of the features (`poa.gradients.sketch_size`, `.damping`); both
    travel with the scores.
    """

    projection: int | None = None
    damping: float | None = None
    checkpoints: str = "all"
    seed: int = 0
    coordinates: str = "adapter"

    family: ClassVar[str] = "gradient"
    needs: ClassVar[str] = "checkpoints"
    cost: ClassVar[str] = "C N gradients; k per record; N^3"
    citation: ClassVar[str] = "Park et al., TRAK: Attributing model behavior at scale, ICML 2023, arXiv 2303.14186"

    def __post_init__(self) -> None:
        check("trak", self.damping)

    def fit(self, run: TrainingRun) -> LinearIndex:
        size, evidence = sized(self.projection, run, "train-margin", self.coordinates)
        index = fit_projected(
            run,
            self,
            self.checkpoints,
            Rademacher(size, self.seed),
            self.damping,
            side="train-margin",
            notes={"projection": evidence},
            coordinates=self.coordinates,
        )
        # The paper averages Q and the kernel separately.
        doubt = np.mean([doubts(run, position) for position in positions_of(run, self.checkpoints)], 0)
        return replace(index, maps=tuple((rows * doubt[:, None]).astype(rows.dtype) for rows in index.maps))
