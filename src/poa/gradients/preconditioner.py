"""The inverse of a Kronecker curvature at a lambda that is given, and not relative to each layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from poa.gradients.eigenbases import KroneckerInverse

if TYPE_CHECKING:
    from poa.gradients.kronecker import Curvature

Matrix = npt.NDArray[np.floating[Any]]


class Kronecker:
    """(E + lambda)^-1 with one lambda for all blocks, as iterative solvers of (G + lambda) x = v want it."""

    def __init__(self, curvature: Curvature, lam: float) -> None:
        self.inverse = KroneckerInverse(tuple(curvature.values()), (lam,) * len(curvature))

    def __call__(self, rows: Matrix) -> npt.NDArray[np.float64]:
        return self.inverse.times(rows)
