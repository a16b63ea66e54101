"""Whether standard errors tell the truth: coverage of intervals, a widening learnt from other queries, abstention."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from poa.errors import PoaError

if TYPE_CHECKING:
    from poa.scores import Scores

Array = npt.NDArray[np.floating[Any]]
Marks = npt.NDArray[np.bool_]
_TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class Widening:
    """Scores times `slope` are nats; an interval at `level` is +- `factor` x sqrt((slope stderr)^2 + spread^2).

    `spread` (nats) is what standard errors do not know: bias of the method and, where the truth is of one seed, the
    luck of that seed. `factor` is learnt where truth is known (split conformal, Vovk et al. 2005).
    """

    slope: float
    factor: float
    spread: float
    level: float

    def half_widths(self, scores: Scores) -> Array:
        """[query, train] in nats."""
        return self.factor * _spreads(self.slope * _errors(scores), self.spread)

    def covered(self, scores: Scores, truth: Array) -> Marks:
        """[query, train] whether the truth lies inside."""
        return np.abs(self.slope * scores.values - truth) <= self.half_widths(scores)

    def significant(self, scores: Scores) -> Marks:
        """[query, train] whether the interval leaves zero out; a query without any is one to abstain from."""
        return np.abs(self.slope * scores.values) > self.half_widths(scores)

    def applied(self, scores: Scores, note: str) -> Scores:
        """Scores in nats whose standard errors, read as normal ones, give these intervals."""
        from statistics import NormalDist

        normal = NormalDist().inv_cdf(0.5 + self.level / 2)
        return replace(scores.scaled(self.slope, note), stderr=self.half_widths(scores) / normal)


def learnt(scores: Scores, truth: Array, level: float = 0.9) -> Widening:
    """Slope by least squares through the origin, spread by moments, then the factor that covers `level` of the entries.

    `truth` is [query, train] in nats.
    """
    _check(scores, truth, level)
    power = float((scores.values**2).sum())
    slope = float((scores.values * truth).sum()) / power if power > 0 else 0.0
    errors, missed = slope * _errors(scores), slope * scores.values - truth
    spread = float(np.sqrt(max(0.0, float((missed**2 - errors**2).mean()))))
    ratios = np.sort((np.abs(missed) / np.maximum(_spreads(errors, spread), _TINY)).ravel())
    place = min(len(ratios), int(np.ceil(level * (len(ratios) + 1)))) - 1
    return Widening(slope, float(ratios[place]), spread, level)


def plain_coverage(scores: Scores, truth: Array, level: float = 0.9) -> float:
    """Fraction of entries inside the normal interval of the scores' own standard errors; scores must be in nats."""
    from statistics import NormalDist

    _check(scores, truth, level)
    reach = NormalDist().inv_cdf(0.5 + level / 2) * _errors(scores)
    return float((np.abs(scores.values - truth) <= reach).mean())


def crossed(scores: Scores, truth: Array, level: float = 0.9, folds: int = 2) -> dict[str, float]:
    """Coverage and abstention on queries that the widening has not seen: folds of queries, each judged by the others.

    coverage: fraction of entries covered. abstained: fraction of queries without a significant entry.
    right_sign: of significant entries, the fraction whose sign is the truth's (1 where there are none).
    half_width: mean, in nats.
    """
    _check(scores, truth, level)
    count = len(scores.query_ids)
    if not 2 <= folds <= count:
        raise PoaError(f"{folds} folds of {count} queries: need 2 to {count}")
    covered: list[Marks] = []
    claimed: list[Marks] = []
    right: list[Marks] = []
    widths: list[Array] = []
    for fold in range(folds):
        judged = [query for query in range(count) if query % folds == fold]
        others = [query for query in range(count) if query % folds != fold]
        found = learnt(scores.select(others), truth[others], level)
        part = scores.select(judged)
        covered.append(found.covered(part, truth[judged]))
        claimed.append(found.significant(part))
        right.append(np.sign(found.slope * part.values) == np.sign(truth[judged]))
        widths.append(found.half_widths(part))
    claims, signs = np.concatenate(claimed), np.concatenate(right)
    return {
        "coverage": float(np.concatenate(covered).mean()),
        "abstained": float((~claims.any(1)).mean()),
        "right_sign": float(signs[claims].mean()) if claims.any() else 1.0,
        "half_width": float(np.concatenate(widths).mean()),
    }


def _spreads(errors: Array, spread: float) -> Array:
    return np.sqrt(errors**2 + spread**2)


def _errors(scores: Scores) -> Array:
    if scores.stderr is None:
        raise PoaError("these scores carry no standard errors; an ensemble of runs has them")
    return scores.stderr


def _check(scores: Scores, truth: Array, level: float) -> None:
    if scores.values.shape != truth.shape:
        raise PoaError(f"scores have shape {scores.values.shape}, truth {truth.shape}")
    if not 0 < level < 1:
        raise PoaError(f"level is {level}, must lie between 0 and 1")
    _errors(scores)
