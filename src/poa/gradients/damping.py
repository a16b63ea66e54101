"""The damping of a curvature matrix, chosen from its own spectrum: no retraining, no look at the queries.

Damping decides how many directions are left to the data: the effective dimension d(lambda) = sum_j e_j / (e_j + lambda)
of Fisher or Gauss-Newton eigenvalues e_j. With too many, directions that few training gradients determine decide the
scores, and a record with a large gradient hides itself, being part of the matrix that is inverted: that multiplies
its scores by 1 - its leverage, and leverages add up to d(lambda). With too few, curvature is ignored. `chosen` lets the
dimension grow as the square root of the number of records, so that the mean leverage d / N still vanishes.

Wang et al. 2025 (arXiv 2505.24261) choose damping without retraining too, by a ratio of quadratic forms in query
gradients; here queries take no part, so a score does not depend on what else is asked.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from poa.errors import PoaError, Unsupported

Eigenvalues = npt.NDArray[np.floating[Any]]

RULE = "effective-dimension/1"
# d grows as ROOT sqrt(N). Chosen among 2, 2.5, 3, 3.5 and 4 on draws 0 to 2 of small digits and bigram problems by LDS
# against retraining, with 5 % and 50 % removed: experiments/damping.py.
ROOT = 2.5
# Relative to the mean eigenvalue: below LEAST an eigenvalue counts as zero. Bisection of the logarithm ends far below
# what a score could show, and without a grid the rounding of an eigenvalue cannot make the choice jump.
LEAST, MOST, HALVINGS = 1e-6, 1e6, 60
NOTHING = "all training gradients are zero: there is nothing to attribute to"


def check(name: str, damping: float | None, *, zero: bool = False) -> None:
    """Raise `PoaError` naming the option of method `name` unless damping is None or a finite number above 0.

    zero: whether 0 has a meaning of its own, the pseudo-inverse; such methods have a number as their default, not None.
    """
    given: object = damping  # options come from files and command lines as well
    if given is None and not zero:
        return
    if isinstance(given, int | float) and (0 < given < float("inf") or (zero and given == 0)):
        return
    raise PoaError(
        f"{name}.damping is {damping}, must be {'0 or more' if zero else 'above 0'} and finite: undamped, directions "
        "that no record determines decide the scores"
    )


def chosen(eigenvalues: Eigenvalues, count: int) -> tuple[float, dict[str, Any]]:
    """(damping, evidence) of curvature with these `eigenvalues` (any scale) from `count` training records.

    lambda = damping x mean of `eigenvalues`. 1/d(lambda) = 1/(2.5 sqrt(count)) + 1/d(0): the dimension is
    2.5 sqrt(count), less where so few directions exist at all. The evidence says rule, damping and both dimensions.
    Raises `Unsupported` where every eigenvalue is zero.
    """
    values = np.clip(np.asarray(eigenvalues, np.float64).ravel(), 0.0, None)
    mean = float(values.mean()) if len(values) else 0.0
    if mean == 0.0:
        raise Unsupported(NOTHING)
    values = values / mean
    whole = effective_dimension(values, LEAST)
    target = 1 / (1 / (ROOT * np.sqrt(count)) + 1 / whole)
    low, high = LEAST, MOST
    for _ in range(HALVINGS):
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if effective_dimension(values, middle) > target else (low, middle)
    dimension = effective_dimension(values, high)
    return high, {"rule": RULE, "damping": high, "effective_dimension": dimension, "dimension": whole}


def effective_dimension(eigenvalues: Eigenvalues, lam: float) -> float:
    """sum_j e_j / (e_j + lam): how many directions the damping leaves to the data."""
    return float((eigenvalues / (eigenvalues + lam)).sum())
