"""One block's curvature in a Kronecker eigenbasis: Q_left x Q_right, an eigenvalue for every pair of directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from poa.gradients.covariances import Sides
from poa.gradients.factors import Factor, Lookup, Outer

Matrix = npt.NDArray[np.floating[Any]]
Matrix64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Eigenbasis:
    """left [out, out] and right [in, in] orthonormal columns (None: the coordinates themselves), spectrum [out, in].

    The curvature is sum_jk spectrum[j, k] (left_j x right_k)(left_j x right_k)^T, float64.
    """

    left: Tensor | None
    right: Tensor | None
    spectrum: Tensor

    @property
    def mean(self) -> float:
        """Mean eigenvalue over all out x in directions."""
        return float(self.spectrum.mean())

    def rotated(self, factors: tuple[Factor, ...]) -> Tensor:
        """[n, out, in] left^T G right of the gradients G whose factors these are, cross terms and all.

        Factors turn before they are multiplied out, in the dtype of the basis.
        """
        return sum((self._turned(factor) for factor in factors), torch.zeros(()))  # type: ignore[return-value]

    def _turned(self, factor: Factor) -> Tensor:
        dtype = self.spectrum.dtype
        if isinstance(factor, Lookup) and self.left is not None:
            factor = Outer(self.left[factor.ids], factor.signal)
            thin = factor.left
        elif isinstance(factor, Lookup):
            table = Lookup(factor.ids, _times(factor.signal.to(dtype), self.right), factor.rows)
            return table.dense().view(-1, *self.spectrum.shape)
        elif isinstance(factor, Outer):
            thin = _times(factor.left.to(dtype), self.left)
        else:
            return _times(factor.dense().to(dtype).view(-1, *self.spectrum.shape), self.right)
        return thin.transpose(1, 2) @ _times(factor.right.to(dtype), self.right)

    def apply(self, rows: Matrix, weights: Matrix64) -> Matrix64:
        """[n, out * in] rows with their coordinate along direction (j, k) multiplied by weights[j, k].

        One row at a time: a row's bytes do not depend on its neighbours.
        """
        out = np.zeros(rows.shape)
        left, right = (None if side is None else side.numpy() for side in (self.left, self.right))
        for into, row in zip(out, rows, strict=True):
            inside = _into(np.asarray(row, np.float64).reshape(weights.shape), left, right) * weights
            into[:] = _back(inside, left, right).ravel()
        return out

    def inverse(self, damping: float) -> Matrix64:
        """Weights 1 / (spectrum + damping); undamped, directions without curvature get 0 (the pseudo-inverse)."""
        values = self.spectrum.numpy() + damping
        return np.divide(1.0, values, out=np.zeros_like(values), where=values > 0)


def eigenbasis(sides: Sides) -> Eigenbasis:
    """K-FAC: eigenvectors of both sides by float64 `eigh`, spectrum = products of their eigenvalues."""
    (left, rows), (right, columns) = _decomposed(sides.left), _decomposed(sides.right)
    return Eigenbasis(left, right, torch.outer(rows, columns))


def _decomposed(side: Tensor) -> tuple[Tensor | None, Tensor]:
    """(eigenvectors, eigenvalues) with what is rounding set to exactly 0; None for a diagonal."""
    vectors, values = None, side
    if side.ndim == 2:
        values, vectors = torch.linalg.eigh(side)
    largest = float(values.max()) if len(values) else 0.0
    floor = len(values) * torch.finfo(torch.float64).eps * largest
    return vectors, torch.where(values > floor, values, 0.0)


def _times(rows: Tensor, basis: Tensor | None) -> Tensor:
    return rows if basis is None else rows @ basis


def _into(gradient: Matrix64, left: Matrix64 | None, right: Matrix64 | None) -> Matrix64:
    gradient = gradient if right is None else gradient @ right
    return gradient if left is None else left.T @ gradient


def _back(turned: Matrix64, left: Matrix64 | None, right: Matrix64 | None) -> Matrix64:
    turned = turned if right is None else turned @ right.T
    return turned if left is None else left @ turned
