"""Solvers of (H + lambda) x = v besides conjugate gradients: dense, Neumann series, and two of low rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve

from poa.errors import PoaError, Unsupported
from poa.gradients.krylov import Solution, finished, independent, require_converged

if TYPE_CHECKING:
    from poa.gradients.operators import Operator

Matrix = npt.NDArray[np.floating[Any]]
Matrix64 = npt.NDArray[np.float64]

LARGEST = 20_000


@dataclass(frozen=True)
class Explicit:
    """Cholesky factors of the matrix written out; p^2 numbers."""

    def solve(self, operator: Operator, lam: float, rows: Matrix) -> Solution:
        if operator.size > LARGEST:
            raise Unsupported(f"an explicit solve of {operator.size} parameters (at most {LARGEST}): use solver='cg'")
        if not lam > 0:
            raise Unsupported("an explicit solve needs damping above 0: the curvature of few records is singular")
        factor = cho_factor(operator.dense() + lam * np.eye(operator.size))
        # One row at a time: a row's bytes must not depend on its neighbours.
        solved = [cho_solve(factor, np.asarray(row, np.float64)) for row in rows]
        values = np.stack(solved) if solved else np.zeros((0, operator.size))
        return finished(operator, lam, rows, values, 0)


@dataclass(frozen=True)
class LiSSA:
    """x <- x + a (v - (H + lambda) x), a = 1 / (largest eigenvalue + lambda): a Neumann series (arXiv 1602.03943).

    The step is safe by construction: the largest eigenvalue comes from power iteration, with a margin. Stopping early
    acts as more damping. The full curvature is used in every step, so the residual falls monotonically.
    """

    tolerance: float = 1e-6
    iterations: int = 20_000
    seed: int = 0

    def solve(self, operator: Operator, lam: float, rows: Matrix) -> Solution:
        step = 1 / (1.05 * largest_eigenvalue(operator, self.seed) + lam)
        found = [self._one(operator, lam, np.asarray(row, np.float64)[None], step) for row in rows]
        values = np.concatenate([x for x, _ in found]) if found else np.zeros((0, operator.size))
        solution = finished(operator, lam, rows, values, sum(count for _, count in found))
        return require_converged(solution, 1.01 * self.tolerance, "more iterations or more damping")

    def _one(self, operator: Operator, lam: float, row: Matrix64, step: float) -> tuple[Matrix64, int]:
        x, last, size = np.zeros_like(row), np.inf, float(np.linalg.norm(row))
        for count in range(self.iterations):
            gap = row - operator.times(x) - lam * x
            left = float(np.linalg.norm(gap))
            if left <= self.tolerance * size:
                return x, count
            if left > 1.001 * last:
                raise Unsupported(f"LiSSA diverges: the residual grew from {last:.2g} to {left:.2g} in step {count}")
            x, last = x + step * gap, left
        return x, self.iterations


def largest_eigenvalue(operator: Operator, seed: int = 0, iterations: int = 60) -> float:
    """By power iteration from a seeded start; from below."""
    row = np.random.default_rng(seed).standard_normal((1, operator.size))
    value = 0.0
    for _ in range(iterations):
        row = row / np.linalg.norm(row)
        moved = operator.times(row)
        value = float((row * moved).sum())
        if not moved.any():
            return 0.0
        row = moved
    return value


@dataclass(frozen=True)
class Arnoldi:
    """The `rank` leading Ritz pairs of a Krylov basis with full orthogonalisation (Lanczos, H being symmetric).

    H is taken as 0 outside their span, where x is v / lambda: the directions of small curvature, which carry most
    influence, are kept. Schioppa et al. 2022, arXiv 2112.03052 drop them. The residual says what is missing.
    """

    rank: int = 100
    seed: int = 0

    def solve(self, operator: Operator, lam: float, rows: Matrix) -> Solution:
        values, vectors, products = self.pairs(operator)
        return woodbury(operator, lam, rows, values, vectors, products)

    def pairs(self, operator: Operator) -> tuple[Matrix64, Matrix64, int]:
        """(eigenvalues [r], orthonormal eigenvectors [r, p], products), largest first."""
        require_rank(self.rank)
        rng = np.random.default_rng(self.seed)
        basis, images = np.zeros((0, operator.size)), np.zeros((0, operator.size))
        new = rng.standard_normal((1, operator.size))
        # Twice the rank in the basis: its outer Ritz pairs have settled then.
        for _ in range(min(2 * self.rank, operator.size)):
            fresh = independent(new, basis)
            while not len(fresh):  # an invariant space: go on outside of it
                fresh = independent(rng.standard_normal((1, operator.size)), basis)
            basis, images = np.concatenate([basis, fresh]), np.concatenate([images, operator.times(fresh)])
            new = images[-1:]
        small = basis @ images.T
        values, turned = np.linalg.eigh((small + small.T) / 2)
        kept = np.argsort(-values, kind="stable")[: self.rank]
        return np.clip(values[kept], 0.0, None), turned[:, kept].T @ basis, len(basis)


@dataclass(frozen=True)
class Nystrom:
    """H ~ C W^+ C^T, C = H Omega, W = Omega^T H Omega for `rank` seeded random directions, inverted by Woodbury.

    Frangella, Tropp & Udell 2023, arXiv 2110.02820; for influence Hataya & Yamada 2023, arXiv 2302.09726, with random
    coordinates for Omega. Positive semi-definite by construction.
    """

    rank: int = 100
    seed: int = 0

    def solve(self, operator: Operator, lam: float, rows: Matrix) -> Solution:
        values, vectors, products = self.pairs(operator)
        return woodbury(operator, lam, rows, values, vectors, products)

    def pairs(self, operator: Operator) -> tuple[Matrix64, Matrix64, int]:
        require_rank(self.rank)
        count = min(self.rank, operator.size)
        drawn = np.random.default_rng(self.seed).standard_normal((count, operator.size))
        omega = independent(drawn, np.zeros((0, operator.size)))
        moved = operator.times(omega)
        shift = np.finfo(np.float64).eps * float(np.linalg.norm(moved))
        moved = moved + shift * omega
        small = omega @ moved.T
        values, turned = np.linalg.eigh((small + small.T) / 2)
        values = np.clip(values, shift, None)
        root = (turned / np.sqrt(values)).T @ moved
        _, singular, vectors = np.linalg.svd(root, full_matrices=False)
        return np.clip(singular**2 - shift, 0.0, None), vectors, len(omega)


def require_rank(rank: int) -> None:
    if rank < 1:
        raise PoaError(f"rank is {rank}, must be 1 or more")


def woodbury(
    operator: Operator, lam: float, rows: Matrix, values: Matrix64, vectors: Matrix64, products: int
) -> Solution:
    """x = (v - sum_j e_j / (e_j + lambda) <q_j, v> q_j) / lambda."""
    if not lam > 0:
        raise Unsupported("a low-rank inverse needs damping above 0: outside its span there is nothing else")
    shrink = values / (values + lam)
    wide = [np.asarray(row, np.float64) for row in rows]
    solved = [(row - (shrink * (vectors @ row)) @ vectors) / lam for row in wide]
    found = np.stack(solved) if solved else np.zeros((0, operator.size))
    return finished(operator, lam, rows, found, products)
