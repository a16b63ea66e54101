"""TrackStar: cosines of whitened gradients, corrected by Adam's second moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from poa.errors import Unsupported
from poa.gradients.damping import check
from poa.gradients.dense_jl import Rademacher
from poa.gradients.lens import Lens
from poa.gradients.linear import LinearIndex, fit_linear, positions_of
from poa.gradients.moments import adam_rows
from poa.gradients.sketch_size import sized
from poa.gradients.store import Gradients, gradients
from poa.gradients.trajectory import moments_of
from poa.gradients.whitening import whitening

if TYPE_CHECKING:
    from poa.protocols import TrainingRun


@dataclass(frozen=True)
class TrackStar:
    """score(q, i) = cos(f(q), f(i)), f = (R + lambda)^-1/2 P^T (grad / sqrt(nu)), R the mean of f f^T over the records.

    nu is AdamW's second moment (`adam=False`, or a run by SGD: left out); the eps of the optimizer keeps the division
    finite. R is that of the training records alone: the paper's mixture with the queries' would tie the index to them.
    Both sides are whitened before the norm. Length is gone: rank by it, do not pay by it. `damping` None is chosen
    from the spectrum of R and `projection` None from the gradients; both travel with the scores. Adam's moment
    belongs to the factorisation of LoRA that was trained: there is no `coordinates`.
    """

    projection: int | None = None
    damping: float | None = None
    checkpoints: str = "last"
    adam: bool = True
    seed: int = 0

    family: ClassVar[str] = "gradient"
    needs: ClassVar[str] = "one checkpoint, AdamW's state if there is one"
    cost: ClassVar[str] = "N gradients; k per record; k^3"
    citation: ClassVar[str] = (
        "Chang et al., Scalable influence and fact tracing for large language model pretraining, ICLR 2025, arXiv "
        "2410.17413"
    )

    def __post_init__(self) -> None:
        check("trackstar", self.damping)

    def fit(self, run: TrainingRun) -> LinearIndex:
        size, evidence = sized(self.projection, run)
        projection = Rademacher(size, self.seed)
        notes: dict[str, Any] = {"projection": evidence, "damping": [], "lambda": []}
        lenses: dict[int, Lens] = {}
        for position in positions_of(run, self.checkpoints):
            rows = gradients(run, position, run.corpus, "train")
            plain = Lens(projection, self._scale(run, rows, position))
            found = whitening(plain.linear(rows), self.damping)
            notes["damping"].append(found.damping)
            notes["lambda"].append(found.lam)
            lenses[position] = Lens(projection, plain.scale, found.matrix, unit=True)
        count = len(lenses)

        def cosines(rows: Gradients, position: int) -> np.ndarray:
            return lenses[position].features(rows) / count

        return fit_linear(run, self, self.checkpoints, cosines, lens=lenses.__getitem__, notes=notes)

    def _scale(self, run: TrainingRun, rows: Gradients, position: int) -> np.ndarray | None:
        if not self.adam:
            return None
        try:
            moments = moments_of(run, position)
        except Unsupported:
            return None
        if moments is None:
            return None
        _, second = adam_rows(run, rows.blocks, position, moments)
        return 1 / (np.sqrt(second / (1 - moments.betas[1] ** max(moments.steps, 1))) + moments.eps)
