"""Curvature in Kronecker eigenbases: per block Q_left x Q_right, an eigenvalue for every pair of directions."""

from __future__ import annotations

from collections.abc import Mapping
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

    def to(self, dtype: torch.dtype) -> Eigenbasis:
        left, right = (None if side is None else side.to(dtype) for side in (self.left, self.right))
        return Eigenbasis(left, right, self.spectrum.to(dtype))

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

    def coordinates(self, row: Matrix) -> Matrix64:
        """[out, in] coordinates of one row [out * in] along every pair of directions."""
        left, right = (None if side is None else side.numpy() for side in (self.left, self.right))
        return _into(np.asarray(row, np.float64).reshape(tuple(self.spectrum.shape)), left, right)

    def inverse(self, damping: float) -> Matrix64:
        """Weights 1 / (spectrum + damping); undamped, directions without curvature get 0 (the pseudo-inverse)."""
        values = self.spectrum.numpy() + damping
        return np.divide(1.0, values, out=np.zeros_like(values), where=values > 0)


@dataclass(frozen=True, eq=False)
class KroneckerInverse:
    """`scale` (F + lambda)^-1 of a block-diagonal F: per block of a row its eigenbasis and lambda."""

    bases: tuple[Eigenbasis, ...]
    lambdas: tuple[float, ...]
    scale: float = 1.0

    def times(self, rows: Matrix) -> Matrix64:
        """[n, p] the rows multiplied by it; undamped, by the pseudo-inverse. A row depends on that row alone."""
        parts = zip(self.bases, self.lambdas, self._split(rows), strict=True)
        return np.concatenate([basis.apply(part, self.scale * basis.inverse(lam)) for basis, lam, part in parts], 1)

    def residuals(self, rows: Matrix, solved: Matrix) -> list[float]:
        """Per block |(F + lambda) x - v| / |v| over all rows v, x = `solved` / scale.

        Undamped it is what lies outside the range of the curvature.
        """
        out: list[float] = []
        for basis, lam, given, found in zip(
            self.bases, self.lambdas, self._split(rows), self._split(solved), strict=True
        ):
            back = basis.apply(found, (basis.spectrum.numpy() + lam) / self.scale)
            size = float(np.linalg.norm(given))
            out.append(float(np.linalg.norm(back - given)) / size if size else 0.0)
        return out

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
        return kept | {"lambdas": np.asarray(self.lambdas), "scale": np.asarray([self.scale])}

    @staticmethod
    def read(arrays: Mapping[str, npt.NDArray[Any]]) -> KroneckerInverse:
        def side(at: int, part: str) -> Any:
            found = arrays.get(f"{at}.{part}")
            return None if found is None else torch.from_numpy(found)

        lambdas = tuple(float(lam) for lam in arrays["lambdas"])
        bases = (Eigenbasis(*(side(at, part) for part in ("left", "right", "spectrum"))) for at in range(len(lambdas)))
        return KroneckerInverse(tuple(bases), lambdas, float(arrays["scale"][0]))


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
