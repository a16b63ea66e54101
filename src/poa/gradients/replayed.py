"""ReplayedIndex: scores that need the training once more, step by step, when queries are known."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from poa.errors import Mismatch, PoaError
from poa.gradients.adjoint import Tape, recorded, walked_back
from poa.gradients.store import gradients
from poa.indexes import Columns, Pretrained, load_columns, save_index
from poa.scores import Scores

if TYPE_CHECKING:
    from poa.protocols import TrainingRun
    from poa.records import Corpus

KIND = "replayed"
WAYS = ("adjoint", "first-order")


@dataclass(frozen=True, eq=False)
class ReplayedIndex(Pretrained):
    """way "adjoint": the derivative of the final measurement by each record's weight, through every later step;
    "first-order": sum over steps of rate / denominator <grad m_q, -grad loss_i> at that step. Nothing is stored but the
    way: the training is replayed when queries are asked, all of them in one pass.
    """

    run: TrainingRun
    method: str
    way: str

    @property
    def run_digest(self) -> str:
        return self.run.digest

    @cached_property
    def tape(self) -> Tape:
        return recorded(self.run)

    def attribute(self, queries: Corpus) -> Scores:
        values = self._walked(queries) if self.way == "adjoint" else self._summed(queries)
        columns = Columns.of(self.run)
        meta = {"run": self.run.digest, "steps": self.run.steps.steps, "way": self.way}
        if not np.isfinite(values).all():
            raise PoaError("the replayed scores are not finite: nothing can be attributed by this run")
        return Scores(values, queries.ids, columns.train_ids, columns.groups, "nats", self.method, meta=meta)

    def _walked(self, queries: Corpus) -> npt.NDArray[np.float64]:
        last = len(self.run.checkpoints) - 1
        return walked_back(self.tape, np.array(gradients(self.run, last, queries, "query").values, np.float64))

    def _summed(self, queries: Corpus) -> npt.NDArray[np.float64]:
        out = np.zeros((len(queries), len(self.run.corpus)))
        for kept in self.tape.steps:
            self.tape.set(kept)
            rows = self.tape.trained_on(kept)
            asked = self.tape.asked(queries)
            for row, query in zip(out, asked, strict=True):
                np.add.at(row, kept.records, (rows @ query * (kept.rate / kept.denominator)).numpy())
        return out

    def save(self, folder: str | Path) -> None:
        meta = {"columns": Columns.of(self.run).plain(), "method": self.method, "way": self.way}
        save_index(Path(folder), KIND, {}, meta)

    @staticmethod
    def load(folder: str | Path, run: TrainingRun) -> ReplayedIndex:
        """Read what `save` wrote. Raises `Mismatch` for another kind or run, `Corrupt` for changed bytes."""
        _, _, meta = load_columns(Path(folder), KIND, run)
        if meta["way"] not in WAYS:
            raise Mismatch(f"way {meta['way']!r} is not known; known are {', '.join(WAYS)}")
        return ReplayedIndex(run, meta["method"], meta["way"])


def fit_replayed(run: TrainingRun, method: object, way: str) -> ReplayedIndex:
    """Replay once, so that a run that cannot be replayed is refused now."""
    index = ReplayedIndex(run, repr(method), way)
    _ = index.tape
    return index
