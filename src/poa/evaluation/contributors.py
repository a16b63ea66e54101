"""Contributor truth: what each response loses when one contributor's cluster is taken out and the recipe run again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from poa.errors import PoaError
from poa.evaluation.bootstrap import Interval, two_way_spearman
from poa.evaluation.reliability import ceiling
from poa.factory.counterfactual import retrain
from poa.scores import Scores

if TYPE_CHECKING:
    from poa.factory.classifier import ClassifierRun
    from poa.factory.run import LoRARun
    from poa.records import Corpus

Array = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class ContributorTruth:
    """effects[seed, query, contributor] in nats: measurement with everybody minus without that contributor.

    full: [seed, query] measurement with everybody. Removal is *masked*; the target is the seed mean. group: of which of
    a run's groups the contributors are labels ("payee", "cluster", ...).
    """

    effects: Array
    full: Array
    contributors: tuple[str, ...]
    query_ids: tuple[str, ...]
    seeds: tuple[int, ...]
    group: str = "payee"

    @property
    def mean(self) -> Array:
        """[query, contributor] mean over seeds."""
        return self.effects.mean(0)

    @property
    def stderr(self) -> Array:
        """[query, contributor] standard error of that mean; refused with a single seed."""
        if len(self.seeds) < 2:
            raise PoaError("a standard error over seeds needs at least two seeds")
        return self.effects.std(0, ddof=1) / np.sqrt(len(self.seeds))

    @property
    def ceiling(self) -> float:
        """The correlation that no seed-blind method can pass (`poa.evaluation.reliability`)."""
        return ceiling(self.effects)

    def agreement(self, scores: Scores) -> Interval:
        """Mean Spearman per query between sums by `group` and the truth, with a two-way bootstrap interval."""
        return two_way_spearman(self.aligned(scores), self.mean)

    def aligned(self, scores: Scores) -> Array:
        """[query, contributor] predictions in the order of this truth."""
        sums = scores if scores.train_ids == self.contributors else scores.by(self.group)
        rows = [sums.query_ids.index(name) for name in self.query_ids]
        columns = [sums.train_ids.index(name) for name in self.contributors]
        return sums.values[np.ix_(rows, columns)].astype(np.float64)

    def slope(self, scores: Scores) -> float:
        """Nats per unit of score: least squares through the origin of true on predicted effects."""
        predicted = self.aligned(scores).ravel()
        power = float(predicted @ predicted)
        return float(predicted @ self.mean.ravel()) / power if power > 0 else 0.0


def leave_one_out(
    run: LoRARun | ClassifierRun,
    queries: Corpus,
    names: Sequence[str] = (),
    seeds: Sequence[int] = (0, 1),
    group: str = "payee",
) -> ContributorTruth:
    """Retrain without each of `names` (all where empty) once per seed; (C + 1) x S trainings.

    group: what is taken out at once: "payee", "contributor", "datanet", or "cluster" (a record with its copies).
    """
    if group not in run.groups:
        raise PoaError(f"group is {group!r}, must be one of {', '.join(run.groups)}")
    labels = np.asarray(run.groups[group])
    names = tuple(names) or tuple(sorted(set(run.groups[group])))
    for name in names:
        if name not in set(run.groups[group]):
            word = "contributor" if group == "payee" else group
            raise PoaError(f"{word} {name!r} has no record in this run")
    weights = np.stack([np.ones(len(labels)), *(np.where(labels == name, 0.0, 1.0) for name in names)])
    measured = retrain(run, weights, queries, seeds)
    effects = (measured[:, :1] - measured[:, 1:]).transpose(0, 2, 1)
    return ContributorTruth(effects, measured[:, 0], names, queries.ids, tuple(seeds), group)
