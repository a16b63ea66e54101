"""Conjugate gradients for (H + lambda) x = v: one system at a time, preconditioned, or all in one Krylov space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from poa.errors import PoaError, Unsupported

if TYPE_CHECKING:
    from poa.gradients.operators import Operator

Matrix = npt.NDArray[np.floating[Any]]
Matrix64 = npt.NDArray[np.float64]


def check_tolerance(name: str, tolerance: float) -> None:
    """Raise `PoaError` naming the option of method `name` unless it is a relative residual between 0 and 1."""
    if not 0 < tolerance < 1:
        raise PoaError(f"{name}.tolerance is {tolerance}, must be above 0 and below 1: the residual to stop at")


@dataclass(frozen=True, eq=False)
class Solution:
    """values [k, p] float64; residuals [k] |(H + lambda) x - v| / |v|; products: multiplications of a row by H."""

    values: Matrix64
    residuals: Matrix64
    products: int


def finished(operator: Operator, lam: float, rows: Matrix, values: Matrix64, products: int) -> Solution:
    """With residuals from one more product a row: what a solver believes of itself is not evidence."""
    wide = np.asarray(rows, np.float64)
    gaps = operator.times(values) + lam * values - wide
    sizes = np.linalg.norm(wide, axis=1)
    residuals = np.divide(np.linalg.norm(gaps, axis=1), sizes, out=np.zeros(len(wide)), where=sizes > 0)
    if not np.isfinite(residuals).all():
        raise Unsupported("the solver left what is finite: damping is too small for this curvature")
    return Solution(values, residuals, products + len(wide))


def require_converged(solution: Solution, tolerance: float, hint: str) -> Solution:
    worst = float(solution.residuals.max(initial=0.0))
    if worst > tolerance:
        raise Unsupported(f"the solver stopped at a residual of {worst:.2g}, asked for {tolerance:.2g}: {hint}")
    return solution


@dataclass(frozen=True)
class CG:
    """Hestenes & Stiefel 1952, one row at a time; `precondition` multiplies a row [1, p] by an approximate inverse."""

    tolerance: float = 1e-8
    iterations: int = 2000

    def solve(
        self, operator: Operator, lam: float, rows: Matrix, precondition: Callable[[Matrix], Matrix64] | None = None
    ) -> Solution:
        found = [self._one(operator, lam, np.asarray(row, np.float64)[None], precondition) for row in rows]
        values = np.concatenate([x for x, _ in found]) if found else np.zeros((0, operator.size))
        solution = finished(operator, lam, rows, values, sum(count for _, count in found))
        # The recurrence's residual drifts from the true one by rounding: a factor of ten of grace.
        return require_converged(solution, 10 * self.tolerance, "more iterations or more damping")

    def _one(
        self, operator: Operator, lam: float, row: Matrix64, precondition: Callable[[Matrix], Matrix64] | None
    ) -> tuple[Matrix64, int]:
        x, gap = np.zeros_like(row), row.copy()
        size = float(np.linalg.norm(row))
        if size == 0.0:
            return x, 0
        steep = gap if precondition is None else precondition(gap)
        direction, power = steep.copy(), float((gap * steep).sum())
        for count in range(self.iterations):
            if float(np.linalg.norm(gap)) <= self.tolerance * size:
                return x, count
            moved = operator.times(direction) + lam * direction
            step = power / float((direction * moved).sum())
            x += step * direction
            gap -= step * moved
            steep = gap if precondition is None else precondition(gap)
            new = float((gap * steep).sum())
            direction = steep + (new / power) * direction
            power = new
        return x, self.iterations


@dataclass(frozen=True)
class BlockCG:
    """All rows in one block Krylov space, kept orthonormal: fewer passes than rows x iterations of `CG`.

    Galerkin solution in a space that grows by the (numerically independent) residuals of all rows until the worst is
    small. A row's last digits depend on the rows beside it. O'Leary 1980.
    """

    tolerance: float = 1e-8
    iterations: int = 500

    def solve(self, operator: Operator, lam: float, rows: Matrix) -> Solution:
        wide = np.asarray(rows, np.float64)
        sizes = np.linalg.norm(wide, axis=1)
        basis = np.zeros((0, operator.size))
        images = np.zeros((0, operator.size))
        values, products = np.zeros_like(wide), 0
        for _ in range(self.iterations):
            gaps = wide - (images.T @ (basis @ values.T)).T - lam * values if len(basis) else wide.copy()
            open_ = np.linalg.norm(gaps, axis=1) > self.tolerance * np.where(sizes > 0, sizes, 1.0)
            fresh = independent(gaps[open_] / np.where(sizes[open_] > 0, sizes[open_], 1.0)[:, None], basis)
            if not len(fresh):
                break
            basis = np.concatenate([basis, fresh])
            images = np.concatenate([images, operator.times(fresh)])
            products += len(fresh)
            small = basis @ images.T
            core = (small + small.T) / 2 + lam * np.eye(len(basis))
            values = np.linalg.solve(core, basis @ wide.T).T @ basis
        solution = finished(operator, lam, rows, values, products)
        return require_converged(solution, 10 * self.tolerance, "more iterations or more damping")


def independent(rows: Matrix64, basis: Matrix64, least: float = 1e-10) -> Matrix64:
    """Orthonormal rows that span what `rows` add to the orthonormal `basis`; what is rounding is left out."""
    out: list[Matrix64] = []
    for row in rows:
        size = float(np.linalg.norm(row))
        if size == 0.0:
            continue
        unit = row / size
        for _ in range(2):  # twice is enough (Kahan & Parlett)
            unit = unit - (basis @ unit) @ basis
            for other in out:
                unit = unit - (other @ unit) * other
        left = float(np.linalg.norm(unit))
        if left > least:
            out.append(unit / left)
    return np.stack(out) if out else np.zeros((0, rows.shape[1]))
