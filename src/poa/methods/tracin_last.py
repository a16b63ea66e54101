"""TracIn on the last layer alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from poa.gradients.capture import weight_owners
from poa.gradients.lens import Lens
from poa.gradients.linear import LinearIndex, fit_linear
from poa.gradients.masks import Layers
from poa.gradients.store import blocks_of
from poa.gradients.trajectory import record_rates
from poa.protocols import OwnGradients

if TYPE_CHECKING:
    from poa.gradients.store import Gradients
    from poa.protocols import TrainingRun


@dataclass(frozen=True)
class TracInLast:
    """score(q, i) = sum_c w_i(c) <grad m_q, -grad loss_i> over the weight matrix of the last layer that has one.

    w_i(c) as in `tracin`. The layer's bias is left out, as in the paper and in captum's TracInCPFast: its gradient is
    the same for all records with the same answer. Cheap to keep, and most of the signal is lost with the other layers.
    """

    checkpoints: str = "all"

    family: ClassVar[str] = "gradient"
    needs: ClassVar[str] = "checkpoints, step log"
    cost: ClassVar[str] = "C N gradients; k of one layer per record"
    citation: ClassVar[str] = (
        "Pruthi et al., Estimating training data influence by tracing gradient descent, NeurIPS 2020, arXiv "
        "2002.08484, section 3.4"
    )

    def fit(self, run: TrainingRun) -> LinearIndex:
        name, inputs = last_matrix(run)
        kept = Layers((name,), inputs)

        def weighted(rows: Gradients, position: int) -> np.ndarray:
            first = run.checkpoints[position - 1] if position else 0
            return kept.apply(rows) * record_rates(run, first, run.checkpoints[position])[:, None]

        return fit_linear(run, self, self.checkpoints, weighted, lens=Lens(kept), notes={"layer": name})


def last_matrix(run: TrainingRun) -> tuple[str, int | None]:
    """(block, inputs) of the last tracked layer whose weight is a matrix; inputs: columns without a bias, None for all.

    A tied head's block is that of the embedding whose weight it has.
    """
    blocks = {block.name: block for block in blocks_of(run)}
    modules = {} if isinstance(run, OwnGradients) else run.task.tracked(run.model())
    owner = weight_owners(modules)
    for name, module in reversed(modules.items()):
        own = dict(module.named_parameters(recurse=False))
        if "weight" in own and own["weight"].ndim > 1 and owner[name] in blocks:
            return owner[name], blocks[owner[name]].shape[1] - ("bias" in own)
    matrices = [name for name, block in blocks.items() if min(block.shape) > 1]
    return (matrices or list(blocks))[-1], None
