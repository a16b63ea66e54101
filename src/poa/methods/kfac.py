"""K-FAC influence: each layer's Fisher as a Kronecker product of what it reads and what comes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from poa.gradients.damping import check
from poa.gradients.kronecker import inverse, kronecker
from poa.gradients.lens import Lens
from poa.gradients.linear import LinearIndex, fit_linear, positions_of
from poa.gradients.passes import Fisher

if TYPE_CHECKING:
    from poa.protocols import TrainingRun


@dataclass(frozen=True)
class KFAC:
    """score(q, i) = grad m_q^T (A x S + lambda)^-1 (-grad loss_i) / N, layer by layer; see `poa.gradients.covariances`.

    A and S are moments over the same tokens, with labels drawn from the model `draws` times (labels="data": the
    record's own, the empirical Fisher). lambda = `damping` x trace / N of the whole model's curvature, one for all
    layers; 0 is the pseudo-inverse, and then scores do not depend on how LoRA factors are written down
    (`coordinates="balanced"`: at any damping). Norms and unknown modules have their whole Fisher instead of a product.
    lambda and the residual of each layer's solve travel with the scores.
    """

    # Among .005 to .5 on draws 0 to 2 of experiments/damping.py and seed 0 of digits_mlp; LoRA's seed 3 was seen, too.
    damping: float = 0.05
    checkpoints: str = "last"
    labels: str = "sampled"
    draws: int = 1
    coordinates: str = "adapter"

    family: ClassVar[str] = "gradient"
    needs: ClassVar[str] = "one checkpoint"
    cost: ClassVar[str] = "(draws + 1) N gradients; d^3 per layer"
    citation: ClassVar[str] = (
        "Martens & Grosse, Optimizing neural networks with Kronecker-factored approximate curvature, ICML 2015, "
        "arXiv 1503.05671"
    )

    def __post_init__(self) -> None:
        check("kfac", self.damping, zero=True)

    def fit(self, run: TrainingRun) -> LinearIndex:
        fisher = Fisher(self.labels, self.draws, self.coordinates)
        weight = 1 / (len(positions_of(run, self.checkpoints)) * len(run.corpus))
        notes: dict[str, Any] = {"damping": {"rule": "given", "damping": self.damping}, "lambda": []}

        def lens(position: int) -> Lens:
            curvature = kronecker(run, (position,), fisher, corrected=False)
            found = inverse(curvature, self.damping, len(run.corpus), weight)
            notes["lambda"].append(found.lam)
            return Lens(inverse=found)

        return fit_linear(
            run,
            self,
            self.checkpoints,
            lambda rows, _: rows.values,
            lens=lens,
            notes=notes,
            coordinates=self.coordinates,
        )
