"""Metagradients of many queries from few reversals: probes that span most of what queries ask of the training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from poa.errors import PoaError

if TYPE_CHECKING:
    from poa.gradients.program import Program

Matrix64 = npt.NDArray[np.float64]
# Coordinates that no direction moves would otherwise be free: the least scale is this quantile of all.
FLOOR = 0.1


@dataclass(frozen=True, eq=False)
class Probed:
    """values [Q] and slopes [Q, N] as of `Program.metagradient`; kept: the part of the queries' scaled squared norm
    that lies in the span of the probes, 1 where they answer exactly.
    """

    values: Matrix64
    slopes: Matrix64
    kept: float


def probed(
    program: Program, weights: Matrix64, queries: Any, probes: int, stack: int | None, seed: int, draws: int = 8
) -> Probed:
    """All queries from `probes` reversals and `draws` forward ones.

    With g_q the gradient of query q at the end and J how the final weights follow the records' weights, the scores are
    g_q^T J. Every coordinate of g is scaled by the root mean square of J z over `draws` random signs z (forward mode),
    an estimate of diag(J J^T)^(1/2); probes are the leading left singular vectors of the scaled gradients, that is, the
    combinations of queries that carry most of the scores' squared norm where J J^T is diagonal. Each probe is reversed
    once and queries are put together again from them. Equal to all reversals where `probes` >= Q.
    """
    values, signals = program.asked(weights, queries)
    rows = _rows(signals)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (draws, program.records))
    scale = np.sqrt((_rows(program.pushed(weights, signs, stack)) ** 2).mean(0))
    scaled = rows * np.maximum(scale, np.quantile(scale, FLOOR))
    left, sizes, _ = np.linalg.svd(scaled, full_matrices=False)
    if not sizes.any():
        raise PoaError("no query's gradient reaches what training moved: there is nothing to probe")
    left = left[:, :probes]
    slopes = left @ program.pulled(weights, _mixed(signals, left), stack)
    return Probed(values, slopes, float((sizes[:probes] ** 2).sum() / (sizes**2).sum()))


def _rows(tree: Any) -> Matrix64:
    """[n, p] of a tree of arrays [n, ...]."""
    import jax

    return np.concatenate([np.asarray(x, np.float64).reshape(len(x), -1) for x in jax.tree.leaves(tree)], 1)


def _mixed(signals: Any, left: Matrix64) -> Any:
    """The combinations of `signals` in the columns of `left`, in their own precision."""
    import jax

    def mixed(x: Any) -> Any:
        full = np.asarray(x, np.float64)
        found = left.T @ full.reshape(len(full), -1)
        return found.reshape(-1, *full.shape[1:]).astype(np.asarray(x).dtype)

    return jax.tree.map(mixed, signals)
