"""Curvature in Kronecker eigenbases: per block Q_left x Q_right, an eigenvalue for every pair of directions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
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

    def like(self, other: Tensor) -> Eigenbasis:
        """In the dtype and on the device of `other`."""
        left, right = (None if side is None else side.to(other) for side in (self.left, self.right))
        return Eigenbasis(left, right, self.spectrum.to(other))

    @property
    def trace(self) -> float:
        """Sum of the eigenvalues over all out x in directions."""
        return float(self.spectrum.sum())

    def rotated(self, factors: tuple[Factor, ...]) -> Tensor:
        """[n, out, in] left^T G right of the gradients G whose factors these are, cross terms and all.

        Factors turn before they are multiplied out, in the dtype of the basis.
        """
        first, *others = (self._turned(factor) for factor in factors)
        return sum(others, first)

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
        wide = factor.right.to(dtype) if self.right is None else factor.right_times(self.right)
        return thin.transpose(1, 2) @ wide

    def apply(self, rows: Matrix, weights: Matrix64) -> Matrix64:
        """[n, out * in] rows with their coordinate along direction (j, k) multiplied by weights[j, k].

        One row at a time: a row's bytes do not depend on its neighbours.
        """
        turned = (self.vector(self.coordinates(row) * weights) for row in rows)
        return np.stack([*turned]) if len(rows) else np.zeros(rows.shape)

    def coordinates(self, row: Matrix) -> Matrix64:
        """[out, in] coordinates of one row [out * in] along every pair of directions."""
        turned = np.asarray(row, np.float64).reshape(tuple(self.spectrum.shape))
        turned = turned if self.right is None else turned @ self.right.numpy()
        return turned if self.left is None else self.left.numpy().T @ turned

    def vector(self, coordinates: Matrix64) -> Matrix64:
        """[out * in] the row that has these coordinates [out, in]."""
        row = coordinates if self.right is None else coordinates @ self.right.numpy().T
        return (row if self.left is None else self.left.numpy() @ row).ravel()

    def inverse(self, damping: float) -> Matrix64:
        """Weights 1 / (spectrum + damping); undamped, directions without curvature get 0 (the pseudo-inverse)."""
        values = self.spectrum.numpy() + damping
        return np.divide(1.0, values, out=np.zeros_like(values), where=values > 0)


@dataclass(frozen=True, eq=False)
class KroneckerInverse:
    """`scale` (F + lam)^-1 of a block-diagonal F: per block of a row its eigenbasis."""

    bases: tuple[Eigenbasis, ...]
    lam: float
    scale: float = 1.0

    def times(self, rows: Matrix) -> Matrix64:
        """[n, p] the rows multiplied by it; undamped, by the pseudo-inverse. A row depends on that row alone."""
        parts = zip(self.bases, self._split(rows), strict=True)
        return np.concatenate([basis.apply(part, self.scale * basis.inverse(self.lam)) for basis, part in parts], 1)

    def certified(self, rows: Matrix) -> tuple[Matrix, list[float]]:
        """`times` in the dtype of `rows`, and per block |(F + lam) x / scale - v| / |v| over all rows v and what x
        became of them.

        Undamped it is what lies outside the range of the curvature. The two are compared in the eigenbasis, where
        their distance is the same.
        """
        solved: list[Matrix] = []
        residuals: list[float] = []
        for basis, part in zip(self.bases, self._split(rows), strict=True):
            back = (basis.spectrum.numpy() + self.lam) / self.scale
            weights = self.scale * basis.inverse(self.lam)
            found, gap = np.empty(part.shape, rows.dtype), 0.0
            for into, row in zip(found, part, strict=True):
                wanted = basis.coordinates(row)
                into[:] = basis.vector(wanted * weights)
                gap += float(np.square(back * basis.coordinates(into) - wanted).sum())
            size = float(np.linalg.norm(part))
            residuals.append(sqrt(gap) / size if size else 0.0)
            solved.append(found)
        return np.concatenate(solved, 1), residuals

    def _split(self, rows: Matrix) -> list[Matrix64]:
        ends = np.cumsum([basis.spectrum.numel() for basis in self.bases])
        return [np.asarray(part, np.float64) for part in np.split(rows, ends[:-1], axis=1)]

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What `read` makes it from."""
        parts = {
            f"{at}.{part}": getattr(basis, part)
            for at, basis in enumerate(self.bases)
            for part in ("left", "right", "spectrum")
        }
        kept = {key: part.numpy() for key, part in parts.items() if part is not None}
        return kept | {"lam": np.asarray([self.lam]), "scale": np.asarray([self.scale])}

    @staticmethod
    def read(arrays: Mapping[str, npt.NDArray[Any]]) -> KroneckerInverse:
        def side(at: int, part: str) -> Any:
            found = arrays.get(f"{at}.{part}")
            return None if found is None else torch.from_numpy(found)

        count = sum(key.endswith(".spectrum") for key in arrays)
        bases = (Eigenbasis(*(side(at, part) for part in ("left", "right", "spectrum"))) for at in range(count))
        return KroneckerInverse(tuple(bases), float(arrays["lam"][0]), float(arrays["scale"][0]))


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
