"""LESS: how alike the query's gradient and the step are that AdamW would take on a record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from poa.errors import Unsupported
from poa.gradients.dense_jl import Rademacher
from poa.gradients.lens import Lens, unit_rows
from poa.gradients.linear import LinearIndex, fit_linear
from poa.gradients.moments import adam_rows, share_of_a_record
from poa.gradients.sketch_size import sized
from poa.gradients.store import Gradients
from poa.gradients.trajectory import moments_of, segment_rate

if TYPE_CHECKING:
    from poa.protocols import TrainingRun


@dataclass(frozen=True)
class LESS:
    """score(q, i) = sum_c eta_c cos(P^T grad m_q, P^T Gamma_i(c)), Gamma_i the AdamW step on record i at checkpoint c.

    Gamma_i = -(b1 m + (1 - b1) g_i) / (sqrt(b2 nu + (1 - b2) g_i^2) + eps) with bias corrections; g_i the gradient
    of record i as if it were the whole batch, m and nu the optimizer's state, eta_c the mean rate of the steps before
    c. Positive: the step raises the query's measurement. Momentum adds the same constant to all records of a query.
    `adam=False` leaves the state out: cosines of plain gradients weighted by rate. Adam's state belongs to the
    factorisation that was trained: there is no gauge-free form of it, and no `coordinates`. `projection` None is chosen
    from the gradients by `poa.gradients.sketch_size`; the choice travels with the scores.
    """

    projection: int | None = None
    checkpoints: str = "all"
    adam: bool = True
    seed: int = 0

    family: ClassVar[str] = "gradient"
    needs: ClassVar[str] = "checkpoints, AdamW's state, step log"
    cost: ClassVar[str] = "C N gradients; k per record"
    citation: ClassVar[str] = (
        "Xia et al., LESS: Selecting influential data for targeted instruction tuning, ICML 2024, arXiv 2402.04333"
    )

    def fit(self, run: TrainingRun) -> LinearIndex:
        size, evidence = sized(self.projection, run)
        projection = Rademacher(size, self.seed)

        def directions(rows: Gradients, position: int) -> np.ndarray:
            steps = self._steps(run, rows, position) if self.adam else rows
            return unit_rows(projection.apply(steps)) * segment_rate(run, position)

        notes = {"projection": evidence}
        return fit_linear(run, self, self.checkpoints, directions, lens=Lens(projection, unit=True), notes=notes)

    @staticmethod
    def _steps(run: TrainingRun, rows: Gradients, position: int) -> Gradients:
        moments = moments_of(run, position)
        if moments is None:
            raise Unsupported("less needs AdamW's state and this run was trained by SGD: use adam=False")
        first, second = adam_rows(run, rows.blocks, position, moments)
        b1, b2 = moments.betas
        out = np.empty_like(rows.values)
        for into, row in zip(out, rows.values, strict=True):
            up = np.asarray(row, np.float64) * share_of_a_record(run, position)
            mean = (b1 * -first + (1 - b1) * up) / (1 - b1 ** (moments.steps + 1))
            power = (b2 * second + (1 - b2) * up * up) / (1 - b2 ** (moments.steps + 1))
            into[:] = mean / (np.sqrt(power) + moments.eps)
        return Gradients(out, rows.blocks)
