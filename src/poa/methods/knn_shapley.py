"""KNN-Shapley: exact Shapley values of a nearest-neighbour vote."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from poa.errors import PoaError, Unsupported
from poa.indexes import Columns, Pretrained, load_columns, save_index

if TYPE_CHECKING:
    from torch import nn

    from poa.protocols import Task, TrainingRun
    from poa.records import Corpus, Record
    from poa.scores import Scores

_Vector = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class KNNShapley:
    """Shapley value of each record in the game v(S) = share of the k nearest records in S with the query's label.

    v divides by k even where S is smaller. Closed form of Jia et al. 2019 (1908.08619, theorem 1): with records sorted
    from near to far and hit_i = [label_i = label_q],

        s_N = hit_N min(k, N) / (N k),    s_i = s_{i+1} + (hit_i - hit_{i+1}) / k * min(k, i) / i.

    Distances are Euclidean between hidden states of the final model (`space="hidden"`) or raw features
    (`space="input"`); ties go by content digest, so position never matters. Unit: votes, not nats. Needs records with
    features and labels; raises `Unsupported` otherwise.
    """

    citation: ClassVar[str] = (
        "Jia, Dao, Wang, Hubis, Gurel, Li, Zhang, Spanos, Song. "
        "Efficient Task-Specific Data Valuation for Nearest Neighbor Algorithms. VLDB 2019. arXiv:1908.08619"
    )
    family: ClassVar[str] = "semantic"
    needs: ClassVar[str] = "one checkpoint, labels"
    cost: ClassVar[str] = "N forward passes; N log N per query"

    k: int = 5
    space: Literal["hidden", "input"] = "hidden"

    def __post_init__(self) -> None:
        if self.k < 1:
            raise PoaError(f"k is {self.k}, must be 1 or more")
        if self.space not in ("hidden", "input"):
            raise PoaError(f"space is {self.space!r}, must be 'hidden' or 'input'")

    def fit(self, run: TrainingRun) -> KNNShapleyIndex:
        for record in run.corpus:
            if not record.features or record.label < 0:
                raise Unsupported(f"knn-shapley needs features and a label, record {record.id!r} lacks them")
        model = run.model()
        points = np.stack([self.locate(run.task, model, record) for record in run.corpus])
        _, ties = np.unique([record.digest for record in run.corpus], return_inverse=True)
        labels = np.asarray([record.label for record in run.corpus], np.int64)
        return KNNShapleyIndex(Columns.of(run), self, points, labels, ties.astype(np.int64), run.task, model)

    def locate(self, task: Task, model: nn.Module, record: Record) -> _Vector:
        """[d] the point of one record; one record at a time, so that a batch cannot change its bytes."""
        import torch

        batch = task.batch([record])
        if self.space == "input":
            return np.asarray(record.features, np.float64)
        with torch.no_grad():
            out: _Vector = task.hidden(model, batch)[0].to(torch.float64).cpu().numpy()
        return out


@dataclass(frozen=True, eq=False)
class KNNShapleyIndex(Pretrained):
    """Points [train, d], labels [train] and the rank of each content digest [train], which settles ties."""

    columns: Columns
    method: KNNShapley
    points: _Vector
    labels: _Ints
    ties: _Ints
    task: Task
    model: nn.Module

    @property
    def run_digest(self) -> str:
        return self.columns.run_digest

    def attribute(self, queries: Corpus) -> Scores:
        """[query, train] Shapley values (votes), uncalibrated. Raises `PoaError` for a query the task cannot read."""
        return self.columns.scores([self._row(query) for query in queries], queries, self.method)

    def _row(self, query: Record) -> _Vector:
        point = self.method.locate(self.task, self.model, query)
        distances = np.square(self.points - point).sum(axis=1)
        order = np.lexsort((self.ties, distances))
        row = np.zeros(len(order))
        row[order] = shapley_of_sorted(self.labels[order] == query.label, self.method.k)
        return row

    def save(self, folder: Path) -> None:
        """Points, labels and ties; the model stays with its run."""
        arrays = {"points": self.points, "labels": self.labels, "ties": self.ties}
        save_index(folder, "knn-shapley", arrays, {"columns": self.columns.plain(), "method": asdict(self.method)})

    @staticmethod
    def load(folder: Path, run: TrainingRun) -> KNNShapleyIndex:
        """Read what `save` wrote and take the model from `run`.

        Raises `Mismatch` for another run, `Corrupt` for changed bytes.
        """
        columns, arrays, meta = load_columns(folder, "knn-shapley", run)
        method = KNNShapley(**meta["method"])
        return KNNShapleyIndex(
            columns, method, arrays["points"], arrays["labels"], arrays["ties"], run.task, run.model()
        )


def shapley_of_sorted(hits: npt.NDArray[np.bool_], k: int) -> _Vector:
    """[N] Shapley values of records sorted from near to far; `hits[i]` says that record i has the query's label."""
    count = len(hits)
    votes = hits.astype(np.float64)
    ranks = np.arange(1, count)
    last = votes[-1:] * min(k, count) / (count * k) if count else votes
    steps = (votes[:-1] - votes[1:]) / k * np.minimum(k, ranks) / ranks
    # From far to near; a neighbour with the same label adds exactly 0, so duplicates get the same bytes.
    return np.cumsum(np.concatenate([last, steps[::-1]]))[::-1]
