"""Metagradients of many queries from few reversals: probes that span most of what queries ask of the training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from poa.gradients.program import Program

Matrix64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Probed:
    """values [Q] and slopes [Q, N] as of `Program.metagradient`; kept: mean over queries of the part of the squared
    norm of a query's gradient that lies in the span of the probes, 1 where they answer exactly.
    """

    values: Matrix64
    slopes: Matrix64
    kept: float


def probed(program: Program, weights: Matrix64, queries: Any, probes: int, stack: int | None = None) -> Probed:
    """All queries from `probes` reversals.

    With g_q the gradient of query q at the end and J how the final weights follow the records' weights, scores are
    g_q^T J. Probes are the leading left singular vectors of the gradients at unit length: the combinations that leave
    the least of an average query out, whatever its size. Each is reversed once, and queries are put together again from
    them. Equal to all reversals where `probes` >= Q. Scaling coordinates by how far training moves them (forward mode,
    as arXiv 2609.15044 does) cost 8 more trainings and was no better on digits.
    """
    values, signals = program.asked(weights, queries)
    rows = _rows(signals)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    left, sizes, _ = np.linalg.svd(unit, full_matrices=False)
    back = lengths * left[:, :probes]
    # A query without any gradient is no part of a probe.
    forth = np.divide(left[:, :probes], lengths, out=np.zeros_like(back), where=lengths > 0)
    slopes = back @ program.pulled(weights, _mixed(signals, forth), stack)
    whole = (sizes**2).sum()
    return Probed(values, slopes, float((sizes[:probes] ** 2).sum() / whole) if whole else 1.0)


def _rows(tree: Any) -> Matrix64:
    """[n, p] of a tree of arrays [n, ...]."""
    import jax

    return np.concatenate([np.asarray(x, np.float64).reshape(len(x), -1) for x in jax.tree.leaves(tree)], 1)


def _mixed(signals: Any, weights: Matrix64) -> Any:
    """The combinations of `signals` in the columns of `weights`, in their own precision."""
    import jax

    def mixed(x: Any) -> Any:
        full = np.asarray(x, np.float64)
        found = weights.T @ full.reshape(len(full), -1)
        return found.reshape(-1, *full.shape[1:]).astype(np.asarray(x).dtype)

    return jax.tree.map(mixed, signals)
