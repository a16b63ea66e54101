"""How well retraining agrees with itself over seeds, and what that leaves for a method to reach."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from poa.errors import PoaError
from poa.evaluation.correlation import mean_spearman

Array = npt.NDArray[np.floating[Any]]


def reliability(tables: Array) -> float:
    """R: mean over pairs of seeds of the mean Spearman correlation per query; tables [seed, query, n], not below 0."""
    count = len(tables)
    if count < 2:
        raise PoaError("a noise ceiling needs at least two seeds")
    return max(0.0, float(np.mean([mean_spearman(tables[a], tables[b]) for a in range(count) for b in range(a)])))


def ceiling(tables: Array) -> float:
    """sqrt(R_K) for the mean of K seeds: the correlation that no seed-blind method can pass.

    R_K = K R / (1 + (K - 1) R) (Spearman-Brown).
    """
    one, count = reliability(tables), len(tables)
    return float(np.sqrt(count * one / (1 + (count - 1) * one)))
