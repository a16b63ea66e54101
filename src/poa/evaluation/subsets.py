"""Subset truth: measurements after retraining on random subsets, and how well scores foretell them (LDS)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from poa.errors import PoaError
from poa.evaluation.bootstrap import Interval, two_way_spearman
from poa.evaluation.correlation import mean_spearman
from poa.evaluation.reliability import ceiling, reliability
from poa.factory.counterfactual import retrain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from poa.factory.classifier import ClassifierRun
    from poa.factory.run import LoRARun
    from poa.records import Corpus
    from poa.scores import Scores

Array = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class SubsetTruth:
    """values[seed, subset, query] in nats after retraining on masks[subset, record] (1 = kept); removal is *masked*.

    `removed`: the fraction of records that each subset lacks. Numbers at other fractions are not comparable.
    """

    masks: Array
    values: Array
    seeds: tuple[int, ...]
    query_ids: tuple[str, ...]
    train_ids: tuple[str, ...]
    removed: float

    @property
    def mean(self) -> Array:
        """[query, subset] mean over seeds."""
        return self.values.mean(0).T

    def of(self, *seeds: int) -> SubsetTruth:
        """The truth of some of the seeds."""
        places = [self.seeds.index(seed) for seed in seeds]
        found = self.values[places]
        return SubsetTruth(self.masks, found, tuple(seeds), self.query_ids, self.train_ids, self.removed)

    def predicted(self, scores: Scores) -> Array:
        """[query, subset] sum of the scores of the records that a subset keeps."""
        if scores.train_ids != self.train_ids:
            raise PoaError("the scores are for other records than this truth")
        rows = [scores.query_ids.index(name) for name in self.query_ids]
        return scores.values[rows].astype(np.float64) @ self.masks.T

    def correlation(self, scores: Scores) -> float:
        """The value of `lds` alone."""
        return mean_spearman(self.predicted(scores), self.mean)

    def lds(self, scores: Scores, resamples: int = 1000) -> Interval:
        """Linear datamodeling score (Park et al. 2023, arXiv 2303.14186): mean over queries of the Spearman correlation
        over subsets between predictions and the mean over seeds; two-way bootstrap over queries and subsets.
        """
        return two_way_spearman(self.predicted(scores), self.mean, resamples=resamples)

    @property
    def reliability(self) -> float:
        """R: mean Spearman correlation between the truths of two seeds."""
        return reliability(self.values.swapaxes(1, 2))

    @property
    def ceiling(self) -> float:
        """What no predictor passes that does not know the seeds (`poa.evaluation.reliability`)."""
        return ceiling(self.values.swapaxes(1, 2))

    def spread(self, scores: Scores, draws: int = 300, seed: int = 0) -> dict[str, float]:
        """Standard deviation of the LDS when only the seeds, only the subsets or only the queries are drawn anew."""
        rng = np.random.default_rng(seed)
        predicted = self.predicted(scores)
        axes = dict(zip(("seeds", "subsets", "queries"), self.values.shape, strict=True))
        out: dict[str, float] = {}
        for name, count in axes.items():
            found: list[float] = []
            for _ in range(draws):
                pick = rng.integers(count, size=count)
                seeds, subsets, queries = (pick if name == axis else np.arange(size) for axis, size in axes.items())
                truth = self.values[seeds].mean(0).T
                at = np.ix_(queries, subsets)
                found.append(mean_spearman(predicted[at], truth[at]))
            out[name] = float(np.std(found))
        return out

    def needed(self, spread: Mapping[str, float], half_width: float = 0.02) -> float:
        """From what `spread` found: subsets for a 95 % interval of +- half_width with these queries.

        The squared half-width falls as a / M + b with M subsets; b is had from drawing queries alone, and where it is
        too much already, no number is enough: infinite.
        """
        left = half_width**2 - (1.96 * spread["queries"]) ** 2
        return (1.96 * spread["subsets"]) ** 2 * len(self.masks) / left if left > 0 else float("inf")


def subset_masks(records: int, removed: float, subsets: int, seed: int = 0) -> Array:
    """[subsets, records] 1 where kept; every subset lacks round(removed x records) records, at least one."""
    if not 0 < removed < 1:
        raise PoaError(f"removed is {removed}, must lie between 0 and 1")
    rng = np.random.default_rng([seed, round(1e6 * removed)])
    masks = np.ones((subsets, records))
    for mask in masks:
        mask[rng.choice(records, max(1, round(removed * records)), replace=False)] = 0.0
    return masks


def subset_truth(
    run: LoRARun | ClassifierRun,
    queries: Corpus,
    *,
    removed: float = 0.5,
    subsets: int = 100,
    seeds: Sequence[int] = (0, 1, 2),
    seed: int = 0,
) -> SubsetTruth:
    """Retrain `subsets` random subsets once per seed; `seed` draws the subsets."""
    masks = subset_masks(len(run.corpus), removed, subsets, seed)
    values = retrain(run, masks, queries, seeds)
    return SubsetTruth(masks, values, tuple(seeds), queries.ids, run.corpus.ids, removed)
