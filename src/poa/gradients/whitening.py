"""The symmetric inverse root of a damped second moment: (R + lambda)^-1/2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from poa.errors import Unsupported
from poa.gradients.damping import NOTHING, chosen

Matrix = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Whitening:
    """matrix [k, k] float64, lambda in the units of R, and how damping was settled."""

    matrix: npt.NDArray[np.float64]
    lam: float
    damping: dict[str, Any]


def whitening(rows: Matrix, damping: float | None = None) -> Whitening:
    """(R + lambda)^-1/2 of R = mean of r r^T over `rows` [N, k], lambda = `damping` x R's mean non-zero eigenvalue.

    `damping` None is chosen from the spectrum by `poa.gradients.damping`. Raises `Unsupported` where every row is zero.
    """
    wide = np.asarray(rows, np.float64)
    moment = wide.T @ wide / len(wide)
    values, vectors = np.linalg.eigh(moment)
    values = np.clip(values, 0.0, None)
    rank = min(len(wide), len(values))
    mean = float(values.sum()) / rank
    if mean == 0.0:
        raise Unsupported(NOTHING)
    told: dict[str, Any] = {"rule": "given", "damping": damping}
    if damping is None:
        told = chosen(values[-rank:], len(wide))[1]
    lam = float(told["damping"]) * mean
    return Whitening((vectors / np.sqrt(values + lam)) @ vectors.T, lam, told)
