"""ASTRA: stochastic steps towards (G + lambda)^-1 v, preconditioned by EK-FAC (arXiv 2507.14740)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from poa.errors import PoaError, Unsupported
from poa.gradients.draws import stream
from poa.gradients.krylov import Solution, finished
from poa.gradients.operators import GaussNewton

if TYPE_CHECKING:
    from poa.gradients.operators import Operator

Matrix = npt.NDArray[np.floating[Any]]
Matrix64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Astra:
    """x <- x - a_t (E + lambda)^-1 [(G_t + lambda) x - v] from x_0 = (E + lambda)^-1 v.

    G_t: Gauss-Newton matrix of batch t of `batch` records, of one seeded partition that is gone through in turn. The
    step a_t falls from `step` / (largest eigenvalue of the preconditioned matrix) to a tenth of it, so that noise of
    batches dies out: with batches of all records the fixed point is the solution. The residual is that on all records.
    """

    steps: int = 100
    batch: int = 16
    step: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or not 0 < self.step < 2:
            raise PoaError(f"need steps >= 1, batch >= 1 and 0 < step < 2, got {self.steps}, {self.batch}, {self.step}")

    def solve(
        self,
        operator: Operator,
        lam: float,
        rows: Matrix,
        precondition: Callable[[Matrix], Matrix64] | None = None,
    ) -> Solution:
        """Of rows [k, p], each by itself; every row meets the same batches."""
        if not isinstance(operator, GaussNewton) or precondition is None:
            raise Unsupported("ASTRA needs the Gauss-Newton matrix, whose records it draws, and EK-FAC in front")
        parts = self._parts(operator)
        rate = self.step / max(self._largest(part, lam, precondition) for part in dict.fromkeys(parts))
        found = [self._one(parts, lam, np.asarray(row, np.float64)[None], precondition, rate) for row in rows]
        values = np.concatenate(found) if found else np.zeros((0, operator.size))
        solution = finished(operator, lam, rows, values, self.steps * len(values))
        if float(solution.residuals.max(initial=0.0)) > 1.0:
            raise Unsupported("ASTRA diverges: the residual is larger than the query; smaller step or larger batch")
        return solution

    def _parts(self, operator: GaussNewton) -> list[GaussNewton]:
        """The operator of each step's batch: a seeded partition, gone through again and again."""
        order = stream("astra/1", self.seed).permutation(len(operator.records))
        cuts = [sorted(order[start : start + self.batch].tolist()) for start in range(0, len(order), self.batch)]
        parts = [operator.part([operator.records[i] for i in cut]) for cut in cuts]
        return [parts[number % len(parts)] for number in range(self.steps)]

    def _largest(self, part: GaussNewton, lam: float, precondition: Callable[[Matrix], Matrix64]) -> float:
        """Largest eigenvalue of (E + lambda)^-1 (G_t + lambda), by power iteration, with a margin."""
        row = stream("astra-power/1", self.seed).standard_normal((1, part.size))
        value = 1.0
        for _ in range(12):
            row = row / np.linalg.norm(row)
            row = precondition(part.times(row) + lam * row)
            value = float(np.linalg.norm(row))
        return 1.1 * value

    def _one(
        self,
        parts: list[GaussNewton],
        lam: float,
        row: Matrix64,
        precondition: Callable[[Matrix], Matrix64],
        rate: float,
    ) -> Matrix64:
        x = precondition(row)
        for number, part in enumerate(parts):
            decay = 1.0 - 0.9 * number / max(self.steps - 1, 1)
            x = x - rate * decay * precondition(part.times(x) + lam * x - row)
        return x
