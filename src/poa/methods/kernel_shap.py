"""KernelSHAP over contributors: Shapley values by training again on a budget of coalitions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from poa.errors import PoaError, Unsupported
from poa.gradients.unrolled import offering, stands_for
from poa.indexes import Columns, Pretrained, load_columns, save_index
from poa.records import Corpus, require_corpus
from poa.scores import Scores

if TYPE_CHECKING:
    from poa.protocols import TrainingRun

KIND = "coalitions"
Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class KernelSHAP:
    """score(q, i) = phi_c(q) / records of c, with phi the Shapley values of contributors c under retraining.

    The run's own recipe and seed are run again on `budget` coalitions of payees, drawn by size as the Shapley kernel
    weighs them and each with its complement, and on everybody and nobody; phi solves the weighted least squares with
    the sum fixed to what training brought about. From 2^n - 2 on all coalitions are taken and phi is exact. Nats.
    Records of one payee score alike: this says who is owed, not which record.
    """

    budget: int = 128
    seed: int = 0

    family: ClassVar[str] = "retraining"
    needs: ClassVar[str] = "a run that poa trained, of a shape known to JAX, and at least two payees"
    cost: ClassVar[str] = "budget + 2 trainings, stacked, for any number of queries"
    citation: ClassVar[str] = (
        "Lundberg & Lee, A unified approach to interpreting model predictions, NeurIPS 2017; Covert & Lee, Improving "
        "KernelSHAP: practical Shapley value estimation using linear regression, AISTATS 2021, arXiv 2012.01536"
    )

    def __post_init__(self) -> None:
        if self.budget < 2:
            raise PoaError(f"kernel_shap.budget is {self.budget}, must be 2 or more")

    def fit(self, run: TrainingRun) -> CoalitionIndex:
        offering(run).program()
        if len(set(run.groups["payee"])) < 2:
            raise Unsupported("Shapley values are of contributors against each other; this run has one payee")
        return CoalitionIndex(run, repr(self), self.budget, self.seed)


@dataclass(frozen=True, eq=False)
class CoalitionIndex(Pretrained):
    """Nothing is stored but the settings: coalitions are trained when queries are asked."""

    run: TrainingRun
    method: str
    budget: int
    seed: int

    @property
    def run_digest(self) -> str:
        return self.run.digest

    def attribute(self, queries: Corpus) -> Scores:
        require_corpus(queries, "queries")
        columns = Columns.of(self.run)
        payees = columns.groups["payee"]
        names, counts = sorted(set(payees)), Counter(payees)
        inside, weights = coalitions(len(names), self.budget, self.seed)
        meta: dict[str, Any] = {"run": self.run.digest, "trainings": len(inside)}
        values = np.zeros((0, len(payees)))
        if len(queries):
            given = offering(self.run)
            program = given.program()
            places = [names.index(payee) for payee in payees]
            measured = program.measured(inside[:, places] * given.weights, given.arrays(queries))
            meta["measured"] = stands_for(self.run, queries, measured[1], program.dtype)
            share = solved(inside, weights, measured) / np.asarray([counts[name] for name in names])[:, None]
            values = share.T[:, places]
        return Scores(values, queries.ids, columns.train_ids, columns.groups, "nats", self.method, meta=meta)

    def save(self, folder: str | Path) -> None:
        told = {"method": self.method, "budget": self.budget, "seed": self.seed}
        save_index(Path(folder), KIND, {}, {"columns": Columns.of(self.run).plain(), **told})

    @staticmethod
    def load(folder: str | Path, run: TrainingRun) -> CoalitionIndex:
        """Read what `save` wrote. Raises `Mismatch` for another kind or run, `Corrupt` for changed bytes."""
        _, _, meta = load_columns(Path(folder), KIND, run)
        return CoalitionIndex(run, meta["method"], meta["budget"], meta["seed"])


def coalitions(players: int, budget: int, seed: int) -> tuple[npt.NDArray[np.bool_], Matrix]:
    """([m, n] members, [m] weights): nobody, everybody, then all others or `budget` drawn ones with complements."""
    sizes = np.arange(1, players)
    kernel = (players - 1) / (sizes * (players - sizes))  # of all coalitions of a size together
    ends = np.stack([np.zeros(players, np.bool_), np.ones(players, np.bool_)])
    if players <= 20 and budget >= (1 << players) - 2:
        inside = (np.arange(1, (1 << players) - 1)[:, None] >> np.arange(players)) % 2 == 1
        count = inside.sum(1)
        of_size = np.bincount(count, minlength=players + 1)[count]
        return np.concatenate([ends, inside]), kernel[count - 1] / of_size
    rng = np.random.default_rng(seed)
    drawn: Counter[tuple[bool, ...]] = Counter()
    while len(drawn) < budget - budget % 2:
        members = np.zeros(players, np.bool_)
        members[rng.choice(players, rng.choice(sizes, p=kernel / kernel.sum()), replace=False)] = True
        drawn[tuple(members.tolist())] += 1
        drawn[tuple((~members).tolist())] += 1
    return np.concatenate([ends, np.asarray(list(drawn))]), np.asarray(list(drawn.values()), np.float64)


def solved(inside: npt.NDArray[np.bool_], weights: Matrix, values: Matrix) -> Matrix:
    """[n, Q] minimise sum_S w_S (v(S) - v(0) - sum of phi in S)^2 with sum of phi = v(all) - v(0).

    values [m + 2, Q]: nobody, everybody, then the coalitions of `weights`. The last player is eliminated.
    """
    total = values[1] - values[0]
    x = inside[2:].astype(np.float64)
    reduced = (x[:, :-1] - x[:, -1:]) * np.sqrt(weights)[:, None]
    wanted = (values[2:] - values[0] - x[:, -1:] * total) * np.sqrt(weights)[:, None]
    inverse = np.linalg.pinv(reduced)
    # Query by query: a product of matrices would sum a query's numbers differently beside others.
    found = np.stack([inverse @ column for column in np.ascontiguousarray(wanted.T)], 1)
    return np.concatenate([found, (total - found.sum(0))[None]])
