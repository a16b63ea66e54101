"""How a gradient is looked at: f(v) = n(W P D K v), the features in which scores are inner products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from poa.gradients.store import Gradients

if TYPE_CHECKING:
    from poa.gradients.capture import Block
    from poa.gradients.eigenbases import KroneckerInverse
    from poa.gradients.projection import Projection

Matrix = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Lens:
    """K = `inverse` [p, p], D = diag(`scale`) [p], P = `projection` [p -> k], W = `whitening` [k, k], n = division by
    the norm if `unit`.

    What is None is left out. A row's features depend on that row alone, to the byte.
    """

    projection: Projection | None = None
    scale: Matrix | None = None
    whitening: Matrix | None = None
    unit: bool = False
    inverse: KroneckerInverse | None = None

    def features(self, rows: Gradients) -> Matrix:
        """[n, k] in the dtype of `rows`; a row of length zero stays zero."""
        values = self.linear(rows)
        return unit_rows(values) if self.unit else values

    def certified(self, rows: Gradients) -> tuple[Matrix, list[float]]:
        """`features`, and the residual of every block's solve (none without `inverse`)."""
        if self.inverse is None:
            return self.features(rows), []
        solved, residuals = self.inverse.certified(rows.values)
        return replace(self, inverse=None).features(Gradients(solved, rows.blocks)), residuals

    def linear(self, rows: Gradients) -> Matrix:
        """[n, k] W P D K v, before the norm."""
        dtype = rows.values.dtype
        if self.inverse is not None:
            rows = Gradients(self.inverse.times(rows.values), rows.blocks)
        if self.scale is not None:
            rows = rows.scaled(self.scale)
        values = np.asarray(rows.values if self.projection is None else self.projection.apply(rows))
        if self.whitening is not None:
            # One row at a time: a product of matrices sums a row differently beside other rows.
            values = np.stack([self.whitening @ row for row in values.astype(np.float64)]) if len(values) else values
        return np.asarray(values, dtype)

    def lift(self, direction: Matrix, blocks: Sequence[Block]) -> Matrix:
        """[p] the direction whose inner product with v is that of `direction` [k] with W P D K v."""
        if self.whitening is not None:
            direction = self.whitening.T @ direction
        flat = direction if self.projection is None else self.projection.lift(direction, blocks)
        flat = flat if self.scale is None else flat * self.scale
        return flat if self.inverse is None else self.inverse.times(flat[None])[0]  # K is symmetric


def unit_rows(rows: Matrix) -> Matrix:
    """Rows divided by their Euclidean norm (float64); a zero row stays zero."""
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    return (rows / np.where(norms == 0, 1.0, norms)[:, None]).astype(rows.dtype)
