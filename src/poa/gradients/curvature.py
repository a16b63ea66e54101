"""Damped inverse curvature in float64, through the N x N Gram matrix of the training rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve

from poa.errors import Unsupported
from poa.gradients.damping import NOTHING, chosen

Matrix = npt.NDArray[np.floating[Any]]
Matrix64 = npt.NDArray[np.float64]


def gram(rows: Matrix, width: int = 8192) -> Matrix64:
    """rows @ rows.T in float64, over column blocks in fixed order (memory: N x width)."""
    out = np.zeros((len(rows), len(rows)))
    for start in range(0, rows.shape[1], width):
        part = np.asarray(rows[:, start : start + width], np.float64)
        out += part @ part.T
    return out


def mean_eigenvalue(kernel: Matrix64) -> float:
    """trace(F) / N for the empirical Fisher F = U^T U / N of N rows whose Gram matrix is `kernel`.

    With no more records than parameters, this is the mean non-zero eigenvalue; averaging over p instead would let the
    damping vanish as the model grows while the spectrum stays where it is. With N > p the zeros of the Gram matrix
    count, and a given damping shrinks as N grows; a chosen one (`poa.gradients.damping`) does not.
    """
    return float(np.trace(kernel)) / len(kernel) ** 2


class Solved(NamedTuple):
    """A damped solve: `map` [N, p], `lam` in units of the matrix, relative `residual`, and how damping was settled."""

    map: Matrix64
    lam: float
    residual: float
    damping: dict[str, Any]


def damped_fisher_map(rows: Matrix, damping: float | None = None) -> Solved:
    """T with T v = U (U^T U / N + lambda I)^-1 v / N for every v, lambda = damping x mean eigenvalue.

    By the push-through identity T = (U U^T + N lambda I)^-1 U: exact, N^3 instead of p^3. `damping` None is chosen by
    `poa.gradients.damping`. The residual is that of the solve on the rows themselves. Raises `Unsupported` where every
    row is zero.
    """
    kernel = gram(rows)
    scale = mean_eigenvalue(kernel)
    if scale == 0.0:
        raise Unsupported(NOTHING)
    evidence = settled(damping, kernel)
    lam = evidence["damping"] * scale
    shifted = kernel + len(rows) * lam * np.eye(len(rows))
    wide = np.asarray(rows, np.float64)
    solved = cho_solve(cho_factor(shifted), wide)
    residual = float(np.linalg.norm(shifted @ solved - wide) / np.linalg.norm(wide))
    return Solved(solved, lam, residual, evidence)


def settled(damping: float | None, kernel: Matrix64) -> dict[str, Any]:
    """{"rule", "damping", ...}: the given damping, or the one chosen for N rows with this Gram matrix."""
    if damping is not None:
        return {"rule": "given", "damping": damping}
    return chosen(np.linalg.eigvalsh(kernel), len(kernel))[1]


def datainf_map(rows: Matrix, damping: float | None = None) -> tuple[Matrix64, dict[str, Any]]:
    """DataInf for one layer: U/lambda - K D U/(lambda N), D = diag(1/(lambda + |g_i|^2)); and how damping was settled.

    Kwon et al. 2023, arXiv 2310.00902, eq. 5: the mean of inverses in place of the inverse of the mean, with
    lambda = damping x mean |g_i|^2. `damping` None takes the lambda that `damped_fisher_map` chooses for these rows:
    both stand for the same matrix, whose mean eigenvalue is mean |g_i|^2 / N.
    """
    wide = np.asarray(rows, np.float64)
    kernel = gram(rows)
    squares = np.diag(kernel)
    if not squares.any():
        return np.zeros_like(wide), {"rule": "no gradient", "damping": 0.0}
    evidence = settled(damping, kernel)
    if damping is None:
        evidence["damping"] /= len(rows)
    lam = evidence["damping"] * float(squares.mean())
    return (wide - kernel @ (wide / (lam + squares)[:, None]) / len(wide)) / lam, evidence
