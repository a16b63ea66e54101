"""DataInf: influence with the mean of per-record inverses, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from poa.errors import Unsupported
from poa.gradients.curvature import datainf_map
from poa.gradients.damping import NOTHING, check
from poa.gradients.linear import LinearIndex, fit_linear

if TYPE_CHECKING:
    from poa.gradients.store import Gradients
    from poa.protocols import TrainingRun


@dataclass(frozen=True)
class DataInf:
    """Sherman-Morrison on each record's own gradient, averaged; lambda per layer = `damping` x mean squared norm.

    Exact for one record; for many it swaps mean and inverse, which costs fidelity and is nearly free. `damping` None is
    chosen from the spectrum of each layer's gradients by `poa.gradients.damping` (N^3 per layer); the choice travels
    with the scores.
    """

    damping: float | None = None
    checkpoints: str = "last"
    coordinates: str = "adapter"

    family: ClassVar[str] = "gradient"
    needs: ClassVar[str] = "one checkpoint"
    cost: ClassVar[str] = "N gradients; N^2 per layer"
    citation: ClassVar[str] = "Kwon et al., DataInf, ICLR 2024, arXiv 2310.00902"

    def __post_init__(self) -> None:
        check("datainf", self.damping)

    def fit(self, run: TrainingRun) -> LinearIndex:
        notes: dict[str, Any] = {"damping": []}

        def per_layer(rows: Gradients, _: int) -> np.ndarray:
            maps, evidence = zip(*(datainf_map(rows.block(block), self.damping) for block in rows.blocks), strict=True)
            if all(told["rule"] == "no gradient" for told in evidence):
                raise Unsupported(NOTHING)
            notes["damping"] += evidence
            return np.concatenate(maps, 1) / len(rows.values)

        return fit_linear(run, self, self.checkpoints, per_layer, notes=notes, coordinates=self.coordinates)
