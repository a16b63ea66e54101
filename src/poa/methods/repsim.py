"""RepSim: similarity of hidden states."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from poa.errors import PoaError
from poa.indexes import Columns, Pretrained, load_columns, save_index
from poa.progress import track

if TYPE_CHECKING:
    from torch import nn

    from poa.protocols import Task, TrainingRun
    from poa.records import Corpus, Record
    from poa.scores import Scores

_Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RepSim:
    """Cosine or dot product of a query's and a record's hidden state in one checkpoint of the run.

    The hidden state is `task.hidden`: the last hidden layer, for text the mean over valid tokens. Records pass through
    the model one at a time, never padded, and each product is summed by itself in float64: the same record has the
    same score in any batch and at any position, to the byte. A zero hidden state has cosine 0 with everything.
    """

    citation: ClassVar[str] = (
        "Hanawa, Yokoi, Hara, Inui. Evaluation of Similarity-based Explanations. ICLR 2021. arXiv:2006.04528"
    )
    family: ClassVar[str] = "semantic"
    needs: ClassVar[str] = "one checkpoint"
    cost: ClassVar[str] = "N forward passes"

    similarity: Literal["cosine", "dot"] = "cosine"
    checkpoint: int = -1

    def __post_init__(self) -> None:
        if self.similarity not in ("cosine", "dot"):
            raise PoaError(f"similarity is {self.similarity!r}, must be 'cosine' or 'dot'")

    def fit(self, run: TrainingRun) -> RepSimIndex:
        model = _model(run, self.checkpoint)
        rows = [
            self.represent(run.task, model, record, whole=False)
            for record in track(run.corpus, "hidden states", len(run.corpus))
        ]
        return RepSimIndex(Columns.of(run), self, np.stack(rows), run.task, model)

    def represent(self, task: Task, model: nn.Module, record: Record, *, whole: bool) -> _Vector:
        """[d] hidden state of one record, of length 1 where the similarity is the cosine."""
        import torch

        with torch.no_grad():
            state = task.hidden(model, task.batch([record], whole=whole))[0]
        vector: _Vector = state.to(torch.float64).cpu().numpy()
        if self.similarity == "dot":
            return vector
        length = float(np.sqrt(np.square(vector).sum()))
        return vector / length if length > 0 else np.zeros_like(vector)


@dataclass(frozen=True, eq=False)
class RepSimIndex(Pretrained):
    """Hidden states of the records [train, d] float64, and the model that gives those of queries."""

    columns: Columns
    method: RepSim
    states: _Vector
    task: Task
    model: nn.Module

    @property
    def run_digest(self) -> str:
        return self.columns.run_digest

    def attribute(self, queries: Corpus) -> Scores:
        """[query, train] similarities, uncalibrated. Raises `PoaError` for a query that the task cannot read."""
        rows = [self._row(query) for query in queries]
        return self.columns.scores(rows, queries, self.method, layer="task.hidden")

    def _row(self, query: Record) -> _Vector:
        state = self.method.represent(self.task, self.model, query, whole=True)
        # Not a matrix product: BLAS sums a row differently depending on how many rows there are.
        return (self.states * state).sum(axis=1)

    def save(self, folder: Path) -> None:
        """Hidden states only; the model stays with its run."""
        meta = {"columns": self.columns.plain(), "method": asdict(self.method)}
        save_index(folder, "repsim", {"states": self.states}, meta)

    @staticmethod
    def load(folder: Path, run: TrainingRun) -> RepSimIndex:
        """Read what `save` wrote and take the model from `run`.

        Raises `Mismatch` for another run, `Corrupt` for changed bytes.
        """
        columns, arrays, meta = load_columns(folder, "repsim", run)
        method = RepSim(**meta["method"])
        return RepSimIndex(columns, method, arrays["states"], run.task, _model(run, method.checkpoint))


def _model(run: TrainingRun, checkpoint: int) -> nn.Module:
    kept = len(run.checkpoints)
    if not -kept <= checkpoint < kept:
        raise PoaError(f"checkpoint is {checkpoint}, but the run kept {kept}: use {-kept} to {kept - 1}")
    return run.model(checkpoint)
