"""Damped influence on projected gradients: what LoGra, GraSS and TRAK have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from poa.gradients.curvature import damped_fisher_map
from poa.gradients.lens import Lens
from poa.gradients.linear import LinearIndex, fit_linear, positions_of

if TYPE_CHECKING:
    from poa.gradients.projection import Projection
    from poa.gradients.store import Gradients
    from poa.protocols import TrainingRun


def fit_projected(
    run: TrainingRun,
    method: object,
    checkpoints: str,
    projection: Projection,
    damping: float | None,
    *,
    side: str = "train",
    notes: Mapping[str, Any] | None = None,
    weights: Callable[[int], np.ndarray] | None = None,
    coordinates: str = "adapter",
) -> LinearIndex:
    """score = mean over checkpoints of w_i f(q)^T (F + lambda)^-1 f(i) / N, f = projected gradients, F their Fisher.

    Solved exactly through the N x N Gram matrix. `weights(position)`: [N] w_i, 1 by default. Damping, lambda and the
    residual of each solve are added to `notes`.
    """
    told: dict[str, Any] = {"damping": [], "lambda": [], "residual": []} | dict(notes or {})
    count = len(positions_of(run, checkpoints))

    def solve(rows: Gradients, position: int) -> np.ndarray:
        solved = damped_fisher_map(projection.apply(rows), damping)
        told["damping"].append(solved.damping)
        told["lambda"].append(solved.lam)
        told["residual"].append(solved.residual)
        return solved.map / count if weights is None else solved.map * (weights(position) / count)[:, None]

    return fit_linear(
        run, method, checkpoints, solve, lens=Lens(projection), side=side, notes=told, coordinates=coordinates
    )
