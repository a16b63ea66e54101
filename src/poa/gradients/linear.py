"""LinearIndex: every method whose score is linear in the query gradient, as one matrix per checkpoint.

score(q, i) = sum_c <T_c[i], f(v_c(q))> with v_c(q) the query gradient at checkpoint c, f an optional projection and
normalisation, and T_c the training rows after preconditioning, normalisation and weighting. GradDot, cosine, TracIn,
damped influence, DataInf and LoGra differ only in T_c and f.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from poa.errors import Unsupported
from poa.gradients.projection import TwoSided
from poa.gradients.store import Gradients, gradients
from poa.indexes import Columns, load_columns, save_index
from poa.scores import Scores

if TYPE_CHECKING:
    from poa.protocols import TrainingRun
    from poa.records import Corpus

Matrix = npt.NDArray[np.floating[Any]]
KIND = "linear"


@dataclass(frozen=True, eq=False)
class LinearIndex:
    """maps: one [N, k] matrix per entry of `positions` (indices into `run.checkpoints`), in the model's dtype."""

    run: TrainingRun
    method: str
    positions: tuple[int, ...]
    maps: tuple[Matrix, ...]
    projection: TwoSided | None = None
    unit_query: bool = False
    unit: str = "uncalibrated"
    notes: Mapping[str, Any] | None = None
    coordinates: str = "adapter"

    @property
    def run_digest(self) -> str:
        return self.run.digest

    def query_features(self, queries: Corpus, position: int) -> Matrix:
        """[Q, k] f(v): projected and normalised query gradients at one checkpoint."""
        rows = gradients(self.run, position, queries, "query", self.coordinates)
        values = rows.values if self.projection is None else self.projection.apply(rows)
        return unit_rows(values) if self.unit_query else np.asarray(values)

    def attribute(self, queries: Corpus) -> Scores:
        """One matrix-vector product per query and checkpoint, so a score does not depend on its neighbours."""
        total = np.zeros((len(queries), len(self.run.corpus)), np.float64)
        for position, train in zip(self.positions, self.maps, strict=True):
            for row, feature in zip(total, self.query_features(queries, position), strict=True):
                row += train @ feature
        return Scores(
            total.astype(np.float32) if self.maps[0].dtype == np.float32 else total,
            queries.ids,
            self.run.corpus.ids,
            self.run.groups,
            self.unit,
            self.method,
            meta={"run": self.run.digest, "dtype": str(self.maps[0].dtype)} | dict(self.notes or {}),
        )

    def directions(self) -> tuple[Matrix, ...]:
        """Per checkpoint the sum of all training rows: its dot product with a query gradient is the total score."""
        return tuple(train.sum(0, dtype=np.float64) for train in self.maps)

    def save(self, folder: str | Path) -> None:
        projection = None if self.projection is None else [self.projection.width, self.projection.seed]
        meta = {
            "columns": Columns.of(self.run).plain(),
            "method": self.method,
            "positions": list(self.positions),
            "projection": projection,
            "unit_query": self.unit_query,
            "unit": self.unit,
            "coordinates": self.coordinates,
            "notes": dict(self.notes or {}),
        }
        save_index(Path(folder), KIND, {f"map{i}": np.asarray(m) for i, m in enumerate(self.maps)}, meta)

    @staticmethod
    def load(folder: str | Path, run: TrainingRun) -> LinearIndex:
        """Read what `save` wrote. Raises `Mismatch` for another kind or run, `Corrupt` for changed bytes."""
        _, arrays, meta = load_columns(Path(folder), KIND, run)
        projection = None if meta["projection"] is None else TwoSided(*meta["projection"])
        return LinearIndex(
            run,
            meta["method"],
            tuple(meta["positions"]),
            tuple(arrays[f"map{i}"] for i in range(len(meta["positions"]))),
            projection,
            meta["unit_query"],
            meta["unit"],
            meta["notes"],
            meta["coordinates"],
        )


def fit_linear(
    run: TrainingRun,
    method: object,
    checkpoints: str,
    train_map: Callable[[Gradients, int], Matrix],
    *,
    unit_query: bool = False,
    unit: str = "uncalibrated",
    notes: Mapping[str, Any] | None = None,
    coordinates: str = "adapter",
) -> LinearIndex:
    """Build an index from `train_map(gradients, position) -> T [N, p]` at the last or all checkpoints.

    Maps are stored row by row: another memory order would sum a score in another order.
    """
    positions = positions_of(run, checkpoints)
    maps = tuple(
        np.ascontiguousarray(train_map(rows, position), rows.values.dtype)
        for position in positions
        for rows in [gradients(run, position, run.corpus, "train", coordinates)]
    )
    return LinearIndex(run, repr(method), positions, maps, None, unit_query, unit, notes, coordinates)


def positions_of(run: TrainingRun, checkpoints: str) -> tuple[int, ...]:
    """Checkpoint positions that a method reads: "last" or "all"."""
    if checkpoints not in ("last", "all"):
        raise Unsupported(f"checkpoints is {checkpoints!r}, must be last or all")
    return tuple(range(len(run.checkpoints))) if checkpoints == "all" else (len(run.checkpoints) - 1,)


def unit_rows(rows: Matrix) -> Matrix:
    """Rows divided by their Euclidean norm (float64); a zero row stays zero."""
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    return (rows / np.where(norms == 0, 1.0, norms)[:, None]).astype(rows.dtype)
